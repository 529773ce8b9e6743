//! Any bytes into the parser: no panic, the same frames however the bytes are cut, and headers that say what was
//! there.

use dwcp_proto::{
    Located, Rest,
    frame::{FrameHeader, HEADER_LEN},
    parse,
};

/// Small enough that the fuzzer reaches both sides of it.
const PAYLOAD_MAX: u32 = 4096;

pub(crate) fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    // Random bytes never have the right checksum: seal a header wherever one is claimed.
    let bytes = seal_headers(bytes);
    let whole = cut_frames(&bytes, bytes.len().max(1));
    let pieces = cut_frames(&bytes, usize::from(cut).max(1));
    assert_eq!(whole, pieces, "the cut decides what is read");
}

fn seal_headers(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(head) = bytes[at..].first_chunk_mut::<HEADER_LEN>() {
        // An odd checksum byte stays wrong.
        if head[28] % 8 != 7 {
            let crc = crc32fast::hash(&head[..28]);
            head[28..].copy_from_slice(&crc.to_le_bytes());
        }
        let wire_len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        at += HEADER_LEN + wire_len.min(PAYLOAD_MAX) as usize;
        if at > bytes.len() {
            break;
        }
    }
    bytes
}

/// The frames, and the error if it ends with one.
fn cut_frames(bytes: &[u8], piece: usize) -> (Vec<(FrameHeader, Vec<u8>)>, Option<String>) {
    let (mut buffer, mut skip, mut frames) = (Vec::new(), 0, Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        let skipped = skip.min(buffer.len());
        buffer.drain(..skipped);
        skip -= skipped;
        let mut located: Vec<Located> = Vec::new();
        let parsed = parse(&buffer, PAYLOAD_MAX, &mut located);
        for Located { header, payload } in located {
            assert_eq!(
                header.encode()[..],
                buffer[payload.start - HEADER_LEN..payload.start],
                "headers round trip"
            );
            assert!(header.wire_len <= PAYLOAD_MAX && header.raw_len <= PAYLOAD_MAX);
            let _ = header.check_payload(&buffer[payload.clone()]);
            frames.push((header, buffer[payload].to_vec()));
        }
        match parsed {
            Ok(parsed) => {
                buffer.drain(..parsed.consumed);
                if let Rest::Skip(len) = parsed.rest {
                    assert!(buffer.is_empty() && len <= PAYLOAD_MAX as usize);
                    skip = len;
                }
            }
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
    (frames, None)
}
