//! A disk for reads that must be short: it ends a scan early once much was looked at, and remembers that it did. Not here:
//! what is done instead.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk, DiskError, Durability, Order, Space};

/// Bytes that a short read looks at: a millisecond of work.
const SHORT_READ_BYTES: usize = 1 << 20;
/// An entry counts as at least so many bytes: to go on to the next is work as well.
const ENTRY_BYTES_MIN: usize = 1 << 10;

/// What is left of a short read. It is one thread's; the disk's promise to be shared asks for atomics.
#[derive(Debug)]
pub(crate) struct Effort {
    bytes_left: AtomicUsize,
    is_too_little: AtomicBool,
}

impl Effort {
    pub(crate) fn short() -> Arc<Self> {
        let bytes_left = AtomicUsize::new(SHORT_READ_BYTES);
        Arc::new(Self { bytes_left, is_too_little: AtomicBool::new(false) })
    }

    /// Whether a scan ended early: what was found is not all.
    pub(crate) fn is_too_little(&self) -> bool {
        self.is_too_little.load(Relaxed)
    }

    /// Whether an entry may be looked at. The last one may be large.
    fn affords(&self, bytes: usize) -> bool {
        let left = self.bytes_left.load(Relaxed);
        self.bytes_left.store(left.saturating_sub(bytes.max(ENTRY_BYTES_MIN)), Relaxed);
        if left == 0 {
            self.is_too_little.store(true, Relaxed);
        }
        left > 0
    }
}

/// A disk, and how much may be looked at in all scans of it.
pub(crate) struct Glance<D> {
    pub(crate) disk: Arc<D>,
    pub(crate) effort: Arc<Effort>,
}

impl<D: Disk> Disk for Glance<D> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.disk.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        self.disk.scan(space, from, to, order, &mut |key, value| match self
            .effort
            .affords(key.len() + value.len())
        {
            true => visit(key, value),
            false => ControlFlow::Break(()),
        })
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), DiskError> {
        self.disk.write(batch, durability)
    }
}
