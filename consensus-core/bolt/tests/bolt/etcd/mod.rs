//! Files of ours before Debian's etcd and etcdctl, and theirs before us.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // files and programs are what this is about

mod history;
mod records;
mod server;

use std::{fs::File, path::Path};

use consensus_bolt::{
    Reader,
    etcd::{self, Lease, Meta, Status, trailer},
};
use history::{Change, History, LEASE, long_history};
use serde_json::Value;
use server::{Etcd, etcdctl, programs_are_there};

/// What etcdctl makes of a file.
fn etcdctl_status(path: &Path) -> Status {
    let text = etcdctl(&["snapshot", "status", path.to_str().unwrap(), "-w", "json"]).unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    Status {
        hash: status["hash"].as_u64().unwrap().try_into().unwrap(),
        revision: status["revision"].as_i64().unwrap(),
        keys: status["totalKey"].as_u64().unwrap(),
        bytes: status["totalSize"].as_u64().unwrap(),
    }
}

fn our_status(path: &Path) -> Status {
    etcd::status(&mut open(path)).unwrap()
}

fn open(path: &Path) -> Reader<File> {
    Reader::open(File::open(path).unwrap()).unwrap()
}

/// As a server does it: to a file, then the digest.
fn write(path: &Path, history: &History, meta: &Meta) {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let mut writer = etcd::Writer::new(file).unwrap();
    history.records.iter().for_each(|record| writer.record(record).unwrap());
    writer.lease(&Lease { id: LEASE, ttl: 5000, remaining_ttl: 0 }).unwrap();
    writer.put(etcd::Bucket::Members, b"8e9e05c52164694d", b"{}").unwrap();
    let mut file = writer.finish(meta).unwrap();
    trailer::append(&mut file).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn etcd_restores_and_serves_a_file_of_ours() {
    if !programs_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (snapshot, data) = (folder.path().join("ours.db"), folder.path().join("data"));
    let mut history = long_history();
    history.compact(5);
    let meta = Meta { consistent_index: 12_345, compaction_scheduled: 5, compacted: 5 };
    write(&snapshot, &history, &meta);

    // Checked by bbolt as well: every page reached once or free.
    let status = etcdctl_status(&snapshot);
    assert_eq!(status, our_status(&snapshot));
    // Beside the records: a lease, a member, three numbers.
    assert_eq!((status.revision, status.keys), (history.main, history.records.len() as u64 + 5));
    assert_eq!(status.bytes + trailer::DIGEST_BYTES as u64, snapshot.metadata().unwrap().len());

    restore(&snapshot, &data).unwrap();
    let etcd = Etcd::start(&data);
    assert_eq!(etcd.revision(), history.main);
    assert!(etcd.served() == history.as_fields(), "what etcd serves");
    let lease = etcd.ctl(&["lease", "timetolive", "--keys", "7ea5e"]);
    assert!(lease.contains("granted with TTL(5000s)") && lease.contains("[leased]"), "{lease}");
    assert_eq!(etcd.ctl(&["get", "c", "--rev", "6", "--print-value-only"]), "2\n");
    assert_eq!(etcd.ctl(&["get", "a", "--rev", "5", "--print-value-only"]), "2\n");
    let compacted = etcd.try_ctl(&["get", "a", "--rev", "4"]).unwrap_err();
    assert!(compacted.contains("compacted"), "{compacted}");

    etcd_goes_on(&etcd, history, folder.path());
}

/// etcd changes what we wrote, everywhere in it, and we read that.
fn etcd_goes_on(etcd: &Etcd, mut history: History, folder: &Path) {
    for n in (0..10_000).step_by(250) {
        let key = format!("many/{n:04}");
        history.apply(&[Change::Put(&key, "changed", 0)]);
        etcd.ctl(&["put", &key, "changed"]);
    }
    let compacted = history.main - 1;
    etcd.ctl(&["compaction", "--physical", &compacted.to_string()]);
    history.compact(compacted);
    let saved = etcd.save(folder, "again.db");
    assert_eq!(etcdctl_status(&saved), our_status(&saved));
    let records: Vec<_> = etcd::records(&mut open(&saved)).unwrap().map(Result::unwrap).collect();
    assert!(records == history.records, "what etcd saved");
    etcd.ctl(&["defrag"]);
    assert!(etcd.served() == history.as_fields(), "after defragmentation");
}

fn restore(snapshot: &Path, data: &Path) -> Result<String, String> {
    etcdctl(&["snapshot", "restore", snapshot.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
}

#[test]
fn a_changed_byte_is_refused_by_etcdctl_and_by_us() {
    if !programs_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("ours.db");
    let mut history = History::new();
    history.apply(&[Change::Put("a", "1", 0)]);
    write(&snapshot, &history, &Meta::default());
    trailer::verify(&mut File::open(&snapshot).unwrap()).unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let unused = 3 * 4096 - 1;
    bytes[unused] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let ours = trailer::verify(&mut File::open(&snapshot).unwrap());
    assert!(matches!(ours, Err(trailer::TrailerError::Mismatch)), "{ours:?}");
    let theirs = restore(&snapshot, &folder.path().join("data")).unwrap_err();
    assert!(theirs.contains("expected sha256"), "{theirs}");
}

#[test]
fn a_store_without_keys_keeps_its_revision() {
    if !programs_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (snapshot, data) = (folder.path().join("ours.db"), folder.path().join("data"));
    let mut history = History::new();
    history.apply(&[Change::Put("a", "1", 0)]);
    history.apply(&[Change::Delete("a")]);
    history.compact(3);
    assert!(history.records.is_empty());
    let meta = Meta { consistent_index: 9, compaction_scheduled: 3, compacted: 3 };
    write(&snapshot, &history, &meta);
    assert_eq!(etcd::meta(&mut open(&snapshot)).unwrap(), meta);
    restore(&snapshot, &data).unwrap();
    assert_eq!(Etcd::start(&data).revision(), 3);
}

#[test]
fn we_read_what_etcdctl_saved() {
    if !programs_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&folder.path().join("data"));
    let mut history = History::new();
    let large = "v".repeat(100_000);
    etcd.ctl(&["lease", "grant", "600", "-w", "fields"]);
    let granted = etcd.ctl(&["lease", "list"]);
    let lease = granted.lines().nth(1).expect("a lease").to_owned();
    let id = i64::from_str_radix(&lease, 16).unwrap();
    for n in 0..60 {
        let (key, value) = (format!("k{}", n % 40), if n % 20 == 0 { &large } else { "v" });
        history.apply(&[Change::Put(&key, value, 0)]);
        etcd.ctl(&["put", &key, value]);
    }
    history.apply(&[Change::Put("leased", "x", id)]);
    etcd.ctl(&["put", "leased", "x", "--lease", &lease]);
    history.apply(&[Change::Delete("k7")]);
    etcd.ctl(&["del", "k7"]);
    etcd.ctl(&["compaction", "--physical", "50"]);
    history.compact(50);
    history.apply(&[Change::Delete("k8")]);
    etcd.ctl(&["del", "k8"]);

    let saved = etcd.save(folder.path(), "theirs.db");
    let content = trailer::verify(&mut File::open(&saved).unwrap()).unwrap();
    let mut file = open(&saved);
    assert_eq!(file.bytes(), content);
    assert_eq!(file.buckets().count(), etcd::Bucket::ALL.len());
    assert!(file.buckets().eq(etcd::Bucket::ALL.map(etcd::Bucket::name)));
    let records: Vec<_> = etcd::records(&mut file).unwrap().map(Result::unwrap).collect();
    assert_eq!(records, history.records);
    let leases: Vec<_> = etcd::leases(&mut file).unwrap().map(Result::unwrap).collect();
    assert_eq!(leases, [Lease { id, ttl: 600, remaining_ttl: 0 }]);
    let meta = etcd::meta(&mut file).unwrap();
    assert_eq!((meta.compacted, meta.compaction_scheduled), (50, 50));
    assert!(meta.consistent_index >= 64, "{meta:?}");
    assert_eq!(etcdctl_status(&saved), our_status(&saved));
    a_copy_has_the_same_hash(&saved, folder.path());
}

/// Bucket by bucket, pair by pair.
fn a_copy_has_the_same_hash(saved: &Path, folder: &Path) {
    let path = folder.join("copy.db");
    let mut from = open(saved);
    let mut to = etcd::Writer::new(File::create_new(&path).unwrap()).unwrap();
    for bucket in etcd::Bucket::ALL.into_iter().filter(|bucket| *bucket != etcd::Bucket::Meta) {
        let mut pairs = from.pairs(bucket.name()).unwrap().unwrap();
        while let Some((key, value)) = pairs.next().unwrap() {
            to.put(bucket, key, value).unwrap();
        }
    }
    to.finish(&etcd::meta(&mut from).unwrap()).unwrap();
    let (original, copy) = (etcdctl_status(saved), etcdctl_status(&path));
    assert_eq!(copy, Status { bytes: copy.bytes, ..original });
}
