//! Contents as differences against a *baseline*: an older content that both sides have. No I/O here: baselines are read
//! through [`Baseline`], and what is encoded or decoded is a *part* of a content, in memory.
//!
//! What there is, from the cheapest to the dearest, each falling through to the next:
//! 1. bytes that the baseline has, at the same place or anywhere ([`chunks`], [`Encoder::by_chunks`]);
//! 2. blocks that differ a little from the block at the same place ([`xor`]), and everything else with similar regions
//!    of the baseline as zstd's prefix ([`Encoder::by_baseline`], [`Regions`]);
//! 3. new data, compressed alone.
//!
//! The format is `docs/spec/delta-1.md`; clause numbers in this crate (`DELTA-2.1`) refer to it. A delta never says what
//! the result must be: whoever decodes one compares the result with a hash that came another way. A delta that is decoded
//! with another baseline than it was made with gives an error or other bytes, never a panic, and never more than asked for.
//!
//! This crate deliberately knows nothing of files, stores, peers and threads.

pub mod chunks;
mod decode;
mod encode;
mod error;
mod format;
pub mod limits;
mod regions;
mod residue;
mod varint;
pub mod xor;

pub use decode::Decoder;
pub use encode::Encoder;
pub use error::{DeltaError, Unreadable};
pub use format::{BASELINE_NAME_BYTES, BaselineName};
pub use regions::{Regions, RegionsBuilder};

/// An older content, read by whoever has it.
pub trait Baseline {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` from `offset` on; the caller stays below [`len`](Self::len).
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Unreadable>;
}

impl Baseline for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(offset).map_err(|_| Unreadable)?;
        let end = start.checked_add(out.len()).ok_or(Unreadable)?;
        out.copy_from_slice(self.get(start..end).ok_or(Unreadable)?);
        Ok(())
    }
}
