//! Every `dwcp_*` metric of the transport moves when, and as, it should.
//!
//! The tests have one thread each, on which the endpoints' tasks run, too; so they have a recorder of their own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{
    CompressionConfig, Connection, ConnectionError, DatagramKind, Endpoint, EndpointConfig, ReadError,
};
use dwcp_proto::{
    CloseCode,
    datagram::{DatagramHeader, DatagramType},
    frame::{Codec, Flags, FrameType},
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    hostile::{Authority, close_code, frame, shake_hands},
    links::DEADLINE,
    proxy::{Cut, Proxy},
    support::{config, connect, listen, pattern, read_all},
};

/// Keeps the value of each metric, named `name{label="value",..}` with its labels in order.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Samples>>>,
}

#[derive(Debug, Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

fn entry<T: Default>(of: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
    let mut labels: Vec<_> =
        key.labels().map(|label| format!("{}={:?}", label.key(), label.value())).collect();
    labels.sort();
    let name = format!("{}{{{}}}", key.name(), labels.join(","));
    Arc::clone(of.lock().unwrap().entry(name).or_default())
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(entry(&self.counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(entry(&self.gauges, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(entry(&self.histograms, key))
    }
}

impl Recorded {
    /// Counters and gauges.
    fn all(&self) -> BTreeMap<String, f64> {
        let counters = self.counters.lock().unwrap();
        let gauges = self.gauges.lock().unwrap();
        let counters =
            counters.iter().map(|(name, value)| (name.clone(), value.load(Ordering::Relaxed) as f64));
        // A gauge keeps the bits of its number.
        let gauges =
            gauges.iter().map(|(name, value)| (name.clone(), f64::from_bits(value.load(Ordering::Relaxed))));
        counters.chain(gauges).collect()
    }

    /// Of a counter or gauge; absent: none.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.all().get(name).copied()
    }

    /// Waits until all of these counters and gauges have these values.
    async fn becomes(&self, expected: &[(&str, f64)]) {
        let missing = || {
            let wrong = |(name, value): &&(&str, f64)| self.value(name) != Some(*value);
            expected.iter().filter(wrong).collect::<Vec<_>>()
        };
        let waiting = async {
            while !missing().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let result = tokio::time::timeout(DEADLINE, waiting).await;
        assert!(result.is_ok(), "never became {:?}, but\n{:#?}", missing(), self.all());
    }
}

/// Labels of what the client says about the server, and the server about the client, which has a region.
const LABELS_AT_CLIENT: &[(&str, &str)] = &[("peer", "server"), ("region", "")];
const AT_CLIENT: &str = r#"{peer="server",region=""}"#;
const AT_SERVER: &str = r#"{peer="client",region="north"}"#;

fn settings(name: &str) -> EndpointConfig {
    let mut config = config(name, 2);
    config.region = (name == "client").then(|| "north".to_owned());
    config
}

async fn send(from: &Connection, to: &Connection, data: Bytes) -> Result<Vec<u8>, ReadError> {
    let (mut send, _recv) = from.open_stream().await.unwrap();
    let writing = tokio::spawn(async move {
        let _ = send.write_bytes(data).await; // the end of the connection is the reader's to tell
        let _ = send.finish();
    });
    let (_answer, mut recv) = to.accept_stream().await?;
    let read = read_all(&mut recv).await;
    writing.await.unwrap();
    read
}

#[tokio::test]
async fn a_connection_moves_its_metrics() {
    const LEN: usize = 4 << 20;
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let (server, addr) = listen(settings("server")).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, settings("client")).await;
    let named = |name: &str, side: &str| format!("dwcp_{name}{side}");
    let both = |name: &str| [named(name, AT_CLIENT), named(name, AT_SERVER)];
    let becomes = async |name: &str, value: f64| {
        for metric in both(name) {
            recorded.becomes(&[(&metric, value)]).await;
        }
    };
    // Both ends are in this process.
    let connections = async |active: f64, expected: f64| {
        let [one, other] = ["dwcp_active_connections{}", "dwcp_expected_connections{}"];
        recorded.becomes(&[(one, active), (other, expected)]).await;
    };

    becomes("active_streams", 2.0).await;
    connections(2.0, 2.0).await;
    becomes("resumes_total", 0.0).await;
    recorded
        .becomes(&[("dwcp_integrity_failures_total{}", 0.0), ("dwcp_compression_errors_total{}", 0.0)])
        .await;
    assert_eq!(recorded.value(r#"dwcp_transport_info{kind="tcp"}"#), Some(1.0));

    assert_eq!(send(&a, &b, pattern(LEN)).await.unwrap().len(), LEN);
    recorded.becomes(&[(&named("bytes_sent_total", AT_CLIENT), LEN as f64)]).await;
    recorded.becomes(&[(&named("bytes_received_total", AT_SERVER), LEN as f64)]).await;
    recorded.becomes(&[(&named("bytes_sent_total", AT_SERVER), 0.0)]).await;
    let value = |name: &str, side: &str| recorded.value(&named(name, side)).unwrap();
    for wire in [value("wire_bytes_sent_total", AT_CLIENT), value("wire_bytes_received_total", AT_SERVER)] {
        assert!(wire > LEN as f64 && wire < 1.1 * LEN as f64, "{wire} bytes with headers");
    }
    let ratio = value("compression_ratio", AT_CLIENT);
    assert!((0.9..1.0).contains(&ratio), "nothing is compressed: {ratio}");
    assert!(value("delivery_rate_bytes_per_second", AT_CLIENT) > 0.0);
    assert!((0.0..=1.0).contains(&value("packet_loss_ratio", AT_CLIENT)));
    assert!(value("retransmits_total", AT_CLIENT) >= 0.0);
    assert!(
        a.stats().links.iter().all(|link| link.path_mtu.is_some_and(|mtu| mtu >= 576)),
        "{:?}",
        a.stats()
    );
    let round_trips = entry(&recorded.histograms, &Key::from_parts("dwcp_rtt_seconds", LABELS_AT_CLIENT));
    let round_trips = round_trips.0.lock().unwrap().clone();
    assert!(
        !round_trips.is_empty() && round_trips.iter().all(|rtt| (1e-6..10.0).contains(rtt)),
        "{round_trips:?}"
    );

    // One link dies, and is replaced.
    assert!(proxy.cut_one(1, Cut::Reset));
    becomes("resumes_total", 1.0).await;
    becomes("active_streams", 2.0).await;

    // All die and none returns: expected is what active is not.
    proxy.refuse(true);
    proxy.cut_all(Cut::Reset);
    connections(0.0, 2.0).await;
    becomes("active_streams", 0.0).await;
    becomes("resumes_total", 3.0).await;
    proxy.refuse(false);
    connections(2.0, 2.0).await;
    becomes("active_streams", 2.0).await;

    // A bit flips on the way.
    proxy.alter_one();
    assert!(send(&a, &b, pattern(LEN)).await.is_err());
    assert!(matches!(b.closed().await, ConnectionError::Protocol(_)));
    recorded.becomes(&[("dwcp_integrity_failures_total{}", 1.0)]).await;
    connections(0.0, 0.0).await;
    becomes("active_streams", 0.0).await;
    becomes("delivery_rate_bytes_per_second", 0.0).await;
}

#[tokio::test]
async fn connections_to_the_same_peer_add_up() {
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let (server, addr) = listen(settings("server")).await;
    let (a, _b) = connect(&server, addr, settings("client")).await;
    let (_c, _d) = connect(&server, addr, settings("client")).await;
    let links = format!("dwcp_active_streams{AT_SERVER}");
    recorded.becomes(&[(&links, 4.0), ("dwcp_active_connections{}", 4.0)]).await;
    a.close(0, "");
    recorded.becomes(&[(&links, 2.0), ("dwcp_active_connections{}", 2.0)]).await;
}

#[tokio::test]
async fn what_shrinks_has_a_ratio() {
    const LEN: usize = 8 << 20;
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let (server, addr) = listen(settings("server")).await;
    let mut client = settings("client");
    client.compression = CompressionConfig::default();
    let (a, b) = connect(&server, addr, client).await;
    assert_eq!(send(&a, &b, vec![0; LEN].into()).await.unwrap().len(), LEN);
    let name = format!("dwcp_compression_ratio{AT_CLIENT}");
    let shrunk = async {
        while recorded.value(&name).is_none_or(|ratio| ratio < 2.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let result = tokio::time::timeout(DEADLINE, shrunk).await;
    assert!(result.is_ok(), "{:?}", recorded.value(&name));
}

#[tokio::test]
async fn a_frame_that_does_not_decode_is_a_compression_error() {
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let (server, addr) = listen(config("server", 1)).await;
    let (mut socket, connection, _) = shake_hands(&server, addr).await;
    let bad = frame(FrameType::Data, &[0x55; 200], |header| {
        header.stream = 1;
        header.raw_len = 1000;
        header.flags = Flags::default().with_payload_crc(true).with_codec(Codec::Zstd);
    });
    socket.write_all(&bad).await.unwrap();
    let (_send, mut recv) = connection.accept_stream().await.unwrap();
    // What follows is right, and no continuation.
    let good = frame(FrameType::Data, b"behind the gap", |header| {
        header.stream = 1;
        header.offset = 1000;
    });
    socket.write_all(&good).await.unwrap();
    while connection.stats().wire_bytes_received < (bad.len() + good.len()) as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = recv.read_chunk().await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { offset: 0, .. }), "{error:?}");
    for _ in 0..2 {
        assert_eq!(recv.read_chunk().await, Err(error.clone()), "the gap stays");
        let kind = recv.read_u8().await.unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::InvalidData);
    }
    assert!(matches!(connection.closed().await, ConnectionError::Protocol(_)));
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::PROTOCOL_ERROR));
    assert_eq!(connection.stats().bytes_received, 0, "nothing was read");
    recorded
        .becomes(&[("dwcp_compression_errors_total{}", 1.0), ("dwcp_integrity_failures_total{}", 0.0)])
        .await;
}

/// TLS has no frame checksums: its records tell.
#[tokio::test]
async fn an_altered_tls_record_costs_a_link_and_nothing_else() {
    const LEN: usize = 4 << 20;
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let authority = Authority::new("ours");
    let (server, addr) = listen(authority.node("localhost", &authority)).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, authority.node("client", &authority)).await;
    proxy.alter_one();
    assert!(send(&a, &b, pattern(LEN)).await.unwrap() == pattern(LEN));
    recorded.becomes(&[("dwcp_integrity_failures_total{}", 1.0), ("dwcp_expected_connections{}", 2.0)]).await;
}

