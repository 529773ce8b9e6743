//! Checksums by which members compare what they have.

use std::ops::ControlFlow;

use consensus_disk::{Disk, Order, Space};

use crate::{Reader, SPACES, StoreError, keys, keys::VERSIONS};

impl<D: Disk> Reader<D> {
    /// A CRC-32 over every version of every key up to `revision` (0: the newest), and the revision that it is of. Members that
    /// have applied the same and are compacted to the same revision have the same.
    pub fn hash_of_keys(&self, revision: i64) -> Result<(u32, i64), StoreError> {
        let current = self.revision();
        if revision > current {
            return Err(StoreError::FutureRevision);
        }
        let up_to = if revision > 0 { revision } else { current };
        if self.compacted() > up_to {
            return Err(StoreError::Compacted);
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut failed = None;
        self.disk().scan(VERSIONS, &[], None, Order::Ascending, &mut |key, version| {
            match keys::split_version_key(key) {
                Ok((_, revision)) if revision > up_to => {}
                Ok(_) => add(&mut hasher, key, version),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        // What is compacted meanwhile may be missing.
        if self.compacted() > up_to {
            return Err(StoreError::Compacted);
        }
        failed.map_or(Ok((hasher.finalize(), up_to)), Err)
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
