//! A store by itself: what it keeps, for how long, and what is left when a process that used it has died.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use dwcp_delta::Baseline as _;

use super::{BaselineStore, CONTENTS, CUTS, GROWING, Kept, StoreConfig, VERSIONS};
use crate::ContentHash;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Kit {
    dir: tempfile::TempDir,
}

impl Kit {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self, change: impl FnOnce(&mut StoreConfig)) -> BaselineStore {
        let mut config = StoreConfig::new(self.dir.path().join("store"));
        config.fsync = false;
        change(&mut config);
        BaselineStore::open(config).unwrap()
    }

    /// Keeps this text, repeated, as a version of `id`.
    fn keep(&self, store: &BaselineStore, id: u8, text: &str) -> Kept {
        let bytes = text.repeat(10_000).into_bytes();
        let path = self.dir.path().join("file");
        fs::write(&path, &bytes).unwrap();
        let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
        store.keep([id; 16], text.as_bytes(), hash, &File::open(&path).unwrap()).unwrap()
    }
}

fn files(store: &BaselineStore, folder: &str) -> usize {
    fs::read_dir(store.folder().join(folder)).unwrap().count()
}

fn unused_for(path: &Path, time: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - time).unwrap();
}

fn newest(store: &BaselineStore, id: u8) -> Option<(u64, u64)> {
    store.newest(&[id; 16]).map(|open| (open.name.version, open.len()))
}

/// DELTA-6.1
#[test]
fn versions_are_numbered_and_the_oldest_go() {
    let kit = Kit::new();
    let store = kit.open(|config| config.versions_max = 3);
    assert_eq!(newest(&store, 1), None);
    for (number, text) in ["a", "bb", "ccc", "ccc", "dddd", "a"].into_iter().enumerate() {
        assert_eq!(kit.keep(&store, 1, text), Kept::Yes, "{number}");
    }
    assert_eq!(newest(&store, 1), Some((5, 10_000)));
    assert_eq!(newest(&store, 2), None);
    let listed = store.list().unwrap();
    let versions: Vec<_> = listed.versions.iter().map(|version| (&*version.label, version.version)).collect();
    assert_eq!(versions, [("a", 5), ("ccc", 3), ("dddd", 4)]);
    assert_eq!((files(&store, CONTENTS), files(&store, VERSIONS), files(&store, GROWING)), (3, 3, 0));
}

/// DELTA-6.4
#[test]
fn what_nobody_uses_goes_and_what_is_too_much() {
    let kit = Kit::new();
    let store = kit.open(|config| (config.ttl, config.bytes_max) = (DAY, 100 << 10));
    for (id, text) in [(1, "1234"), (2, "5678"), (3, "90")] {
        kit.keep(&store, id, text);
    }
    assert_eq!(files(&store, CONTENTS), 3, "100 KB");
    let oldest = store.newest(&[1; 16]).unwrap();
    unused_for(&store.content_path(&ContentHash(oldest.name.hash)), Duration::from_secs(100));
    kit.keep(&store, 4, "abcd");
    assert_eq!(newest(&store, 1), None, "the one unused longest");
    let mut start = [0; 4];
    oldest.read_at(0, &mut start).unwrap();
    assert_eq!(&start, b"1234", "an open one stays");
    assert_eq!(newest(&store, 2), Some((1, 40_000)));
    unused_for(&store.content_path(&ContentHash(store.newest(&[4; 16]).unwrap().name.hash)), 2 * DAY);
    assert_eq!(store.gc().unwrap().contents, 1);
    assert_eq!(newest(&store, 4), None);
    assert_eq!(kit.keep(&store, 5, "much too large"), Kept::TooLarge);
    let future = SystemTime::now() + 100 * DAY;
    for entry in fs::read_dir(store.folder().join(CONTENTS)).unwrap() {
        File::open(entry.unwrap().path()).unwrap().set_modified(future).unwrap();
    }
    assert_eq!(store.gc().unwrap().contents, 0, "a clock that was set back");
}

