use proptest::prelude::*;

use super::*;

const TAG: [u8; 4] = [0x81, 0, 0, 100];
const OUTER_TAG: [u8; 4] = [0x88, 0xa8, 0x20, 7];

fn path(tags: &[[u8; 4]]) -> LinkPath {
    LinkPath::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], tags).unwrap()
}

fn ends(of_ipv6: bool) -> (SocketAddr, SocketAddr) {
    let of = |text: &str| text.parse().unwrap();
    if of_ipv6 {
        (of("[2001:db8::1]:4000"), of("[2001:db8::2]:8889"))
    } else {
        (of("192.0.2.1:4000"), of("192.0.2.2:8889"))
    }
}

fn built(tags: &[[u8; 4]], of_ipv6: bool, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(of_ipv6);
    let mut frame = vec![0xee; HEADER_BYTES_MAX + payload.len()];
    let length = build(&mut frame, &path(tags), from, to, payload).unwrap();
    frame.truncate(length);
    frame
}

#[test]
fn every_byte_of_a_frame_is_where_it_belongs() {
    // By hand, but for the checksums.
    let expected = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
        0x0f, 0xa0, 0x22, 0xb9, 0, 13, 0, 0, b'd', b'w', b'c', b'p', b'!',
    ];
    let frame = built(&[], false, b"dwcp!");
    for range in [0..24, 26..40, 42..frame.len()] {
        assert_eq!(frame[range.clone()], expected[range]);
    }
    // By another way than the code's: all words of a header with its checksum, and of the pseudo-header, give 0xffff.
    let words = |bytes: &[u8]| {
        let mut sum = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    };
    assert_eq!(words(&frame[14..34]), 0xffff);
    let mut pseudo = frame[26..34].to_vec();
    pseudo.extend([0, 17, 0, 13]);
    pseudo.extend(&frame[34..]);
    assert_eq!(words(&pseudo), 0xffff);
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    // Some payload of two bytes makes the sum 0xffff, whose complement says that there is none.
    let field = |payload: u16| {
        let frame = built(&[], false, &payload.to_be_bytes());
        u16::from_be_bytes([frame[40], frame[41]])
    };
    assert!((0..=u16::MAX).all(|payload| field(payload) != 0));
    assert_eq!((0..=u16::MAX).filter(|&payload| field(payload) == 0xffff).count(), 1);
}

#[test]
fn any_cut_is_refused_and_padding_is_no_payload() {
    for of_ipv6 in [false, true] {
        for tags in [&[][..], &[TAG], &[OUTER_TAG, TAG]] {
            let mut frame = built(tags, of_ipv6, b"payload");
            for length in 0..frame.len() {
                assert_eq!(parse(&frame[..length]), None, "{length} of {}", frame.len());
            }
            let whole = parse(&frame).unwrap();
            assert_eq!(&frame[whole.payload.clone()], b"payload");
            frame.resize(frame.len() + 30, 0);
            assert_eq!(parse(&frame), Some(whole));
        }
    }
}

