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
