//! Agents as processes: one connection to each peer, transfers, the control socket, drain.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    time::Duration,
};

use dwcp_core::{Endpoint, EndpointConfig, Priority};
use nix::sys::signal::Signal;
use novacron_control::{
    ControlError, Method, Target, connect,
    schema::{
        Capability, Greeting, News, Node, Peer, Row, Transfer, TransferState, Tuned, TunnelEnds, WireGuardEnd,
    },
};
use support::{Agent, wait_until};

/// Where an agent listens, from a port on: streams, and datagrams one above.
fn places(port: u16) -> [(&'static str, String); 2] {
    [("listen", format!("127.0.0.1:{port}")), ("datagrams.listen", format!("127.0.0.1:{}", port + 1))]
}

fn start(folder: &Path, name: &str, port: u16, more: &[(&str, &str)]) -> Agent {
    let places = places(port);
    let mut settings: Vec<_> = places.iter().map(|(key, value)| (*key, value.as_str())).collect();
    settings.extend(more);
    Agent::start(folder, name, &settings)
}

fn connected(agent: &Agent, peer: &str) -> bool {
    agent.get::<Vec<Peer>>("/v1/peers").iter().any(|found| {
        found.connected_seconds.is_some() && found.greeting.as_ref().is_some_and(|said| said.node_id == peer)
    })
}

fn begin(agent: &Agent, body: &str) -> Result<Transfer, ControlError> {
    let answer = agent.ask(Method::POST, "/v1/transfers", Some(body))?;
    Ok(serde_json::from_slice(&answer).expect("a transfer"))
}

fn refused(agent: &Agent, body: &str) -> (u16, String) {
    match begin(agent, body) {
        Err(ControlError::Refused { status, error }) => (status.as_u16(), error),
        other => panic!("{body}: {other:?}"),
    }
}

fn state(agent: &Agent, id: u64) -> TransferState {
    agent.get::<Transfer>(&format!("/v1/transfers/{id}")).state
}

#[test]
fn agents_that_have_each_other_as_peers_keep_one_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(6)[0];
    let all = format!("127.0.0.1:{port},127.0.0.1:{},127.0.0.1:{}", port + 2, port + 4);
    let agents = ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(n, name)| start(folder.path(), name, port + 2 * n as u16, &[("peers", &all)]));
    let agents: Vec<_> = agents.collect();
    for agent in &agents {
        wait_until("two peers are connected, and none is missing", || {
            let node: Node = agent.get("/v1/node");
            (node.peers_connected, node.peers_missing) == (2, 0)
        });
    }
    wait_until("probes measure all six ways, and everyone knows", || {
        agents.iter().all(|agent| {
            let rows: Vec<Row> = agent.get("/v1/paths");
            let measured = rows.iter().flat_map(|row| &row.paths).filter(|path| path.jitter_ms.is_some());
            rows.len() == 3 && measured.count() == 6
        })
    });
    // Each pair has the connection that the first of the two has dialed.
    let dialed = |agent: &Agent| -> Vec<bool> {
        agent.get::<Vec<Peer>>("/v1/peers").iter().map(|peer| peer.dialed_by_us).collect()
    };
    wait_until("who dialed has settled", || {
        let of: Vec<_> = agents.iter().map(dialed).collect();
        of == [vec![true, true], vec![false, true], vec![false, false]]
    });
}

