//! Credit: what is given, what is kept, and that using it up is not the end (DWCP-5.7 to DWCP-5.9, DWCP-7.3).

use std::time::Duration;

use crate::support::{
    CLIENT, NOW, Pair, SERVER, capabilities, data, frames, give, lone, of, read_all, write,
};
use bytes::Bytes;
use dwcp_proto::{
    ProtocolError,
    conn::{Event, LinkId, MessageSendError, Priority, Read, SendError},
    frame::{FrameHeader, FrameType},
    hello::Capabilities,
    limits::{FRAMES_IN_FLIGHT_MAX, MESSAGE_LEN_MAX, MESSAGE_SEQUENCE_WINDOW, REQUESTS_IN_FLIGHT_MAX},
};

fn small() -> Capabilities {
    Capabilities { connection_window: 10_000, stream_window: 6_000, frame_bytes_max: 4096, ..capabilities() }
}

/// Writes until nothing more is taken.
fn write_all(pair: &mut Pair, id: u32) -> usize {
    let mut written = 0;
    while let Ok(room) = pair.ends[CLIENT].stream_reserve(id, 1000) {
        let frame = dwcp_proto::conn::StreamFrame {
            offset: room.offset,
            raw_len: room.len,
            codec: Default::default(),
            payload: vec![1; room.len as usize].into(),
            payload_crc: None,
        };
        written += room.len as usize;
        pair.ends[CLIENT].stream_submit(NOW, id, frame);
    }
    written
}

// DWCP-5.7: a stream stops at its window, the next one at the connection's; reading opens both.
#[test]
fn windows_close_and_open() {
    let mut pair = Pair::with(&small());
    let first = pair.ends[CLIENT].open_stream().unwrap();
    let second = pair.ends[CLIENT].open_stream().unwrap();
    assert_eq!(write_all(&mut pair, first), 6_000);
    assert_eq!(write_all(&mut pair, second), 4_000, "the connection's credit is used up");
    pair.exchange();
    pair.events(CLIENT);
    assert_eq!(pair.ends[SERVER].unread_bytes(), 10_000);
    assert_eq!(pair.ends[CLIENT].stream_reserve(first, 1), Err(SendError::Blocked));
    assert_eq!(read_all(&mut pair.ends[SERVER], first).0.len(), 6_000);
    pair.exchange();
    assert_eq!(pair.events(CLIENT), [Event::StreamWritable(second), Event::StreamWritable(first)]);
    assert_eq!(write_all(&mut pair, second), 2_000, "up to its own window");
    assert_eq!(write_all(&mut pair, first), 4_000, "up to the connection's");
}

// DWCP-5.9: the window grows once, and further, up to the connection's, with a reader that keeps up.
#[test]
fn windows_grow_with_the_reader() {
    for (pause, expected) in [(Duration::from_millis(1), 96_000), (Duration::from_secs(10), 24_000)] {
        let mut pair = Pair::with(&Capabilities { connection_window: 100_000, ..small() });
        let id = pair.ends[CLIENT].open_stream().unwrap();
        let mut now = NOW;
        for _ in 0..6 {
            write_all(&mut pair, id);
            pair.exchange();
            now += pause;
            while let Read::Chunk(_) = pair.ends[SERVER].stream_read(now, id) {}
            pair.exchange();
        }
        assert_eq!(write_all(&mut pair, id), expected, "with a pause of {pause:?}");
    }
}

// DWCP-5.9: the window grows while something is missing, but not because nobody reads.
#[test]
fn windows_grow_across_a_gap() {
    let wide = Capabilities { connection_window: 100_000, ..small() };
    let mut server = lone(&wide);
    assert_eq!(give(&mut server, data(1, 2_000), &[0; 4_000]), Ok(()));
    assert_eq!(give(&mut server, data(1, 23_999), &[0; 1]), Ok(()), "4 * 6000 from the start");
    assert_eq!(give(&mut server, data(1, 95_999), &[0; 1]), Ok(()), "once more");
    let beyond = give(&mut server, data(1, 96_000), &[0; 4_001]).unwrap_err();
    assert_eq!(beyond, ProtocolError::CreditExceeded { what: "stream", used: 100_001, limit: 100_000 });

    let mut server = lone(&wide);
    assert_eq!(give(&mut server, data(1, 0), &[0; 4_000]), Ok(()));
    assert_eq!(give(&mut server, data(1, 4_000), &[0; 2_000]), Ok(()));
    let beyond = give(&mut server, data(1, 6_000), &[0; 1]).unwrap_err();
    assert_eq!(beyond, ProtocolError::CreditExceeded { what: "stream", used: 6_001, limit: 6_000 });
}

