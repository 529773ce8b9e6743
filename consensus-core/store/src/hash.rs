//! Checksums by which members compare what they have.

use std::ops::ControlFlow;

use consensus_disk::{Disk, Order, Space};

use crate::{Reader, SPACES, StoreError, keys, keys::VERSIONS, version::Version};

/// What members compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysHash {
    /// Of the keys and their versions.
    pub hash: u32,
    /// Up to which revision.
    pub revision: i64,
    /// The compaction that it takes as done.
    pub compacted: i64,
}

/// Which versions a compaction leaves, as they come: by key, the newest first.
#[derive(Default)]
struct Kept {
    /// The key whose newest version that the compaction can leave was met.
    key: Vec<u8>,
    met: bool,
}

impl Kept {
    /// The revision of a version, and whether it is left.
    fn is_left(&mut self, disk_key: &[u8], stored: &[u8], compacted: i64) -> Result<(i64, bool), StoreError> {
        let (key, revision) = keys::split_version_key(disk_key)?;
        if revision > compacted {
            return Ok((revision, true));
        }
        if self.met && self.key == key {
            return Ok((revision, false));
        }
        self.met = true;
        self.key.clear();
        self.key.extend_from_slice(key);
        Ok((revision, !Version::decode(stored, revision)?.is_deletion()))
    }
}

impl<D: Disk> Reader<D> {
    /// A CRC-32 over every version of every key up to `revision` (0: the newest) that the last compaction has left, whether or
    /// not the others are removed already. Members that are compacted to the same revision have the same.
    pub fn hash_of_keys(&self, revision: i64) -> Result<KeysHash, StoreError> {
        let current = self.revision();
        if revision > current {
            return Err(StoreError::FutureRevision);
        }
        let up_to = if revision > 0 { revision } else { current };
        let mut hasher = crc32fast::Hasher::new();
        let (mut kept, mut compacted, mut failed) = (Kept::default(), None, None);
        self.disk().scan(VERSIONS, &[], None, Order::Ascending, &mut |key, version| {
            // What is seen is as of now at the latest: nothing is removed from it that is out of reach only later.
            let compacted = *compacted.get_or_insert_with(|| self.compacted());
            match kept.is_left(key, version, compacted) {
                Ok((revision, true)) if revision <= up_to => add(&mut hasher, key, version),
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        let compacted = compacted.unwrap_or_else(|| self.compacted());
        if compacted > up_to {
            return Err(StoreError::Compacted);
        }
        failed.map_or(Ok(KeysHash { hash: hasher.finalize(), revision: up_to, compacted }), Err)
    }

    /// A CRC-32 over everything on the disk.
    pub fn hash_of_everything(&self) -> Result<u32, StoreError> {
        let mut hasher = crc32fast::Hasher::new();
        for space in (0..SPACES).map(Space) {
            self.disk().scan(space, &[], None, Order::Ascending, &mut |key, value| {
                add(&mut hasher, key, value);
                ControlFlow::Continue(())
            })?;
        }
        Ok(hasher.finalize())
    }
}

/// Lengths before contents, so that no bytes can change sides.
fn add(hasher: &mut crc32fast::Hasher, key: &[u8], value: &[u8]) {
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}
