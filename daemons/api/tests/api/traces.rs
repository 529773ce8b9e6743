//! Spans of a replica, and of all that a request goes through, at a collector.

use std::{fs, net::TcpListener};

use collector::Collector;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Replica, Store, vm, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

fn traceparent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// Needs no store: what is answered without one is a span, too.
#[test]
fn a_request_is_a_span_of_the_trace_that_it_names_and_the_last_ones_arrive() {
    let collector = Collector::start();
    let nobody = ["http://127.0.0.1:1".to_owned()];
    let mut replica = Replica::spawn_with("r", &nobody, &[], &[(ENDPOINT, &collector.endpoint())]);
    let answer = replica.ask("GET", "/healthz", &[("traceparent", &traceparent())], None);
    assert_eq!(answer.status, 200);
    // Spans are sent in batches, and the last at the end.
    replica.process.signal(Signal::TERM);
    assert_eq!(replica.process.exit_code(), Some(0));
    let spans = collector.spans();
    let span = spans.iter().find(|span| span.parent_id == PARENT).expect("the request");
    assert_eq!((span.name.as_str(), span.trace_id.as_str()), ("request", TRACE));
    assert_eq!(span.attributes["path"], "/healthz");
    assert_eq!(span.resource["service.name"], "novacron-api");
    assert_eq!(span.resource["service.instance.id"], "r");
}

#[test]
fn a_replica_whose_collector_says_nothing_answers_and_ends() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let nobody = ["http://127.0.0.1:1".to_owned()];
    let mut replica = Replica::spawn_with("r", &nobody, &[], &[(ENDPOINT, &endpoint)]);
    for _ in 0..3000 {
        assert_eq!(replica.get("/healthz").status, 200);
    }
    replica.process.signal(Signal::TERM);
    assert_eq!(replica.process.exit_code(), Some(0));
}

#[test]
fn a_migration_is_one_trace_through_replica_store_and_agent() {
    let collector = Collector::start();
    let environment = [(ENDPOINT, collector.endpoint())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let Some(store) = Store::start_with(&environment) else { return };
    let folder = store.folder.path();
    let sockets = ["agent-1", "agent-2"].map(|agent| {
        let socket = folder.join(agent).join("agent.sock");
        format!("{agent}={}", socket.display())
    });
    let more = ["--agents-sockets", &sockets.join(",")];
    let replica = Replica::spawn_with("r", &store.endpoints, &more, &environment);
    wait_until("readiness", || (replica.get("/ready").status == 200).then_some(()));
    let data = folder.join("agent-1").join("vms").join("traced");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("disk.img"), vec![7; 1 << 20]).unwrap();
    let mut new = vm("traced", "region-1");
    new["node"] = json!("agent-1");
    assert_eq!(replica.post("/api/vms", &new).status, 201);
    let job = wait_until("agents that know each other", || {
        let body = json!({"vm": "traced", "to": "agent-2"});
        let path = "/api/v1/dwcp/migrations";
        let begun = replica.ask("POST", path, &[("traceparent", &traceparent())], Some(&body));
        if begun.status == 422 {
            return None; // an agent does not run yet
        }
        assert_eq!(begun.status, 202, "{begun:?}");
        let job = wait_until("its end", || {
            let job = replica.get(begun.header("location")).json();
            ["done", "failed", "cancelled"].contains(&job["state"].as_str()?).then_some(job)
        });
        (job["state"] == "done").then_some(job)
    });
    assert!(job["traceparent"].as_str().is_some_and(|text| text.contains(TRACE)), "{job}");
    for (program, name) in [
        ("novacron-api", "request"),
        ("novacron-api", "attempt"),
        // Members and agents of `novacron up` are one process.
        ("novacron", "/etcdserverpb.KV/Txn"),
        ("novacron", "request"),
        ("novacron", "transfer"),
    ] {
        collector.wait_for(&format!("{name} of {program}"), |span| {
            span.trace_id == TRACE && span.name == name && span.resource["service.name"] == program
        });
    }
    // Each one's parent is in the trace: nothing of it hangs in the air.
    let spans = collector.spans();
    let attempt = spans.iter().find(|span| span.name == "attempt").expect("it came");
    let request = spans.iter().find(|span| span.span_id == attempt.parent_id).expect("its parent came");
    assert_eq!((request.name.as_str(), request.parent_id.as_str()), ("request", PARENT));
}
