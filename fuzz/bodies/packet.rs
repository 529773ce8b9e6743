//! Any bytes as an Ethernet frame with UDP: no panic, a payload within the frame, nothing found in one that is cut off, and
//! what was found can be built again and is found again.

use dwcp_sys::datagram::packet::{self, HEADER_BYTES_MAX};

pub(crate) fn run(data: &[u8]) {
    let frame = seal_ipv4(data);
    let Some(parsed) = packet::parse(&frame) else { return };
    let payload = &frame[parsed.payload.clone()];
    for cut in [0, 14, 34, parsed.payload.start, parsed.payload.end] {
        assert_eq!(packet::parse(&frame[..cut.saturating_sub(1)]), None, "cut before {cut}");
    }
    let mut rebuilt = vec![0; HEADER_BYTES_MAX + payload.len()];
    let length = packet::build(&mut rebuilt, &parsed.path, parsed.source, parsed.destination, payload);
    let length = length.expect("what was there fits");
    let again = packet::parse(&rebuilt[..length]).expect("what was built is found");
    assert_eq!(
        (again.source, again.destination, again.path),
        (parsed.source, parsed.destination, parsed.path)
    );
    assert_eq!(&rebuilt[again.payload], payload);
}

/// Random bytes hardly ever have the right checksum.
fn seal_ipv4(data: &[u8]) -> Vec<u8> {
    let mut frame = data.to_vec();
    let mut at = 12;
    while let Some([0x81, 0] | [0x88, 0xa8]) = frame.get(at..at + 2) {
        at += 4;
    }
    at += 2;
    let header = frame.get(at).map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(header) = frame.get_mut(at..at + header).filter(|header| header.len() >= 20) else {
        return frame;
    };
    // Some stay wrong.
    if header[1] != 7 {
        header[10..12].fill(0);
        let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}
