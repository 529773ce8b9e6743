//! Frames through the protocol core alone: header encode and decode, finding frames in a buffer, messages through the
//! state machines of both sides. No sockets, no threads.

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dwcp_proto::{
    conn::{Connection, Priority, TxBatch},
    frame::{FrameHeader, FrameType, HEADER_LEN},
    parse,
};

mod pair;

const FRAME: usize = 256 << 10;
const MESSAGE: usize = 64;
const MESSAGES: u64 = 1024;
const NOW: Duration = Duration::from_secs(1);

fn header(len: usize) -> FrameHeader {
    FrameHeader { stream: 1, wire_len: len as u32, raw_len: len as u32, ..FrameHeader::new(FrameType::Data) }
}

fn headers(c: &mut Criterion) {
    let header = header(FRAME);
    let bytes = header.encode();
    let mut group = c.benchmark_group("header");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| b.iter(|| black_box(&header).encode()));
    group.bench_function("decode", |b| b.iter(|| FrameHeader::decode(black_box(&bytes), FRAME as u32)));
    group.finish();
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, len) in [("64 B", MESSAGE), ("256 KiB", FRAME)] {
        let count = (1 << 20) / (HEADER_LEN + len);
        let mut buffer = BytesMut::new();
        for _ in 0..count {
            buffer.extend_from_slice(&header(len).encode());
            buffer.resize(buffer.len() + len, 0);
        }
        let mut frames = Vec::with_capacity(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} frames of {name}"), |b| {
            b.iter(|| {
                frames.clear();
                parse(black_box(&buffer), FRAME as u32, &mut frames)
            });
        });
    }
    let payload = vec![0; FRAME];
    group.throughput(Throughput::Bytes(FRAME as u64));
    let checked = FrameHeader {
        flags: header(FRAME).flags.with_payload_crc(true),
        payload_crc: crc32fast::hash(&payload),
        ..header(FRAME)
    };
    group.bench_function("payload checksum of 256 KiB", |b| {
        b.iter(|| checked.check_payload(black_box(&payload)))
    });
    group.finish();
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("message");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("64 bytes, queue, encode, parse, receive", |b| {
        let (mut client, mut server) = pair::connected();
        let mut there = pair::Wire::default();
        let mut back = pair::Wire::default();
        b.iter(|| {
            queue(&mut client);
            there.carry(NOW, &mut client, &mut server);
            let mut received = 0;
            while server.message_receive().is_some() {
                received += 1;
            }
            // Credit and acknowledgements.
            back.carry(NOW, &mut server, &mut client);
            assert_eq!(received, MESSAGES);
        });
    });
    group.finish();
}

fn queue(client: &mut Connection) {
    for _ in 0..MESSAGES {
        let payload = Bytes::from_static(&[0; MESSAGE]);
        client.message_send(NOW, Priority::Normal, payload).expect("there is room for 1024 messages");
    }
}

/// Encoding alone: batches for the socket.
fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let payload = Bytes::from(vec![0; FRAME]);
    let small = payload.slice(..MESSAGE);
    for (name, payload) in [("64 B inline", small), ("256 KiB by reference", payload)] {
        let mut batch = TxBatch::default();
        let header = header(payload.len());
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| {
            b.iter(|| {
                batch.clear();
                batch.push(black_box(&header), black_box(&payload));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, headers, parsing, encoding, messages);
criterion_main!(benches);