// DWCP-5.7, DWCP-5.8: one byte too many.
#[test]
fn exceeding_credit_is_an_error() {
    let mut server = lone(&small());
    assert_eq!(give(&mut server, data(1, 0), &[0; 4_000]), Ok(()));
    assert_eq!(give(&mut server, data(1, 4_000), &[0; 2_000]), Ok(()));
    let error = give(&mut server, data(1, 6_000), &[0; 1]).unwrap_err();
    assert_eq!(error, ProtocolError::CreditExceeded { what: "stream", used: 6_001, limit: 6_000 });

    // The connection's credit counts the furthest byte of each stream, not what has arrived.
    let mut server = lone(&small());
    assert_eq!(give(&mut server, data(1, 5_999), &[0; 1]), Ok(()));
    assert_eq!(give(&mut server, data(3, 3_999), &[0; 1]), Ok(()));
    let error = give(&mut server, data(5, 0), &[0; 1]).unwrap_err();
    assert_eq!(error, ProtocolError::CreditExceeded { what: "connection", used: 10_001, limit: 10_000 });

    let mut server = lone(&small());
    let error = give(&mut server, of(FrameType::Reset, 1, 6_001), &[0; 4]).unwrap_err();
    assert_eq!(error, ProtocolError::CreditExceeded { what: "stream", used: 6_001, limit: 6_000 });
}

// DWCP-5.7: limits never go down, and any value is taken.
#[test]
fn credit_only_rises() {
    let mut pair = Pair::with(&small());
    let id = pair.ends[CLIENT].open_stream().unwrap();
    let client = &mut pair.ends[CLIENT];
    for (stream, offset) in [(0, 0), (id, 0), (0, 1), (id, 1)] {
        client.handle_frame(NOW, LinkId(0), &of(FrameType::Credit, stream, offset), Bytes::new()).unwrap();
        client.assert_invariants();
    }
    assert_eq!(client.stream_reserve(id, 100).unwrap().len, 100);
    for stream in [0, id] {
        client.handle_frame(NOW, LinkId(0), &of(FrameType::Credit, stream, u64::MAX), Bytes::new()).unwrap();
    }
    client.stream_reserve(id, usize::MAX).unwrap();
    client.assert_invariants();
}

// DWCP-5.5, DWCP-5.6: whatever ends early gives its credit back; many times the window goes through.
#[test]
fn no_credit_leaks() {
    let mut pair = Pair::with(&small());
    for round in 0..50 {
        let id = pair.ends[CLIENT].open_stream().unwrap();
        write_all(&mut pair, id);
        match round % 4 {
            0 => pair.ends[CLIENT].stream_reset(id, 1),
            1 => {
                pair.exchange();
                pair.ends[CLIENT].stream_reset(id, 1);
            }
            2 => {
                pair.send(CLIENT, 0);
                pair.ends[CLIENT].stream_reset(id, 1);
                pair.send(CLIENT, 0);
                pair.deliver(CLIENT, 0);
            }
            _ => {
                pair.exchange();
                pair.ends[SERVER].stream_stop(id, 2);
            }
        }
        pair.exchange();
        pair.ends[SERVER].stream_reset(id, 0);
        pair.exchange();
        for side in [CLIENT, SERVER] {
            read_all(&mut pair.ends[side], id);
        }
        pair.exchange_acks();
    }
    assert_eq!(pair.ends[SERVER].unread_bytes(), 0);
    assert_eq!([pair.ends[CLIENT].queued(), pair.ends[SERVER].queued()], [0, 0]);
}

