//! Records without any server: what was written is read back, and what etcd would not have written is told.

use std::io::Cursor;

use consensus_bolt::{
    Reader, WriteError, Writer,
    etcd::{self, Bucket, Lease, Meta, ReadError},
};
use consensus_proto::mvccpb::KeyValue;
use prost::Message as _;

use crate::etcd::history::long_history;

type File = Reader<Cursor<Vec<u8>>>;

fn write(fill: impl FnOnce(&mut etcd::Writer<Cursor<Vec<u8>>>), meta: &Meta) -> File {
    let mut writer = etcd::Writer::new(Cursor::new(Vec::new())).unwrap();
    fill(&mut writer);
    Reader::open(Cursor::new(writer.finish(meta).unwrap().into_inner())).unwrap()
}

#[test]
fn records_leases_and_numbers_are_read_back() {
    let history = long_history();
    let lease = |id| Lease { id, ttl: 60, remaining_ttl: id % 60 };
    let expected: Vec<_> = (1..2000).map(|n| lease(n * n)).collect();
    let meta = Meta { consistent_index: u64::MAX, compaction_scheduled: 9, compacted: 7 };
    let mut file = write(
        |writer| {
            history.records.iter().for_each(|record| writer.record(record).unwrap());
            expected.iter().for_each(|lease| writer.lease(lease).unwrap());
        },
        &meta,
    );
    assert!(etcd::records(&mut file).unwrap().map(Result::unwrap).eq(history.records));
    assert!(etcd::leases(&mut file).unwrap().map(Result::unwrap).eq(expected));
    assert_eq!(etcd::meta(&mut file).unwrap(), meta);
}

#[test]
fn buckets_come_in_order() {
    write(
        |writer| {
            writer.put(Bucket::Lease, b"k", b"").unwrap();
            for earlier in [Bucket::Alarm, Bucket::Key] {
                assert!(matches!(writer.put(earlier, b"k", b""), Err(WriteError::Order { .. })));
            }
            writer.put(Bucket::Lease, b"l", b"").unwrap();
        },
        &Meta::default(),
    );
}

#[test]
fn a_file_without_buckets_of_etcd_is_told() {
    let file = Writer::new(Cursor::new(Vec::new())).unwrap().finish().unwrap();
    let mut file = Reader::open(file).unwrap();
    for (error, expected) in [
        (etcd::records(&mut file).err(), "key"),
        (etcd::leases(&mut file).err(), "lease"),
        (etcd::meta(&mut file).err(), "meta"),
    ] {
        assert!(matches!(error, Some(ReadError::NoBucket { name }) if name == expected));
    }
}

const REVISION: &[u8] = b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0";

/// What comes of one pair in the bucket `key`; after an error there is nothing more.
fn record(key: &[u8], value: &[u8]) -> ReadError {
    let mut file = write(
        |writer| {
            writer.put(Bucket::Key, key, value).unwrap();
            writer.put(Bucket::Key, &[0xff; 20], b"").unwrap();
        },
        &Meta::default(),
    );
    let mut records = etcd::records(&mut file).unwrap();
    let error = records.next().unwrap().unwrap_err();
    assert!(records.next().is_none());
    error
}

#[test]
fn records_that_etcd_would_not_write_are_told() {
    let key_value = |key: &'static [u8], mod_revision| {
        KeyValue { key: key.into(), mod_revision, ..KeyValue::default() }.encode_to_vec()
    };
    let error = record(b"\0", &key_value(b"k", 5));
    assert!(matches!(error, ReadError::NoRevision { .. }), "{error}");
    let error = record(REVISION, b"\xff");
    assert!(matches!(error, ReadError::NoKeyValue { revision, .. } if revision.main == 5), "{error}");
    for contradiction in [key_value(b"k", 6), key_value(b"", 5)] {
        let error = record(REVISION, &contradiction);
        assert!(matches!(error, ReadError::Contradiction { .. }), "{error}");
    }
}

#[test]
fn leases_and_numbers_that_are_none_are_told() {
    let lease = Lease { id: 5, ttl: 60, remaining_ttl: 0 };
    for (id, value) in [(6_i64, lease.encode_to_vec()), (5, b"\xff".to_vec())] {
        let mut file =
            write(|writer| writer.put(Bucket::Lease, &id.to_be_bytes(), &value).unwrap(), &Meta::default());
        let error = etcd::leases(&mut file).unwrap().next().unwrap();
        assert!(matches!(error, Err(ReadError::NoLease { .. })), "{error:?}");
    }
    for (name, value) in
        [("consistent_index", &b"1234567"[..]), ("finishedCompactRev", b"1"), ("scheduledCompactRev", b"")]
    {
        let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
        writer.bucket(b"meta").unwrap();
        writer.put(name.as_bytes(), value).unwrap();
        let mut file = Reader::open(writer.finish().unwrap()).unwrap();
        let error = etcd::meta(&mut file);
        assert!(matches!(error, Err(ReadError::NoNumber { name: found }) if found == name), "{error:?}");
    }
}
