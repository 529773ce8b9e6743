//! The two CRDTs that everything is made of, and how two states of one become one.
//!
//! A register is last-writer-wins. All else is a store of dots: for each region the latest of its changes that is in force, and
//! the version vector of all changes that the cell has seen, in force or not. What one side has in force and the other has
//! seen without having it was removed (Almeida, Shoker, Baquero 2018, section 7: causal CRDTs). One entry for each region
//! is enough, because a region's log is serial: its later change of a cell has seen the earlier one.

use std::collections::{BTreeMap, btree_map::Entry as Slot};

use bytes::Bytes;

use crate::{
    clock::Stamp,
    vector::{Dot, RegionId, VersionVector},
};

/// A part of an item that is merged by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The latest wins.
    Register(Register),
    /// Removed is what was seen.
    Dots(Dots),
}

/// Last writer wins. The deletion is a value as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The change that won.
    pub dot: Dot,
    /// When it was made.
    pub stamp: Stamp,
    /// `None`: deleted.
    pub value: Option<Bytes>,
}

/// Changes in force, at most one of each region, and those that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dots {
    /// For each region its latest change of this cell, in force or not.
    pub seen: VersionVector,
    /// What is in force.
    pub entries: BTreeMap<RegionId, Entry>,
}

/// A change that is in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Which of its region's changes.
    pub counter: u64,
    /// When it was made.
    pub stamp: Stamp,
    /// The value of a map's field; nothing for a set's element; a region's share of a counter.
    pub value: Bytes,
}

impl Register {
    /// Two changes never have the same stamp and region; should they, all sides still choose the same.
    fn order(&self) -> (Stamp, Dot, &Option<Bytes>) {
        (self.stamp, self.dot, &self.value)
    }

    /// Merges the other side's state.
    pub fn merge(&mut self, other: Self) {
        if other.order() > self.order() {
            *self = other;
        }
    }
}

impl Dots {
    /// Merges the other side's state.
    pub fn merge(&mut self, other: Self) {
        let Self { seen, entries } = other;
        // Both sides' survivors are chosen by what was seen before.
        self.entries.retain(|region, entry| {
            entries.get(region).is_some_and(|same| same.counter == entry.counter)
                || entry.counter > seen.get(*region)
        });
        for (region, entry) in entries {
            let is_new = entry.counter > self.seen.get(region);
            match self.entries.entry(region) {
                Slot::Occupied(mut slot)
                    if is_new || *slot.get() < entry && slot.get().counter == entry.counter =>
                {
                    slot.insert(entry);
                }
                Slot::Vacant(slot) if is_new => drop(slot.insert(entry)),
                _ => {}
            }
        }
        self.seen.join(&seen);
    }

    /// The latest of the entries.
    pub fn latest(&self) -> Option<(&RegionId, &Entry)> {
        self.entries.iter().max_by_key(|(region, entry)| (entry.stamp, **region))
    }
}

impl Cell {
    /// Merges the other side's state. A cell's kind says which of the two it is, so both sides are the same.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Register(own), Self::Register(theirs)) => own.merge(theirs),
            (Self::Dots(own), Self::Dots(theirs)) => own.merge(theirs),
            _ => unreachable!("the kind of a cell is part of its id"),
        }
    }

    /// Whether it only says what is gone.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Register(register) => register.value.is_none(),
            Self::Dots(dots) => dots.entries.is_empty(),
        }
    }

    /// Whether whoever knows `known` knows of the latest change of it.
    pub fn is_covered_by(&self, known: &VersionVector) -> bool {
        match self {
            Self::Register(register) => known.covers(register.dot),
            Self::Dots(dots) => known.includes(&dots.seen),
        }
    }

    /// Adds what has to be known to cover it.
    pub fn add_version(&self, to: &mut VersionVector) {
        match self {
            Self::Register(register) => to.advance(register.dot.region, register.dot.counter),
            Self::Dots(dots) => to.join(&dots.seen),
        }
    }

    /// When the latest change in force was made.
    pub fn latest(&self) -> Option<Stamp> {
        match self {
            Self::Register(register) => register.value.as_ref().map(|_| register.stamp),
            Self::Dots(dots) => dots.latest().map(|(_, entry)| entry.stamp),
        }
    }

    /// Every stamp in it is at most this.
    pub(crate) fn newest_stamp(&self) -> Stamp {
        match self {
            Self::Register(register) => register.stamp,
            Self::Dots(dots) => dots.latest().map(|(_, entry)| entry.stamp).unwrap_or_default(),
        }
    }

    /// Nothing of it is in force any more, by this change. It keeps what it has seen.
    pub(crate) fn clear(&mut self, dot: Dot, stamp: Stamp) {
        match self {
            Self::Register(register) => *register = Register { dot, stamp, value: None },
            Self::Dots(dots) => {
                dots.seen.advance(dot.region, dot.counter);
                dots.entries.clear();
            }
        }
    }
}
