//! The header and the parser: tables of right and wrong, and properties for any cut (DWCP-3).

use bytes::Bytes;
use dwcp_proto::{
    CloseCode, Located, ProtocolError, Rest,
    conn::{Segment, TxBatch},
    frame::{Codec, Decoded, Flags, FrameHeader, FrameType, HEADER_LEN},
    parse,
};
use proptest::prelude::*;

const MAX: u32 = 1 << 20;

fn seal(mut bytes: [u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn example() -> FrameHeader {
    FrameHeader {
        flags: Flags::default().with_codec(Codec::Zstd).with_payload_crc(true),
        stream: 0x0102_0304,
        wire_len: 0x1000,
        raw_len: 0x2000,
        offset: 0x1122_3344_5566_7788,
        payload_crc: 0xaabb_ccdd,
        ..FrameHeader::new(FrameType::Data)
    }
}

// DWCP-1.2, DWCP-3.1: bytes that another implementation can be held against.
#[test]
fn golden_header() {
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926, "CRC-32/ISO-HDLC");
    let mut expected = *b"\xd7\x01\x02\x0a\x04\x03\x02\x01\x00\x10\x00\x00\x00\x20\x00\x00\
                          \x88\x77\x66\x55\x44\x33\x22\x11\xdd\xcc\xbb\xaa....";
    expected = seal(expected);
    assert_eq!(example().encode(), expected);
    assert_eq!(expected[28..], 0xd10d_e5d4_u32.to_le_bytes());
    assert_eq!(FrameHeader::decode(&expected, MAX), Ok(Decoded::Frame(example())));
}

// DWCP-3.3: no single flipped bit gets through, nor do two.
#[test]
fn every_flipped_bit_is_found() {
    let good = example().encode();
    for first in 0..HEADER_LEN * 8 {
        let mut bytes = good;
        bytes[first / 8] ^= 1 << (first % 8);
        let error = FrameHeader::decode(&bytes, MAX).expect_err("a flipped bit");
        let expected = match first / 8 {
            0 => matches!(error, ProtocolError::BadMagic(_)),
            1 => matches!(error, ProtocolError::VersionMismatch { .. }),
            _ => matches!(error, ProtocolError::HeaderChecksum { .. }),
        };
        assert!(expected, "bit {first}: {error}");
        for second in first + 1..HEADER_LEN * 8 {
            let mut bytes = bytes;
            bytes[second / 8] ^= 1 << (second % 8);
            assert!(FrameHeader::decode(&bytes, MAX).is_err(), "bits {first} and {second}");
        }
    }
}

// DWCP-3.2: another version is seen before the checksum, wherever that version puts it.
#[test]
fn other_versions_are_refused() {
    for version in (0..=255).filter(|&version| version != 1) {
        let mut bytes = example().encode();
        bytes[1] = version;
        let error = FrameHeader::decode(&bytes, MAX).expect_err("another version");
        assert_eq!(error, ProtocolError::VersionMismatch { theirs: version, ours: 1 });
        assert_eq!(error.close_code(), CloseCode::VERSION_UNSUPPORTED);
    }
}

// DWCP-3.4: every value of the type byte.
#[test]
fn types_are_known_optional_or_mandatory() {
    for value in 0..=255_u8 {
        let mut bytes = FrameHeader::new(FrameType::Ping).encode();
        bytes[2] = value;
        bytes[8..12].copy_from_slice(&77_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&77_u32.to_le_bytes());
        let decoded = FrameHeader::decode(&seal(bytes), MAX);
        match value {
            0x01..=0x13 => {
                let ty = FrameType::from_wire(value).expect("assigned");
                assert_eq!(ty as u8, value);
                let expected = FrameHeader { wire_len: 77, raw_len: 77, ..FrameHeader::new(ty) };
                assert_eq!(decoded, Ok(Decoded::Frame(expected)));
            }
            0x80.. => assert_eq!(decoded, Ok(Decoded::Skip(77))),
            _ => {
                let error = decoded.expect_err("mandatory");
                assert_eq!(error, ProtocolError::UnknownMandatory(value));
                assert_eq!(error.close_code(), CloseCode::UNKNOWN_FRAME);
            }
        }
    }
}

// DWCP-3.5, DWCP-3.6, DWCP-3.7: what a header with a right checksum may not say.
#[test]
fn malformed_headers() {
    let data = FrameHeader::new(FrameType::Data);
    let coded = |wire_len, raw_len| FrameHeader {
        flags: Flags::default().with_codec(Codec::Lz4),
        wire_len,
        raw_len,
        ..data
    };
    let ok = [
        coded(1, 128),
        coded(MAX - 1, MAX),
        FrameHeader { wire_len: MAX, raw_len: MAX, ..data },
        FrameHeader { wire_len: 1, raw_len: 1, offset: u64::MAX - 1, ..data },
    ];
    for header in ok {
        assert_eq!(FrameHeader::decode(&header.encode(), MAX), Ok(Decoded::Frame(header)));
    }
    let too_large = [
        FrameHeader { wire_len: MAX + 1, raw_len: MAX + 1, ..data },
        FrameHeader { wire_len: u32::MAX, raw_len: u32::MAX, ..data },
        coded(MAX, MAX + 1),
        coded(17, u32::MAX),
    ];
    for header in too_large {
        let error = FrameHeader::decode(&header.encode(), MAX).expect_err("too large");
        assert!(matches!(error, ProtocolError::FrameTooLarge { max: MAX, .. }), "{header:?}: {error}");
        assert_eq!(error.close_code(), CloseCode::FRAME_TOO_LARGE);
    }
    let invalid = [
        ("lengths differ", FrameHeader { wire_len: 1, raw_len: 2, ..data }),
        ("codec on a short payload", coded(1, 127)),
        ("codec that does not shorten", coded(600, 600)),
        ("codec that lengthens", coded(601, 600)),
        ("codec and nothing on the wire", coded(0, 600)),
        ("codec on a message", FrameHeader { ty: FrameType::Message, ..coded(100, 600) }),
        (
            "FIN on a message",
            FrameHeader { flags: Flags::default().with_fin(true), ..FrameHeader::new(FrameType::Message) },
        ),
        ("offset overflows", FrameHeader { wire_len: 2, raw_len: 2, offset: u64::MAX - 1, ..data }),
    ];
    for (what, header) in invalid {
        let error = FrameHeader::decode(&header.encode(), MAX).expect_err(what);
        assert!(matches!(error, ProtocolError::Invalid { .. }), "{what}: {error}");
    }
    for flags in [0x06, 0x40, 0x80] {
        let mut bytes = FrameHeader { wire_len: 600, raw_len: 600, ..data }.encode();
        bytes[3] = flags;
        let error = FrameHeader::decode(&seal(bytes), MAX).expect_err("reserved");
        assert!(matches!(error, ProtocolError::Invalid { .. }), "flags {flags:#x}: {error}");
    }
}

// DWCP-3.4, DWCP-3.6: 4 GiB in a frame to skip is not believed either.
#[test]
fn a_frame_to_skip_is_bounded() {
    let mut bytes = FrameHeader::new(FrameType::Ping).encode();
    bytes[2] = 0xfe;
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = FrameHeader::decode(&seal(bytes), MAX).expect_err("4 GiB");
    assert_eq!(error.close_code(), CloseCode::FRAME_TOO_LARGE);
}

// DWCP-3.8
#[test]
fn payload_checksum() {
    let payload = b"payload";
    let header = FrameHeader {
        flags: Flags::default().with_payload_crc(true),
        wire_len: 7,
        raw_len: 7,
        payload_crc: crc32fast::hash(payload),
        ..FrameHeader::new(FrameType::Data)
    };
    assert_eq!(header.check_payload(payload), Ok(()));
    for bit in 0..payload.len() * 8 {
        let mut damaged = *payload;
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = header.check_payload(&damaged).expect_err("a flipped bit");
        assert_eq!(error.close_code(), CloseCode::CHECKSUM_MISMATCH);
    }
    let unprotected = FrameHeader { flags: Flags::default(), ..header };
    assert_eq!(unprotected.check_payload(b"anything"), Ok(()));
}

fn any_frame() -> impl Strategy<Value = (FrameHeader, Bytes)> {
    let ty = prop::sample::select(FrameType::ALL.to_vec());
    let payload = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..80),
        1 => prop::collection::vec(any::<u8>(), 1000..3000),
    ];
    let fields = (any::<u32>(), any::<u32>(), 0..4_u8, any::<bool>(), any::<bool>(), any::<bool>());
    (ty, payload, fields).prop_map(|(ty, payload, (stream, offset, priority, crc, fin, codec))| {
        let len = payload.len() as u32;
        let data = ty == FrameType::Data;
        let coded = data && codec && len > 0;
        let header = FrameHeader {
            ty,
            flags: Flags::default()
                .with_priority(priority)
                .with_payload_crc(crc)
                .with_fin(fin && data)
                .with_codec(if coded { Codec::Lz4 } else { Codec::Identity }),
            stream,
            wire_len: len,
            raw_len: if coded { len + 600 } else { len },
            offset: u64::from(offset) << 20,
            payload_crc: if crc { crc32fast::hash(&payload) } else { 0 },
        };
        (header, payload.into())
    })
}

