//! The two CRDTs that everything is made of, and how two states of one become one.
//!
//! A register is last-writer-wins. All else is a store of dots: for each region the latest of its changes that is in force, and
//! the version vector of all changes that the cell has seen, in force or not. What one side has in force and the other has
//! seen without having it was removed (Almeida, Shoker, Baquero 2018, section 7: causal CRDTs). One entry for each region
//! is enough, because a region's log is serial: its later change of a cell has seen the earlier one.

use std::collections::BTreeMap;

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

/// What each side knew, where that says more than its cells do: what it knew of that and does not have was removed, and the
/// tombstone collected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a> {
    pub(crate) here: Option<&'a VersionVector>,
    pub(crate) there: Option<&'a VersionVector>,
}

impl Dots {
    /// Merges the other side's state.
    pub fn merge(&mut self, other: Self) {
        self.merge_known(other, Known::default());
    }

    fn merge_known(&mut self, other: Self, known: Known<'_>) {
        let has_seen = |seen: &VersionVector, known: Option<&VersionVector>, dot| {
            seen.covers(dot) || known.is_some_and(|known| known.covers(dot))
        };
        let Self { seen, entries } = other;
        let dot = |region: &RegionId, entry: &Entry| Dot { region: *region, counter: entry.counter };
        // Both sides' survivors are chosen by what was seen before.
        let own = std::mem::take(&mut self.entries);
        for (region, entry) in &own {
            let is_there = entries.get(region).is_some_and(|same| same.counter == entry.counter);
            if is_there || !has_seen(&seen, known.there, dot(region, entry)) {
                self.entries.insert(*region, entry.clone());
            }
        }
        for (region, entry) in entries {
            let same = own.get(&region).filter(|same| same.counter == entry.counter);
            // Two changes never have the same number; should they, all sides still choose the same.
            if same.is_some_and(|same| *same < entry)
                || (same.is_none() && !has_seen(&self.seen, known.here, dot(&region, &entry)))
            {
                self.entries.insert(region, entry);
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
    pub(crate) fn merge(&mut self, other: Self, known: Known<'_>) {
        match (self, other) {
            (Self::Register(own), Self::Register(theirs)) => own.merge(theirs),
            (Self::Dots(own), Self::Dots(theirs)) => own.merge_known(theirs, known),
            _ => unreachable!("the kind of a cell is part of its id"),
        }
    }

    fn without(self, known: &VersionVector) -> Option<Self> {
        if self.is_covered_by(known) {
            return None;
        }
        Some(match self {
            Self::Register(register) => Self::Register(register),
            Self::Dots(mut dots) => {
                dots.entries
                    .retain(|region, entry| !known.covers(Dot { region: *region, counter: entry.counter }));
                Self::Dots(dots)
            }
        })
    }

    /// What one side has is merged with the other's nothing: what that knew is gone.
    pub(crate) fn unless_gone(self, known: Option<&VersionVector>) -> Option<Self> {
        match known {
            Some(known) => self.without(known),
            None => Some(self),
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

    /// The number of a region's latest change of it; 0: it has made none.
    pub(crate) fn latest_of(&self, region: RegionId) -> u64 {
        match self {
            Self::Register(register) if register.dot.region == region => register.dot.counter,
            Self::Register(_) => 0,
            Self::Dots(dots) => dots.seen.get(region),
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
