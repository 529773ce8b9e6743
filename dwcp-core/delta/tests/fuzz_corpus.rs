//! Replays the fuzz corpus that is kept in git through the same body that the fuzz target runs.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p dwcp-delta --test fuzz_corpus` writes the `seed-*` files again.

use std::sync::Arc;

use dwcp_delta::{
    Encoder, Regions,
    chunks::{self, Cutting},
    limits::CHUNK_BITS_MIN,
    xor,
};

#[path = "../../../fuzz/bodies/delta.rs"]
mod body;
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[test]
fn delta_corpus() {
    corpus::replay("delta", seeds, body::run);
}

fn seeds() -> Vec<Vec<u8>> {
    let valid = valid();
    assert!(valid.len() > 8);
    let mut seeds = valid.clone();
    for (number, seed) in valid.into_iter().enumerate() {
        let at = 1 + (number * 37) % (seed.len() - 1);
        let mut changed = seed.clone();
        changed[at] ^= 1 << (number % 8);
        seeds.push(changed);
        seeds.push(seed[..at].to_vec());
    }
    seeds
}

/// Deltas with each operation, differences and lists, each behind the byte that says who reads it.
fn valid() -> Vec<Vec<u8>> {
    let old = body::baseline();
    let mut parts = vec![old[..8192].to_vec(); 5];
    parts[1][100] ^= 1;
    parts[2][4096..].fill(0);
    parts[3] = [&b"moved"[..], &old[30_000..38_187]].concat();
    parts[4][..2000].copy_from_slice(&b"new ".repeat(500));
    let (mut encoder, regions) = (Encoder::new(4096, 3), Arc::new(Regions::of(&old)));
    let mut seeds = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let (mut delta, regions) = (Vec::new(), regions.clone());
        let encoded = encoder.by_baseline((0, part), &body::NAME, &old[..], || Some(regions), &mut delta);
        assert!(encoded.expect("memory can be read"), "part {number}");
        seeds.push([&[0], &delta[..]].concat());
        seeds.push([&[1], &delta[57..]].concat());
    }
    let mut difference = vec![2];
    assert!(xor::encode(&old[..4096], &parts[1][..4096], 4096, &mut difference));
    seeds.push(difference);
    for cutting in [Cutting::Content(CHUNK_BITS_MIN), Cutting::Blocks(CHUNK_BITS_MIN)] {
        let mut found = Vec::new();
        cutting.chunks(&old, 0, true, |chunk| found.push(chunk));
        seeds.push([&[3], &chunks::encode(&found)[..]].concat());
    }
    seeds
}
