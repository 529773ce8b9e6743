//! Spans of an agent, at a collector; and an agent whose collector is dead.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::Path,
};

use collector::Collector;
use nix::sys::signal::Signal;
use novacron_control::schema::{Node, Peer};
use support::{Agent, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn start(folder: &Path, name: &str, port: u16, endpoint: &str, more: &[(&str, &str)]) -> Agent {
    let places = [format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1)];
    let mut settings = vec![("listen", places[0].as_str()), ("datagrams.listen", places[1].as_str())];
    settings.extend(more);
    Agent::start_with(folder, name, &settings, |command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    })
}

/// A request that belongs to a trace; the status and all that follows.
fn ask(agent: &Agent, request: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(&agent.socket).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer.strip_prefix("HTTP/1.1 ").expect("HTTP").to_owned()
}

#[test]
fn what_a_request_causes_is_in_its_trace_and_the_last_spans_arrive() {
    let (folder, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let port = ports::free(4)[0];
    let (into, from) = (folder.path().join("into"), folder.path().join("file"));
    fs::write(&from, "content").expect("written");
    let takes = [("transfers.into", into.to_str().expect("UTF-8"))];
    let _b = start(folder.path(), "b", port + 2, &collector.endpoint(), &takes);
    let peers = format!("b=127.0.0.1:{}", port + 2);
    let mut a = start(folder.path(), "a", port, &collector.endpoint(), &[("peers", &peers)]);
    wait_until("they are connected", || {
        a.get::<Vec<Peer>>("/v1/peers").iter().any(|peer| peer.connected_seconds.is_some())
    });
    let body = serde_json::json!({"peer": "b", "from": from}).to_string();
    let answer = ask(&a, "POST /v1/transfers", &body);
    assert!(answer.starts_with("202"), "{answer}");
    wait_until("it has arrived", || into.join("file").exists());
    let request = collector.wait_for("the request", |span| span.parent_id == PARENT);
    assert_eq!((request.name.as_str(), request.trace_id.as_str()), ("request", TRACE));
    assert_eq!(request.attributes["path"], "/v1/transfers");
    assert_eq!(request.resource["service.name"], "novacron-dwcp");
    assert_eq!(request.resource["service.instance.id"], "a");
    let transfer = collector.wait_for("the transfer", |span| span.name == "transfer");
    assert_eq!((&transfer.trace_id, &transfer.parent_id), (&request.trace_id, &request.span_id));
    // What was asked without a trace has one of its own.
    let own =
        collector.wait_for("another request", |span| span.name == "request" && span.parent_id.is_empty());
    assert_ne!(own.trace_id, TRACE);

    // Not sent yet, since spans are sent in batches.
    assert!(ask(&a, "GET /v1/tune", "").starts_with("200"));
    a.signal(Signal::SIGTERM);
    assert_eq!(a.wait().code(), Some(0));
    let is_last = |span: &collector::Span| span.attributes.get("path").is_some_and(|path| path == "/v1/tune");
    assert!(collector.spans().iter().any(is_last), "{:#?}", collector.spans());
}

#[test]
fn a_collector_that_takes_everything_and_says_nothing_keeps_no_agent_from_its_work_and_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let mut agent = start(folder.path(), "a", ports::free(2)[0], &endpoint, &[]);
    for _ in 0..3000 {
        // More than wait for a collector.
        ask(&agent, "GET /v1/node", "");
    }
    assert_eq!(agent.get::<Node>("/v1/node").greeting.node_id, "a");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
}
