//! Where items are: the seam to what stores them, and items in memory.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;

use crate::{
    item::Item,
    tree::leaf_of,
    vector::{Dot, RegionId},
};

/// The items of a region, as they are before what is being applied.
///
/// Their order is that of [places](place), not of keys: so one scan serves snapshots, sweeps and leaves of the tree. Beside them
/// is an index of changes: the key of an item under each of its [`dots`](Item::dots).
pub trait Items {
    /// Why something could not be read.
    type Error;

    /// The item under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Item>, Self::Error>;

    /// Visits items in the order of their places, from `from` on.
    fn scan(
        &self,
        from: Bound<(u16, &[u8])>,
        visit: &mut dyn FnMut(&Bytes, &Item) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// Visits the changes of a region after the `after`-th, in order, as far as they are the latest of a cell.
    fn changes(
        &self,
        region: RegionId,
        after: u64,
        visit: &mut dyn FnMut(u64, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}

/// Where an item is in the order of items: its leaf of the tree, then its key.
pub fn place(key: &[u8]) -> (u16, &[u8]) {
    (leaf_of(key), key)
}

/// An item that has become another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its key.
    pub key: Bytes,
    /// What it was; `None`: there was none.
    pub before: Option<Item>,
    /// What it is; `None`: there is none any more, and no tombstone either.
    pub after: Option<Item>,
}

impl Changed {
    /// `None`, if nothing has changed. An item without cells is none.
    pub(crate) fn new(key: Bytes, before: Option<Item>, after: Item) -> Option<Self> {
        let after = Some(after).filter(|item| !item.is_empty());
        (before != after).then_some(Self { key, before, after })
    }
}

/// Items in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryItems {
    items: BTreeMap<(u16, Bytes), Item>,
    changes: BTreeMap<Dot, Bytes>,
}

impl MemoryItems {
    /// How many items there are, those with nothing but tombstones included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All items in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Item)> {
        self.items.iter().map(|((_, key), item)| (key, item))
    }

    /// Writes a change, and its place in the index.
    pub fn write(&mut self, changed: &Changed) {
        let Changed { key, before, after } = changed;
        let dots = |item: &Option<Item>| item.as_ref().map(Item::dots).unwrap_or_default();
        let (old, new) = (dots(before), dots(after));
        for dot in old.difference(&new) {
            self.changes.remove(dot);
        }
        for dot in new.difference(&old) {
            self.changes.insert(*dot, key.clone());
        }
        let place = (leaf_of(key), key.clone());
        match after {
            Some(item) => drop(self.items.insert(place, item.clone())),
            None => drop(self.items.remove(&place)),
        }
    }
}

impl Items for MemoryItems {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Item>, Infallible> {
        Ok(self.items.get(&(leaf_of(key), Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        from: Bound<(u16, &[u8])>,
        visit: &mut dyn FnMut(&Bytes, &Item) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let from = from.map(|(leaf, key)| (leaf, Bytes::copy_from_slice(key)));
        let _ = self.items.range((from, Bound::Unbounded)).try_for_each(|((_, key), item)| visit(key, item));
        Ok(())
    }

    fn changes(
        &self,
        region: RegionId,
        after: u64,
        visit: &mut dyn FnMut(u64, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let dot = |counter| Dot { region, counter };
        let range = (Bound::Excluded(dot(after)), Bound::Included(dot(u64::MAX)));
        let _ = self.changes.range(range).try_for_each(|(dot, key)| visit(dot.counter, key));
        Ok(())
    }
}
