//! What is written is read back; what is damaged is refused or read, and ends.

use std::{collections::BTreeMap, io::Cursor};

use consensus_bolt::{
    MetaFault, PageFault, ReadError, Reader, WriteError, Writer,
    limits::{BUCKETS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
};
use proptest::prelude::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Pairs>;

fn write(buckets: &Buckets, page_bytes: usize) -> Vec<u8> {
    let mut writer = Writer::with_page_bytes(Cursor::new(Vec::new()), page_bytes).unwrap();
    for (name, pairs) in buckets {
        writer.bucket(name).unwrap();
        pairs.iter().for_each(|(key, value)| writer.put(key, value).unwrap());
    }
    writer.finish().unwrap().into_inner()
}

fn read(file: &[u8]) -> Result<Buckets, ReadError> {
    let mut reader = Reader::open(Cursor::new(file))?;
    let names: Vec<_> = reader.buckets().map(<[u8]>::to_vec).collect();
    let mut buckets = Buckets::new();
    for name in names {
        let mut pairs = reader.pairs(&name)?.expect("a bucket that was named");
        let found = buckets.entry(name).or_default();
        while let Some((key, value)) = pairs.next()? {
            found.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(buckets)
}

/// One bucket with so many pairs.
fn numbered(pairs: usize, value_bytes: usize) -> Buckets {
    let pair = |n: usize| (format!("key-{n:06}").into_bytes(), vec![n as u8; value_bytes]);
    Buckets::from([(b"numbers".to_vec(), (0..pairs).map(pair).collect())])
}

fn page_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1024), Just(4096), Just(65536)]
}

/// Mostly small, sometimes more than a page of the smallest size.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => prop::collection::vec(any::<u8>(), 0..64), 1 => prop::collection::vec(any::<u8>(), 0..5000)]
}

fn some_buckets() -> impl Strategy<Value = Buckets> {
    let key = || prop_oneof![9 => prop::collection::vec(any::<u8>(), 1..24), 1 => prop::collection::vec(any::<u8>(), 1..2000)];
    let pairs = prop::collection::btree_map(key(), value(), 0..200);
    prop::collection::btree_map(key(), pairs, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_written_is_read_back(buckets in some_buckets(), page_bytes in page_bytes()) {
        let file = write(&buckets, page_bytes);
        prop_assert_eq!(file.len() % page_bytes, 0);
        prop_assert_eq!(read(&file).unwrap(), buckets);
    }

    /// A changed byte of a value cannot be seen here. Anything else may be an error; nothing may be a panic.
    #[test]
    fn damage_never_panics(
        buckets in some_buckets(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = write(&buckets, 1024);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let _ = read(&file);
    }

    /// The meta pages are found damaged by their checksums, and then the other copy is taken.
    #[test]
    fn either_meta_page_is_enough(buckets in some_buckets(), page_bytes in page_bytes(), second: bool, at in 16_usize..80) {
        let mut file = write(&buckets, page_bytes);
        file[usize::from(second) * page_bytes + at] ^= 1;
        prop_assert_eq!(read(&file).unwrap(), buckets);
    }

    #[test]
    fn a_missing_end_is_told(page_bytes in page_bytes(), cut in 1_usize..5000) {
        let mut file = write(&numbered(500, 20), page_bytes);
        file.truncate(file.len().saturating_sub(cut));
        let truncated = matches!(read(&file), Err(ReadError::Truncated { .. } | ReadError::Meta { .. }));
        prop_assert!(truncated);
    }
}

#[test]
fn trees_of_several_levels_and_values_of_many_pages() {
    for (pairs, value_bytes) in [(20_000, 8), (300, 900), (40, 100_000)] {
        let buckets = numbered(pairs, value_bytes);
        assert_eq!(read(&write(&buckets, 1024)).unwrap(), buckets);
    }
}

#[test]
fn the_longest_keys_have_branches_of_their_own() {
    let key = |n: u8| [vec![n], vec![0; KEY_BYTES_MAX - 1]].concat();
    let pairs: Pairs = (0..20).map(|n| (key(n), vec![n])).collect();
    let buckets = Buckets::from([(key(7), pairs)]);
    assert_eq!(read(&write(&buckets, 1024)).unwrap(), buckets);
}

#[test]
fn what_cannot_be_in_a_file_is_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer.bucket(b"b").unwrap();
    writer.put(b"k", b"").unwrap();
    for key in [&b"k"[..], b"a"] {
        assert!(matches!(writer.put(key, b""), Err(WriteError::Order { .. })));
    }
    assert!(matches!(writer.put(b"", b""), Err(WriteError::KeyLength { bytes: 0 })));
    let long = vec![b'x'; KEY_BYTES_MAX + 1];
    assert!(matches!(writer.put(&long, b""), Err(WriteError::KeyLength { .. })));
    let long = vec![0; VALUE_BYTES_MAX + 1];
    assert!(matches!(writer.put(b"l", &long), Err(WriteError::ValueTooLong { .. })));
    assert!(matches!(writer.bucket(b"b"), Err(WriteError::Order { .. })));
    // What was refused left nothing behind.
    let file = writer.finish().unwrap().into_inner();
    let expected = Buckets::from([(b"b".to_vec(), Pairs::from([(b"k".to_vec(), Vec::new())]))]);
    assert_eq!(read(&file).unwrap(), expected);
}

#[test]
fn buckets_are_bounded() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for n in 0..BUCKETS_MAX {
        writer.bucket(format!("{n:04}").as_bytes()).unwrap();
    }
    assert!(matches!(writer.bucket(b"more"), Err(WriteError::TooManyBuckets)));
    assert_eq!(read(&writer.finish().unwrap().into_inner()).unwrap().len(), BUCKETS_MAX);
}

