//! Comparisons: a tree is walked down from the root, each answer a level further, until leaves that differ are left. What differs
//! there although both sides know the changes that made it is exchanged.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;

use super::{Alarm, Local, Replicator, ship::Batch, suspects::Difference};
use crate::{
    delta::Delta,
    item::Item,
    items::Items,
    limits::{BATCH_BYTES, LEAF_ITEMS_MAX, LEAVES_MAX, NODES_MAX, PARTS_MAX, WANTED_MAX},
    message::{Body, Hashes, Leaves, Want},
    replica::Phase,
    tree::{Node, item_hash, key_hash},
    vector::{RegionId, VersionVector},
};

impl Replicator {
    /// With one neighbour after the other.
    pub(super) fn begin_comparison<I: Items>(&mut self, local: Local<'_, I>) {
        let neighbors = self.tree_neighbors(local);
        let able: Vec<_> = neighbors.into_iter().filter(|peer| self.can_compare(*peer, local)).collect();
        if able.is_empty() {
            return;
        }
        let turn =
            self.round / (self.config.anti_entropy_interval_ms / self.config.interval_ms.max(1)).max(1);
        let peer = able[(turn % able.len() as u64) as usize];
        let nodes = vec![(Node::ROOT, local.tree.children(Node::ROOT))];
        self.send(peer, Body::Hashes(Hashes { version: local.replica.version().clone(), nodes }));
    }

    /// What one side has collected and the other does not know of would look like a difference.
    fn can_compare<I>(&self, peer: RegionId, local: Local<'_, I>) -> bool {
        let is_whole = local.replica.phase() == Phase::Active;
        is_whole
            && self.peers.get(&peer).is_some_and(|peer| {
                peer.is_heard
                    && peer.phase == Some(Phase::Active)
                    && peer.known.includes(local.replica.horizon())
                    && local.replica.version().includes(&peer.horizon)
            })
    }

    pub(super) fn handle_hashes<I: Items>(
        &mut self,
        from: RegionId,
        hashes: &Hashes,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        if !self.can_compare(from, local) {
            return Ok(());
        }
        let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
        for (node, theirs) in &hashes.nodes {
            let ours = local.tree.children(*node);
            for number in (0..ours.len()).filter(|number| ours[*number] != theirs[*number]) {
                match node.child(number) {
                    Ok(child) => nodes.push(child),
                    Err(leaf) => leaves.push(leaf),
                }
            }
        }
        let version = local.replica.version().clone();
        if !nodes.is_empty() {
            let nodes = some_of(nodes, NODES_MAX, self.round).into_iter();
            let nodes = nodes.map(|node| (node, local.tree.children(node))).collect();
            self.send(from, Body::Hashes(Hashes { version, nodes }));
        } else if !leaves.is_empty() {
            let leaves = some_of(leaves, LEAVES_MAX, self.round).into_iter();
            let leaves = leaves.map(|leaf| Ok((leaf, summary(leaf, &hashes.version, local.items)?)));
            let leaves = leaves.collect::<Result<_, _>>()?;
            self.send(from, Body::Leaves(Leaves { version, leaves }));
        }
        Ok(())
    }

    pub(super) fn handle_leaves<I: Items>(
        &mut self,
        from: RegionId,
        leaves: &Leaves,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        if !self.can_compare(from, local) {
            return Ok(());
        }
        // It may be late: from before the sender had heard of something that is deleted and collected here since then. Who
        // knows all that is collected here has nothing of it any more, so what it has and is not here was lost here.
        if !leaves.version.includes(local.replica.horizon()) {
            return Ok(());
        }
        let nothing = VersionVector::default();
        let (mut batch, mut wanted, mut differences) = (Batch::new(&nothing), Vec::new(), Vec::new());
        for (leaf, theirs) in &leaves.leaves {
            let mut theirs: BTreeMap<_, _> = theirs.iter().copied().collect();
            for (key, item) in in_leaf(*leaf, local.items)? {
                let (hash, other) = (item_hash(&key, &item), theirs.remove(&key_hash(&key)));
                let is_on_its_way = other == Some(0) || !leaves.version.includes(&item.version());
                if is_on_its_way || other.unwrap_or(0) == hash {
                    continue;
                }
                let (leaf, key_hash, there) = (*leaf, key_hash(&key), other.unwrap_or(0));
                differences.push(Difference { leaf, key_hash, here: hash, there });
                if other.is_some() {
                    wanted.push((leaf, key_hash));
                }
                if !batch.is_full() {
                    self.add_or_send(&mut batch, from, &key, item, local);
                }
            }
            for (key_hash, there) in theirs.into_iter().filter(|(_, hash)| *hash != 0) {
                differences.push(Difference { leaf: *leaf, key_hash, here: 0, there });
                wanted.push((*leaf, key_hash));
            }
        }
        wanted.truncate(WANTED_MAX);
        if !differences.is_empty() {
            self.suspect(from, &leaves.version, differences, local);
        }
        self.send_items(from, batch.items, local);
        if !wanted.is_empty() {
            self.send(from, Body::Want(Want { items: wanted }));
        }
        Ok(())
    }