#[test]
fn what_is_not_a_whole_udp_datagram_is_refused() {
    let fix = |frame: &mut Vec<u8>| {
        frame[24..26].fill(0);
        let checksum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    };
    let ipv4 = built(&[], false, b"payload");
    for (what, at, value) in [
        ("version", 14, 0x65),
        ("header length", 14, 0x44),
        ("more fragments", 20, 0x20),
        ("offset", 21, 1),
        ("TCP", 23, 6),
        ("shorter than UDP", 17, 20 + 7),
        ("shorter than UDP says", 17, 20 + 14),
        ("longer than the frame", 17, 20 + 16),
        ("no header", 17, 19),
        ("UDP longer", 39, 16),
        ("UDP without header", 39, 7),
        ("ARP", 13, 6),
        ("a VLAN tag that is none", 12, 0x81),
    ] {
        let mut frame = ipv4.clone();
        frame[at] = value;
        fix(&mut frame);
        assert_eq!(parse(&frame), None, "{what}");
    }
    for at in 14..34 {
        let mut frame = ipv4.clone();
        frame[at] ^= 0x10;
        assert_eq!(parse(&frame), None, "the checksum covers byte {at}");
    }
    let ipv6 = built(&[], true, b"payload");
    for (what, at, value) in [
        ("version", 14, 0x40),
        ("shorter than UDP says", 19, 14),
        ("longer than the frame", 19, 16),
        ("a jumbogram", 19, 0),
        ("a fragment", 20, 44),
        ("TCP", 20, 6),
        ("an extension that ends elsewhere", 20, 0),
    ] {
        let mut frame = ipv6.clone();
        frame[at] = value;
        assert_eq!(parse(&frame), None, "{what}");
    }
    for at in [22, 38] {
        let mut frame = ipv6.clone();
        frame[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(parse(&frame), None, "an IPv4 address in IPv6");
    }
    assert_eq!(parse(&built(&[TAG, TAG], false, b"").splice(12..12, TAG).collect::<Vec<_>>()), None);
    assert!(LinkPath::new([0; 6], [0; 6], &[TAG; 3]).is_none());
}

#[test]
fn options_and_extensions_are_skipped() {
    let mut ipv4 = built(&[], false, b"payload");
    ipv4.splice(34..34, [1; 8]);
    ipv4[14] = 0x47;
    ipv4[17] += 8;
    ipv4[24..26].fill(0);
    let checksum = !fold(sum(&ipv4[14..42]));
    ipv4[24..26].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(&ipv4[parse(&ipv4).unwrap().payload], b"payload");

    for count in [1, 2, EXTENSION_HEADERS_MAX, EXTENSION_HEADERS_MAX + 1] {
        let mut ipv6 = built(&[], true, b"payload");
        for _ in 0..count {
            let next = std::mem::replace(&mut ipv6[20], 60);
            ipv6.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            ipv6[19] += 8;
        }
        let payload = parse(&ipv6).map(|parsed| ipv6[parsed.payload].to_vec());
        assert_eq!(payload, (count <= EXTENSION_HEADERS_MAX).then(|| b"payload".to_vec()), "{count}");
    }
}

#[test]
fn what_cannot_be_built_is_refused() {
    let (from, to) = ends(false);
    let mut frame = vec![0; 70_000];
    assert_eq!(build(&mut frame, &path(&[]), from, ends(true).1, b""), None, "two families");
    assert_eq!(build(&mut frame[..41], &path(&[]), from, to, b""), None, "no room");
    assert_eq!(build(&mut frame, &path(&[]), from, to, &[0; 65_508]), None, "IPv4 cannot tell");
    assert_eq!(build(&mut frame, &path(&[]), from, to, &[0; 65_507]), Some(14 + 65_535));
    let (from, to) = ends(true);
    assert_eq!(build(&mut frame, &path(&[]), from, to, &[0; 65_528]), None, "UDP cannot tell");
}

prop_compose! {
    fn address()(of_ipv6: bool, octets: [u8; 16], ports: (u16, u16), more: [u8; 16]) -> (SocketAddr, SocketAddr) {
        let of = |octets: [u8; 16], port| match of_ipv6 {
            true => SocketAddr::new(Ipv6Addr::from(octets).into(), port),
            false => SocketAddr::new(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(), port),
        };
        (of(octets, ports.0), of(more, ports.1))
    }
}

proptest! {
    #[test]
    fn what_was_built_is_found(
        (from, to) in address(),
        macs: ([u8; 6], [u8; 6]),
        tags in 0..=VLAN_TAGS_MAX,
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let path = LinkPath::new(macs.0, macs.1, &[OUTER_TAG, TAG][..tags]).unwrap();
        let mut frame = vec![0; HEADER_BYTES_MAX + payload.len()];
        let length = build(&mut frame, &path, from, to, &payload).unwrap();
        let parsed = parse(&frame[..length]).unwrap();
        prop_assert_eq!((parsed.source, parsed.destination, parsed.path), (from, to, path));
        prop_assert_eq!(parsed.path.reversed().reversed(), path);
        prop_assert_eq!(&frame[parsed.payload], &payload[..]);
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic_and_within_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        // Random bytes alone hardly get behind the first check.
        at in 0..100usize,
        of_ipv6: bool,
        tags in 0..=VLAN_TAGS_MAX,
    ) {
        let mut frame = built(&[OUTER_TAG, TAG][..tags], of_ipv6, b"payload");
        let end = frame.len().min(at + bytes.len() % 5);
        let start = at.min(end);
        frame[start..end].copy_from_slice(&bytes[..end - start]);
        for frame in [&frame[..], &bytes] {
            if let Some(parsed) = parse(frame) {
                prop_assert!(parsed.payload.start <= parsed.payload.end && parsed.payload.end <= frame.len());
            }
        }
    }
}