/// DELTA-6.2
#[test]
fn what_does_not_have_its_hash_is_not_kept() {
    let kit = Kit::new();
    let store = kit.open(|_| {});
    let path = kit.dir.path().join("file");
    fs::write(&path, "another").unwrap();
    let kept = store.keep([1; 16], b"x", ContentHash([7; 32]), &File::open(&path).unwrap()).unwrap();
    assert_eq!(kept, Kept::Changed);
    assert_eq!((files(&store, CONTENTS), files(&store, VERSIONS), files(&store, GROWING)), (0, 0, 0));
}

/// DELTA-6.2
#[test]
fn what_a_dead_process_left_goes_and_what_a_living_one_writes_stays() {
    let kit = Kit::new();
    let store = kit.open(|_| {});
    fs::write(store.folder().join(GROWING).join("left behind"), "half").unwrap();
    let growing = store.growing().unwrap();
    store.gc().unwrap();
    assert_eq!(files(&store, GROWING), 1);
    growing.file.write_all_at(b"still there", 0).unwrap();
    drop(growing);
    assert_eq!(files(&store, GROWING), 0);
}

/// DELTA-6.3, DELTA-6.5
#[test]
fn damage_is_found_and_removed() {
    let kit = Kit::new();
    let store = kit.open(|_| {});
    for (id, text) in [(1, "one"), (2, "two"), (3, "three")] {
        kit.keep(&store, id, text);
    }
    let hash = store.newest(&[1; 16]).unwrap().name.hash;
    File::options()
        .write(true)
        .open(store.content_path(&ContentHash(hash)))
        .unwrap()
        .write_all_at(b"!", 9)
        .unwrap();
    let record = fs::read_dir(store.folder().join(VERSIONS)).unwrap().map(|entry| entry.unwrap().path());
    let record = record.into_iter().find(|path| path.to_str().unwrap().contains("0202")).unwrap();
    File::options().write(true).open(record).unwrap().set_len(50).unwrap();
    let two = ContentHash(*blake3::hash("two".repeat(10_000).as_bytes()).as_bytes());
    assert_eq!(newest(&store, 2), None);
    assert!(store.with_hash(two, 30_000).is_some(), "found by its hash");
    let report = store.verify().unwrap();
    assert_eq!((report.intact, report.damaged, report.records_removed), (2, 1, 2));
    assert_eq!(newest(&store, 1), None);
    assert_eq!(newest(&store, 3), Some((1, 50_000)));
    assert_eq!(store.verify().unwrap().damaged, 0);
}

/// DELTA-6.3
#[test]
fn a_list_of_chunks_is_cached_and_made_again() {
    let kit = Kit::new();
    let store = kit.open(|_| {});
    kit.keep(&store, 1, "some content that repeats");
    let open = store.newest(&[1; 16]).unwrap();
    let cutting = dwcp_delta::chunks::Cutting::Content(12);
    let cuts = store.cuts_of(&open, cutting, &|| false).unwrap();
    assert!(cuts.len() > 10);
    assert_eq!(files(&store, CUTS), 1);
    let path = fs::read_dir(store.folder().join(CUTS)).unwrap().next().unwrap().unwrap().path();
    for damage in [&b"rubbish"[..], b""] {
        fs::write(&path, damage).unwrap();
        assert_eq!(store.cuts_of(&open, cutting, &|| false).unwrap(), cuts);
        assert!(fs::metadata(&path).unwrap().len() > 100, "made again");
    }
}

/// DELTA-6.6
#[test]
fn many_use_one_store() {
    let kit = Kit::new();
    let path = kit.dir.path().join("store");
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (path, dir) = (path.clone(), kit.dir.path());
            scope.spawn(move || {
                let mut config = StoreConfig::new(path);
                (config.fsync, config.versions_max) = (false, 2);
                let store = BaselineStore::open(config).unwrap();
                for round in 0..20u8 {
                    let bytes = vec![round; 5000];
                    let file = dir.join(format!("file-{thread}"));
                    fs::write(&file, &bytes).unwrap();
                    let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
                    let kept = store.keep([round % 3; 16], b"x", hash, &File::open(&file).unwrap());
                    assert_eq!(kept.unwrap(), Kept::Yes);
                    store.gc().unwrap();
                }
            });
        }
    });
    let store = kit.open(|config| config.versions_max = 2);
    let report = store.verify().unwrap();
    assert_eq!((report.damaged, report.records_removed), (0, 0));
    assert!(store.list().unwrap().versions.len() <= 6);
}
