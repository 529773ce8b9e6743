//! Which regions there are: part of the replicated state, as two cells for each region in the item under the empty key.
//!
//! A region that was added has a cell, one that was removed another one beside it, and neither ever goes: a number that was
//! removed stays so, in whatever order one hears of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    cell::Cell,
    item::{CellId, Item, Kind},
    vector::{Dot, RegionId, VersionVector},
};

/// Where members are. A client's item under the prefix itself has the same key and other cells.
pub const MEMBERS_KEY: &[u8] = b"";

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it tells of itself: its name, its addresses. Not read here.
    pub info: Bytes,
    /// The change that added it.
    pub added: Dot,
    /// The change that removed it for good.
    pub removed: Option<Dot>,
}

/// All regions that are, or were, members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<RegionId, Member>,
}

pub(crate) fn cell_id(kind: Kind, region: RegionId) -> CellId {
    CellId { kind, field: Bytes::copy_from_slice(&region.0.to_be_bytes()) }
}

impl Membership {
    /// As an item says it. A removal that is known before the addition counts.
    pub(crate) fn of(item: &Item) -> Self {
        let mut members: BTreeMap<RegionId, Member> = BTreeMap::new();
        for (id, cell) in item.cells() {
            let (Ok(number), Cell::Register(register)) = (<[u8; 4]>::try_from(&id.field[..]), cell) else {
                continue;
            };
            let info = register.value.clone().unwrap_or_default();
            let member = members.entry(RegionId(u32::from_be_bytes(number)));
            match id.kind {
                Kind::Member => drop(member.or_insert(Member { info, added: register.dot, removed: None })),
                Kind::Removal => {
                    let removed = Some(register.dot);
                    let unknown = Member { info: Bytes::new(), added: register.dot, removed };
                    member.and_modify(|member| member.removed = removed).or_insert(unknown);
                }
                _ => {}
            }
        }
        Self { members }
    }

    /// A region that is, or was, a member.
    pub fn get(&self, region: RegionId) -> Option<&Member> {
        self.members.get(&region)
    }

    /// Whether it is one.
    pub fn contains(&self, region: RegionId) -> bool {
        self.get(region).is_some_and(|member| member.removed.is_none())
    }

    /// Whether it was removed.
    pub fn is_removed(&self, region: RegionId) -> bool {
        self.get(region).is_some_and(|member| member.removed.is_some())
    }

    /// Those that are members.
    pub fn regions(&self) -> impl Iterator<Item = RegionId> {
        self.members.iter().filter(|(_, member)| member.removed.is_none()).map(|(region, _)| *region)
    }

    /// All that are, or were, by number.
    pub fn all(&self) -> impl Iterator<Item = RegionId> {
        self.members.keys().copied()
    }

    /// How many are, or were.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is, or was.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether whoever knows `known` knows of every addition and removal that is in here.
    pub(crate) fn is_covered_by(&self, known: &VersionVector) -> bool {
        self.members.values().all(|member| {
            known.covers(member.added) && member.removed.is_none_or(|removed| known.covers(removed))
        })
    }
}