// DWCP-6.4: one frame is stuck; the others stop in time for the receiver's bounds, and go on after it.
#[test]
fn a_stuck_frame_stops_the_rest() {
    let capabilities = Capabilities { stream_window: 1 << 20, ..capabilities() };
    let mut pair = Pair::with(&capabilities);
    pair.add_link(1);
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"s");
    pair.send(CLIENT, 0); // and there it stays
    let mut sent = 1;
    loop {
        for _ in 0..1000 {
            write(&mut pair.ends[CLIENT], id, b"s");
        }
        let count = frames(&mut pair.ends[CLIENT], 1).into_iter().map(|(header, payload)| {
            pair.ends[SERVER].handle_frame(NOW, LinkId(1), &header, payload).unwrap();
        });
        let count = count.count();
        if count == 0 {
            break;
        }
        sent += count;
        pair.send(SERVER, 1);
        pair.deliver(SERVER, 1);
    }
    assert_eq!(sent, FRAMES_IN_FLIGHT_MAX, "however many of them were acknowledged");
    assert!(!pair.ends[CLIENT].wants_transmit());
    pair.lose_link(0);
    pair.exchange();
    assert!(read_all(&mut pair.ends[SERVER], id).0.len() > FRAMES_IN_FLIGHT_MAX);
}

// DWCP-7.3: messages stop at their window, each priority at its own, and go on.
#[test]
fn message_credit() {
    let mut pair = Pair::new();
    let count_max = capabilities().message_window as usize / (32 + 1000);
    for round in 1..6 {
        for _ in 0..2 * count_max {
            pair.ends[CLIENT].message_send(NOW, Priority::Bulk, vec![0; 1000].into()).unwrap();
        }
        pair.exchange();
        let mut got = std::iter::from_fn(|| pair.ends[SERVER].message_receive()).count();
        // Credit is renewed by quarters of the window.
        assert!((count_max * 3 / 4..=count_max).contains(&got), "round {round}: {got} of {count_max}");
        pair.ends[CLIENT].message_send(NOW, Priority::Control, Bytes::new()).unwrap();
        pair.exchange();
        assert_eq!(pair.ends[SERVER].message_receive().unwrap().priority, Priority::Control);
        for _ in 0..4 {
            got += std::iter::from_fn(|| pair.ends[SERVER].message_receive()).count();
            pair.exchange();
        }
        assert_eq!(got, 2 * count_max, "round {round}, after credit");
    }
}

// DWCP-7.3: the largest messages fit into the smallest window, again and again.
#[test]
fn the_largest_message_in_the_smallest_window() {
    let mut pair = Pair::new();
    assert_eq!(pair.ends[CLIENT].message_len_max(), MESSAGE_LEN_MAX);
    let too_large = vec![0; MESSAGE_LEN_MAX + 1].into();
    assert_eq!(
        pair.ends[CLIENT].message_send(NOW, Priority::Bulk, too_large),
        Err(MessageSendError::TooLarge)
    );
    for _ in 0..20 {
        for len in [MESSAGE_LEN_MAX, 1] {
            pair.ends[CLIENT].message_send(NOW, Priority::Bulk, vec![0; len].into()).unwrap();
            pair.exchange();
            assert_eq!(pair.ends[SERVER].message_receive().unwrap().payload.len(), len);
        }
    }
    // DWCP-7.4: no message is larger than a frame.
    let pair = Pair::with(&Capabilities { frame_bytes_max: 5000, ..capabilities() });
    assert_eq!(pair.ends[CLIENT].message_len_max(), 5000);
}

// DWCP-7.8: batches cost what their messages cost, and pass through the smallest window, too.
#[test]
fn batches_of_empty_messages() {
    let mut pair = Pair::new();
    for round in 0..20 {
        let count = 10_000;
        for _ in 0..count {
            pair.ends[CLIENT].message_send(NOW, Priority::Normal, Bytes::new()).unwrap();
        }
        let mut got = 0;
        for _ in 0..10 {
            pair.exchange();
            got += std::iter::from_fn(|| pair.ends[SERVER].message_receive()).count();
        }
        assert_eq!(got, count, "round {round}");
    }
}

// DWCP-7.3
#[test]
fn exceeding_message_credit_is_an_error() {
    let mut server = lone(&capabilities());
    for sequence in 0.. {
        let result = give(&mut server, of(FrameType::Message, 0, sequence), &[0; 1000]);
        if let Err(error) = result {
            assert!(matches!(error, ProtocolError::CreditExceeded { what: "message", .. }), "{error}");
            assert_eq!(sequence, capabilities().message_window / 1032);
            break;
        }
    }
}

