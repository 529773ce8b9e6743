//! The oracle: segment a frame all the way down to finished wire packets, with checksums computed from scratch. A
//! frame cut into pieces must segment to the same wire packets as the frame itself.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Sample {
    ipv6: bool,
    udp: bool,
    /// IPv4 or TCP options, in 32-bit words.
    ip_options: usize,
    tcp_options: usize,
    segment_len: usize,
    payload: Vec<u8>,
    tcp_flags: u8,
    sequence: u32,
    identification: u16,
}

impl Sample {
    fn transport(&self) -> usize {
        if self.ipv6 { 40 } else { 20 + 4 * self.ip_options }
    }

    fn transport_len(&self) -> usize {
        if self.udp { 8 } else { 20 + 4 * self.tcp_options }
    }

    /// The frame as the kernel would hand it out.
    fn frame(&self) -> Vec<u8> {
        let (transport, headers) = (self.transport(), self.transport() + self.transport_len());
        let protocol = if self.udp { 17 } else { 6 };
        let mut ip = vec![0; headers];
        let total = headers + self.payload.len();
        if self.ipv6 {
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
            ip[6] = protocol;
            ip[8..40].copy_from_slice(&std::array::from_fn::<u8, 32, _>(|i| 0x20 + 3 * i as u8));
        } else {
            ip[0] = 0x40 | (5 + self.ip_options) as u8;
            ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&self.identification.to_be_bytes());
            ip[9] = protocol;
            ip[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
            ip[20..transport].fill(1);
            let checksum = !fold(sum(&ip[..transport]));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        ip[transport..transport + 4].copy_from_slice(&[0x12, 0x34, 0x14, 0x51]);
        if self.udp {
            let length = (8 + self.payload.len()) as u16;
            ip[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
        } else {
            ip[transport + 4..transport + 8].copy_from_slice(&self.sequence.to_be_bytes());
            ip[transport + 12] = ((5 + self.tcp_options) << 4) as u8;
            ip[transport + 13] = self.tcp_flags;
            ip[transport + 20..].fill(1);
        }
        let length = (total - transport) as u16;
        let field = transport + if self.udp { 6 } else { 16 };
        let pseudo = fold(pseudo_sum(&ip, self.ipv6, protocol, length));
        ip[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        ip.extend_from_slice(&self.payload);

        let gso_type = match (self.udp, self.ipv6) {
            (true, _) => 5,
            (false, false) => 1,
            (false, true) => 4,
        };
        let mut frame = vec![1, gso_type, 0, 0];
        frame.extend_from_slice(&(self.segment_len as u16).to_le_bytes());
        frame.extend_from_slice(&(transport as u16).to_le_bytes());
        frame.extend_from_slice(&((field - transport) as u16).to_le_bytes());
        frame.extend_from_slice(&ip);
        frame
    }
}

fn pseudo_sum(ip: &[u8], ipv6: bool, protocol: u8, length: u16) -> u64 {
    let addresses = if ipv6 { &ip[8..40] } else { &ip[12..20] };
    sum(addresses) + u64::from(protocol) + u64::from(length)
}

/// Finished wire packets of a frame.
fn wire_packets(frame: &[u8]) -> Vec<Vec<u8>> {
    let ip = &frame[10..];
    let ipv6 = ip[0] >> 4 == 6;
    let transport = u16::from_le_bytes([frame[6], frame[7]]) as usize;
    let field = transport + u16::from_le_bytes([frame[8], frame[9]]) as usize;
    let udp = field == transport + 6;
    let headers = transport + if udp { 8 } else { usize::from(ip[transport + 12] >> 4) * 4 };
    let segment_len = match frame[1] & 0x7f {
        0 => ip.len() - headers,
        _ => u16::from_le_bytes([frame[4], frame[5]]) as usize,
    };
    assert_frame_is_consistent(ip, ipv6, transport, udp);
    let chunks: Vec<&[u8]> = ip[headers..].chunks(segment_len).collect();
    let mut packets = vec![];
    for (i, chunk) in chunks.iter().enumerate() {
        let mut p = [&ip[..headers], chunk].concat();
        let len = p.len();
        if ipv6 {
            p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        } else {
            p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([p[4], p[5]]).wrapping_add(i as u16);
            p[4..6].copy_from_slice(&id.to_be_bytes());
            p[10..12].fill(0);
            let checksum = !fold(sum(&p[..transport]));
            p[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        if udp {
            p[transport + 4..transport + 6].copy_from_slice(&((len - transport) as u16).to_be_bytes());
        } else {
            let sequence = u32::from_be_bytes(p[transport + 4..transport + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((i * segment_len) as u32);
            p[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
            if i > 0 {
                p[transport + 13] &= !TCP_CWR;
            }
            if i + 1 < chunks.len() {
                p[transport + 13] &= !(TCP_FIN | TCP_PSH);
            }
        }
        p[field..field + 2].fill(0);
        let pseudo = pseudo_sum(&p, ipv6, if udp { 17 } else { 6 }, (len - transport) as u16);
        let checksum = !fold(pseudo + sum(&p[transport..]));
        p[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        packets.push(p);
    }
    packets
}

/// Lengths agree, the IPv4 header sums to zero, and finishing the partial checksum gives a valid packet.
fn assert_frame_is_consistent(ip: &[u8], ipv6: bool, transport: usize, udp: bool) {
    let be16 = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    if ipv6 {
        assert_eq!(usize::from(be16(4)), ip.len() - 40);
    } else {
        assert_eq!(usize::from(be16(2)), ip.len());
        assert_eq!(fold(sum(&ip[..transport])), 0xffff, "IPv4 header checksum");
    }
    if udp {
        assert_eq!(usize::from(be16(transport + 4)), ip.len() - transport);
    }
    let field = transport + if udp { 6 } else { 16 };
    let mut finished = ip.to_vec();
    let checksum = !fold(sum(&ip[transport..]));
    finished[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = pseudo_sum(ip, ipv6, if udp { 17 } else { 6 }, (ip.len() - transport) as u16);
    assert_eq!(fold(pseudo + sum(&finished[transport..])), 0xffff, "transport checksum");
}

fn samples() -> impl Strategy<Value = Sample> {
    (any::<[bool; 2]>(), 0usize..4, 0usize..=10, 1usize..1449, 1usize..44, any::<(u8, u32, u16)>())
        .prop_flat_map(
            |(
                [ipv6, udp],
                ip_options,
                tcp_options,
                segment_len,
                segments,
                (tcp_flags, sequence, identification),
            )| {
                let most = (segment_len * segments).min(65_000);
                prop::collection::vec(any::<u8>(), (segment_len * (segments - 1) + 1).min(most)..=most)
                    .prop_map(move |payload| Sample {
                        ipv6,
                        udp,
                        ip_options,
                        tcp_options,
                        segment_len,
                        payload,
                        tcp_flags,
                        sequence,
                        identification,
                    })
            },
        )
}

proptest! {
    #[test]
    fn pieces_segment_to_the_same_wire_packets_as_the_whole(sample in samples(), cuts: Vec<prop::sample::Index>) {
        let bytes = sample.frame();
        let frame = Frame::parse(&bytes).unwrap();
        let whole = wire_packets(&bytes);
        let count = sample.payload.len().div_ceil(sample.segment_len);
        prop_assert_eq!(frame.segments(), count);
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut.index(count)).chain([0, count]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut pieces = vec![];
        let mut out = vec![];
        for pair in bounds.windows(2) {
            frame.write_piece(pair[0]..pair[1], &mut out);
            prop_assert_eq!(Frame::parse(&out).unwrap().segments(), pair[1] - pair[0]);
            pieces.extend(wire_packets(&out));
        }
        for (i, packet) in whole.iter().enumerate() {
            prop_assert_eq!(frame.segment_bytes(i), (packet.len() - sample.transport()) as u64);
        }
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn any_bytes_parse_or_are_refused_and_whatever_parses_can_be_cut(mut bytes in prop::collection::vec(any::<u8>(), 0..200), gso in 0u8..6, version in 4u8..7) {
        if bytes.len() > 10 {
            bytes[1] = gso;
            bytes[7] = 0;
            bytes[10] = version << 4 | 5;
        }
        if let Ok(frame) = Frame::parse(&bytes) {
            let count = frame.segments();
            let mut out = vec![];
            for i in 0..count {
                frame.segment_bytes(i);
                frame.write_piece(i..i + 1, &mut out);
            }
        }
    }
}

fn tcp_sample() -> Sample {
    Sample {
        ipv6: false,
        udp: false,
        ip_options: 0,
        tcp_options: 3,
        segment_len: 1448,
        payload: (0..4000).map(|i| i as u8).collect(),
        tcp_flags: 0x10 | TCP_PSH | TCP_FIN | TCP_CWR,
        sequence: u32::MAX - 1000,
        identification: u16::MAX,
    }
}

#[test]
fn a_known_packet_cut_in_the_middle() {
    let bytes = tcp_sample().frame();
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(frame.segments(), 3);
    assert_eq!([0, 1, 2].map(|i| frame.segment_bytes(i)), [32 + 1448, 32 + 1448, 32 + 1104]);
    let mut out = vec![];
    frame.write_piece(1..3, &mut out);
    assert_eq!(out[1], GSO_TCPV4, "two segments stay a super-packet");
    let tcp = &out[VNET_HEADER_LEN + 20..];
    assert_eq!(u32::from_be_bytes(tcp[4..8].try_into().unwrap()), 447, "the sequence number wraps");
    assert_eq!(tcp[13], 0x10 | TCP_PSH | TCP_FIN, "CWR was for the first segment");
    frame.write_piece(0..1, &mut out);
    assert_eq!(out[1], GSO_NONE);
    assert_eq!(out[VNET_HEADER_LEN + 20 + 13], 0x10 | TCP_CWR);
    frame.write_piece(0..3, &mut out);
    assert_eq!(out, bytes);
}

#[test]
fn nonsense_is_refused() {
    let good = tcp_sample().frame();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Frame::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(Frame::parse(&[0; 9]).unwrap_err(), FrameError::Truncated);
    assert_eq!(Frame::parse(&[0; 10]).unwrap_err(), FrameError::Truncated);
    assert_eq!(with(&|b| b[10] = 0x55), FrameError::NotIp);
    assert_eq!(with(&|b| b[10] = 0x44), FrameError::Truncated);
    assert_eq!(with(&|b| b[1] = 3), FrameError::GsoType(3));
    assert_eq!(with(&|b| b[1] = GSO_TCPV6), FrameError::GsoType(GSO_TCPV6));
    assert_eq!(with(&|b| b[4..6].fill(0)), FrameError::NoSegmentSize);
    assert_eq!(with(&|b| b[7] = 0xff), FrameError::Truncated);
    assert_eq!(with(&|b| b.truncate(10 + 20 + 32)), FrameError::Truncated);
}
