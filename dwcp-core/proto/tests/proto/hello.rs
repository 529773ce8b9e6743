//! The HELLO payload: round trips, truncations, bounds (DWCP-4).

use dwcp_proto::{
    frame::Codec,
    hello::{Capabilities, ConnectionId, HELLO_LEN_MAX, Hello, JoinToken},
};
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        minor: 3,
        link: 7,
        connection: ConnectionId([0xc1; 16]),
        token: JoinToken([0x70; 16]),
        capabilities: Capabilities { region: "eu".into(), ..crate::support::capabilities() },
        rdma: Vec::new(),
        datagram_port: 0,
    }
}

/// Appends an item to a HELLO.
fn with_item(ty: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = hello().encode();
    bytes.extend_from_slice(&ty.to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

// DWCP-1.1, DWCP-4.2
#[test]
fn golden_fixed_part() {
    let bytes = hello().encode();
    assert_eq!(bytes[..8], *b"\x89DWCP\r\n\x1a");
    assert_eq!(bytes[8..16], [3, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(bytes[16..32], [0xc1; 16]);
    assert_eq!(bytes[32..48], [0x70; 16]);
    assert_eq!(bytes[48..56], *b"\x01\x00\x04\x00node");
    let mut reserved = bytes;
    reserved[10..12].fill(0xff);
    assert_eq!(Hello::decode(&reserved), Ok(hello()), "reserved fields are ignored");
}

// DWCP-4.2, DWCP-4.3: a HELLO that is cut off anywhere is refused, or lacks items and says nothing wrong.
#[test]
fn every_truncation() {
    let bytes = hello().encode();
    let mut boundaries = 0;
    for len in 0..bytes.len() {
        if let Ok(short) = Hello::decode(&bytes[..len]) {
            boundaries += 1;
            assert_eq!((short.link, short.connection), (7, ConnectionId([0xc1; 16])));
        }
    }
    // After MESSAGE_WINDOW every mandatory item is there; three optional ones follow.
    assert_eq!(boundaries, 3);
    let mut long = bytes;
    long.resize(HELLO_LEN_MAX + 1, 0);
    assert!(Hello::decode(&long).is_err());
}

// DWCP-4.3
#[test]
fn unknown_items() {
    assert_eq!(Hello::decode(&with_item(0x8000 | 99, b"from the future")), Ok(hello()));
    assert!(Hello::decode(&with_item(99, b"")).is_err());
    assert!(Hello::decode(&with_item(0, b"")).is_err());
}

// DATAGRAM-4.1: older peers skip the item, and one that is absent is 0.
#[test]
fn a_port_for_datagrams() {
    let with_port = Hello { datagram_port: 8889, ..hello() };
    assert_eq!(with_port.encode(), with_item(0x800e, &[0xb9, 0x22]));
    assert_eq!(Hello::decode(&with_item(0x800e, &[0, 0])), Ok(hello()));
    assert!(Hello::decode(&with_item(0x800e, &[1])).is_err());
}

// DWCP-4.3: bounds of every item.
#[test]
fn bounds() {
    let refused: [(&str, u16, Vec<u8>); 16] = [
        ("empty node id", 1, vec![]),
        ("long node id", 1, vec![b'n'; 256]),
        ("node id that is no UTF-8", 1, vec![0xff]),
        ("long region", 2, vec![b'r'; 256]),
        ("short codecs", 3, vec![1]),
        ("half a dictionary", 4, vec![0; 33]),
        ("too many dictionaries", 4, vec![0; 17 * 32]),
        ("no links", 5, vec![0, 0]),
        ("small frames", 6, 4095_u32.to_le_bytes().into()),
        ("large frames", 6, ((4 << 20) + 1_u32).to_le_bytes().into()),
        ("small connection window", 7, 4095_u64.to_le_bytes().into()),
        ("small stream window", 8, 4095_u64.to_le_bytes().into()),
        ("small message window", 9, ((128 << 10) - 1_u64).to_le_bytes().into()),
        ("long message window", 9, vec![0; 9]),
        ("short streams", 10, vec![1, 0]),
        ("no checksum byte", 11, vec![]),
    ];
    for (what, ty, value) in refused {
        assert!(Hello::decode(&with_item(ty, &value)).is_err(), "{what}");
    }
    let taken: [(u16, Vec<u8>); 5] = [
        (1, vec![b'n'; 255]),
        (4, vec![0; 16 * 32]),
        (6, (4_u32 << 20).to_le_bytes().into()),
        (7, u64::MAX.to_le_bytes().into()),
        (10, 0_u32.to_le_bytes().into()),
    ];
    for (ty, value) in taken {
        assert!(Hello::decode(&with_item(ty, &value)).is_ok(), "item {ty}");
    }
}

// DWCP-4.4: identity is decoded by everyone, whatever the bits say.
#[test]
fn identity_is_always_there() {
    let none = Capabilities { codecs: 0, ..crate::support::capabilities() };
    assert!(none.decodes(Codec::Identity) && !none.decodes(Codec::Zstd) && !none.decodes(Codec::Lz4));
}

// DWCP-10.2: tokens do not end up in logs, and are compared as a whole.
#[test]
fn tokens() {
    assert_eq!(format!("{:?}", hello().token), "JoinToken(..)");
    assert!(JoinToken([1; 16]).matches(&JoinToken([1; 16])));
    for at in 0..16 {
        let mut other = [1; 16];
        other[at] = 2;
        assert!(!JoinToken([1; 16]).matches(&JoinToken(other)));
    }
}

prop_compose! {
    fn any_hello()(
        (minor, link, connection, token) in any::<(u16, u32, [u8; 16], [u8; 16])>(),
        (node_id, region) in ("\\PC{1,60}", "\\PC{0,60}"),
        (codecs, links_max, streams_max, payload_crc, resume_timeout_ms) in (any::<u32>(), 1_u16.., any::<u32>(), any::<bool>(), any::<u32>()),
        dictionaries in prop::collection::vec(any::<[u8; 32]>(), 0..=16),
        frame_bytes_max in 4096..=4_194_304_u32,
        windows in (4096_u64.., 4096_u64.., 131_072_u64..),
        rdma in prop::collection::vec(any::<u8>(), 0..=64),
        datagram_port in any::<u16>(),
    ) -> Hello {
        let (connection_window, stream_window, message_window) = windows;
        Hello {
            minor, link, connection: ConnectionId(connection), token: JoinToken(token),
            capabilities: Capabilities {
                node_id, region, codecs, dictionaries, links_max, frame_bytes_max, connection_window,
                stream_window, message_window, streams_max, payload_crc, resume_timeout_ms,
            },
            rdma,
            datagram_port,
        }
    }
}

proptest! {
    // DWCP-4.2
    #[test]
    fn round_trip(hello in any_hello()) {
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    // DWCP-4.3: damage never panics, and what is accepted is within bounds.
    #[test]
    fn damage(hello in any_hello(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = hello.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = Hello::decode(&bytes) {
            prop_assert_eq!(Hello::decode(&decoded.encode()), Ok(decoded));
        }
    }
}
