//! When content is written back, if others sync files on its disk: as it comes, so that what is on its way there is bounded.
//!
//! Left to the system, what is received gathers in memory for seconds, and then all of it is written at once: a database's
//! sync on that disk waits behind hundreds of megabytes. Here it waits behind [`WRITE_BACK_BYTES`] of each data stream.
//! Nothing is durable by this; a file's sync is, and has little left to write.

use std::ops::Range;

use crate::limits::WRITE_BACK_BYTES;

/// What a data stream has written of a piece, in order, and nobody has told the disk.
#[derive(Debug)]
pub(super) struct Gathered {
    start: u64,
    bytes: u64,
}

impl Gathered {
    /// Nothing yet of what begins here.
    pub(super) fn from(start: u64) -> Self {
        Self { start, bytes: 0 }
    }

    /// Bytes were written up to `end`. The part of the file that is to be written back now, holes included, if it is enough.
    pub(super) fn add(&mut self, bytes: u64, end: u64) -> Option<Range<u64>> {
        self.bytes += bytes;
        if self.bytes < WRITE_BACK_BYTES {
            return None;
        }
        let part = self.start..end;
        *self = Self::from(end);
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_without_gaps_and_no_more_is_gathered_than_the_bound_and_one_write() {
        const WRITE: u64 = 300 << 10;
        let start = 7 << 20;
        let (mut gathered, mut told) = (Gathered::from(start), start);
        for n in 1..=100 {
            let end = start + n * WRITE;
            if let Some(part) = gathered.add(WRITE, end) {
                assert_eq!((part.start, part.end), (told, end));
                told = end;
            }
            assert!(end - told < WRITE_BACK_BYTES, "{} bytes are left", end - told);
        }
        assert!(told > start);
    }

    #[test]
    fn holes_are_no_bytes() {
        let mut gathered = Gathered::from(0);
        assert_eq!(gathered.add(1, 1 << 30), None);
        assert_eq!(gathered.add(WRITE_BACK_BYTES - 1, 2 << 30), Some(0..2 << 30));
        assert_eq!(gathered.add(WRITE_BACK_BYTES, 3 << 30), Some(2 << 30..3 << 30));
    }
}
