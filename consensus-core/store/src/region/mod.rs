//! Replication between regions: what is under one prefix is, beside its versions, a CRDT item of `consensus-regions`.
//!
//! Two ways lead here, both of them entries of the log. A client's change of a key under the prefix is a change of its item as well
//! ([`Txn::replicate`](crate::txn::Txn::replicate)). A merge is a change of items, of which clients see a new version. A store
//! is a region once an entry has said so; until then nothing here costs anything.
//!
//! Deliberately not here: how items are merged, who says what to whom, time.

mod apply;
mod items;
mod text;

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf as _, BufMut as _, Bytes};
use consensus_disk::{Batch, Disk, Order};
use consensus_regions::{Changed, Item, Items as _, Local, MEMBERS_KEY, Replica, Tree};

pub use apply::BEGIN_KEYS_MAX;
pub use items::StoredItems;
pub(crate) use items::{Overlay, put_items};
pub(crate) use text::{seen, text};

use crate::{
    Reader, StoreError,
    keys::{ITEMS, META},
};

const RECORD: &[u8] = b"region";
const DAMAGED: StoreError = StoreError::Damaged { what: "state of the region" };
/// Longest prefix, in bytes.
pub const PREFIX_BYTES_MAX: usize = 256;

/// What the apply thread knows of the region that the store is.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) prefix: Bytes,
    pub(crate) replica: Replica,
    /// Items that the batch changes.
    overlay: Overlay,
    /// The same, for whoever keeps hashes of them.
    changed: Vec<Changed>,
    /// The batch changes something.
    is_changed: bool,
}

/// What a client's transaction, or an entry that is about regions, does to items.
pub(crate) struct Replicated {
    pub(crate) replica: Replica,
    pub(crate) changed: Vec<Changed>,
}

impl Region {
    fn new(prefix: Bytes, replica: Replica) -> Self {
        Self { prefix, replica, overlay: Overlay::new(), changed: Vec::new(), is_changed: false }
    }

    /// What is stored; `None`: the store is no region. With it the hashes of all items.
    pub(crate) fn load(disk: &dyn Disk) -> Result<Option<(Self, Tree)>, StoreError> {
        let Some(record) = disk.get(META, RECORD)? else { return Ok(None) };
        let (prefix, replica) = split(record)?;
        let items = StoredItems::on(disk);
        let members = items.get(MEMBERS_KEY)?;
        let replica = Replica::from_record(replica, members.as_ref()).map_err(|_| DAMAGED)?;
        let mut tree = Tree::default();
        items.scan(std::ops::Bound::Unbounded, &mut |key, item| {
            tree.update(&Changed { key: key.clone(), before: None, after: Some(item.clone()) });
            ControlFlow::Continue(())
        })?;
        Ok(Some((Self::new(prefix, replica), tree)))
    }

    /// The key of an item; `None`: the key is not under the prefix.
    pub(crate) fn below<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(&self.prefix[..])
    }

    /// The key that clients know.
    pub(crate) fn above(&self, key: &[u8]) -> Bytes {
        [&self.prefix[..], key].concat().into()
    }

    /// Items as they are after what was applied before.
    pub(crate) fn items<'a>(&'a self, disk: &'a dyn Disk) -> StoredItems<'a> {
        StoredItems { disk, overlay: Some(&self.overlay) }
    }

    /// From now on items are these.
    pub(crate) fn write(&mut self, replicated: Replicated, batch: &mut Batch) {
        let Replicated { replica, changed } = replicated;
        self.replica = replica;
        self.is_changed = true;
        for one in &changed {
            put_items(one, batch);
            self.overlay.insert(items::place_key(&one.key), one.after.clone());
        }
        self.changed.extend(changed);
    }

    /// The batch is complete: what it changes, if that is anything.
    fn finish(&mut self, batch: &mut Batch) -> Option<Vec<Changed>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let mut record = Vec::with_capacity(64);
        record.put_u16_le(self.prefix.len() as u16);
        record.put_slice(&self.prefix);
        record.put_slice(&self.replica.to_record());
        batch.put(META, RECORD, record);
        self.overlay.clear();
        Some(std::mem::take(&mut self.changed))
    }
}

fn split(mut record: Bytes) -> Result<(Bytes, Bytes), StoreError> {
    let len = record.try_get_u16_le().map_err(|_| DAMAGED)?.into();
    if len == 0 || len > PREFIX_BYTES_MAX || record.len() < len {
        return Err(DAMAGED);
    }
    let prefix = record.split_to(len);
    Ok((prefix, record))
}

/// The region as it is on the disk: for its leader, beside the apply thread.
#[derive(Debug)]
pub(crate) struct PublishedRegion {
    prefix: Bytes,
    replica: Replica,
    tree: Tree,
}

/// Held while a batch that changes items is written: whoever has it sees items, vector and hashes of the same moment.
#[derive(Debug, Default)]
pub(crate) struct SharedRegion(Mutex<Option<PublishedRegion>>);

impl SharedRegion {
    /// As it was loaded.
    pub(crate) fn of(loaded: Option<(&Region, Tree)>) -> Self {
        let shared = Self::default();
        shared.set(&mut shared.lock(), loaded);
        shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<PublishedRegion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, guard: &mut Option<PublishedRegion>, loaded: Option<(&Region, Tree)>) {
        *guard = loaded.map(|(region, tree)| PublishedRegion {
            prefix: region.prefix.clone(),
            replica: region.replica.clone(),
            tree,
        });
    }
}

impl<D: Disk> Reader<D> {
    /// Looks at the region that the store is, while nothing of it changes: not for long. `None`: it is none.
    pub fn with_region<T>(&self, look: impl FnOnce(&[u8], Local<'_, StoredItems<'_>>) -> T) -> Option<T> {
        let shared = self.published.region.lock();
        let PublishedRegion { prefix, replica, tree } = (*shared).as_ref()?;
        // In force as long as the lock is held.
        let disk = self.disk();
        Some(look(prefix, Local { replica, items: &StoredItems::on(&*disk), tree }))
    }

    /// Whether the store is a region.
    pub fn is_region(&self) -> bool {
        self.published.is_region.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How many items there are, those with nothing but tombstones included.
    pub fn region_items(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.disk().scan(ITEMS, &[], None, Order::Ascending, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }
}

fn decode(record: &[u8]) -> Result<Item, StoreError> {
    Item::from_record(Bytes::copy_from_slice(record))
        .map_err(|_| StoreError::Damaged { what: "item of the region" })
}
