//! Sizes are 64 bits wide: a stream goes on past 2^32 bytes. One chunk is sent again and again, by reference.

use crate::support::{CLIENT, NOW, Pair, SERVER, capabilities};
use bytes::Bytes;
use dwcp_proto::{
    Rest,
    conn::{Event, LinkId, Read, Segment, StreamFrame, TxBatch},
    frame::{FrameHeader, FrameType},
    hello::Capabilities,
    parse,
};

const FRAME: usize = 4 << 20;

/// Puts everything that one end has to say onto a link and takes it off again; payloads are handed over. With `lose`
/// it does not arrive. Returns offsets of data.
fn carry(pair: &mut Pair, from: usize, link: LinkId, lose: bool) -> Vec<u64> {
    let (mut batch, mut located, mut offsets) = (TxBatch::default(), Vec::new(), Vec::new());
    let mut arrived = |pair: &mut Pair, header: &FrameHeader, payload: Bytes| {
        if header.ty == FrameType::Data {
            offsets.push(header.offset);
        }
        if !lose {
            pair.ends[1 - from].handle_frame(NOW, link, header, payload).expect("own frames are right");
        }
    };
    while pair.ends[from].poll_transmit(NOW, link, &mut batch) {
        let mut pending = None;
        for segment in &batch.segments {
            match segment {
                Segment::Inline(range) => {
                    let inline = &batch.inline[range.clone()];
                    located.clear();
                    let parsed = parse(inline, FRAME as u32, &mut located).expect("own frames parse");
                    for frame in &located {
                        let payload = Bytes::copy_from_slice(&inline[frame.payload.clone()]);
                        arrived(pair, &frame.header, payload);
                    }
                    pending = match parsed.rest {
                        Rest::Payload(header) => Some(header),
                        _ => None,
                    };
                }
                Segment::Payload(payload) => {
                    arrived(pair, &pending.take().expect("a header comes first"), payload.clone());
                }
            }
        }
        batch.clear();
    }
    offsets
}

// DWCP-5.3, DWCP-5.4, DWCP-5.7, DWCP-6.3: offsets, credit, the final size and repetitions, beyond 4 GiB.
#[test]
fn a_stream_goes_on_past_4_gib() {
    const FRAMES: u64 = (1 << 32) / FRAME as u64 + 3;
    let mut pair = Pair::with(&Capabilities {
        frame_bytes_max: FRAME as u32,
        stream_window: 16 << 20,
        connection_window: 16 << 20,
        ..capabilities()
    });
    let id = pair.ends[CLIENT].open_stream().unwrap();
    let chunk = Bytes::from(vec![7; FRAME]);
    let mut read = 0;
    for number in 0..FRAMES {
        let room = pair.ends[CLIENT].stream_reserve(id, FRAME).expect("credit");
        assert_eq!((room.offset, room.len as usize), (number * FRAME as u64, FRAME));
        let frame = StreamFrame {
            offset: room.offset,
            raw_len: room.len,
            codec: Default::default(),
            payload: chunk.clone(),
            payload_crc: None,
        };
        pair.ends[CLIENT].stream_submit(NOW, id, frame);
        let last = number + 1 == FRAMES;
        if last {
            pair.ends[CLIENT].stream_finish(id).unwrap();
            // The one that is far beyond gets lost with its link, and comes again on another.
            assert!(carry(&mut pair, CLIENT, LinkId(0), true).contains(&room.offset));
            pair.lose_link(0);
            pair.add_link(1);
        }
        let link = LinkId(last.into());
        assert!(carry(&mut pair, CLIENT, link, false).contains(&room.offset));
        let end = loop {
            match pair.ends[SERVER].stream_read(NOW, id) {
                Read::Chunk(received) => {
                    assert_eq!(received.payload.as_ptr(), chunk.as_ptr(), "not copied");
                    read += received.payload.len() as u64;
                }
                other => break other,
            }
        };
        assert_eq!(end, if last { Read::End } else { Read::Blocked });
        carry(&mut pair, SERVER, link, false);
        for end in &pair.ends {
            end.assert_invariants();
        }
    }
    assert_eq!(read, FRAMES * FRAME as u64);
    assert!(read > 1 << 32);
    pair.exchange_acks();
    assert!(pair.events(CLIENT).contains(&Event::StreamAcknowledged(id)));
}
