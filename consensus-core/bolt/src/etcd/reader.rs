//! etcd's records, leases and numbers out of a file.
//!
//! Each is checked by itself. Whether they go together (versions count up, leases exist) is for whoever restores them.

use std::io::{Read, Seek};

use consensus_proto::mvccpb::KeyValue;
use prost::Message as _;
use thiserror::Error;

use super::{
    Bucket,
    record::{Lease, Meta, Record, Revision},
    writer::{COMPACTED, COMPACTION_SCHEDULED, CONSISTENT_INDEX},
};
use crate::{Pairs, Reader};

/// Why etcd's data could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] crate::ReadError),
    /// Not a database of etcd.
    #[error("there is no bucket {name}")]
    NoBucket {
        /// Its name.
        name: &'static str,
    },
    /// A key of the bucket `key` is none of a record.
    #[error("{} is no revision", key.escape_ascii())]
    NoRevision {
        /// The key.
        key: Vec<u8>,
    },
    /// A record's value is no `KeyValue`.
    #[error("record at revision {}, {}: {source}", revision.main, revision.sub)]
    NoKeyValue {
        /// Where it is.
        revision: Revision,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// A record has no key, or the modification revision of another.
    #[error("record at revision {}, {} contradicts itself: modified at {mod_revision}", revision.main, revision.sub)]
    Contradiction {
        /// Where it is.
        revision: Revision,
        /// What it says.
        mod_revision: i64,
    },
    /// A pair of the bucket `lease` is no lease.
    #[error("{} is no lease", key.escape_ascii())]
    NoLease {
        /// The key.
        key: Vec<u8>,
    },
    /// A number in the bucket `meta` is none.
    #[error("{name} is not a number")]
    NoNumber {
        /// Its key.
        name: &'static str,
    },
}

fn open<R: Read + Seek>(reader: &mut Reader<R>, bucket: Bucket) -> Result<Pairs<'_, R>, ReadError> {
    let name = std::str::from_utf8(bucket.name()).expect("names of buckets are ASCII");
    reader.pairs(bucket.name())?.ok_or(ReadError::NoBucket { name })
}

/// All records, in order of their revisions.
pub fn records<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Records<'_, R>, ReadError> {
    Ok(Records { pairs: Some(open(reader, Bucket::Key)?) })
}

/// Ends with the first error.
pub struct Records<'a, R> {
    pairs: Option<Pairs<'a, R>>,
}

impl<R: Read + Seek> Iterator for Records<'_, R> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.pairs, record)
    }
}

fn record(key: &[u8], value: &[u8]) -> Result<Record, ReadError> {
    let (revision, deleted) =
        Revision::decode_key(key).ok_or_else(|| ReadError::NoRevision { key: key.to_vec() })?;
    let key_value = KeyValue::decode(value).map_err(|source| ReadError::NoKeyValue { revision, source })?;
    let mod_revision = key_value.mod_revision;
    if key_value.key.is_empty() || (!deleted && mod_revision != revision.main) {
        return Err(ReadError::Contradiction { revision, mod_revision });
    }
    Ok(Record { revision, deleted, key_value })
}

/// All leases, in order of their ids.
pub fn leases<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Leases<'_, R>, ReadError> {
    Ok(Leases { pairs: Some(open(reader, Bucket::Lease)?) })
}

/// Ends with the first error.
pub struct Leases<'a, R> {
    pairs: Option<Pairs<'a, R>>,
}

impl<R: Read + Seek> Iterator for Leases<'_, R> {
    type Item = Result<Lease, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.pairs, |key, value| {
            let lease = Lease::decode(value).ok().filter(|lease| lease.id.to_be_bytes() == key);
            lease.ok_or_else(|| ReadError::NoLease { key: key.to_vec() })
        })
    }
}

/// The next pair as what it means; no more after an error.
fn next<R: Read + Seek, T>(
    pairs: &mut Option<Pairs<'_, R>>,
    decode: impl Fn(&[u8], &[u8]) -> Result<T, ReadError>,
) -> Option<Result<T, ReadError>> {
    let item = match pairs.as_mut()?.next() {
        Ok(None) => None,
        Ok(Some((key, value))) => Some(decode(key, value)),
        Err(error) => Some(Err(error.into())),
    };
    if !matches!(item, Some(Ok(_))) {
        *pairs = None;
    }
    item
}

/// Numbers of the whole; those that are not there are 0.
pub fn meta<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Meta, ReadError> {
    let mut pairs = open(reader, Bucket::Meta)?;
    let mut meta = Meta::default();
    let revision = |name, value: &[u8]| {
        Revision::decode(value).map(|revision| revision.main).ok_or(ReadError::NoNumber { name })
    };
    while let Some((key, value)) = pairs.next()? {
        if key == CONSISTENT_INDEX.as_bytes() {
            let bytes = value.try_into().map_err(|_| ReadError::NoNumber { name: CONSISTENT_INDEX })?;
            meta.consistent_index = u64::from_be_bytes(bytes);
        } else if key == COMPACTION_SCHEDULED.as_bytes() {
            meta.compaction_scheduled = revision(COMPACTION_SCHEDULED, value)?;
        } else if key == COMPACTED.as_bytes() {
            meta.compacted = revision(COMPACTED, value)?;
        }
    }
    Ok(meta)
}
