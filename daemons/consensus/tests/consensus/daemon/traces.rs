//! Spans of a member, at a collector.

use collector::Collector;
use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use rustix::process::Signal;
use tonic::{Request, transport::Endpoint};

use crate::daemon::process::{Member, READY, program};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn a_request_is_a_span_of_the_trace_that_it_names() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let ports = ports::free(2);
    let mut command = program();
    command.args(["--name=m", &format!("--data-dir={}", folder.path().join("m").display())]);
    command.arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]));
    command.arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]));
    command.arg(format!("--initial-cluster=m=http://127.0.0.1:{}", ports[1]));
    command.args(["--metrics-listen=off"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    let mut member = Member::spawn_as(command);
    member.wait_for_line(READY);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", ports[0])).unwrap();
        let mut client = KvClient::new(endpoint.connect().await.unwrap());
        let put = || PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        let mut traced = Request::new(put());
        traced.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
        client.put(traced).await.unwrap();
        // What nobody has looked at harms nobody.
        let mut odd = Request::new(put());
        odd.metadata_mut().insert("traceparent", "00-nonsense".parse().unwrap());
        client.put(odd).await.unwrap();
    });
    member.signal(Signal::TERM);
    assert_eq!(member.exit_code(), Some(0));
    let spans = collector.spans();
    let puts: Vec<_> = spans.iter().filter(|span| span.name == "/etcdserverpb.KV/Put").collect();
    assert_eq!(puts.len(), 2, "{spans:#?}");
    assert_eq!((puts[0].trace_id.as_str(), puts[0].parent_id.as_str()), (TRACE, PARENT));
    assert_eq!(puts[1].parent_id, "");
    assert_eq!(puts[0].resource["service.name"], "novacron-consensus");
    assert_eq!(puts[0].resource["service.instance.id"], "m");
}
