//! A peer that breaks the rules: a typed error and a CLOSE, never a panic, and no more memory than the bounds say.

use crate::support::{NOW, capabilities, data, events, frames, give, lone, of};
use bytes::Bytes;
use dwcp_proto::{
    CloseCode, ProtocolError,
    conn::{Closed, Event, LinkId},
    frame::{Codec, Flags, FrameHeader, FrameType},
    hello::Capabilities,
    limits::{FRAMES_OUT_OF_ORDER_MAX, MESSAGE_LEN_MAX, MESSAGES_SHARING_BUFFERS_MAX},
};

// DWCP-1.3, DWCP-4.1: single frames that are wrong at any time end the connection with the code of their clause.
#[test]
fn wrong_frames() {
    let priority = |ty| FrameHeader { flags: Flags::default().with_priority(3), ..FrameHeader::new(ty) };
    let lz4 = FrameHeader { flags: Flags::default().with_codec(Codec::Lz4), raw_len: 600, ..data(1, 0) };
    let long = vec![0; MESSAGE_LEN_MAX + 1];
    let frames: [(&str, FrameHeader, &[u8], CloseCode); 25] = [
        ("HELLO again", of(FrameType::Hello, 0, 0), b"", CloseCode::PROTOCOL_ERROR),
        ("data on stream 0", data(0, 0), b"x", CloseCode::PROTOCOL_ERROR),
        ("data on a stream never opened here", data(2, 0), b"x", CloseCode::PROTOCOL_ERROR),
        ("data on the last id", data(u32::MAX, 0), b"x", CloseCode::PROTOCOL_ERROR),
        ("more streams than allowed", data(201, 0), b"x", CloseCode::LIMIT_EXCEEDED),
        ("empty data", data(1, 0), b"", CloseCode::PROTOCOL_ERROR),
        ("data far away", data(1, u64::MAX - 10), b"x", CloseCode::CREDIT_EXCEEDED),
        ("a codec that was not offered", lz4, &[0; 100], CloseCode::PROTOCOL_ERROR),
        ("a message without priority", priority(FrameType::Message), b"x", CloseCode::PROTOCOL_ERROR),
        ("a request without priority", priority(FrameType::Request), b"x", CloseCode::PROTOCOL_ERROR),
        ("an answer without priority", priority(FrameType::Response), b"x", CloseCode::PROTOCOL_ERROR),
        ("a cancellation without priority", priority(FrameType::Cancel), b"", CloseCode::PROTOCOL_ERROR),
        ("credit without priority", priority(FrameType::MessageCredit), b"", CloseCode::PROTOCOL_ERROR),
        ("a long message", of(FrameType::Message, 0, 0), &long, CloseCode::PROTOCOL_ERROR),
        ("a long answer", of(FrameType::Response, 0, 0), &long, CloseCode::PROTOCOL_ERROR),
        ("an answer of no kind", of(FrameType::Response, 3, 0), b"", CloseCode::PROTOCOL_ERROR),
        ("a message far ahead", of(FrameType::Message, 0, u64::MAX), b"", CloseCode::LIMIT_EXCEEDED),
        ("credit for stream 2", of(FrameType::Credit, 2, 9), b"", CloseCode::PROTOCOL_ERROR),
        ("credit for too many streams", of(FrameType::Credit, 9001, 9), b"", CloseCode::LIMIT_EXCEEDED),
        ("an acknowledgement of nothing", of(FrameType::LinkAck, 0, 1), b"", CloseCode::PROTOCOL_ERROR),
        ("a reset without code", of(FrameType::Reset, 1, 0), b"abc", CloseCode::PROTOCOL_ERROR),
        ("a reset far away", of(FrameType::Reset, 1, u64::MAX), b"code", CloseCode::CREDIT_EXCEEDED),
        ("a stop without code", of(FrameType::Stop, 1, 0), b"", CloseCode::PROTOCOL_ERROR),
        ("a close without code", of(FrameType::Close, 0, 0), b"no", CloseCode::PROTOCOL_ERROR),
        ("a drain of no kind", of(FrameType::Drain, 2, 0), b"", CloseCode::PROTOCOL_ERROR),
    ];
    let capabilities = Capabilities { codecs: 0b011, frame_bytes_max: 1 << 20, ..capabilities() };
    for (what, header, payload, code) in frames {
        let mut server = lone(&capabilities);
        let error = give(&mut server, header, payload).expect_err(what);
        assert_eq!(error.close_code(), code, "{what}: {error}");
        assert_eq!(server.closed(), Some(&Closed::Protocol(error)));
        // DWCP-8.1: the peer is told.
        let sent = crate::support::frames(&mut server, 0);
        let (close, text) = sent.last().expect(what);
        assert_eq!((close.ty, &text[..4]), (FrameType::Close, &code.0.to_le_bytes()[..]), "{what}");
        assert_eq!(give(&mut server, data(1, 0), b"x"), Ok(()), "what comes after the end does nothing");
    }
}

// DWCP-5, DWCP-6: frames with extreme fields that are not wrong.
#[test]
fn extreme_frames() {
    let frames = [
        of(FrameType::Ping, u32::MAX, u64::MAX),
        of(FrameType::Pong, u32::MAX, u64::MAX),
        of(FrameType::Pong, 0, 0),
        of(FrameType::Credit, 0, u64::MAX),
        of(FrameType::Credit, 1, u64::MAX),
        of(FrameType::MessageCredit, 0, u64::MAX),
        of(FrameType::StreamsMax, u32::MAX, 0),
        of(FrameType::LinkAck, 0, 0),
        of(FrameType::LinkAck, 77, u64::MAX),
        of(FrameType::LinkLost, 0, 0),
        of(FrameType::LinkLost, u32::MAX, 0),
        of(FrameType::LinksWanted, u32::MAX, 0),
        of(FrameType::Response, 2, u64::MAX),
        of(FrameType::Cancel, 0, u64::MAX),
    ];
    let mut server = lone(&capabilities());
    for header in frames.into_iter().chain(frames) {
        assert_eq!(give(&mut server, header, &[]), Ok(()), "{header:?}");
    }
    assert!(server.active_links().eq([LinkId(0)]), "a link cannot be declared lost on itself");
}

