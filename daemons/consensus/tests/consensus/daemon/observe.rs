//! What members tell over HTTP, on their own port and on that of clients.

use std::{net::TcpListener, process::Command};

use crate::daemon::process::{Cluster, Member, READY, etcdctl, get, is_there, path, run, text, wait_until};

#[test]
fn metrics_health_and_status_are_there_on_both_ports() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    if is_there("etcdctl") {
        let endpoint = format!("--endpoints=127.0.0.1:{}", cluster.clients[leader]);
        assert!(etcdctl(&[&endpoint, "put", "a", "b"]).0);
    }
    let port = cluster.metrics[leader];
    for (path, words) in [
        ("/healthz", "ok"),
        ("/ready", "ready"),
        ("/startup", "started"),
        ("/health", r#"{"health":"true","reason":""}"#),
        ("/version", r#""etcdserver":"3."#),
    ] {
        let (code, body) = get(port, path);
        assert!(code == 200 && body.contains(words), "{path}: {code} {body}");
    }
    for path in ["/health", "/version", "/metrics"] {
        assert_eq!(get(cluster.clients[leader], path).0, 200, "{path} on the port of clients");
    }
    assert_eq!(
        get(cluster.clients[leader], "/nothing").0,
        200,
        "gRPC's way to say that there is no such method"
    );
    let metric = |name: &str| {
        let text = get(port, "/metrics").1;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // Gauges are set each second.
    wait_until("leader in the metrics", || {
        metric("consensus_is_leader").filter(|is_leader| *is_leader == 1.0)
    });
    for (name, least) in [
        ("consensus_members", 3.0),
        ("consensus_quorum_size", 2.0),
        ("consensus_term", 1.0),
        ("consensus_leader_id", 1.0),
        ("consensus_leader_changes_total", 1.0),
        ("consensus_log_last_index", 2.0),
        ("consensus_log_commit_index", 2.0),
        ("consensus_applied_index", 2.0),
        ("consensus_proposals_pending", 0.0),
        ("consensus_snapshot_total", 0.0),
        ("consensus_fsync_duration_seconds_count", 2.0),
        ("consensus_apply_duration_seconds_count", 1.0),
        ("consensus_commit_duration_seconds_count", if is_there("etcdctl") { 1.0 } else { 0.0 }),
    ] {
        let value = metric(name).unwrap_or(if least == 0.0 { 0.0 } else { f64::NAN });
        assert!(value >= least, "{name} is {value}");
    }
    if is_there("curl") {
        let url = format!("http://127.0.0.1:{port}/metrics");
        let answer = Command::new("curl").args(["-s", "-f", &url]).output().unwrap();
        assert!(text(&answer).contains("consensus_term"));
    }

    // Alone, a member lives and is not ready.
    (0..3).filter(|n| *n != leader).for_each(|n| cluster.members[n].kill());
    wait_until("503 of /ready", || (get(port, "/ready").0 == 503).then_some(()));
    assert_eq!(get(port, "/healthz").0, 200);
    assert_eq!(get(port, "/startup").0, 200);
    let (code, body) = get(port, "/health");
    assert!(code == 503 && body.contains(r#""health":"false""#), "{code} {body}");
}

#[test]
fn a_port_that_is_taken_is_an_error_only_if_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ports = ports::free(2);
    let data = path(&folder.path().join("data"));
    let client = format!("http://127.0.0.1:{}", ports[0]);
    let peer = format!("http://127.0.0.1:{}", ports[1]);
    let args = ["--data-dir", &data, "--listen-client-urls", &client, "--listen-peer-urls", &peer];
    let (code, said) = run(&[&args[..], &["--metrics-listen", &address]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    // Whoever has it, this test or another process: nobody else gets it now.
    let _default = TcpListener::bind("127.0.0.1:8081");
    let member = Member::spawn(&args.map(str::to_owned));
    member.wait_for_line(READY);
    assert!(member.log().contains("--metrics-listen chooses another address"), "{}", member.log());
    let (code, said) = run(&args);
    assert_eq!(code, Some(1));
    assert!(said.contains("is in use by process") && said.contains("--data-dir"), "{said}");
}