#[test]
fn an_agent_that_is_killed_is_found_again_and_transfers_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(4)[0];
    let into = folder.path().join("into");
    let peer = format!("127.0.0.1:{}", port + 2);
    // Slow enough to be interrupted.
    let paced = [("peers", peer.as_str()), ("transport.pacing_bytes_per_second", "16MiB")];
    let a = start(folder.path(), "a", port, &paced);
    let takes = [("transfers.into", into.to_str().expect("UTF-8"))];
    let b = start(folder.path(), "b", port + 2, &takes);
    wait_until("they are connected", || connected(&a, "b"));

    let image = folder.path().join("image");
    let content: Vec<u8> =
        (0..64_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&image, &content).expect("a file");
    let id = begin(&a, &format!(r#"{{"peer":"b","from":{image:?},"to":"vm/disk"}}"#)).expect("begun").id;
    // Whole pieces are what is kept.
    wait_until("most of it has moved", || {
        a.get::<Transfer>(&format!("/v1/transfers/{id}")).bytes_moved > 48 << 20
    });
    b.kill();
    let b = start(folder.path(), "b", port + 2, &takes);
    wait_until("it is done", || state(&a, id) != TransferState::Running);
    let done: Transfer = a.get(&format!("/v1/transfers/{id}"));
    assert_eq!((done.state, done.error), (TransferState::Done, None));
    assert!(done.attempts > 1 && done.bytes_skipped > 0, "it began anew: {} bytes kept", done.bytes_skipped);
    assert!(fs::read(into.join("vm/disk")).expect("received") == content);
    assert!(
        b.get::<Vec<Transfer>>("/v1/transfers").iter().any(|transfer| transfer.state == TransferState::Done)
    );

    // One that is cancelled ends, and is told of.
    let id = begin(&a, &format!(r#"{{"peer":"b","from":{image:?},"to":"again"}}"#)).expect("begun").id;
    a.ask(Method::DELETE, &format!("/v1/transfers/{id}"), None).expect("accepted");
    wait_until("it has ended", || state(&a, id) == TransferState::Cancelled);
    assert!(!into.join("again").exists());

    // Also by whoever receives it: then it is not begun again.
    let running = || {
        let transfers: Vec<Transfer> = b.get("/v1/transfers");
        transfers.into_iter().find(|transfer| transfer.state == TransferState::Running)
    };
    wait_until("the one before has ended there", || running().is_none());
    let id = begin(&a, &format!(r#"{{"peer":"b","from":{image:?},"to":"third"}}"#)).expect("begun").id;
    wait_until("it is received", || running().is_some_and(|transfer| transfer.bytes_moved > 0));
    let received = running().expect("it runs").id;
    b.ask(Method::DELETE, &format!("/v1/transfers/{received}"), None).expect("accepted");
    wait_until("both have ended", || {
        state(&b, received) == TransferState::Cancelled && state(&a, id) == TransferState::Failed
    });
    let failed: Transfer = a.get(&format!("/v1/transfers/{id}"));
    assert_eq!(failed.attempts, 1);
    assert!(
        failed.error.as_deref().is_some_and(|why| why.contains("b: the receiver has cancelled")),
        "{failed:?}"
    );
}

#[test]
fn what_cannot_be_sent_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(4)[0];
    let peer = format!("127.0.0.1:{}", port + 2);
    let a = start(folder.path(), "a", port, &[("peers", &peer)]);
    let _b = start(folder.path(), "b", port + 2, &[]);
    wait_until("they are connected", || connected(&a, "b"));
    for (body, status, says) in [
        (r#"{"peer":"nobody","from":"/etc/hostname"}"#, 404, "no peer \"nobody\""),
        (r#"{"peer":"b","from":"/etc/hostname"}"#, 409, "transfers.into"),
        (r#"{"peer":"b"}"#, 400, "from"),
        (r#"{"peer":"b","from":"/x","speed":1}"#, 400, "speed"),
        ("nonsense", 400, "JSON"),
    ] {
        let (found, why) = refused(&a, body);
        assert_eq!(found, status, "{body}: {why}");
        assert!(why.contains(says), "{body}: {why}");
    }
    for path in ["/v1/transfers/7", "/v2/node", "/"] {
        let refused = a.try_get::<Node>(path).expect_err("there is nothing");
        assert!(
            matches!(refused, ControlError::Refused { status, .. } if status == 404),
            "{path}: {refused}"
        );
    }
    let into = folder.path().join("into");
    let c = start(
        folder.path(),
        "c",
        ports::free(2)[0],
        &[("peers", &format!("127.0.0.1:{port}")), ("transfers.into", into.to_str().expect("UTF-8"))],
    );
    wait_until("they are connected", || connected(&a, "c") && connected(&c, "a"));
    for (from, to, says) in [("/nowhere/at/all", "x", "nowhere"), ("/etc/hostname", "../x", "below")] {
        let (found, why) = refused(&a, &format!(r#"{{"peer":"c","from":"{from}","to":"{to}"}}"#));
        assert_eq!(found, 400, "{why}");
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn a_drain_lets_transfers_end_and_tells_peers() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(4)[0];
    let into = folder.path().join("into");
    let peer = format!("127.0.0.1:{}", port + 2);
    let mut a =
        start(folder.path(), "a", port, &[("peers", &peer), ("transport.pacing_bytes_per_second", "16MiB")]);
    let b = start(folder.path(), "b", port + 2, &[("transfers.into", into.to_str().expect("UTF-8"))]);
    wait_until("they are connected", || connected(&a, "b") && connected(&b, "a"));
    let file = folder.path().join("file");
    let content: Vec<u8> =
        (0..24_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&file, &content).expect("a file");
    begin(&a, &format!(r#"{{"peer":"b","from":{file:?}}}"#)).expect("begun");
    a.signal(Signal::SIGTERM);
    wait_until("the peer knows", || {
        b.get::<Vec<Peer>>("/v1/peers")
            .iter()
            .any(|peer| peer.greeting.as_ref().is_some_and(|said| said.draining))
    });
    let (status, _) = refused(&a, &format!(r#"{{"peer":"b","from":{file:?},"to":"more"}}"#));
    assert_eq!(status, 503);
    assert!(a.wait().success());
    assert!(fs::read(into.join("file")).expect("received") == content);
    assert!(!a.socket.exists(), "its socket is gone");
}

#[test]
fn the_socket_is_one_agents_and_only_its_owners() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(4)[0];
    let a = start(folder.path(), "a", port, &[]);
    let mode = fs::metadata(&a.socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listen = format!("127.0.0.1:{}", port + 2);
    let second = |socket: &Path| {
        let settings = [("listen", listen.as_str()), ("datagrams.listen", "off")];
        Agent::command("second", socket, &settings).output().expect("it runs")
    };
    let output = second(&a.socket);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another agent answers here"));
    assert!(a.try_get::<Node>("/v1/node").is_ok(), "the first one still answers");
    let file = folder.path().join("file");
    fs::write(&file, "precious").expect("a file");
    assert!(String::from_utf8_lossy(&second(&file).stderr).contains("no socket"));
    assert_eq!(fs::read(&file).expect("still there"), b"precious");

    // What one that was killed has left is in nobody's way.
    let socket = a.socket.clone();
    a.kill();
    assert!(socket.exists());
    let _again = start(folder.path(), "a", port, &[]);
}

#[test]
fn bad_settings_are_told_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.yaml");
    let run = |text: &str, arg: &str| {
        fs::write(&file, text).expect("a file");
        let mut command = Agent::command("a", &folder.path().join("s"), &[]);
        let output = command.arg("--config").arg(&file).arg(arg).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for (text, says) in [
        ("xdp:\n  mode: fast\n", "agent.yaml:2: xdp.mode"),
        ("peer: x\n", "agent.yaml:1: peer"),
        ("listen: 0.0.0.0:1\ndiscovery:\n  store: [\"http://s:1\"]\n", "discovery.advertise"),
        ("tls:\n  cert: /none\n", "tls.key"),
    ] {
        let (code, _, errors) = run(text, "--check-config");
        assert_eq!(code, Some(2), "{text}: {errors}");
        assert!(errors.contains(says), "{text}: {errors}");
    }
    assert_eq!(run("region: eu\n", "--check-config").0, Some(0));
    let (code, printed, _) = run("region: eu\n", "--print-config");
    assert_eq!(code, Some(0));
    assert!(printed.contains("region: eu  # "), "{printed}");
}

#[test]
fn the_node_tells_what_it_can_do_and_what_tuning_would_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let a = start(folder.path(), "a", ports::free(2)[0], &[("xdp.interfaces", "no-such-interface")]);
    wait_until("the guard has been tried", || {
        let found: Vec<Capability> = a.get("/v1/capabilities");
        found
            .iter()
            .any(|what| what.name == "XDP on no-such-interface" && what.detail.contains("no interface"))
            || found.iter().any(|what| what.name.starts_with("XDP") && !what.detail.is_empty())
    });
    let found: Vec<Capability> = a.get("/v1/capabilities");
    for name in ["kernel", "BBR", "RDMA", "WireGuard in the kernel", "clock", "CAP_NET_ADMIN"] {
        let what = found.iter().find(|what| what.name == name).unwrap_or_else(|| panic!("{name}: {found:?}"));
        assert!(!what.detail.is_empty(), "{name} has no reason");
    }
    let plan: Vec<Tuned> = a.get("/v1/tune");
    assert!(plan.iter().any(|item| item.item.starts_with("net.")), "{plan:?}");
}

#[test]
fn who_sends_half_a_request_keeps_nobody_out_and_one_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("listen", "127.0.0.1:0"), ("datagrams.listen", "off")];
    let agent = Agent::start(folder.path(), "a", &settings);
    let halves: Vec<_> =
        ["GET /v1/no", "POST /v1/transfers HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{"]
            .iter()
            .cycle()
            .take(100)
            .map(|half| {
                let mut stream = UnixStream::connect(&agent.socket).expect("it listens");
                stream.write_all(half.as_bytes()).expect("sent");
                stream
            })
            .collect();
    wait_until("others are answered", || agent.try_get::<Node>("/v1/node").is_ok());
    for mut half in halves {
        half.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut answer = Vec::new();
        half.read_to_end(&mut answer).expect("it is not waited for without end");
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let long = format!("{{\"from\": \"{}\"}}", "x".repeat(64 << 10));
    match agent.ask(Method::POST, "/v1/transfers", Some(&long)) {
        Err(ControlError::Refused { status, .. }) => assert_eq!(status.as_u16(), 413),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_greeting_longer_than_those_of_agents_is_refused_at_first_and_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(2)[0];
    let _agent = start(folder.path(), "a", port, &[]);
    let fits = Greeting { node_id: "p".to_owned(), ..Greeting::default() };
    let with_keys = |public_keys| {
        let end = WireGuardEnd { public_keys, address: [10, 99, 0, 2].into(), port: 51820, endpoint: None };
        Greeting { tunnels: TunnelEnds { wireguard: Some(end), vxlan: None }, ..fits.clone() }
    };
    let too_long = [
        Greeting { region: Some("r".repeat(256)), ..fits.clone() },
        with_keys(vec!["k".repeat(45)]),
        with_keys(vec!["k".to_owned(); 3]),
    ];
    let patience = Duration::from_secs(60);
    let target: Target = format!("127.0.0.1:{port}").parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::client(EndpointConfig::new("p")).expect("an endpoint");
        let greet = async |greeting: &Greeting| {
            let connection = connect(&endpoint, &target).await.expect("a connection");
            let said = serde_json::to_vec(greeting).expect("JSON");
            let answer = connection.messages().request(Priority::Control, said.into(), patience).await;
            (connection, answer.is_ok())
        };
        for wrong in &too_long {
            assert!(!greet(wrong).await.1, "{wrong:?}");
            let (connection, is_answered) = greet(&fits).await;
            assert!(is_answered);
            let news = serde_json::to_vec(&News::Greeting(wrong.clone())).expect("JSON");
            connection.messages().send(Priority::Normal, news.into()).await.expect("sent");
            let closed = tokio::time::timeout(patience, connection.closed()).await;
            assert!(closed.is_ok(), "{wrong:?}");
        }
    });
}