/// Fails after so many bytes.
struct Full(Cursor<Vec<u8>>, usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.get_ref().len() + bytes.len() > self.1 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Full {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_full_disk_is_told_and_stays_an_error() {
    let mut writer = Writer::new(Full(Cursor::new(Vec::new()), 1 << 20)).unwrap();
    writer.bucket(b"b").unwrap();
    let mut results = (0_u32..2000).map(|n| writer.put(&n.to_be_bytes(), &[0; 1000]));
    assert!(results.any(|result| matches!(result, Err(WriteError::Io { action: "write", .. }))));
    assert!(results.any(|result| matches!(result, Err(WriteError::FailedEarlier))));
    assert!(matches!(writer.finish(), Err(WriteError::FailedEarlier)));
}

const PAGE: usize = 1024;

/// A file of one bucket: its tree begins at page 2, the root tree's leaf and the list of free pages come last.
fn damaged(pairs: usize, at: usize, bytes: &[u8]) -> Result<Buckets, ReadError> {
    let mut file = write(&numbered(pairs, 8), PAGE);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    read(&file)
}

#[test]
fn each_damage_of_a_page_is_told_as_what_it_is() {
    let leaf = 2 * PAGE;
    let element = |n: usize| leaf + 16 + n * 16;
    for (what, at, bytes, expected) in [
        ("its number", leaf, &[9][..], PageFault::Number { found: 9 }),
        ("its kind", leaf + 8, &[4], PageFault::Kind { found: 4 }),
        ("more elements than fit", leaf + 10, &[255, 255], PageFault::Bounds { element: 0 }),
        ("overflow past the end", leaf + 12, &[3], PageFault::OutsideFile),
        ("a position inside the elements", element(0) + 4, &[16], PageFault::Bounds { element: 0 }),
        ("a key past the end", element(1) + 8, &[0, 8], PageFault::Bounds { element: 1 }),
        ("a position near 2^32", element(2) + 4, &[255; 4], PageFault::Bounds { element: 2 }),
        ("a value past the end", element(2) + 12, &[255; 4], PageFault::Bounds { element: 2 }),
        ("flags of a bucket", element(1), &[1], PageFault::ElementFlags { element: 1, found: 1 }),
    ] {
        match damaged(3, at, bytes) {
            Err(ReadError::Page { page: 2, fault }) => assert_eq!(fault, expected, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let key_of_the_second = leaf + 16 + 3 * 16 + 10 + 8;
    let order = damaged(3, key_of_the_second, b"a");
    let expected = PageFault::Order { element: 1 };
    assert!(matches!(order, Err(ReadError::Page { page: 2, fault }) if fault == expected), "{order:?}");
}

/// 100 pairs: leaves from page 2, then a branch, then the root tree's leaf and the list of free pages.
#[test]
fn each_damage_of_a_tree_is_told_as_what_it_is() {
    let file = write(&numbered(100, 8), PAGE);
    let pages = file.len() / PAGE;
    let (branch, root) = (pages - 3, pages - 2);
    assert_eq!(file[branch * PAGE + 8], 1, "a branch");
    let child = |n: usize| branch * PAGE + 16 + n * 16 + 8;
    let bucket = root * PAGE + 16 + 16 + b"numbers".len();
    for (what, at, bytes, page, expected) in [
        ("a cycle", child(1), branch as u8, branch, PageFault::ReachedTwice),
        ("a leaf twice", child(1), 2, 2, PageFault::ReachedTwice),
        ("a meta page", child(1), 1, 1, PageFault::OutsideFile),
        ("past the end", child(1), pages as u8, pages, PageFault::OutsideFile),
        ("the list of free pages", child(1), (pages - 1) as u8, pages - 1, PageFault::Kind { found: 16 }),
        ("a leaf out of order", child(1), 4, 3, PageFault::Order { element: 0 }),
        ("an empty leaf", 3 * PAGE + 10, 0, 3, PageFault::Empty),
        ("a bucket that is neither inline nor elsewhere", bucket, 0, 0, PageFault::OutsideFile),
        ("a pair in the root", root * PAGE + 16, 0, root, PageFault::ElementFlags { element: 0, found: 0 }),
        ("a bucket's value", root * PAGE + 16 + 12, 15, root, PageFault::Bucket { element: 0 }),
    ] {
        let mut file = file.clone();
        file[at] = bytes;
        if what == "a leaf out of order" {
            // Pages 3 and 4 change places, so that each is reached once.
            file[child(2)] = 3;
        }
        match read(&file) {
            Err(ReadError::Page { page: found, fault }) => {
                assert_eq!((found, fault), (page as u64, expected), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn other_files_are_told() {
    for (file, expected) in [
        (vec![], MetaFault::Missing),
        (vec![0; 100], MetaFault::Magic { found: 0 }),
        (b"SQLite format 3\0".repeat(1024), MetaFault::Magic { found: u32::from_le_bytes(*b"SQLi") }),
    ] {
        let error = read(&file);
        assert!(matches!(error, Err(ReadError::Meta { first, .. }) if first == expected), "{error:?}");
    }
}
