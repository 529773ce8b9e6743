//! The seam between the consensus store and what keeps its bytes.
//!
//! A [`Disk`] holds a few *spaces* of ordered keys, takes atomic [`Batch`]es, and promises of a write either that it survives
//! a crash ([`Durability::Synced`]) or only that writes are lost from the end, never from the middle
//! ([`Durability::Ordered`]). `consensus-rocks` implements it on RocksDB, [`MemoryDisk`] in memory.
//!
//! Deliberately not here: what the bytes mean, and checksums of records (whoever writes a record checks it).

mod batch;
mod memory;

use std::ops::ControlFlow;

use bytes::Bytes;

pub use batch::{Batch, Op};
pub use memory::MemoryDisk;

/// A separate set of ordered keys: a column family in RocksDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u8);

/// What a write promises when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It and all writes before it survive a crash of the machine.
    Synced,
    /// It is visible. A crash may lose it, and then all writes after it.
    Ordered,
}

/// In which order keys are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The smallest first.
    Ascending,
    /// The largest first.
    Descending,
}

/// A read or write that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no room. Nothing of the batch was written.
    #[error("{call}: no room on the disk: {text}; make room, and start the member again if it has stopped")]
    NoSpace {
        /// What was called.
        call: &'static str,
        /// What the system said.
        text: String,
    },
    /// What was read is not what was written.
    #[error("{call}: the data is damaged: {text}")]
    Corrupt {
        /// What was called.
        call: &'static str,
        /// What was found.
        text: String,
    },
    /// The system refused. After a failed sync nothing is known of what reached the disk: the process must stop.
    #[error("{call}: {text}")]
    Io {
        /// What was called.
        call: &'static str,
        /// What the system said.
        text: String,
    },
}

impl DiskError {
    /// Whether what was written is lost, as opposed to a disk that does not do what it is asked for now.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

/// Ordered keys with atomic batches. Any thread may read and write; those that write the same keys agree on an order.
pub trait Disk: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError>;

    /// Visits the pairs with `from <= key < to` (`None`: no end) as they were when the call began, until `visit` breaks.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), DiskError>;

    /// Writes all of a batch or nothing.
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), DiskError>;
}
