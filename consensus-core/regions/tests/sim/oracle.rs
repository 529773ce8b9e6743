//! What has to come out, from what clients did: worked out without merging anything.
//!
//! Of a register the latest change, by stamp. Of everything else the changes that no other has seen and replaced or removed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus_regions::{Cell, CellId, Changed, Dot, Item, MemoryItems, RegionId, Register};

/// A cell in force: its changes, each with its value.
type InForce = BTreeMap<Dot, Bytes>;

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    registers: BTreeMap<(Bytes, CellId), Register>,
    made: BTreeMap<(Bytes, CellId), InForce>,
    gone: BTreeSet<(Bytes, CellId, Dot)>,
}

fn entries(item: Option<&Item>, id: &CellId) -> InForce {
    let cell = item.and_then(|item| item.cells().find(|(found, _)| *found == id));
    match cell {
        Some((_, Cell::Dots(dots))) => {
            let entry = |(region, entry): (&RegionId, &consensus_regions::Entry)| {
                (Dot { region: *region, counter: entry.counter }, entry.value.clone())
            };
            dots.entries.iter().map(entry).collect()
        }
        _ => InForce::new(),
    }
}

impl Oracle {
    /// A client's change was applied in its region.
    pub(crate) fn changed(&mut self, changed: &Changed) {
        let after = changed.after.as_ref().expect("a change leaves something, be it a tombstone");
        for (id, cell) in after.cells() {
            let place = (changed.key.clone(), id.clone());
            match cell {
                Cell::Register(register) => {
                    let latest = self.registers.entry(place).or_insert_with(|| register.clone());
                    if (register.stamp, register.dot) > (latest.stamp, latest.dot) {
                        *latest = register.clone();
                    }
                }
                Cell::Dots(_) => {
                    let (before, after) = (entries(changed.before.as_ref(), id), entries(Some(after), id));
                    let gone = before.keys().filter(|dot| !after.contains_key(dot));
                    self.gone.extend(gone.map(|dot| (changed.key.clone(), id.clone(), *dot)));
                    self.made.entry(place).or_default().extend(after);
                }
            }
        }
    }

    /// What a region has that it should not have, or lacks.
    pub(crate) fn differences(&self, items: &MemoryItems) -> Vec<String> {
        let mut found = Vec::new();
        let items: BTreeMap<_, _> = items.iter().collect();
        for ((key, id), register) in &self.registers {
            let item = items.get(key).and_then(|item| item.cells().find(|(found, _)| *found == id));
            let value = match item {
                Some((_, Cell::Register(register))) => register.value.clone(),
                _ => None,
            };
            if value != register.value {
                let what = if register.value.is_none() { "came back" } else { "is not the latest" };
                found.push(format!("{key:?} {:?} {what}: {:?}", id.kind, register.dot));
            }
        }
        for ((key, id), made) in &self.made {
            let mut expected = made.clone();
            expected.retain(|dot, _| !self.gone.contains(&(key.clone(), id.clone(), *dot)));
            let found_here = entries(items.get(key).copied(), id);
            if found_here != expected {
                found.push(format!(
                    "{key:?} {:?} {:?}: {found_here:?} instead of {expected:?}",
                    id.kind, id.field
                ));
            }
        }
        found
    }
}
