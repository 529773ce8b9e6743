//! Replays the fuzz corpus that is kept in git through the same bodies that the fuzz targets run.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p dwcp-proto --test fuzz_corpus` writes the `seed-*` files again;
//! `fuzz/README.md` says where the others come from.

use bytes::Bytes;
use dwcp_proto::{
    conn::TxBatch,
    frame::{Codec, Flags, FrameHeader, FrameType},
    hello::{Capabilities, ConnectionId, Hello, JoinToken},
};

#[path = "../../../../fuzz/bodies/connection_ops.rs"]
mod connection_ops;
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/bodies/datagram_flow.rs"]
mod datagram_flow;
#[path = "../../../../fuzz/bodies/frame.rs"]
mod frame;
#[path = "../../../../fuzz/bodies/hello.rs"]
mod hello;
fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn frame_corpus() {
    corpus::replay("frame", frame_seeds, frame::run);
}

#[test]
fn hello_corpus() {
    corpus::replay("hello", hello_seeds, hello::run);
}

#[test]
fn connection_ops_corpus() {
    corpus::replay(
        "connection_ops",
        || (0..32).map(|seed| random(seed, 100 + 40 * seed as usize)).collect(),
        connection_ops::run,
    );
}

#[test]
fn datagram_flow_corpus() {
    corpus::replay(
        "datagram_flow",
        || (0..32).map(|seed| random(seed + 1000, 200 + 100 * seed as usize)).collect(),
        datagram_flow::run,
    );
}

/// One input for each frame type, some with payload, some in a row, some cut off.
fn frame_seeds() -> Vec<Vec<u8>> {
    let frame = |ty, stream, payload: &'static [u8], flags| {
        let mut batch = TxBatch::default();
        let len = payload.len() as u32;
        let header = FrameHeader { flags, stream, wire_len: len, raw_len: len, ..FrameHeader::new(ty) };
        batch.push(&header, &Bytes::from_static(payload));
        batch.inline
    };
    let mut seeds: Vec<Vec<u8>> = FrameType::ALL
        .into_iter()
        .map(|ty| [vec![17], frame(ty, 1, b"payload", Flags::default())].concat())
        .collect();
    let coded = FrameHeader {
        flags: Flags::default().with_codec(Codec::Lz4),
        wire_len: 3,
        raw_len: 4096,
        ..FrameHeader::new(FrameType::Data)
    };
    seeds.push([&[1], &coded.encode()[..], b"lz4"].concat());
    seeds.push([vec![5], frame(FrameType::Data, 1, b"", Flags::default().with_fin(true))].concat());
    let mut unknown = frame(FrameType::Ping, 0, b"to be skipped", Flags::default());
    unknown[2] = 0x99;
    seeds.push([vec![33], unknown, frame(FrameType::Close, 0, b"code", Flags::default())].concat());
    let row = seeds[..8].concat();
    seeds.push(row[..row.len() - 3].to_vec());
    seeds
}

fn hello_seeds() -> Vec<Vec<u8>> {
    let base = Hello {
        minor: 0,
        link: 0,
        connection: ConnectionId::default(),
        token: JoinToken::default(),
        capabilities: crate::support::capabilities(),
        rdma: Vec::new(),
        datagram_port: 0,
    };
    let with = |capabilities| Hello { capabilities, ..base.clone() }.encode();
    let c = crate::support::capabilities;
    let mut seeds = vec![
        base.encode(),
        Hello { rdma: vec![5; 44], ..base.clone() }.encode(),
        Hello { link: 3, connection: ConnectionId([7; 16]), token: JoinToken([9; 16]), ..base.clone() }
            .encode(),
        with(Capabilities { region: "eu-west".into(), ..c() }),
        with(Capabilities { dictionaries: vec![[1; 32], [2; 32]], ..c() }),
        with(Capabilities { connection_window: u64::MAX, stream_window: u64::MAX, ..c() }),
        with(Capabilities { message_window: u64::MAX, streams_max: u32::MAX, ..c() }),
        with(Capabilities { streams_max: 0, codecs: u32::MAX, ..c() }),
        with(Capabilities { node_id: "n".repeat(255), ..c() }),
        with(Capabilities { node_id: String::new(), ..c() }),
    ];
    let bytes = base.encode();
    seeds.extend([48, 49, 60, bytes.len() - 1].map(|len| bytes[..len].to_vec()));
    let optional = [&bytes[..], &[0x63, 0x80, 1, 0, 0]].concat();
    seeds.push(optional);
    seeds.push(Hello { datagram_port: 8889, ..base }.encode());
    seeds
}
