//! Removes what a compaction has put out of reach, in steps: which versions those are, and how far it is.
//!
//! Deliberately not here: that a compaction was asked for, which [`Store::apply`](crate::Store::apply) has recorded before,
//! and when a step is taken.

use std::ops::ControlFlow;

use bytes::Bytes;
use consensus_disk::{Batch, Disk, Durability, Order};

use crate::{
    StoreError,
    keys::{self, HISTORY, VERSIONS},
    version::Version,
};

/// What is to be removed after a compaction. Whatever of it is there can be removed beside reads and the apply thread: nobody
/// can ask for it any more. How far it is shows on the disk, where changes before the compaction disappear with the versions
/// that they replaced: after a crash another one goes on from there.
#[derive(Debug)]
pub struct Removal {
    compacted: i64,
    /// Key of the next change to look at.
    next: Vec<u8>,
}

impl Removal {
    /// Of everything that can be asked for only at revisions before this one.
    pub fn new(compacted: i64) -> Self {
        Self { compacted, next: keys::history_key(0, 0) }
    }

    /// The revision that it is for.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Looks at so many changes, in order: each takes the version that it replaced with it, and, if it is a deletion, itself.
    /// Whether there are more.
    pub fn step(&mut self, disk: &dyn Disk, changes_max: usize) -> Result<bool, StoreError> {
        let mut changes: Vec<(Vec<u8>, Bytes)> = Vec::with_capacity(changes_max);
        let end = keys::history_key(self.compacted.saturating_add(1), 0);
        disk.scan(HISTORY, &self.next, Some(&end), Order::Ascending, &mut |disk_key, key| {
            changes.push((disk_key.to_vec(), Bytes::copy_from_slice(key)));
            if changes.len() < changes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let Some((last, _)) = changes.last() else { return Ok(false) };
        let mut next = last.clone();
        next.push(0);
        let mut batch = Batch::default();
        for (disk_key, key) in &changes {
            add_replaced(disk, key, keys::history_revision(disk_key)?, &mut batch)?;
        }
        // The changes of the compaction's own revision can still be asked for.
        let end = keys::history_key(self.compacted, 0).min(next.clone());
        if self.next < end {
            batch.delete_range(HISTORY, self.next.clone(), end);
        }
        disk.write(batch, Durability::Ordered)?;
        self.next = next;
        Ok(changes.len() == changes_max)
    }

    /// All steps at once.
    pub fn finish(mut self, disk: &dyn Disk, changes_max: usize) -> Result<(), StoreError> {
        while self.step(disk, changes_max)? {}
        Ok(())
    }
}

/// What a change of a key at a revision has put out of reach.
fn add_replaced(disk: &dyn Disk, key: &[u8], revision: i64, batch: &mut Batch) -> Result<(), StoreError> {
    let (from, to) = keys::versions_of(key, revision);
    let mut failed = None;
    disk.scan(VERSIONS, &from, Some(&to), Order::Ascending, &mut |disk_key, stored| {
        let found = keys::split_version_key(disk_key)
            .and_then(|(_, found)| Ok((found, Version::decode(stored, found)?.is_deletion())));
        match found {
            Ok((found, is_deletion)) => {
                let replaced = found < revision;
                if replaced || is_deletion {
                    batch.delete(VERSIONS, disk_key);
                }
                // Changes come in order: what was replaced before is gone, or is in this batch.
                if replaced { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}
