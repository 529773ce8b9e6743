//! The header of datagrams: one written by hand, what is wrong with each other one, and any bytes.

use dwcp_proto::datagram::{
    DatagramError, DatagramHeader, DatagramType, HEADER_LEN, NUMBER_END, PAYLOAD_LEN_MAX, TAG_LEN,
};
use proptest::prelude::*;

const SPECIFICATION: &str = include_str!("../../../../docs/spec/datagram-1.md");

fn example() -> (DatagramHeader, Vec<u8>) {
    let header = DatagramHeader {
        ty: DatagramType::Gossip,
        key_phase: true,
        payload_len: 0x0102,
        flow: 0x1112_1314_1516_1718,
        number: 0x2122_2324_2526_2728,
    };
    let mut bytes = vec![0xda, 1, 3, 1, 0x02, 0x01, 0, 0];
    bytes.extend([
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
    ]);
    (header, bytes)
}

// DATAGRAM-1.1 and DATAGRAM-2.1
#[test]
fn a_header_lies_as_the_specification_says() {
    let (header, bytes) = example();
    assert_eq!(header.encode()[..], bytes);
    let datagram = [&bytes[..], &[7; 0x0102]].concat();
    assert_eq!(DatagramHeader::decode(&datagram), Ok((header, &[7; 0x0102][..])));
}

// Of DATAGRAM-2.2, DATAGRAM-2.3, DATAGRAM-2.4, DATAGRAM-2.5, DATAGRAM-2.6 and DATAGRAM-2.7 each: the first that is broken.
#[test]
fn what_breaks_a_clause_is_named() {
    let (_, bytes) = example();
    let with = |changes: &[(usize, u8)]| {
        let mut datagram = [&bytes[..], &[7; 0x0102]].concat();
        changes.iter().for_each(|&(at, value)| datagram[at] = value);
        DatagramHeader::decode(&datagram).map(|(header, _)| header).err()
    };
    let zero_flow: Vec<_> = (8..16).map(|at| (at, 0)).collect();
    assert_eq!(with(&[]), None);
    assert_eq!(with(&[(0, 0xd7)]), Some(DatagramError::Magic(0xd7)));
    assert_eq!(with(&[(1, 2)]), Some(DatagramError::Version(2)));
    for ty in (5..0x80).chain([0]) {
        assert_eq!(with(&[(2, ty)]), Some(DatagramError::Type(ty)));
    }
    for ty in (1..5).chain(0x80..=0xff) {
        assert_eq!(with(&[(2, ty)]), None);
        assert_eq!(DatagramType::from_wire(ty).map(DatagramType::to_wire), Some(ty));
    }
    for (at, value) in [(3, 2), (3, 0x81), (6, 1), (7, 0x80)] {
        assert_eq!(with(&[(at, value)]), Some(DatagramError::Reserved));
    }
    assert_eq!(with(&[(4, 1)]), Some(DatagramError::Length { said: 0x0101, found: 0x0102 }));
    assert_eq!(with(&zero_flow), Some(DatagramError::Flow));
    assert_eq!(with(&[(23, 0x40)]), Some(DatagramError::Number(0x4022_2324_2526_2728)));
    assert!(NUMBER_END == 1 << 62 && SPECIFICATION.contains("below 2^62"));
}

// DATAGRAM-2.5
#[test]
fn payloads_are_bounded_on_both_sides() {
    let bounds = format!("Length is {TAG_LEN} to {PAYLOAD_LEN_MAX} ");
    assert!(SPECIFICATION.contains(&bounds), "the specification says: {bounds}");
    for (payload_len, taken) in [
        (0, false),
        (TAG_LEN - 1, false),
        (TAG_LEN, true),
        (PAYLOAD_LEN_MAX, true),
        (PAYLOAD_LEN_MAX + 1, false),
    ] {
        let header = DatagramHeader { payload_len: payload_len as u16, ..example().0 };
        let datagram = [&header.encode()[..], &vec![0; payload_len]].concat();
        assert_eq!(DatagramHeader::decode(&datagram).is_ok(), taken, "{payload_len}");
    }
}

proptest! {
    // DATAGRAM-1.2: bytes of anybody are an error at worst, and what is taken is written the same.
    #[test]
    fn any_bytes_are_refused_or_come_back(mut bytes in prop::collection::vec(any::<u8>(), 0..80), valid in any::<bool>()) {
        if let (true, Some((head, rest))) = (valid, bytes.split_first_chunk_mut::<8>()) {
            *head = [0xda, 1, 1, 0, 0, 0, 0, 0];
            head[4] = (rest.len() + head.len()).saturating_sub(HEADER_LEN) as u8;
        }
        if let Ok((header, payload)) = DatagramHeader::decode(&bytes) {
            prop_assert_eq!([&header.encode()[..], payload].concat(), bytes);
        }
    }
}
