//! The server over real sockets: what it answers, what it refuses, and a client that trusts nobody.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use metrics::{counter, describe_counter, gauge, histogram};
use novacron_admin::{AdminError, FetchError, Listener, Metrics, Observed, Page, RESPONSE_BYTES_MAX, fetch};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

struct Process(Arc<AtomicBool>);

impl Observed for Process {
    type Status = Vec<&'static str>;

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn is_started(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn status(&self) -> Self::Status {
        vec!["well"]
    }

    async fn page(&self, path: &str) -> Option<Page> {
        (path == "/own").then(|| Page { ok: self.is_ready(), json: "{}".to_owned() })
    }
}

fn describe() {
    describe_counter!("things_total", "Things so far.");
    counter!("always_total").increment(0);
}

/// Sends these bytes and returns all that comes back.
async fn say(address: SocketAddr, request: impl Into<Vec<u8>>) -> String {
    let request = request.into();
    let exchange = move || {
        let mut socket = TcpStream::connect(address).unwrap();
        // It may have closed before it read everything.
        let _ = socket.write_all(&request);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

// One test: a process has one recorder.
#[tokio::test]
async fn it_answers_what_it_knows_and_refuses_the_rest() {
    let listener = Listener::bind(loopback(), false).await.unwrap();
    let ready = Arc::new(AtomicBool::new(true));
    let metrics = Metrics::install(describe).unwrap();
    assert!(matches!(Metrics::install(describe), Err(AdminError::RecorderTaken)));
    let server = listener.serve(metrics, Process(Arc::clone(&ready)));
    let address = server.address();
    counter!("things_total", "peer" => "a\"\n").increment(7);
    gauge!("level").set(1.5);
    histogram!("time_seconds").record(0.003);

    let text = String::from_utf8(fetch(&address.to_string(), "/metrics").await.unwrap().into()).unwrap();
    for line in [
        "# HELP things_total Things so far.",
        "# TYPE things_total counter",
        "things_total{peer=\"a\\\"\\n\"} 7",
        "always_total 0",
        "level 1.5",
        "# TYPE time_seconds histogram",
        "time_seconds_bucket{le=\"0.0025\"} 0",
        "time_seconds_bucket{le=\"0.005\"} 1",
        "time_seconds_count 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    assert_eq!(fetch(&address.to_string(), "/status").await.unwrap(), "[\"well\"]");
    assert_eq!(fetch(&address.to_string(), "/healthz").await.unwrap(), "ok\n");
    assert_eq!(fetch(&address.to_string(), "/ready").await.unwrap(), "ready\n");
    assert_eq!(fetch(&address.to_string(), "/startup").await.unwrap(), "started\n");
    assert_eq!(fetch(&address.to_string(), "/own").await.unwrap(), "{}");
    ready.store(false, Ordering::Relaxed);
    for path in ["/ready", "/startup", "/own"] {
        let error = fetch(&address.to_string(), path).await.unwrap_err();
        assert!(
            matches!(&error, FetchError::Status { status, .. } if status.as_u16() == 503),
            "{path}: {error}"
        );
    }
    assert_eq!(fetch(&address.to_string(), "/healthz").await.unwrap(), "ok\n", "alive all the same");

    for (request, expected) in [
        ("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 200"),
        ("GET /metrics/../status HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 404"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 404"),
        (
            "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx".to_owned(),
            "HTTP/1.1 405",
        ),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)), "HTTP/1.1 431"),
        (format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65)), "HTTP/1.1 431"),
    ] {
        let answer = say(address, request.clone()).await;
        // What was not read may reset the connection before the answer is.
        let reset = request.len() > 1 << 16 && answer.is_empty();
        let start = request.chars().take(60).collect::<String>();
        assert!(answer.starts_with(expected) || reset, "{start:?} is answered with {answer:?}");
    }
    let head = say(address, "HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");

    drop(server);
    // The task ends at its next wait.
    tokio::task::yield_now().await;
    let error = fetch(&address.to_string(), "/healthz").await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. } | FetchError::Http { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_others_reach_has_to_be_allowed() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = Listener::bind(everywhere, false).await.unwrap_err();
    assert!(error.to_string().contains("--metrics-allow-plaintext"), "{error}");
    Listener::bind(everywhere, true).await.unwrap();
    let taken = TcpListener::bind(loopback()).unwrap();
    let error = Listener::bind(taken.local_addr().unwrap(), false).await.unwrap_err();
    assert!(matches!(error, AdminError::Io { call: "bind", .. }), "{error}");
}

#[tokio::test]
async fn whatever_answers_a_client_is_not_believed() {
    type Check = fn(&FetchError) -> bool;
    let cases: [(&[u8], bool, Check); 4] = [
        (b"", false, |error| matches!(error, FetchError::Http { .. })),
        (b"SSH-2.0-server\r\n", false, |error| matches!(error, FetchError::Http { .. })),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", false, |error| {
            matches!(error, FetchError::Body { .. })
        }),
        (b"HTTP/1.1 200 OK\r\n\r\n", true, |error| matches!(error, FetchError::Body { .. })),
    ];
    for (answer, endless, check) in cases {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // All of the request: what is left unread when the socket closes would reset it.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            socket.write_all(answer).unwrap();
            let mut sent = 0;
            while endless && socket.write_all(&[b' '; 65536]).is_ok() {
                sent += 65536;
            }
            sent
        });
        let error = fetch(&address, "/status").await.unwrap_err();
        assert!(check(&error), "{:?} gives {error}", String::from_utf8_lossy(answer));
        let sent: usize = server.join().unwrap();
        assert!(sent <= 2 * RESPONSE_BYTES_MAX, "it read on: {sent} bytes");
    }
    for address in ["no port", "127.0.0.1", "exa\nmple:1"] {
        let error = fetch(address, "/status").await.unwrap_err();
        assert!(
            matches!(error, FetchError::Connect { .. } | FetchError::Address { .. }),
            "{address:?}: {error}"
        );
    }
}