/// The proxy's sockets lose segments for good reason: the sender's kernel has to repeat them.
#[tokio::test]
async fn retransmissions_are_counted_and_never_taken_back() {
    const LEN: usize = 4 << 20;
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let (server, addr) = listen(settings("server")).await;
    let proxy = Proxy::start(addr).await;
    proxy.lossy();
    let (a, b) = connect(&server, proxy.addr, settings("client")).await;
    let name = format!("dwcp_retransmits_total{AT_CLIENT}");
    let mut gone = 0.0; // counted when the last links were cut
    let mut last_id = None;
    for round in 0..3 {
        // The links of this round only.
        let of_links = || {
            let links = a.stats().links.into_iter().filter(|link| Some(link.id) > last_id);
            links.map(|link| link.retransmits).sum::<u64>() as f64
        };
        let repeated = async {
            while of_links() == 0.0 {
                assert!(send(&a, &b, pattern(LEN)).await.unwrap() == pattern(LEN));
            }
        };
        assert!(tokio::time::timeout(DEADLINE, repeated).await.is_ok(), "round {round}");
        let counted = recorded.value(&name).unwrap();
        assert!(counted >= gone + of_links(), "{counted}: {gone} before, and {} since", of_links());
        // The links that did it go, what they did does not.
        (gone, last_id) = (counted, a.stats().links.iter().map(|link| link.id).max());
        proxy.cut_all(Cut::Reset);
        while a.stats().links.iter().filter(|link| Some(link.id) > last_id).count() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(recorded.value(&name).unwrap() >= gone);
        }
    }
    a.close(0, "");
    recorded.becomes(&[("dwcp_expected_connections{}", 0.0)]).await;
    assert!(recorded.value(&name).unwrap() >= gone);
}

