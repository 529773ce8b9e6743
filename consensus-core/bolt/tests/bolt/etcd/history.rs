//! What etcd would record of puts and deletions, to compare files with.

use std::{collections::BTreeMap, fmt::Write as _};

use consensus_bolt::etcd::{Record, Revision};
use consensus_proto::mvccpb::KeyValue;

pub(crate) const LEASE: i64 = 0x7ea5e;

/// Changes of a store that began empty.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
    current: BTreeMap<String, KeyValue>,
    /// The revision.
    pub(crate) main: i64,
}

/// A put has key, value and lease.
pub(crate) enum Change<'a> {
    Put(&'a str, &'a str, i64),
    Delete(&'a str),
}

impl History {
    /// etcd's first change has revision 2.
    pub(crate) fn new() -> Self {
        Self { main: 1, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, transaction: &[Change<'_>]) {
        self.main += 1;
        for (sub, change) in (0..).zip(transaction) {
            let (deleted, key_value) = match change {
                Change::Put(key, value, lease) => (false, self.put(key, value, *lease)),
                Change::Delete(key) => {
                    self.current.remove(*key).expect("a key that is there");
                    (true, KeyValue { key: key.as_bytes().to_vec().into(), ..KeyValue::default() })
                }
            };
            self.records.push(Record { revision: Revision { main: self.main, sub }, deleted, key_value });
        }
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) -> KeyValue {
        let before = self.current.get(key);
        let key_value = KeyValue {
            key: key.as_bytes().to_vec().into(),
            create_revision: before.map_or(self.main, |before| before.create_revision),
            mod_revision: self.main,
            version: before.map_or(1, |before| before.version + 1),
            value: value.as_bytes().to_vec().into(),
            lease,
        };
        self.current.insert(key.to_owned(), key_value.clone());
        key_value
    }

    /// What is left if what was superseded up to a revision goes.
    pub(crate) fn compact(&mut self, revision: i64) {
        let mut newest = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            if record.revision.main <= revision {
                newest.insert(record.key_value.key.clone(), at);
            }
        }
        let mut at = 0;
        self.records.retain(|record| {
            let newest = newest.get(&record.key_value.key) == Some(&at);
            at += 1;
            record.revision.main > revision || (newest && !record.deleted)
        });
    }

    /// As `etcdctl get -w fields` prints it, without the header.
    pub(crate) fn as_fields(&self) -> String {
        let mut text = String::new();
        for key_value in self.current.values() {
            let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            writeln!(text, "\"Key\" : \"{}\"", string(&key_value.key)).unwrap();
            writeln!(text, "\"CreateRevision\" : {}", key_value.create_revision).unwrap();
            writeln!(text, "\"ModRevision\" : {}", key_value.mod_revision).unwrap();
            writeln!(text, "\"Version\" : {}", key_value.version).unwrap();
            writeln!(text, "\"Value\" : \"{}\"", string(&key_value.value)).unwrap();
            writeln!(text, "\"Lease\" : {}", key_value.lease).unwrap();
        }
        writeln!(text, "\"More\" : false\n\"Count\" : {}", self.current.len()).unwrap();
        text
    }
}

/// A transaction of three changes, deletions, a key that came back, keys with a lease, values of one and of many pages, and
/// enough of them for a tree of three levels.
pub(crate) fn long_history() -> History {
    let mut history = History::new();
    history.apply(&[Change::Put("a", "1", 0)]);
    history.apply(&[Change::Put("b", "1", 0), Change::Put("c", "1", 0), Change::Put("a", "2", 0)]);
    history.apply(&[Change::Delete("b")]);
    history.apply(&[Change::Put("b", "again", 0), Change::Put("leased", "x", LEASE)]);
    history.apply(&[Change::Put("c", "2", LEASE)]);
    history.apply(&[Change::Put("c", "3", 0)]);
    let (page, many) = ("p".repeat(4000), "m".repeat(1_200_000));
    for n in 0..12_000 {
        let value = match n % 1000 {
            0 => page.as_str(),
            1 if n < 3000 => many.as_str(),
            _ => "a small value, as most of them are; a page takes about thirty",
        };
        history.apply(&[Change::Put(&format!("many/{:04}", (n * 7919) % 10_000), value, 0)]);
    }
    for n in 0..100 {
        history.apply(&[Change::Delete(&format!("many/{n:04}"))]);
    }
    history
}
