//! Writes etcd's buckets, in the order that the file wants.
//!
//! All of them are there, empty or not, as in a database that etcd made.

use std::io::{Seek, Write};

use prost::Message as _;

use super::{
    Bucket,
    record::{Lease, Meta, Record, Revision},
};
use crate::WriteError;

pub(super) const CONSISTENT_INDEX: &str = "consistent_index";
pub(super) const COMPACTION_SCHEDULED: &str = "scheduledCompactRev";
pub(super) const COMPACTED: &str = "finishedCompactRev";

/// A database in the making: buckets come in the order of [`Bucket::ALL`], pairs of a bucket in the order of their keys.
pub struct Writer<W: Write> {
    file: crate::Writer<W>,
    /// The buckets that have not begun.
    rest: std::slice::Iter<'static, Bucket>,
    open: Option<Bucket>,
    /// A record's value, encoded.
    value: Vec<u8>,
}

impl<W: Write + Seek> Writer<W> {
    /// `file` is empty.
    pub fn new(file: W) -> Result<Self, WriteError> {
        let file = crate::Writer::new(file)?;
        Ok(Self { file, rest: Bucket::ALL.iter(), open: None, value: Vec::new() })
    }

    /// A pair as etcd keeps it.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.enter(bucket)?;
        self.file.put(key, value)
    }

    /// Revisions ascend.
    pub fn record(&mut self, record: &Record) -> Result<(), WriteError> {
        self.enter(Bucket::Key)?;
        self.value.clear();
        record.key_value.encode(&mut self.value).expect("a vector takes any message");
        self.file.put(&record.revision.encode_key(record.deleted), &self.value)
    }

    /// Ids ascend.
    pub fn lease(&mut self, lease: &Lease) -> Result<(), WriteError> {
        self.put(Bucket::Lease, &lease.id.to_be_bytes(), &lease.encode_to_vec())
    }

    /// Writes these numbers and finishes the file. It is at its end and not synced; the digest is not there yet.
    pub fn finish(mut self, meta: &Meta) -> Result<W, WriteError> {
        self.put(Bucket::Meta, CONSISTENT_INDEX.as_bytes(), &meta.consistent_index.to_be_bytes())?;
        for (name, main) in [(COMPACTED, meta.compacted), (COMPACTION_SCHEDULED, meta.compaction_scheduled)] {
            if main != 0 {
                self.put(Bucket::Meta, name.as_bytes(), &Revision { main, sub: 0 }.encode())?;
            }
        }
        self.file.finish()
    }

    /// Begins all buckets up to this one.
    fn enter(&mut self, bucket: Bucket) -> Result<(), WriteError> {
        while self.open.is_none_or(|open| open < bucket) {
            let Some(next) = self.rest.next() else { break };
            self.file.bucket(next.name())?;
            self.open = Some(*next);
        }
        match self.open {
            Some(open) if open == bucket => Ok(()),
            open => Err(WriteError::Order {
                key: bucket.name().to_vec(),
                after: open.map_or_else(Vec::new, |open| open.name().to_vec()),
            }),
        }
    }
}
