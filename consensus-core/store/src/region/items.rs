//! Items on the disk, and over them what is being applied.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk, Order};
use consensus_regions::{Changed, Dot, Item, Items, RegionId, place};

use super::decode;
use crate::{
    StoreError,
    keys::{CHANGES, ITEMS},
};

/// Items that are not on the disk yet, by place; `None`: gone.
pub(crate) type Overlay = BTreeMap<Vec<u8>, Option<Item>>;

const LEAF: usize = 2;

/// Where an item is in [`ITEMS`]: its leaf of the tree, then its key.
pub(super) fn place_key(key: &[u8]) -> Vec<u8> {
    of_place(place(key))
}

fn of_place((leaf, key): (u16, &[u8])) -> Vec<u8> {
    [&leaf.to_be_bytes(), key].concat()
}

/// Where a change is in [`CHANGES`].
fn dot_key(region: RegionId, counter: u64) -> Vec<u8> {
    [&region.0.to_be_bytes()[..], &counter.to_be_bytes()].concat()
}

/// Adds what a change of an item is on the disk: the item, and where its changes are found.
pub(crate) fn put_items(changed: &Changed, batch: &mut Batch) {
    let Changed { key, before, after } = changed;
    let dots = |item: &Option<Item>| item.as_ref().map(Item::dots).unwrap_or_default();
    let (old, new) = (dots(before), dots(after));
    for Dot { region, counter } in old.difference(&new) {
        batch.delete(CHANGES, dot_key(*region, *counter));
    }
    for Dot { region, counter } in new.difference(&old) {
        batch.put(CHANGES, dot_key(*region, *counter), &key[..]);
    }
    match after {
        Some(item) => batch.put(ITEMS, place_key(key), item.to_record()),
        None => batch.delete(ITEMS, place_key(key)),
    }
}

/// The items of a store.
#[derive(Clone, Copy)]
pub struct StoredItems<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) overlay: Option<&'a Overlay>,
}

impl<'a> StoredItems<'a> {
    /// Those on the disk.
    pub(super) fn on(disk: &'a dyn Disk) -> Self {
        Self { disk, overlay: None }
    }
}

impl Items for StoredItems<'_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Item>, StoreError> {
        let place = place_key(key);
        match self.overlay.and_then(|overlay| overlay.get(&place)) {
            Some(overlaid) => Ok(overlaid.clone()),
            None => self.disk.get(ITEMS, &place)?.map(|record| decode(&record)).transpose(),
        }
    }

    fn scan(
        &self,
        from: Bound<(u16, &[u8])>,
        visit: &mut dyn FnMut(&Bytes, &Item) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let start = match from {
            Bound::Unbounded => Vec::new(),
            Bound::Included(place) => of_place(place),
            // What follows it at once.
            Bound::Excluded(place) => [of_place(place), vec![0]].concat(),
        };
        let mut overlaid =
            self.overlay.into_iter().flat_map(|overlay| overlay.range(start.clone()..)).peekable();
        let mut emit = |place: &[u8], item: &Option<Item>| match item {
            Some(item) => visit(&Bytes::copy_from_slice(place.get(LEAF..).unwrap_or_default()), item),
            None => ControlFlow::Continue(()),
        };
        let (mut failed, mut stopped) = (None, false);
        self.disk.scan(ITEMS, &start, None, Order::Ascending, &mut |place, record| {
            let mut one = || {
                while let Some((earlier, item)) = overlaid.next_if(|(other, _)| other[..] < *place) {
                    if emit(earlier, item).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                match overlaid.next_if(|(other, _)| other[..] == *place) {
                    Some((_, item)) => Ok(emit(place, item)),
                    None => Ok(emit(place, &Some(decode(record)?))),
                }
            };
            match one() {
                Ok(flow) => {
                    stopped = flow.is_break();
                    flow
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if !stopped {
            let _ = overlaid.try_for_each(|(place, item)| emit(place, item));
        }
        Ok(())
    }

    /// Only what is on the disk: a leader looks for changes, and applying does not.
    fn changes(
        &self,
        region: RegionId,
        after: u64,
        visit: &mut dyn FnMut(u64, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let from = dot_key(region, after.saturating_add(1));
        let to = region.0.checked_add(1).map(|next| dot_key(RegionId(next), 0));
        let mut damaged = false;
        self.disk.scan(CHANGES, &from, to.as_deref(), Order::Ascending, &mut |dot, key| match dot
            .get(size_of::<u32>()..)
            .and_then(|counter| counter.try_into().ok())
        {
            Some(counter) => visit(u64::from_be_bytes(counter), &Bytes::copy_from_slice(key)),
            None => {
                damaged = true;
                ControlFlow::Break(())
            }
        })?;
        if damaged { Err(StoreError::Damaged { what: "index of changes" }) } else { Ok(()) }
    }
}
