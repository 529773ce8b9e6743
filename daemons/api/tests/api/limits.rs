//! Bounds, and a replica without a store.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::json;

use crate::support::{Answer, PATIENCE, Replica, ask, raw, run, vm};

/// Where nothing is.
fn nowhere() -> Vec<String> {
    vec![format!("http://127.0.0.1:{}", ports::free(1)[0])]
}

#[test]
fn without_the_store_it_lives_and_is_not_ready() {
    let replica = Replica::spawn("a", &nowhere(), &[]);
    for (path, status) in [("/healthz", 200), ("/startup", 200), ("/openapi.json", 200), ("/ready", 503)] {
        assert_eq!(replica.get(path).status, status, "{path}");
        if path != "/openapi.json" {
            assert_eq!(ask(replica.metrics, "GET", path, &[], None).unwrap().status, status, "{path}");
        }
    }
    let health = replica.get("/api/health").json();
    assert_eq!((&health["ready"], &health["store_answers"]), (&json!(false), &json!(false)));
    for answer in [replica.get("/api/v1/vms"), replica.post("/api/v1/vms", &vm("a", "eu"))] {
        assert_eq!((answer.status, answer.problem().as_str()), (503, "store-unavailable"));
        assert_eq!(answer.header("retry-after"), "1");
    }
}

#[test]
fn bodies_heads_and_requests_at_a_time_have_bounds() {
    let bounds =
        ["--limits-body-bytes-max", "1KiB", "--limits-requests-max", "1", "--limits-request-timeout", "2s"];
    let replica = Replica::spawn("a", &nowhere(), &bounds);
    let mut large = vm("a", "eu");
    large["image"] = json!("i".repeat(2000));
    let refused = replica.post("/api/v1/vms", &large);
    assert_eq!((refused.status, refused.problem().as_str()), (413, "body-too-large"));
    // Without its length told beforehand.
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let head = "POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(raw(replica.port, &chunked).unwrap().problem(), "body-too-large");

    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer =
        raw(replica.port, &format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")).unwrap();
    assert_eq!(answer.status, 431);

    // A body that does not come has the only place.
    let (mut slow, busy) = crate::support::wait_until("a refusal", || {
        let mut slow = TcpStream::connect(("127.0.0.1", replica.port)).unwrap();
        write!(slow, "{head}Content-Length: 10\r\n\r\n").unwrap();
        // Or the next one would be there first now and then, and have the place.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let answer = replica.get("/startup");
        (answer.status == 503).then_some((slow, answer))
    });
    assert_eq!((busy.problem().as_str(), busy.header("retry-after")), ("busy", "1"));
    assert_eq!(replica.get("/healthz").status, 200);
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(Answer::parse(&answer).unwrap().problem(), "body-timeout");
    assert_eq!(replica.get("/startup").status, 200);
}

#[test]
fn settings_are_printed_checked_and_refused() {
    let (code, printed) = run(&["--print-config", "--listen", "127.0.0.1:1"], None);
    assert_eq!(code, Some(0), "{printed}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.yaml");
    std::fs::write(&file, &printed).unwrap();
    assert_eq!(run(&["--check-config"], Some(&file)).0, Some(0));
    std::fs::write(&file, "drain_timeout: 1s\nnonsense: 1\n").unwrap();
    let (code, said) = run(&["--check-config"], Some(&file));
    assert_eq!(code, Some(2));
    assert!(said.contains("nonsense") && said.contains("api.yaml:2"), "{said}");
    let (code, said) = run(&["--listen", "0.0.0.0:0"], None);
    assert_eq!(code, Some(2));
    assert!(said.contains("--allow-plaintext"), "{said}");
    let (code, said) = run(&["--check-config", "--store-endpoints", "https://a:1"], None);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn what_is_said_of_a_wrong_url_has_no_password() {
    for (flag, url, code) in [
        ("--database-url", "mysql://u:f00d@h/d", Some(2)),
        ("--database-url", "u:f00d@h/d", Some(2)),
        ("--database-url", "postgres://u:f00d@h:port/d", Some(1)),
        ("--cache-url", "http://:f00d@h", Some(2)),
        ("--cache-url", "redis://:f00d@h:port", Some(2)),
        ("--cache-url", "redis://:f00d@h/zero", Some(2)),
    ] {
        let (ended, said) = run(&[flag, url, "--listen", "127.0.0.1:0", "--metrics-listen", "off"], None);
        assert_eq!(ended, code, "{said}");
        assert!(!said.contains("f00d"), "{said}");
    }
}
