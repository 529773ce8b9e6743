//! A disk in memory: for tests, for simulation, and for state that may be lost.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use crate::{Batch, Disk, DiskError, Durability, Op, Order, Space};

type Spaces = BTreeMap<Space, BTreeMap<Vec<u8>, Bytes>>;

/// Keys in memory. Forgets everything that was not synced when it [crashes](Self::crash).
#[derive(Debug, Default)]
pub struct MemoryDisk {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    visible: Spaces,
    /// What a crash cannot take.
    synced: Spaces,
    /// Written since the last sync, in order.
    unsynced: Vec<Batch>,
}

fn apply(spaces: &mut Spaces, batch: Batch) {
    for op in batch.into_ops() {
        match op {
            Op::Put { space, key, value } => {
                spaces.entry(space).or_default().insert(key, value.into());
            }
            Op::Delete { space, key } => {
                spaces.entry(space).or_default().remove(&key);
            }
            Op::DeleteRange { space, from, to } => {
                if from < to {
                    let keys = spaces.entry(space).or_default();
                    let doomed: Vec<_> = keys.range(from..to).map(|(key, _)| key.clone()).collect();
                    doomed.iter().for_each(|key| drop(keys.remove(key)));
                }
            }
        }
    }
}

impl MemoryDisk {
    /// What a crash of the machine leaves: what was synced, and the first `survivors` of the batches that were not.
    pub fn crash(&self, survivors: usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        for batch in state.unsynced.drain(..).take(survivors) {
            apply(&mut state.synced, batch);
        }
        state.visible = state.synced.clone();
    }

    /// Another one with what is visible now, all of it synced.
    pub fn copy(&self) -> Self {
        let visible = self.state.read().unwrap_or_else(PoisonError::into_inner).visible.clone();
        let state = State { synced: visible.clone(), visible, unsynced: Vec::new() };
        Self { state: RwLock::new(state) }
    }

    /// Batches that a crash may take.
    pub fn unsynced(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).unsynced.len()
    }
}

impl Disk for MemoryDisk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.visible.get(&space).and_then(|keys| keys.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = state.visible.get(&space) else { return Ok(()) };
        let range =
            keys.range::<[u8], _>((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)));
        let _ = match order {
            Order::Ascending => { range }.try_for_each(|(key, value)| visit(key, value)),
            Order::Descending => range.rev().try_for_each(|(key, value)| visit(key, value)),
        };
        Ok(())
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), DiskError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        apply(&mut state.visible, batch.clone());
        state.unsynced.push(batch);
        if durability == Durability::Synced {
            for batch in state.unsynced.drain(..) {
                apply(&mut state.synced, batch);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space(0);

    fn put(disk: &MemoryDisk, key: &str, durability: Durability) {
        let mut batch = Batch::default();
        batch.put(SPACE, key, "value");
        disk.write(batch, durability).unwrap();
    }

    fn keys(disk: &MemoryDisk, order: Order) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        disk.scan(SPACE, b"b", Some(b"d"), order, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        keys
    }

    #[test]
    fn a_crash_takes_the_end_of_what_was_not_synced() {
        let disk = MemoryDisk::default();
        put(&disk, "a", Durability::Ordered);
        put(&disk, "b", Durability::Synced);
        put(&disk, "c", Durability::Ordered);
        put(&disk, "d", Durability::Ordered);
        disk.crash(1);
        let there = ["a", "b", "c", "d"].map(|key| disk.get(SPACE, key.as_bytes()).unwrap().is_some());
        assert_eq!(there, [true, true, true, false]);
    }

    #[test]
    fn scans_keep_to_their_range_and_order() {
        let disk = MemoryDisk::default();
        for key in ["d", "a", "c", "b"] {
            put(&disk, key, Durability::Ordered);
        }
        assert_eq!(keys(&disk, Order::Ascending), [b"b", b"c"]);
        assert_eq!(keys(&disk, Order::Descending), [b"c", b"b"]);
        let mut batch = Batch::default();
        batch.delete_range(SPACE, "b", "c");
        disk.write(batch, Durability::Ordered).unwrap();
        assert_eq!(keys(&disk, Order::Ascending), [b"c"]);
    }
}
