//! Counts allocations and copies, and fails where there must be none. `cargo test` runs it as well.
//!
//! - Finding and decoding frames, headers and payloads: no allocation and no copy per frame.
//! - From the caller's `Bytes` to the vector that is written to the socket, and from there to the reader: the same
//!   memory, so no copy in the protocol core.
//! - Through the whole transport over loopback, both ends in this process: the bytes allocated are a small part of
//!   the bytes sent, so no payload was copied into memory made for it. (What the receiver reads from the kernel lands
//!   in pooled buffers, made once.) Copies into memory that is there already are seen by `dwcp-core/src/copies.rs`.

use std::{alloc::System, time::Duration};

use bytes::{Bytes, BytesMut};
use dwcp_core::{CompressionConfig, Endpoint, EndpointConfig};
use dwcp_proto::{
    conn::{Read, Segment, StreamFrame, TxBatch},
    frame::{Codec, FrameHeader, FrameType},
    parse,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::watch;

mod pair;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FRAME: usize = 256 << 10;
const FRAMES: usize = 1024;
/// Bytes between sender and reader in the loopback count.
const IN_FLIGHT_MAX: usize = 4 * FRAME;
const NOW: Duration = Duration::from_secs(1);

fn main() {
    headers();
    located_payloads();
    batches();
    state_machines();
    transport();
}

fn header(len: usize) -> FrameHeader {
    FrameHeader { stream: 1, wire_len: len as u32, raw_len: len as u32, ..FrameHeader::new(FrameType::Data) }
}

/// Runs `work` and prints its allocations.
fn count<T>(what: &str, units: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(ALLOCATOR);
    let out = work();
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    println!("{what}: {allocations} allocations for {units} frames, {} bytes", change.bytes_allocated);
    (out, allocations)
}

fn headers() {
    let ((), allocations) = count("header encode and decode", FRAMES, || {
        for len in 0..FRAMES {
            let bytes = header(len).encode();
            FrameHeader::decode(&bytes, FRAME as u32).expect("what was encoded decodes");
        }
    });
    assert_eq!(allocations, 0);
}

fn located_payloads() {
    let mut buffer = BytesMut::new();
    for len in 0..FRAMES {
        buffer.extend_from_slice(&header(len).encode());
        buffer.resize(buffer.len() + len, 7);
    }
    // Sharing a buffer costs one allocation for the buffer, not for a frame.
    let buffer = buffer.freeze();
    let shared = buffer.clone();
    let mut frames = Vec::with_capacity(FRAMES);
    let (payloads, allocations) = count("parse, payloads as slices of the buffer", FRAMES, || {
        parse(&buffer, FRAME as u32, &mut frames).expect("valid frames");
        let mut bytes = 0;
        for frame in &frames {
            let payload = buffer.slice(frame.payload.clone());
            assert!(payload.is_empty() || shared.as_ptr_range().contains(&payload.as_ptr()), "copied");
            bytes += payload.len();
        }
        bytes
    });
    assert_eq!(frames.len(), FRAMES);
    assert_eq!(payloads, FRAMES * (FRAMES - 1) / 2);
    assert_eq!(allocations, 0);
}

fn batches() {
    let payload = Bytes::from(vec![7; FRAME]);
    let mut batch = TxBatch::default();
    batch.push(&header(FRAME), &payload);
    let ((), allocations) = count("batches for the socket, warm", FRAMES, || {
        for _ in 0..FRAMES {
            batch.clear();
            batch.push(&header(FRAME), &payload);
            let Some(Segment::Payload(written)) = batch.segments.last() else { panic!("no payload") };
            assert_eq!(written.as_ptr(), payload.as_ptr(), "copied");
        }
    });
    assert_eq!(allocations, 0);
}

fn state_machines() {
    let (mut client, mut server) = pair::connected();
    let mut there = pair::Wire::default();
    let mut back = pair::Wire::default();
    let payload = Bytes::from(vec![7; FRAME]);
    let stream = client.open_stream().expect("a stream");
    let mut round = |there: &mut pair::Wire| {
        let room = client.stream_reserve(stream, FRAME).expect("credit");
        assert_eq!(room.len as usize, FRAME);
        let frame = StreamFrame {
            offset: room.offset,
            raw_len: room.len,
            codec: Codec::Identity,
            payload: payload.clone(),
            payload_crc: None,
        };
        client.stream_submit(NOW, stream, frame);
        there.carry(NOW, &mut client, &mut server);
        let Read::Chunk(chunk) = server.stream_read(NOW, stream) else { panic!("nothing to read") };
        assert_eq!(chunk.payload.as_ptr(), payload.as_ptr(), "copied");
        back.carry(NOW, &mut server, &mut client);
    };
    for _ in 0..FRAMES {
        round(&mut there);
    }
    // The buffer in `pair` costs an allocation or two a frame, where the driver has a pool.
    count("both state machines, 256 KiB frames, with this bench's buffers", FRAMES, || {
        for _ in 0..FRAMES {
            round(&mut there);
        }
    });
}

fn transport() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = || {
            let mut config = EndpointConfig::new("bench");
            config.compression = CompressionConfig::NONE;
            config
        };
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let server = Endpoint::listen(loopback, config()).await.expect("listen");
        let addr = server.local_addr().expect("an address");
        let client = Endpoint::client(config()).expect("a client");
        let (connected, accepted) = tokio::join!(client.connect(addr, "localhost"), server.accept());
        let (connected, accepted) = (connected.expect("connect"), accepted.expect("accept"));
        let (mut send, _recv) = connected.open_stream().await.expect("a stream");
        let (read, mut progress) = watch::channel(0);
        let reader = tokio::spawn(async move {
            let (_send, mut recv) = accepted.accept_stream().await.expect("a stream");
            while let Some(chunk) = recv.read_chunk().await.expect("data") {
                read.send_modify(|bytes| *bytes += chunk.len());
            }
        });
        let payload = Bytes::from(vec![7; FRAME]);
        let mut sent = 0;
        let mut region = Region::new(ALLOCATOR);
        for round in 0..2 * FRAMES {
            if round == FRAMES {
                // Pools are warm.
                region.reset();
            }
            send.write_bytes(payload.clone()).await.expect("send");
            sent += FRAME;
            // More in flight than the receiver keeps buffers for would count its pool, not copies.
            progress.wait_for(|read| sent - read <= IN_FLIGHT_MAX).await.expect("the reader lives");
        }
        let allocated = region.change().bytes_allocated;
        send.finish().expect("finish");
        reader.await.expect("the reader");
        let bytes = *progress.borrow();
        assert_eq!(bytes, 2 * FRAMES * FRAME);
        let share = allocated as f64 / (FRAMES * FRAME) as f64;
        println!("transport over loopback: {allocated} bytes allocated, {share:.4} of the payload");
        assert!(share < 0.02, "payload was copied into newly made memory");
    });
}
