//! Numbers and bytes that no codec makes smaller; the same in each run.

use bytes::Bytes;

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (seed + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `length` rounded up to a multiple of eight.
    pub(crate) fn bytes(&mut self, length: usize) -> Bytes {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}
