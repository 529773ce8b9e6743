//! What `etcdctl snapshot status` tells of a file.
//!
//! All pairs of all buckets are read for it, and so is every page that one of them is in.

use std::io::{Read, Seek};

use super::{Bucket, ReadError, record::Revision};
use crate::Reader;

/// Four numbers of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of names, keys and values, bucket by bucket.
    pub hash: u32,
    /// Of the last record; 0: there is none.
    pub revision: i64,
    /// Pairs of all buckets.
    pub keys: u64,
    /// Of all pages.
    pub bytes: u64,
}

/// Reads the whole file.
pub fn status<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Status, ReadError> {
    let mut status = Status { hash: 0, revision: 0, keys: 0, bytes: reader.bytes() };
    let names: Vec<_> = reader.buckets().map(<[u8]>::to_vec).collect();
    for name in names {
        status.hash = crc32c::crc32c_append(status.hash, &name);
        let Some(mut pairs) = reader.pairs(&name)? else { continue };
        while let Some((key, value)) = pairs.next()? {
            status.hash = crc32c::crc32c_append(status.hash, key);
            status.hash = crc32c::crc32c_append(status.hash, value);
            status.keys += 1;
            if name == Bucket::Key.name() {
                let no_revision = || ReadError::NoRevision { key: key.to_vec() };
                status.revision = Revision::decode_key(key).ok_or_else(no_revision)?.0.main;
            }
        }
    }
    Ok(status)
}