/// What a driver does: keeps what is not consumed, skips what is to be skipped.
fn parse_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Vec<(FrameHeader, Vec<u8>)>, ProtocolError> {
    let (mut buffer, mut skip, mut out) = (Vec::new(), 0, Vec::new());
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((*cuts.next().expect("not empty")).min(rest.len()));
        rest = later;
        buffer.extend_from_slice(piece);
        let skipped = skip.min(buffer.len());
        buffer.drain(..skipped);
        skip -= skipped;
        let mut located: Vec<Located> = Vec::new();
        let parsed = parse(&buffer, MAX, &mut located)?;
        out.extend(located.into_iter().map(|frame| (frame.header, buffer[frame.payload].to_vec())));
        match parsed.rest {
            Rest::Header => assert!(buffer.len() - parsed.consumed < HEADER_LEN),
            Rest::Payload(header) => {
                assert!(buffer.len() - parsed.consumed < HEADER_LEN + header.wire_len as usize);
            }
            Rest::Skip(len) => {
                assert!(len > 0 && parsed.consumed == buffer.len());
                skip = len;
            }
        }
        buffer.drain(..parsed.consumed);
    }
    assert_eq!((buffer.len(), skip), (0, 0), "nothing is left over");
    Ok(out)
}

proptest! {
    // DWCP-3.1
    #[test]
    fn headers_round_trip((header, _) in any_frame()) {
        prop_assert_eq!(FrameHeader::decode(&header.encode(), MAX), Ok(Decoded::Frame(header)));
    }

    // DWCP-3.1, DWCP-3.4: frames come out as they went in, however the bytes are cut and whatever is in between.
    #[test]
    fn frames_survive_any_cut(
        frames in prop::collection::vec((any_frame(), any::<bool>()), 1..20),
        cuts in prop::collection::vec(1..4000_usize, 1..20),
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        let mut batch = TxBatch::default();
        for ((header, payload), skipped) in frames {
            if skipped {
                let mut unknown = FrameHeader { flags: Flags::default(), ..header }.encode();
                unknown[2] = 0x80 | header.ty as u8;
                bytes.extend_from_slice(&seal(unknown));
                bytes.extend_from_slice(&payload);
                continue;
            }
            batch.clear();
            batch.push(&header, &payload);
            for segment in &batch.segments {
                match segment {
                    Segment::Inline(range) => bytes.extend_from_slice(&batch.inline[range.clone()]),
                    Segment::Payload(payload) => bytes.extend_from_slice(payload),
                }
            }
            expected.push((header, payload.to_vec()));
        }
        prop_assert_eq!(parse_in_pieces(&bytes, &cuts), Ok(expected));
    }

    // DWCP-3.3: bytes that are no frames are an error or wait for more; never a panic.
    #[test]
    fn anything_else_is_refused(bytes in prop::collection::vec(any::<u8>(), 32..200)) {
        let mut frames = Vec::new();
        prop_assert!(parse(&bytes, MAX, &mut frames).is_err());
        prop_assert!(frames.is_empty());
    }
}