    /// Items were lost, here or there.
    pub(super) fn differs(&mut self, region: RegionId, items: usize) {
        if items > 0 {
            self.alarm(Alarm::Differs { region, items });
        }
    }

    pub(super) fn handle_want<I: Items>(
        &mut self,
        from: RegionId,
        want: &Want,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        if !self.can_compare(from, local) {
            return Ok(());
        }
        let wanted: BTreeSet<_> = want.items.iter().copied().collect();
        let leaves: BTreeSet<_> = wanted.iter().map(|(leaf, _)| *leaf).take(LEAVES_MAX).collect();
        let nothing = VersionVector::default();
        let mut batch = Batch::new(&nothing);
        for leaf in leaves {
            for (key, item) in in_leaf(leaf, local.items)? {
                if wanted.contains(&(leaf, key_hash(&key))) && !batch.is_full() {
                    self.add_or_send(&mut batch, from, &key, item, local);
                }
            }
        }
        self.send_items(from, batch.items, local);
        Ok(())
    }

    /// A long item goes in messages of its own, each with some of its cells, which are merged one by one. If there are too many,
    /// others go in another round.
    fn add_or_send<I>(
        &mut self,
        batch: &mut Batch<'_>,
        to: RegionId,
        key: &Bytes,
        item: Item,
        local: Local<'_, I>,
    ) {
        if item.encoded_len() <= BATCH_BYTES {
            return batch.add_whole(key, item);
        }
        batch.close();
        let parts = item.parts(BATCH_BYTES);
        for number in some_of((0..parts.len()).collect(), PARTS_MAX, self.round) {
            self.send_items(to, BTreeMap::from([(key.clone(), parts[number].clone())]), local);
        }
    }

    fn send_items<I>(&mut self, to: RegionId, items: BTreeMap<Bytes, Item>, local: Local<'_, I>) {
        if items.is_empty() {
            return;
        }
        let replica = local.replica;
        let (version, latest, ranges) = (replica.version().clone(), replica.latest(), Vec::new());
        self.send(to, Body::Delta(Delta { from: self.region, version, latest, ranges, items }));
    }
}

/// As many as fit, others in each round, in their order.
fn some_of<T: Copy + Ord>(mut all: Vec<T>, max: usize, round: u64) -> Vec<T> {
    if all.len() > max {
        let first = (round % all.len() as u64) as usize;
        all.rotate_left(first);
        all.truncate(max);
        all.sort_unstable();
    }
    all
}

/// The items of a leaf. More than [`LEAF_ITEMS_MAX`] are not looked at.
pub(super) fn in_leaf<I: Items>(leaf: u16, items: &I) -> Result<Vec<(Bytes, Item)>, I::Error> {
    let mut found = Vec::new();
    items.scan(Bound::Included((leaf, &[])), &mut |key, item| {
        if crate::tree::leaf_of(key) != leaf || found.len() == LEAF_ITEMS_MAX {
            return ControlFlow::Break(());
        }
        found.push((key.clone(), item.clone()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Items in force with their hashes, for somebody who knows `version`.
fn summary<I: Items>(leaf: u16, version: &VersionVector, items: &I) -> Result<Vec<(u64, u64)>, I::Error> {
    let hash = |key: &Bytes, item: &Item| match version.includes(&item.version()) {
        true => item_hash(key, item),
        false => 0,
    };
    let found = in_leaf(leaf, items)?;
    let known = found.iter().map(|(key, item)| (key_hash(key), hash(key, item), item));
    // A tombstone that is known needs no word: it may have been collected as well.
    Ok(known
        .filter(|(_, hash, item)| *hash != 0 || !version.includes(&item.version()))
        .map(|(key, hash, _)| (key, hash))
        .collect())
}
