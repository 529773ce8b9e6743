//! Replays the fuzz corpora of frames and of RDMA streams that are kept in git through the bodies of the fuzz targets.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p dwcp-sys --test fuzz_corpus` writes the `seed-*` files again;
//! `fuzz/README.md` says where the others come from.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/bodies/packet.rs"]
mod packet;
#[cfg(feature = "rdma")]
#[path = "../../../fuzz/bodies/rdma_stream.rs"]
mod rdma_stream;

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

#[cfg(feature = "rdma")]
#[test]
fn rdma_stream_corpus() {
    corpus::replay("rdma_stream", rdma_stream_seeds, rdma_stream::run);
}

/// Connection data, right and with a byte changed; and random operations, with lengths and credit that are mostly right.
#[cfg(feature = "rdma")]
fn rdma_stream_seeds() -> Vec<Vec<u8>> {
    use dwcp_sys::rdma::{CONNECTION_DATA_LEN, credit::SLOTS};

    let mut right = vec![0x5a; CONNECTION_DATA_LEN];
    right[..2].copy_from_slice(&[1, 5]);
    right[2..4].copy_from_slice(&(SLOTS as u16).to_le_bytes());
    (right[7], right[11]) = (0, 0);
    let changed = (0..8).map(|byte| {
        let mut changed = right.clone();
        changed[byte] ^= 0x81;
        changed
    });
    let mut random = 1_u32;
    let mut below = move |bound: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((random >> 16) % bound) as u8
    };
    let mut operations = |count| {
        let mut seed = Vec::new();
        for _ in 0..count {
            seed.extend(match below(4) {
                0 => vec![0, below(256)],
                1 => vec![1, below(256)],
                2 => vec![3, 1 + below(150)],
                // A message that gives nothing back.
                _ => vec![5, below(15), 0, 0, below(200)],
            });
        }
        seed
    };
    let operations: Vec<_> = (0..16).map(|n| operations(8 << (n / 3))).collect();
    [right.clone()].into_iter().chain(changed).chain(operations).collect()
}
