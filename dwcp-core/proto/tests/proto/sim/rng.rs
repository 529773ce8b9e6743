//! The only source of chance: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

use std::time::Duration;

pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0..bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// low..=high.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn chance(&mut self, per_thousand: u64) -> bool {
        self.below(1000) < per_thousand
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low * 1000, high * 1000))
    }

    /// Small numbers often, large ones seldom: up to `2^bits`.
    pub(crate) fn skewed(&mut self, bits: u64) -> u64 {
        let width = self.between(0, bits);
        self.below(1 << width) + 1
    }
}

pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a stream direction carries at an offset; wrong order, loss and repetition all show.
pub(crate) fn content(stream: u32, sender: usize, offset: u64, len: usize) -> Vec<u8> {
    let key = mix(u64::from(stream) << 1 | sender as u64);
    let mut out = Vec::with_capacity(len + 8);
    let mut block = offset / 8;
    while out.len() < len + 8 {
        out.extend_from_slice(&mix(key ^ block).to_le_bytes());
        block += 1;
    }
    let skip = (offset % 8) as usize;
    out.drain(..skip);
    out.truncate(len);
    out
}