// DWCP-7.2: the same number again is nothing new; numbers far ahead are refused.
#[test]
fn sequence_window() {
    let mut server = lone(&capabilities());
    let far = MESSAGE_SEQUENCE_WINDOW - 1;
    for sequence in [5, 5, 0, far, 5, 0, far] {
        assert_eq!(give(&mut server, of(FrameType::Message, 0, sequence), b"m"), Ok(()));
    }
    assert_eq!(std::iter::from_fn(|| server.message_receive()).count(), 3);
    let error = give(&mut server, of(FrameType::Message, 0, far + 2), b"m").unwrap_err();
    assert!(matches!(error, ProtocolError::LimitExceeded { what: "message sequence", .. }), "{error}");
    for sequence in [u64::MAX, u64::MAX - 1, 1 << 63] {
        let mut server = lone(&capabilities());
        assert!(give(&mut server, of(FrameType::Message, 0, sequence), b"").is_err());
    }
}

// DWCP-7.2: the window goes round its bitmap many times.
#[test]
fn sequence_window_wraps() {
    let mut server = lone(&capabilities());
    for pair in 0..100_000 {
        for sequence in [2 * pair + 1, 2 * pair] {
            assert_eq!(
                server.handle_frame(NOW, LinkId(0), &of(FrameType::Message, 0, sequence), Bytes::new()),
                Ok(())
            );
            assert_eq!(
                server.handle_frame(NOW, LinkId(0), &of(FrameType::Message, 0, sequence), Bytes::new()),
                Ok(())
            );
        }
        assert_eq!(std::iter::from_fn(|| server.message_receive()).count(), 2);
    }
}

// DWCP-7.5, DWCP-7.6: requests are bounded on both sides, and cancelled ones count until they are answered.
#[test]
fn requests_are_bounded() {
    let mut pair = Pair::new();
    for round in 0..5 {
        let client = &mut pair.ends[CLIENT];
        let ids: Vec<_> = (0..REQUESTS_IN_FLIGHT_MAX)
            .map(|_| client.request_send(NOW, Priority::Bulk, 0, Bytes::new()).unwrap())
            .collect();
        ids.iter().for_each(|&id| client.request_cancel(id));
        let more = client.request_send(NOW, Priority::Bulk, 0, Bytes::new());
        assert_eq!(more, Err(MessageSendError::Blocked), "round {round}");
        pair.events(CLIENT);
        pair.exchange();
        assert!(pair.events(CLIENT).contains(&Event::MessagesWritable));
    }
    let mut server = lone(&capabilities());
    for sequence in 0..=REQUESTS_IN_FLIGHT_MAX as u64 {
        let result = give(&mut server, of(FrameType::Request, 0, sequence), &[]);
        while server.message_receive().is_some() {}
        assert_eq!(result.is_err(), sequence == REQUESTS_IN_FLIGHT_MAX as u64);
    }
    let mut server = lone(&capabilities());
    for sequence in 0..=REQUESTS_IN_FLIGHT_MAX as u64 {
        let header = FrameHeader { offset: sequence * 1000, ..FrameHeader::new(FrameType::Cancel) };
        assert_eq!(give(&mut server, header, &[]).is_err(), sequence == REQUESTS_IN_FLIGHT_MAX as u64);
    }
}

// DWCP-7.1: what is more urgent comes first, also for those who take whole batches.
#[test]
fn batches_wait_for_what_is_more_urgent() {
    let mut pair = Pair::new();
    for number in 0..100_u8 {
        pair.ends[CLIENT].message_send(NOW, Priority::Bulk, vec![number].into()).unwrap();
    }
    pair.exchange();
    pair.ends[CLIENT].message_send(NOW, Priority::Control, Bytes::from_static(b"first")).unwrap();
    pair.exchange();
    let mut got = Vec::new();
    let take = |server: &mut dwcp_proto::conn::Connection, got: &mut Vec<(Priority, Bytes)>, max| {
        server.messages_receive_batched(max, |priority, payload| got.push((priority, payload)))
    };
    let server = &mut pair.ends[SERVER];
    assert_eq!(take(server, &mut got, 100), 0);
    assert_eq!(server.message_receive().unwrap().payload, "first");
    while got.len() < 100 {
        // One by one, and in pieces.
        got.extend(server.message_receive().map(|message| (message.priority, message.payload)));
        assert!(take(server, &mut got, 7) <= 7);
    }
    assert!(
        got.iter()
            .zip(0..)
            .all(|((priority, payload), number)| *priority == Priority::Bulk && payload[..] == [number])
    );
    assert_eq!(take(server, &mut got, 7), 0);
    assert_eq!(server.message_receive(), None);
}
