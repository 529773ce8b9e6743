//! All of a store as a list of changes, in the order in which they were made, and back.
//!
//! A list is of what a store can still be asked for: of keys that did not change since the last compaction, it has one
//! version each.

use std::ops::ControlFlow;

use bytes::Bytes;
use consensus_disk::{Batch, Disk, Durability, Order};
use consensus_proto::mvccpb::KeyValue;

use crate::{
    Removal, StoreError,
    auth::PolicyRecords,
    keys::{self, HISTORY, LEASE_KEYS, LEASES, VERSIONS},
    store::{LEASE_TTL_MAX, State},
    version::Version,
    view::View,
};

/// Changes that are written at once.
const AT_ONCE: usize = 1000;

/// A change of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The revision, and the number of the change in it.
    pub revision: (i64, u32),
    /// Whether the key was deleted: then there is nothing but the key.
    pub deleted: bool,
    /// What the key is from here on.
    pub key_value: KeyValue,
}

/// What is known of a store as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Index of the last entry that is applied.
    pub applied: u64,
    /// The newest revision.
    pub revision: i64,
    /// The revision before which nothing can be asked for.
    pub compacted: i64,
}

/// What is known of the store on a disk.
pub fn summary(disk: &dyn Disk) -> Result<Summary, StoreError> {
    let State { applied, revision, compacted } = State::read(disk)?;
    Ok(Summary { applied, revision, compacted })
}

/// Batches of changes, so that no memory is needed for all.
struct Writes<'a> {
    disk: &'a dyn Disk,
    batch: Batch,
}

impl Writes<'_> {
    fn flush_if_full(&mut self) -> Result<(), StoreError> {
        if self.batch.ops().len() >= AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(self.disk.write(std::mem::take(&mut self.batch), Durability::Ordered)?)
    }
}

