//! Deltas: what a peer is not known to know, as far as it is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;

use super::{Local, Replicator};
use crate::{
    cell::Cell,
    delta::{Delta, Position, Range},
    item::{ByChange, CellId, Item},
    items::Items,
    limits::{BATCH_BYTES, ITEMS_MAX},
    message::Body,
    record::cell_len,
    replica::Phase,
    vector::{RegionId, VersionVector},
};

impl Replicator {
    /// Sends a peer all that is due now.
    pub(super) fn flush<I: Items>(
        &mut self,
        now_ms: u64,
        peer: RegionId,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        let goal = self.goal(peer, local);
        self.peer(peer).goal.join(&goal);
        self.ship(now_ms, peer, local)
    }

    /// In a tree each neighbour is told everything, at once. Elsewhere whoever has changed something tells it, and others only
    /// if that was an interval ago.
    fn goal<I: Items>(&self, peer: RegionId, local: Local<'_, I>) -> VersionVector {
        let version = local.replica.version();
        if self.config.topology.is_tree() && self.tree_neighbors(local).contains(&peer) {
            return version.clone();
        }
        let mut goal = self.older.clone();
        goal.advance(self.region, version.get(self.region));
        goal.meet(version);
        goal
    }

    /// Goes on to the peer's goal, as far as it acknowledges.
    pub(super) fn ship<I: Items>(
        &mut self,
        now_ms: u64,
        region: RegionId,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        let replica = local.replica;
        if replica.phase() == Phase::Joining {
            return Ok(());
        }
        while let Some(peer) = self.peers.get_mut(&region) {
            let is_ready = peer.is_heard && peer.phase == Some(Phase::Active);
            // Who lacks something that was collected here needs a snapshot.
            if !is_ready || !peer.has_room() || !peer.known.includes(replica.horizon()) {
                break;
            }
            let Some(delta) = delta(&peer.sent, &peer.goal, local)? else { break };
            peer.delta_sent(now_ms, &delta.ranges);
            self.send(region, Body::Delta(delta));
        }
        Ok(())
    }
}

/// What is between `sent` and `goal`, or as much of it as fits. `None`: nothing is.
fn delta<I: Items>(
    sent: &VersionVector,
    goal: &VersionVector,
    local: Local<'_, I>,
) -> Result<Option<Delta>, I::Error> {
    let mut batch = Batch::new(sent);
    let mut ranges = Vec::new();
    for (region, to) in goal.iter() {
        let after = sent.get(region);
        if after < to && !batch.is_full() {
            ranges.push(Range { region, after, to: batch.add_changes(region, after, to, local)? });
        }
    }
    ranges.retain(|range| range.to > range.after);
    Ok((!ranges.is_empty()).then(|| Delta {
        from: local.replica.region(),
        version: local.replica.version().clone(),
        latest: local.replica.latest(),
        ranges,
        items: batch.items,
    }))
}

pub(super) struct Batch<'a> {
    sent: &'a VersionVector,
    pub(super) items: BTreeMap<Bytes, Item>,
    /// Of these it has not all that is lacking.
    in_part: BTreeSet<Bytes>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(sent: &'a VersionVector) -> Self {
        Self { sent, items: BTreeMap::new(), in_part: BTreeSet::new(), bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.items.len() >= ITEMS_MAX
    }

    /// Nothing more goes into it.
    pub(super) fn close(&mut self) {
        self.bytes = self.bytes.max(BATCH_BYTES);
    }

    /// All of an item, also what was there from the beginning.
    pub(super) fn add_whole(&mut self, key: &Bytes, item: Item) {
        item.cells.into_iter().for_each(|(id, cell)| self.add_cell(key, id, cell));
    }

    fn add_cell(&mut self, key: &Bytes, id: CellId, cell: Cell) {
        let cells = &mut self.items.entry(key.clone()).or_default().cells;
        self.bytes += cell_len(&id, &cell) + if cells.is_empty() { key.len() } else { 0 };
        cells.insert(id, cell);
    }

    /// What is of an item behind `after`, until the batch is full. How far it came, if that is not the end of the item.
    pub(super) fn add_behind(
        &mut self,
        after: Option<&Position>,
        key: &Bytes,
        item: &Item,
    ) -> Option<Position> {
        let mut last = None;
        for (id, cell) in item.cells().filter(|(id, _)| after.is_none_or(|after| !after.includes(key, id))) {
            if last.is_some() && self.is_full() {
                return Some(Position { key: key.clone(), cell: last });
            }
            self.add_cell(key, id.clone(), cell.clone());
            last = Some(id.clone());
        }
        None
    }

    /// Up to where all changes of a region are in the batch. One that is no cell's latest any more needs nothing: what came in its
    /// place has a later number, or a later stamp of another region. Of an item that lacks several cells the batch has what these
    /// changes have touched, one after the other: all of it may be more than a message, and would be sent again with each of them.
    fn add_changes<I: Items>(
        &mut self,
        region: RegionId,
        after: u64,
        to: u64,
        local: Local<'_, I>,
    ) -> Result<u64, I::Error> {
        let (mut keys, mut reached) = (Vec::new(), to);
        let room = ITEMS_MAX - self.items.len();
        local.items.changes(region, after, &mut |counter, key| {
            if counter > to {
                return ControlFlow::Break(());
            }
            if keys.len() == room {
                reached = keys.last().map_or(after, |(counter, _)| *counter);
                return ControlFlow::Break(());
            }
            keys.push((counter, key.clone()));
            ControlFlow::Continue(())
        })?;
        let mut long: BTreeMap<Bytes, (ByChange, u64)> = BTreeMap::new();
        let mut last = after;
        for (counter, key) in keys {
            if !long.contains_key(&key) && (!self.items.contains_key(&key) || self.in_part.contains(&key)) {
                let lacking = local.items.get(&key)?.unwrap_or_default().since(self.sent);
                if lacking.cells.len() < 2 {
                    self.add_whole(&key, lacking);
                } else {
                    // If several take turns, less of each will go into this message.
                    let share = BATCH_BYTES / (long.len() + 1);
                    long.insert(key.clone(), lacking.changed_by(region, counter, share));
                    self.in_part.insert(key.clone());
                }
            }
            if let Some((cells, to)) = long.get_mut(&key) {
                if counter > *to {
                    return Ok(last);
                }
                let touched = cells.remove(&counter);
                touched.into_iter().flatten().for_each(|(id, cell)| self.add_cell(&key, id, cell));
            }
            if self.is_full() {
                return Ok(counter);
            }
            last = counter;
        }
        Ok(reached)
    }
}
