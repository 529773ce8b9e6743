//! A Merkle tree over what is in force, by which two regions find where they differ.
//!
//! Its leaves are ranges of hashed keys. A node is the sum of the hashes of the items below it, so a change costs four
//! additions, and the order of changes does not matter. Sums can be forged; regions trust each other.

use std::ops::RangeInclusive;

use crate::{item::Item, items::Changed};

/// Children of a node.
pub const FANOUT: usize = 16;
/// Levels of nodes that have children.
pub(crate) const LEVELS: u8 = 3;
/// Leaves, each for a range of hashed keys.
pub const LEAVES: usize = FANOUT.pow(LEVELS as u32);

/// A node that has children: on level 0 the root, on the last one those above leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Node {
    pub level: u8,
    pub index: u16,
}

impl Node {
    /// The root.
    pub const ROOT: Self = Self { level: 0, index: 0 };

    /// Whether there is such a node.
    pub(crate) fn exists(self) -> bool {
        self.level < LEVELS && usize::from(self.index) < FANOUT.pow(self.level.into())
    }

    /// A child that is a node, or the number of a leaf.
    pub(crate) fn child(self, number: usize) -> Result<Self, u16> {
        let index = self.index * FANOUT as u16 + number as u16;
        let level = self.level + 1;
        if level < LEVELS { Ok(Self { level, index }) } else { Err(index) }
    }
}

/// Hashes of all nodes and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// By level, the root first and the leaves last.
    levels: [Vec<u64>; LEVELS as usize + 1],
}

impl Default for Tree {
    fn default() -> Self {
        Self { levels: std::array::from_fn(|level| vec![0; FANOUT.pow(level as u32)]) }
    }
}

impl Tree {
    /// Takes a change into account. A tree is what it gets to know: a new one has to be told of all items first, as if they had
    /// come just now.
    pub fn update(&mut self, changed: &Changed) {
        let of = |item: &Option<Item>| item.as_ref().map_or(0, |item| item_hash(&changed.key, item));
        let difference = of(&changed.after).wrapping_sub(of(&changed.before));
        let leaf = usize::from(leaf_of(&changed.key));
        for (level, hashes) in self.levels.iter_mut().enumerate() {
            let below = FANOUT.pow(u32::from(LEVELS) - level as u32);
            let hash = &mut hashes[leaf / below];
            *hash = hash.wrapping_add(difference);
        }
    }

    /// Of everything.
    pub fn root(&self) -> u64 {
        self.levels[0][0]
    }

    /// Of a node's children.
    pub fn children(&self, node: Node) -> [u64; FANOUT] {
        let first = usize::from(node.index) * FANOUT;
        std::array::from_fn(|number| self.levels[usize::from(node.level) + 1][first + number])
    }
}

/// The numbers of all leaves.
pub(crate) const LEAF_NUMBERS: RangeInclusive<u16> = 0..=LEAVES as u16 - 1;

/// The leaf of a key.
pub fn leaf_of(key: &[u8]) -> u16 {
    (key_hash(key) >> 52) as u16
}

/// A key's hash. Its upper 12 bits are the leaf.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    first_bytes(&blake3::hash(key))
}

/// Of an item's key and what is in force of it; 0 if that is nothing.
pub(crate) fn item_hash(key: &[u8], item: &Item) -> u64 {
    let mut in_force = Vec::new();
    item.encode_in_force(&mut in_force);
    if in_force.is_empty() {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(&in_force);
    first_bytes(&hasher.finalize()).max(1)
}

fn first_bytes(hash: &blake3::Hash) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Change, Dot, RegionId, Stamp};

    // REGIONS-8.1
    #[test]
    fn hashes_are_those_of_the_specification() {
        let mut item = Item::default();
        let dot = Dot { region: RegionId(1), counter: 1 };
        let value = Change::Put(Bytes::from_static(b"v"));
        assert_eq!(item.change(value, dot, Stamp::new(Stamp::MILLIS_MAX - 5, 0)), Ok(1));
        let hashed = [&1_u64.to_le_bytes()[..], b"k", &[1, 1, 1, 5, 0, 2, b'v']].concat();
        let expected = first_bytes(&blake3::hash(&hashed));
        assert_eq!(item_hash(b"k", &item), expected);
        let changed = Changed { key: Bytes::from_static(b"k"), before: None, after: Some(item.clone()) };
        let mut tree = Tree::default();
        tree.update(&changed);
        let leaf = leaf_of(b"k");
        assert_eq!(
            leaf,
            (u16::from(blake3::hash(b"k").as_bytes()[0]) << 4)
                | u16::from(blake3::hash(b"k").as_bytes()[1] >> 4)
        );
        let (mut node, mut found) = (Node::ROOT, None);
        while found.is_none() {
            let children = tree.children(node);
            let number = children.iter().position(|hash| *hash == expected).expect("one child has it");
            assert_eq!(children.iter().filter(|hash| **hash != 0).count(), 1);
            match node.child(number) {
                Ok(child) => node = child,
                Err(leaf) => found = Some(leaf),
            }
        }
        assert_eq!((tree.root(), found), (expected, Some(leaf)));
        // A tombstone counts nothing, as does nothing.
        let before = changed.after;
        item.change(Change::Delete, Dot { counter: 2, ..dot }, Stamp::new(9, 0)).expect("allowed");
        tree.update(&Changed { key: changed.key, before, after: Some(item) });
        assert_eq!(tree, Tree::default());
    }
}
