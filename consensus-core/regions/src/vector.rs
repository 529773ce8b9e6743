//! Who has made a change, and who knows of which changes.

use std::{collections::BTreeMap, fmt};

use crate::{
    codec::{DecodeError, Reader, put_varint},
    limits::COUNTER_MAX,
};

/// A region. Numbers are never used again: a region that comes back from a backup, or after its removal, is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u32);

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A change: the `counter`-th of its region. Region 0 is nobody: what it did was there from the beginning, and has counter 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Dot {
    pub region: RegionId,
    pub counter: u64,
}

/// For each region, up to which of its changes all are known, or something that came after them in their place.
///
/// There are no gaps: what is behind one is not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionVector(BTreeMap<RegionId, u64>);

impl VersionVector {
    /// Changes of a region that are known.
    pub fn get(&self, region: RegionId) -> u64 {
        self.0.get(&region).copied().unwrap_or(0)
    }

    /// Whether a change is known.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.region)
    }

    /// Whether all that `other` knows is known.
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|(region, counter)| counter <= self.get(region))
    }

    /// The changes of a region up to this one are known.
    pub fn advance(&mut self, region: RegionId, counter: u64) {
        if counter > self.get(region) {
            self.0.insert(region, counter);
        }
    }

    /// What either knows.
    pub fn join(&mut self, other: &Self) {
        other.iter().for_each(|(region, counter)| self.advance(region, counter));
    }

    /// What both know.
    pub fn meet(&mut self, other: &Self) {
        self.0.retain(|region, counter| {
            *counter = other.get(*region).min(*counter);
            *counter > 0
        });
    }

    /// By region; none with counter 0.
    pub fn iter(&self) -> impl Iterator<Item = (RegionId, u64)> {
        self.0.iter().map(|(region, counter)| (*region, *counter))
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (region, counter) in self.iter() {
            put_varint(out, region.0.into());
            put_varint(out, counter);
        }
    }

    /// Regions that were added at the same time, in several regions, may be more than one would add: their bytes bound them.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut vector = Self::default();
        let mut last = None;
        for _ in 0..reader.count(2, usize::MAX)? {
            let region = reader.region()?;
            reader.ascending(last < Some(region))?;
            last = Some(region);
            vector.0.insert(region, reader.counter()?);
        }
        Ok(vector)
    }
}

impl FromIterator<(RegionId, u64)> for VersionVector {
    fn from_iter<T: IntoIterator<Item = (RegionId, u64)>>(known: T) -> Self {
        let mut vector = Self::default();
        known.into_iter().for_each(|(region, counter)| vector.advance(region, counter));
        vector
    }
}

impl Dot {
    /// The change of the same region that follows.
    pub(crate) fn next(self) -> Self {
        Self { counter: self.counter + 1, ..self }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.region.0.into());
        put_varint(out, self.counter);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let region = RegionId(reader.varint(u32::MAX.into())? as u32);
        let counter = reader.varint(COUNTER_MAX)?;
        reader.consistent((region.0 == 0) == (counter == 0))?;
        Ok(Self { region, counter })
    }
}