/// BBR has a model of the path, and others have none.
#[tokio::test]
async fn the_model_of_bbr_is_published_where_bbr_is_in_force() {
    const LEN: usize = 4 << 20;
    let offered = dwcp_sys::congestion::available();
    for congestion_control in ["bbr", "cubic"] {
        if !offered.iter().any(|name| name == congestion_control) {
            println!("SKIP: this kernel does not offer {congestion_control}");
            continue;
        }
        let recorded = Recorded::default();
        let _recorder = metrics::set_default_local_recorder(&recorded);
        dwcp_core::describe_metrics();
        let (server, addr) = listen(settings("server")).await;
        let mut client = settings("client");
        client.transport.congestion_control = Some(congestion_control.to_owned());
        let (a, b) = connect(&server, addr, client).await;
        assert_eq!(send(&a, &b, pattern(LEN)).await.unwrap().len(), LEN);
        let [bandwidth, min_rtt] = ["dwcp_bbr_bandwidth_bytes_per_second", "dwcp_bbr_min_rtt_seconds"]
            .map(|name| format!("{name}{AT_CLIENT}"));
        if congestion_control == "bbr" {
            let known = async {
                while [&bandwidth, &min_rtt].iter().any(|name| recorded.value(name).unwrap_or(0.0) <= 0.0) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let result = tokio::time::timeout(DEADLINE, known).await;
            assert!(result.is_ok(), "{:#?}", recorded.all());
            let links = a.stats().links;
            assert!(links.iter().all(|link| link.bbr_bandwidth.is_some()), "{links:?}");
            assert!(links.iter().any(|link| link.bbr_rtt_min > Some(Duration::ZERO)), "{links:?}");
        } else {
            recorded.becomes(&[(&bandwidth, 0.0), (&min_rtt, 0.0)]).await;
            assert!(a.stats().links.iter().all(|link| link.bbr_bandwidth.is_none()));
        }
        a.close(0, "");
        recorded.becomes(&[(&bandwidth, 0.0), ("dwcp_expected_connections{}", 0.0)]).await;
    }
}

/// With TLS a peer is what its certificate says, whatever its HELLO claims.
#[tokio::test]
async fn peers_are_labelled_with_the_name_of_their_certificate() {
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let authority = Authority::new("ours");
    let (server, addr) = listen(authority.node("localhost", &authority)).await;
    let mut client = authority.node("client.example", &authority);
    client.node_id = "somebody-important".into();
    let (_a, b) = connect(&server, addr, client).await;
    assert_eq!(b.peer().node_id, "somebody-important");
    recorded
        .becomes(&[
            (r#"dwcp_active_streams{peer="client.example",region=""}"#, 1.0),
            (r#"dwcp_active_streams{peer="localhost",region=""}"#, 1.0),
        ])
        .await;
    let claimed: Vec<_> = recorded.all().into_keys().filter(|name| name.contains("important")).collect();
    assert!(claimed.is_empty(), "{claimed:?}");
}

#[tokio::test]
async fn datagrams_and_their_path_have_metrics() {
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    dwcp_core::describe_metrics();
    let dropped = |reason: &str| format!(r#"dwcp_datagrams_dropped_total{{reason="{reason}"}}"#);
    let reasons = ["malformed", "unknown_flow", "forged", "replayed", "unknown", "queue_full", "socket_full"];
    for reason in reasons {
        assert_eq!(recorded.value(&dropped(reason)), Some(0.0), "{reason}");
    }
    let taking = |name: &str| {
        let mut config = settings(name);
        config.datagrams.listen = Some("127.0.0.1:0".parse().unwrap());
        config
    };
    let (server, addr) = listen(taking("server")).await;
    let client = Endpoint::listen("127.0.0.1:0".parse().unwrap(), taking("client")).await.unwrap();
    let (a, b) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    let mtu = format!("dwcp_path_mtu_bytes{AT_CLIENT}");
    recorded.becomes(&[(&mtu, 9000.0), (&format!("dwcp_path_loss_ratio{AT_SERVER}"), 0.0)]).await;
    for name in ["dwcp_path_rtt_seconds", "dwcp_path_jitter_seconds"] {
        let value = recorded.value(&format!("{name}{AT_CLIENT}")).unwrap();
        assert!((0.0..1.0).contains(&value) && (value > 0.0 || name.contains("jitter")), "{name}: {value}");
    }
    // Strangers: bytes of anybody, a flow of nobody, a forged one of a flow that there is.
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = server.datagram_addr().unwrap();
    let flow = *server.watch_datagram_flows().borrow().iter().next().unwrap();
    let header = |flow| {
        let ty = DatagramType::Message;
        DatagramHeader { ty, key_phase: false, payload_len: 16, flow, number: 1 << 40 }.encode()
    };
    stranger.send_to(b"hello?", to).await.unwrap();
    stranger.send_to(&[&header(1)[..], &[0; 16]].concat(), to).await.unwrap();
    stranger.send_to(&[&header(flow)[..], &[0; 16]].concat(), to).await.unwrap();
    for reason in ["malformed", "unknown_flow", "forged"] {
        recorded.becomes(&[(&dropped(reason), 1.0)]).await;
    }
    // Nobody receives: the oldest give way.
    let datagrams = a.datagrams().unwrap();
    for _ in 0..1100 {
        datagrams.send(DatagramKind::Gossip, b"news").unwrap();
        tokio::task::yield_now().await;
    }
    recorded.becomes(&[(&dropped("queue_full"), 76.0)]).await;
    let received = || b.path().unwrap().datagrams_received as f64;
    let name = format!("dwcp_datagrams_received_total{AT_SERVER}");
    let told = async {
        while recorded.value(&name).unwrap() < 1100.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, told).await.is_ok());
    assert!(recorded.value(&name).unwrap() <= received());
    assert!(recorded.value(&format!("dwcp_datagrams_sent_total{AT_CLIENT}")).unwrap() >= 1100.0);
    // What was counted last is told with the end.
    let sent = a.path().unwrap().datagrams_sent as f64;
    a.close(0, "");
    recorded.becomes(&[("dwcp_expected_connections{}", 0.0)]).await;
    assert!(recorded.value(&format!("dwcp_datagrams_sent_total{AT_CLIENT}")).unwrap() >= sent);
}
