//! Replays the fuzz corpus that is kept in git through the same body that the fuzz target runs.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p consensus-bolt --test fuzz_corpus` writes the `seed-*` files again: pages of
//! real files behind the number of their root's page, and the same with a byte changed or an end cut off.

use std::io::Cursor;

use consensus_bolt::Writer;

#[path = "../../../../fuzz/bodies/bolt_file.rs"]
mod body;
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

const PAGE_BYTES: usize = 1024;
/// Flags of elements.
const PAIR: u32 = 0;
const BUCKET: u32 = 1;

#[test]
fn bolt_file_corpus() {
    corpus::replay("bolt_file", seeds, body::run);
}

/// A corpus of rubbish would find nothing.
#[test]
fn the_seeds_are_real() {
    for (seed, pairs) in valid() {
        let read = body::read(&body::file(seed[0], &seed[1..]));
        assert_eq!(read.expect("a file"), pairs);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, (seed, _)) in valid().into_iter().enumerate() {
        for change in 0..3 {
            // In the elements of some page, which is where there is something to break.
            let mut changed = seed.clone();
            let pages = seed.len().div_ceil(PAGE_BYTES);
            let at = 1 + (change * 3 + number) % pages * PAGE_BYTES + (number * 37 + change * 11) % 48;
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1 << (change * 2);
            }
            seeds.push(changed);
        }
        seeds.push(seed[..seed.len() / 2].to_vec());
        seeds.push(seed);
    }
    seeds
}

/// Seeds, and how many pairs are in them.
fn valid() -> Vec<(Vec<u8>, usize)> {
    let small = |n: u8| (vec![b'k', n], vec![n; 3]);
    let many = || (0..30_u8).map(|n| (vec![b'k', n], vec![n; 30])).collect::<Vec<_>>();
    vec![
        (written(&[]), 0),
        (written(&[(b"empty", vec![])]), 0),
        (written(&[(b"b", vec![small(1), small(2), small(3)])]), 3),
        (written(&[(b"b", vec![small(1)]), (b"c", vec![small(2), small(3)])]), 3),
        (written(&[(b"long", vec![(b"k".to_vec(), vec![7; 1500])])]), 1),
        (written(&[(b"tree", many())]), 30),
        (inline(), 2),
    ]
}

/// What the writer makes of it, without meta pages, without the list of free pages, without zeros at the end.
fn written(buckets: &[(&[u8], Vec<(Vec<u8>, Vec<u8>)>)]) -> Vec<u8> {
    let mut writer = Writer::with_page_bytes(Cursor::new(Vec::new()), PAGE_BYTES).expect("a writer");
    for (name, pairs) in buckets {
        writer.bucket(name).expect("a bucket");
        for (key, value) in pairs {
            writer.put(key, value).expect("a pair");
        }
    }
    let file = writer.finish().expect("a file").into_inner();
    let root = file[16 + 16];
    seed(root, &file[2 * PAGE_BYTES..file.len() - PAGE_BYTES])
}

/// A bucket that is a page in the root's pair, which the writer never makes and bbolt does.
fn inline() -> Vec<u8> {
    let pairs = leaf(0, &[(PAIR, b"k", b"v"), (PAIR, b"l", b"")]);
    let bucket = [&[0; 16], &pairs[..]].concat();
    seed(2, &leaf(2, &[(BUCKET, b"inline", &bucket)]))
}

fn leaf(page: u64, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let mut head = [&page.to_le_bytes()[..], &[2, 0, elements.len() as u8, 0, 0, 0, 0, 0]].concat();
    let mut data = Vec::new();
    for (n, (flags, key, value)) in elements.iter().enumerate() {
        let position = (elements.len() - n) * 16 + data.len();
        for number in [*flags as usize, position, key.len(), value.len()] {
            head.extend((number as u32).to_le_bytes());
        }
        data.extend([*key, *value].concat());
    }
    head.extend(data);
    head
}

fn seed(root: u8, pages: &[u8]) -> Vec<u8> {
    let end = pages.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    [&[root], &pages[..end]].concat()
}