// DWCP-3.8: where checksums are negotiated, every payload has one.
#[test]
fn a_missing_checksum() {
    let capabilities = Capabilities { payload_crc: true, ..capabilities() };
    let error = give(&mut lone(&capabilities), data(1, 0), b"x").unwrap_err();
    assert!(matches!(error, ProtocolError::Invalid { ty: FrameType::Data, .. }));
}

// DWCP-6.6
#[test]
fn data_after_retire() {
    let mut server = lone(&capabilities());
    assert_eq!(give(&mut server, of(FrameType::LinkRetire, 0, 0), &[]), Ok(()));
    let error = give(&mut server, data(1, 0), b"x").unwrap_err();
    assert!(matches!(error, ProtocolError::Unexpected { ty: FrameType::Data, .. }));
}

// DWCP-9.1: holes in streams are bounded in number, beside credit.
#[test]
fn frames_out_of_order_are_bounded() {
    let capabilities = Capabilities { stream_window: 1 << 20, connection_window: 1 << 30, ..capabilities() };
    let mut server = lone(&capabilities);
    let mut count = 0;
    let error = loop {
        let header = FrameHeader { wire_len: 1, raw_len: 1, ..data(1, 2 * count + 1) };
        match server.handle_frame(NOW, LinkId(0), &header, Bytes::from_static(b"x")) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(count, FRAMES_OUT_OF_ORDER_MAX as u64);
    assert_eq!(error.close_code(), CloseCode::LIMIT_EXCEEDED);
}

// DWCP-9.2: small payloads that wait do not keep the buffers alive in which they came.
#[test]
fn waiting_payloads_do_not_pin_buffers() {
    let mut server = lone(&Capabilities { stream_window: 1 << 20, ..capabilities() });
    let buffers: Vec<Bytes> = (0..3000).map(|_| Bytes::from(vec![0; 4000])).collect();
    for (at, buffer) in (0..).zip(&buffers) {
        let number = at / 3;
        let one_byte = |header| FrameHeader { wire_len: 1, raw_len: 1, ..header };
        let header = match at % 3 {
            0 => one_byte(data(1, number)),
            1 => FrameHeader {
                flags: Flags::default().with_codec(Codec::Lz4),
                raw_len: 512,
                ..one_byte(data(3, number * 512))
            },
            _ => one_byte(of(FrameType::Message, 0, number)),
        };
        server.handle_frame(NOW, LinkId(0), &header, buffer.slice(..1)).unwrap();
    }
    let pinned = buffers.into_iter().filter(|buffer| !buffer.is_unique()).count();
    // The first of each stream, and the messages of a reader that is not far behind.
    assert!(pinned <= 2 + MESSAGES_SHARING_BUFFERS_MAX, "{pinned} of 3000 buffers are kept alive");
}

// DWCP-7.8: batches whose lengths do not add up.
#[test]
fn malformed_batches() {
    let batch = |count| of(FrameType::Message, count, 0);
    let refused: [(&str, u32, &[u8]); 6] = [
        ("no length", 1, b""),
        ("half a length", 1, b"\x01\0"),
        ("shorter than its length", 1, b"\x02\0\0\0x"),
        ("longer than its length", 1, b"\x01\0\0\0xy"),
        ("a length of 4 GiB", 1, b"\xff\xff\xff\xff"),
        ("more messages than there is room for", u32::MAX, b"\0\0\0\0"),
    ];
    for (what, count, payload) in refused {
        let error = give(&mut lone(&capabilities()), batch(count), payload).expect_err(what);
        assert!(matches!(error, ProtocolError::Invalid { ty: FrameType::Message, .. }), "{what}: {error}");
    }
    let mut server = lone(&capabilities());
    assert_eq!(give(&mut server, batch(3), b"\x01\0\0\0x\0\0\0\0\x02\0\0\0yz"), Ok(()));
    let payloads: Vec<_> = std::iter::from_fn(|| server.message_receive()).map(|m| m.payload).collect();
    assert_eq!(payloads, ["x", "", "yz"]);
}

// DWCP-4.6, DWCP-6.3: frames on a link that was given up, or never was, do nothing; no number is used twice.
#[test]
fn unknown_links() {
    let mut server = lone(&capabilities());
    server.handle_frame(NOW, LinkId(9), &data(0, 0), Bytes::from_static(b"x")).unwrap();
    server.link_lost(NOW, LinkId(9));
    assert!(!server.link_added(NOW, LinkId(0)), "its number is in use");
    assert_eq!(events(&mut server), []);
    assert!(frames(&mut server, 9).is_empty());
}

// DWCP-6.7: a clock that goes back is no time at all.
#[test]
fn a_clock_that_jumps() {
    let mut server = lone(&capabilities());
    for seconds in [1000, 0, 1001, 1, u64::MAX / 2, 3] {
        let now = std::time::Duration::from_secs(seconds);
        let header = FrameHeader { wire_len: 1, raw_len: 1, ..of(FrameType::Message, 0, seconds % 7) };
        server.handle_frame(now, LinkId(0), &header, Bytes::from_static(b"x")).unwrap();
        server.link_heard(now, LinkId(0));
        server.handle_timeout(now);
        let _ = server.poll_timeout();
        server.assert_invariants();
    }
    assert!(!events(&mut server).contains(&Event::Closed));
}