/// Visits the pairs of a space until a visit fails.
fn visit_all(
    disk: &dyn Disk,
    space: consensus_disk::Space,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut failed = None;
    disk.scan(space, &[], None, Order::Ascending, &mut |key, value| match visit(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Calls `visit` with all changes of the store on a disk, in order. The disk is a copy that nobody else uses: the last compaction
/// is finished there, and what it took out of the list of changes is put back, for the disk to sort it.
pub fn export<E: From<StoreError>>(
    disk: &dyn Disk,
    mut visit: impl FnMut(Change) -> Result<(), E>,
) -> Result<(), E> {
    let compacted = State::read(disk)?.compacted;
    Removal::new(compacted).finish(disk, AT_ONCE)?;
    let mut writes = Writes { disk, batch: Batch::default() };
    let mut number = 0_u32;
    visit_all(disk, VERSIONS, |disk_key, _| {
        let (key, revision) = keys::split_version_key(disk_key)?;
        if revision < compacted {
            // Which of the changes of its revision it was, nobody knows any more, nor has to.
            number += 1;
            writes.batch.put(HISTORY, keys::history_key(revision, number), keys::unescape(key));
        }
        writes.flush_if_full()
    })?;
    writes.flush()?;

    let (mut last, mut sub) = (0, 0);
    let mut failed: Option<E> = None;
    let scanned = visit_all(disk, HISTORY, |disk_key, key| {
        let revision = keys::history_revision(disk_key)?;
        sub = if revision == last { sub + 1 } else { 0 };
        last = revision;
        let found = View { disk, overlay: None, recent: None, revision }.get(key, true)?;
        let key = Bytes::copy_from_slice(key);
        let change = match found {
            Some(version) => {
                Change { revision: (revision, sub), deleted: false, key_value: version.key_value(key) }
            }
            None => {
                let key_value = KeyValue { key, ..KeyValue::default() };
                Change { revision: (revision, sub), deleted: true, key_value }
            }
        };
        visit(change).map_err(|error| {
            failed = Some(error);
            StoreError::Invalid("the visitor has had enough")
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(scanned?),
    }
}

/// Calls `visit` with all leases of the store on a disk, and their time to live in seconds, in the order of their ids as
/// numbers without a sign.
pub fn leases<E: From<StoreError>>(
    disk: &dyn Disk,
    mut visit: impl FnMut(i64, i64) -> Result<(), E>,
) -> Result<(), E> {
    let mut leases: Vec<_> = crate::store::read_leases(disk)?.into_iter().collect();
    leases.sort_by_key(|(id, _)| *id as u64);
    leases.into_iter().try_for_each(|(id, lease)| visit(id, lease.ttl))
}

/// The users and roles of the store on a disk.
pub fn policy(disk: &dyn Disk) -> Result<PolicyRecords, StoreError> {
    PolicyRecords::read(disk)
}

/// Fills an empty disk with the changes of another store, in their order.
pub struct Import<'a> {
    writes: Writes<'a>,
    last: Option<(i64, u32)>,
    changes: u64,
}

impl<'a> Import<'a> {
    /// Begins on an empty disk.
    pub fn new(disk: &'a dyn Disk) -> Self {
        Self { writes: Writes { disk, batch: Batch::default() }, last: None, changes: 0 }
    }

    /// The next change.
    pub fn change(&mut self, change: &Change) -> Result<(), StoreError> {
        let Change { revision, deleted, key_value } = change;
        if self.last.is_some_and(|last| last >= *revision) || revision.0 < 1 {
            return Err(StoreError::Invalid("changes that are not in order"));
        }
        let sensible =
            *deleted || key_value.version > 0 && (1..=revision.0).contains(&key_value.create_revision);
        if key_value.key.is_empty() || !sensible {
            return Err(StoreError::Invalid("a change that makes no sense"));
        }
        self.last = Some(*revision);
        self.changes += 1;
        let version = match deleted {
            true => Version::deleted_at(revision.0),
            false => Version {
                create_revision: key_value.create_revision,
                mod_revision: revision.0,
                version: key_value.version,
                lease: key_value.lease,
                value: key_value.value.clone(),
            },
        };
        let batch = &mut self.writes.batch;
        batch.put(VERSIONS, keys::version_key(&key_value.key, revision.0), version.encode());
        batch.put(HISTORY, keys::history_key(revision.0, revision.1), &key_value.key[..]);
        self.writes.flush_if_full()
    }

    /// A lease, with its time to live in seconds.
    pub fn lease(&mut self, id: i64, ttl: i64) -> Result<(), StoreError> {
        if id == 0 || !(1..=LEASE_TTL_MAX).contains(&ttl) {
            return Err(StoreError::Invalid("a lease that makes no sense"));
        }
        self.writes.batch.put(LEASES, keys::lease_key(id), ttl.to_le_bytes());
        self.writes.flush_if_full()
    }

    /// Users and roles.
    pub fn policy(&mut self, policy: &PolicyRecords) -> Result<(), StoreError> {
        policy.put(&mut self.writes.batch);
        self.writes.flush()
    }

    /// The rest. Gives back the newest revision, and how many changes there were.
    pub fn finish(mut self, applied: u64, compacted: i64) -> Result<(i64, u64), StoreError> {
        self.writes.flush()?;
        let disk = self.writes.disk;
        let mut newest: Vec<u8> = Vec::new();
        visit_all(disk, VERSIONS, |disk_key, stored| {
            let (key, revision) = keys::split_version_key(disk_key)?;
            if newest != key {
                newest = key.to_vec();
                let lease = Version::decode(stored, revision)?.lease;
                // A key of a lease that ended while the snapshot was taken is one without.
                if lease != 0 && disk.get(LEASES, &keys::lease_key(lease))?.is_some() {
                    let attachment = keys::attachment_key(lease, &keys::unescape(key));
                    self.writes.batch.put(LEASE_KEYS, attachment, []);
                }
            }
            self.writes.flush_if_full()
        })?;
        let revision = self.last.map_or(1, |(revision, _)| revision).max(compacted);
        State { applied, revision, compacted }.put(&mut self.writes.batch);
        self.writes.flush()?;
        Ok((revision, self.changes))
    }
}
