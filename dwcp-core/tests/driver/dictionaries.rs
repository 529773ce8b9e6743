//! Dictionaries of both sides, and of one.

use std::sync::Arc;

use dwcp_core::{
    CompressionAlgorithm, CompressionConfig, CompressionLevel, Connection, Endpoint, EndpointConfig,
    dictionary::{Dictionary, train},
};

use crate::support::{config, connect, listen, read_all};

fn record(n: usize) -> Vec<u8> {
    format!(
        "{{\"time\":\"2026-11-29T02:{:02}:{:02}.{:03}Z\",\"level\":\"info\",\"target\":\"novacron::transfer\",\
         \"message\":\"a piece was verified\",\"piece\":{},\"peer\":\"node-{}\",\"region\":\"eu-central\"}}\n",
        n / 60 % 60,
        n % 60,
        n * 7 % 1000,
        n * 7919 % 99_991,
        n % 31,
    )
    .into_bytes()
}

fn dictionary(from: usize) -> Arc<Dictionary> {
    let samples: Vec<_> = (from..from + 2000).map(record).collect();
    Arc::new(train(&samples, 16 << 10).unwrap().dictionary)
}

/// Of a node with these; what it compresses is compressed, on any machine.
fn with(name: &str, dictionaries: Vec<Arc<Dictionary>>) -> EndpointConfig {
    let mut config = config(name, 1);
    config.compression =
        CompressionConfig { algorithm: CompressionAlgorithm::Zstd, level: CompressionLevel::Fixed(3) };
    config.dictionaries = dictionaries;
    config
}

/// Sends records, each in a frame of its own. The bytes that took on the wire.
async fn send_records(a: &Connection, b: &Connection) -> u64 {
    let before = a.stats().wire_bytes_sent;
    let (mut send, _recv) = a.open_stream().await.unwrap();
    let mut all = Vec::new();
    for n in 50_000..51_000 {
        let record = record(n);
        send.write_all(&record).await.unwrap();
        all.extend(record);
    }
    send.finish().unwrap();
    let (_answer, mut incoming) = b.accept_stream().await.unwrap();
    assert!(read_all(&mut incoming).await.unwrap() == all);
    send.acknowledged().await.unwrap();
    a.stats().wire_bytes_sent - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_short_where_both_sides_have_the_dictionary_and_whole_where_not() {
    let (ours, theirs) = (dictionary(0), dictionary(9000));
    assert_ne!(ours.hash(), theirs.hash());
    let mut bytes = Vec::new();
    for (client, server) in [
        (vec![], vec![]),
        (vec![Arc::clone(&ours)], vec![]),
        (vec![Arc::clone(&ours)], vec![Arc::clone(&theirs)]),
        (vec![Arc::clone(&ours)], vec![Arc::clone(&theirs), Arc::clone(&ours)]),
    ] {
        let (server, addr) = listen(with("server", server)).await;
        let (a, b) = connect(&server, addr, with("client", client)).await;
        bytes.push((send_records(&a, &b).await, send_records(&b, &a).await));
        a.drain().await.unwrap();
    }
    let (without, with) = (bytes[0], bytes[3]);
    for other in &bytes[1..3] {
        assert!(other.0 > without.0 * 9 / 10 && other.1 > without.1 * 9 / 10, "{bytes:?}");
    }
    // Of a record's 170 bytes, frames' headers are 32.
    assert!(with.0 < without.0 * 6 / 10 && with.1 < without.1 * 6 / 10, "{bytes:?}");
}

#[tokio::test]
async fn two_with_one_id_are_refused() {
    let one = dictionary(0);
    let twice = with("client", vec![Arc::clone(&one), one]);
    let error = Endpoint::client(twice).unwrap_err();
    assert!(error.to_string().contains("an id that no other has"), "{error}");
}
