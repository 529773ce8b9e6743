//! What all regions know, so that tombstones can go.
//!
//! A tombstone goes when every member has told that it knows of it, and everything that these members knew when they told so has
//! arrived here. What a member does later it does in knowledge of the tombstone, so nothing that is still on its way can bring
//! back what was deleted.
//!
//! A region that is added, and of which this one has not heard, knows of the tombstone as well: it has its snapshot from a member
//! that has heard of it, and that member's row is from before, or it would say so here.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use super::{Local, Output, Replicator};
use crate::{
    command::Command,
    items::{Items, place},
    limits::{BATCH_BYTES, COLLECT_KEYS_MAX, SWEEP_ITEMS},
    replica::{Phase, Replica},
    vector::{RegionId, VersionVector},
};

#[derive(Clone, Debug, Default)]
struct Row {
    /// What the region has told, itself or through others.
    told: VersionVector,
    /// What it had told when all of that was known here.
    settled: VersionVector,
}

/// What each region has told that it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    rows: BTreeMap<RegionId, Row>,
}

impl Rows {
    pub(super) fn tell(&mut self, region: RegionId, version: &VersionVector) {
        self.rows.entry(region).or_default().told.join(version);
    }

    pub(super) fn settle(&mut self, replica: &Replica) {
        self.rows.retain(|region, _| replica.membership().contains(*region));
        for row in self.rows.values_mut().filter(|row| replica.version().includes(&row.told)) {
            row.settled = row.told.clone();
        }
    }

    /// What anybody has told that it knows.
    pub(super) fn told(&self) -> VersionVector {
        let mut all = VersionVector::default();
        self.rows.values().for_each(|row| all.join(&row.told));
        all
    }

    pub(super) fn told_without(&self, region: RegionId) -> Vec<(RegionId, VersionVector)> {
        let others = self.rows.iter().filter(|(other, _)| **other != region);
        others.map(|(other, row)| (*other, row.told.clone())).collect()
    }

    /// What all members know, and know of each other. `None`: not all have told that they know all members.
    pub(super) fn known_to_all(&self, replica: &Replica) -> Option<VersionVector> {
        let mut known = replica.version().clone();
        for region in replica.membership().regions().filter(|region| *region != replica.region()) {
            let settled = &self.rows.get(&region)?.settled;
            if !replica.membership().is_covered_by(settled) {
                return None;
            }
            known.meet(settled);
        }
        Some(known)
    }
}

impl Replicator {
    pub(super) fn collect<I: Items>(&mut self, local: Local<'_, I>) -> Result<(), I::Error> {
        let Some(known) = self.rows.known_to_all(local.replica) else { return Ok(()) };
        if local.replica.phase() == Phase::Joining {
            return Ok(());
        }
        let (mut keys, mut bytes, mut looked_at, mut last) = (Vec::new(), 0, 0, None);
        let from =
            self.sweep_after.as_deref().map_or(Bound::Unbounded, |after| Bound::Excluded(place(after)));
        local.items.scan(from, &mut |key, item| {
            if item.is_collectable(&known) {
                keys.push(key.clone());
                bytes += key.len();
            }
            looked_at += 1;
            if looked_at == SWEEP_ITEMS || keys.len() == COLLECT_KEYS_MAX || bytes >= BATCH_BYTES {
                last = Some(key.clone());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        self.sweep_after = last;
        if !keys.is_empty() {
            self.outputs.push_back(Output::Propose(Command::Collect { keys, known }));
        }
        Ok(())
    }
}
