//! Replays the fuzz corpus of frames that is kept in git through the body of the fuzz target.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p dwcp-sys --test fuzz_corpus` writes the `seed-*` files again;
//! `fuzz/README.md` says where the others come from.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/bodies/packet.rs"]
mod packet;

use dwcp_sys::datagram::packet::{HEADER_BYTES_MAX, LinkPath, build};

#[test]
fn packet_corpus() {
    corpus::replay("packet", seeds, packet::run);
}

/// Both families behind up to two tags, with payloads of some lengths; and each cut off, padded, and with a byte changed.
fn seeds() -> Vec<Vec<u8>> {
    let tags = [[0x88, 0xa8, 0, 7], [0x81, 0, 0, 100]];
    let mut seeds = Vec::new();
    for (from, to) in [("192.0.2.1:4000", "192.0.2.2:8889"), ("[2001:db8::1]:4000", "[2001:db8::2]:8889")] {
        for (tags, length) in [(&tags[..0], 0), (&tags[1..], 7), (&tags[..], 64)] {
            let [from, to] = [from, to].map(|text| text.parse().expect("an address"));
            let path = LinkPath::new([2; 6], [4; 6], tags).expect("two tags at most");
            let mut frame = vec![0; HEADER_BYTES_MAX + length];
            let built = build(&mut frame, &path, from, to, &vec![0x5a; length]).expect("a frame");
            frame.truncate(built);
            let (mut cut, mut padded, mut changed) = (frame.clone(), frame.clone(), frame.clone());
            cut.truncate(built - 1);
            padded.resize(built + 20, 0);
            let at = 16 + 4 * tags.len();
            changed[at] ^= 0x40;
            seeds.extend([frame, cut, padded, changed]);
        }
    }
    seeds
}
