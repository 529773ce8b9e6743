//! Replays the fuzz corpus that is kept in git through the same body that the fuzz target runs.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p dwcp-transfer --test fuzz_corpus` writes the `seed-*` files again:
//! real encodings, and the same with a byte changed or an end cut off.

use dwcp_transfer::{
    RelPath, fuzzing,
    limits::FILE_BYTES_MAX,
    manifest::{self, Batch, Entry, EntryKind, Metadata, Time},
};

#[path = "../../../../fuzz/bodies/transfer_manifest.rs"]
mod body;
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

/// Who reads an input: its first byte.
const BATCH: u8 = 0;
const MESSAGE: u8 = 1;
const RECORD: u8 = 2;
const PREAMBLE: u8 = 3;

#[test]
fn transfer_manifest_corpus() {
    corpus::replay("transfer_manifest", seeds, body::run);
}

/// A corpus of rubbish would find nothing.
#[test]
fn the_seeds_are_real_and_damage_is_noticed() {
    for seed in valid() {
        let (reader, bytes) = (seed[0], &seed[1..]);
        let again = match reader {
            BATCH => manifest::encode(&manifest::decode(bytes).expect("a batch")),
            MESSAGE => fuzzing::control(bytes).expect("a message").to_vec(),
            RECORD => fuzzing::record(bytes).expect("a record"),
            _ => fuzzing::preamble(bytes.try_into().expect("8 bytes")).expect("a preamble").to_vec(),
        };
        assert_eq!(again, bytes);
    }
    // Text that grows when it is made printable; flags that are neither yes nor no.
    let text = fuzzing::control(&failure(5, &[0xff; 64])).expect("a message");
    assert_eq!(fuzzing::control(&text), Ok(text));
    assert!(fuzzing::control(&message(2, &[1, 0, 2])).is_err());
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = valid();
    for (number, seed) in valid().into_iter().enumerate() {
        let at = 1 + (number * 37) % (seed.len() - 1);
        let mut changed = seed.clone();
        changed[at] ^= 1 << (number % 8);
        seeds.push(changed);
        if number % 3 == 0 {
            seeds.push(seed[..at].to_vec());
        }
    }
    seeds
}

fn valid() -> Vec<Vec<u8>> {
    let of = |reader: u8, bytes: &[u8]| [&[reader], bytes].concat();
    let mut seeds: Vec<_> = batches().iter().map(|batch| of(BATCH, batch)).collect();
    seeds.extend(messages().iter().map(|bytes| of(MESSAGE, bytes)));
    seeds.extend(records().iter().map(|bytes| of(RECORD, bytes)));
    seeds.extend([1, 2].map(|kind| of(PREAMBLE, &[b'D', b'W', b'T', b'X', kind, 0, 0, 0])));
    seeds
}

fn batches() -> Vec<Vec<u8>> {
    let path = |path: &[u8]| RelPath::new(path).expect("a path");
    let entry = |id, name: &[u8], kind| Entry { id, path: path(name), kind, metadata: Metadata::default() };
    let kinds = || {
        [
            EntryKind::Directory,
            EntryKind::File { size: 5, differs: false },
            EntryKind::File { size: FILE_BYTES_MAX, differs: true },
            EntryKind::Stream,
            EntryKind::Symlink { target: b"../../etc".to_vec() },
            EntryKind::HardLink { target: path(b"a/b") },
            EntryKind::DirectoryEnd,
        ]
    };
    let metadata = Metadata {
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        modified: Time { seconds: -1, nanoseconds: 999_999_999 },
        accessed: Time { seconds: 1 << 40, nanoseconds: 0 },
        xattrs: vec![(b"user.note".to_vec(), b"v\0".to_vec()), (b"user.empty".to_vec(), Vec::new())],
    };
    let mut batches: Vec<_> = kinds().into_iter().map(|kind| vec![entry(7, b"a/b \xff", kind)]).collect();
    batches.push(Vec::new());
    batches.push(kinds().into_iter().zip(1..).map(|(kind, id)| entry(id * id, b"x", kind)).collect());
    batches.push(vec![Entry { metadata, ..entry(0, b"a/very/deep/path/indeed", EntryKind::Directory) }]);
    batches.into_iter().map(|entries| manifest::encode(&Batch { entries })).collect()
}

fn message(tag: u8, fields: &[u8]) -> Vec<u8> {
    [&[tag], fields].concat()
}

/// `Abandon` with such a text.
fn failure(kind: u8, text: &[u8]) -> Vec<u8> {
    let id = 3u64.to_le_bytes();
    let len = (text.len() as u32).to_le_bytes();
    message(5, &[&id[..], &[kind], &28i32.to_le_bytes(), &len, text].concat())
}

/// One of each type, as in T3.1.
fn messages() -> Vec<Vec<u8>> {
    let outcomes = [
        &5u32.to_le_bytes()[..],
        &[&1u64.to_le_bytes()[..], &[0]].concat(),
        &[&2u64.to_le_bytes()[..], &[1]].concat(),
        &[&3u64.to_le_bytes()[..], &[2]].concat(),
        &[&4u64.to_le_bytes()[..], &[3], &[9; 32]].concat(),
        &[&5u64.to_le_bytes()[..], &[4, 1], &0i32.to_le_bytes(), &4u32.to_le_bytes(), b"open"].concat(),
    ];
    let have = [&4u64.to_le_bytes()[..], &2u32.to_le_bytes(), &[0; 40], &[1; 40]];
    let fatal = [&[4][..], &28i32.to_le_bytes(), &5u32.to_le_bytes(), b"write", &1u32.to_le_bytes(), b"f"];
    vec![
        message(1, &[&1u16.to_le_bytes()[..], &[7; 16], &[1]].concat()),
        message(2, &[1, 0, 0]),
        message(3, &batches()[1]),
        message(4, &[&[5; 8][..], &[0; 8], &[1; 8], &[3; 32]].concat()),
        failure(6, b"grew from 1 to 2 bytes"),
        message(6, b""),
        message(7, &outcomes.concat()),
        message(8, &have.concat()),
        message(9, &fatal.concat()),
        message(10, b""),
    ]
}

/// Header and extents: dense, with holes, nothing but a hole.
fn records() -> Vec<Vec<u8>> {
    let record = |len: u32, extents: &[(u32, u32)]| {
        let data: u32 = extents.iter().map(|(_, len)| len).sum();
        let mut bytes = [1u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
        bytes.extend([len.to_le_bytes(), data.to_le_bytes()].concat());
        bytes.extend((extents.len() as u16).to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend([9; 32]);
        for (start, len) in extents {
            bytes.extend([start.to_le_bytes(), len.to_le_bytes()].concat());
        }
        bytes
    };
    vec![
        record(4 << 20, &[(0, 4 << 20)]),
        record(100, &[(5, 10), (90, 10)]),
        record(16 << 20, &[]),
        record(1, &[(0, 1)]),
    ]
}
