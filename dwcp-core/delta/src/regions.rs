//! Where in a baseline content is that is similar to some other: marks, which are hashes of 64 bytes at places that the
//! content itself chooses, and in which region of the baseline each is.

use std::{collections::HashMap, ops::Range};

use crate::limits::{MARKS_LOOKED_UP_MAX, MARKS_MAX, PREFIX_BYTES_MAX, PREFIX_RUNS_MAX, REGION_BYTES};

/// Marks are at least this many bytes apart on average, as a power of two.
const MARK_BITS_MIN: u32 = 8;

/// Random numbers for bytes (splitmix64 of their values): a sum of 64 of them, each shifted by its distance, is a hash that
/// can be rolled along.
const GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut word = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[byte] = word ^ (word >> 31);
        byte += 1;
    }
    table
}

/// Finds marks in bytes that come one after the other.
struct Roll {
    hash: u64,
    shift: u32,
    last: u32,
}

impl Roll {
    fn new(mark_bits: u32) -> Self {
        Self { hash: 0, shift: u64::BITS - mark_bits, last: 0 }
    }

    /// Calls `found` with each mark and its place in `bytes`. A mark that repeats at once, as in constant bytes, counts once.
    fn roll(&mut self, bytes: &[u8], mut found: impl FnMut(usize, u32)) {
        for (at, &byte) in bytes.iter().enumerate() {
            self.hash = (self.hash << 1).wrapping_add(GEAR[usize::from(byte)]);
            if self.hash >> self.shift == 0 {
                let mark = (self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
                if mark != self.last {
                    self.last = mark;
                    found(at, mark);
                }
            }
        }
    }
}

/// Marks of a baseline.
pub struct Regions {
    mark_bits: u32,
    len: u64,
    marks: HashMap<u32, u32>,
}

/// Makes [`Regions`] of a baseline that is read once, from its beginning to its end.
pub struct RegionsBuilder {
    roll: Roll,
    at: u64,
    regions: Regions,
}

impl RegionsBuilder {
    /// For a baseline of this length.
    pub fn new(len: u64) -> Self {
        let mark_bits = (len / MARKS_MAX as u64).next_power_of_two().ilog2().max(MARK_BITS_MIN);
        Self { roll: Roll::new(mark_bits), at: 0, regions: Regions { mark_bits, len, marks: HashMap::new() } }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (at, marks) = (self.at, &mut self.regions.marks);
        self.roll.roll(bytes, |place, mark| {
            if marks.len() < MARKS_MAX {
                let region = (at + place as u64) / REGION_BYTES as u64;
                marks.entry(mark).or_insert(u32::try_from(region).unwrap_or(u32::MAX));
            }
        });
        self.at += bytes.len() as u64;
    }

    /// That was all.
    pub fn finish(self) -> Regions {
        self.regions
    }
}

impl Regions {
    /// Of a baseline in memory.
    pub fn of(baseline: &[u8]) -> Self {
        let mut builder = RegionsBuilder::new(baseline.len() as u64);
        builder.update(baseline);
        builder.finish()
    }

    /// Runs of the baseline that have most in common with this residue, and those that are at the same place; not more than
    /// a prefix may have.
    pub(crate) fn similar(&self, residue: &[u8], same_place: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut votes: HashMap<u32, u32> = HashMap::new();
        let mut looked_up = 0;
        Roll::new(self.mark_bits).roll(residue, |_, mark| {
            looked_up += 1;
            if looked_up <= MARKS_LOOKED_UP_MAX
                && let Some(&region) = self.marks.get(&mark)
            {
                *votes.entry(region).or_default() += 1;
            }
        });
        let mut ranked: Vec<(u32, u32)> = votes.into_iter().map(|(region, votes)| (votes, region)).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let region_bytes = REGION_BYTES as u64;
        let regions = ranked.into_iter().map(|(_, region)| {
            let start = u64::from(region) * region_bytes;
            start..(start + region_bytes).min(self.len)
        });
        // What is at the same place anyway takes no room again.
        let is_there = |run: &Range<u64>| {
            same_place.iter().any(|place| place.start <= run.start && run.end <= place.end)
        };
        let regions = regions.filter(|run| !is_there(run));
        let mut left = PREFIX_BYTES_MAX as u64;
        let mut runs = Vec::new();
        for run in same_place.iter().cloned().chain(regions) {
            let run = run.start..run.end.min(self.len).min(run.start + left);
            if run.start < run.end && runs.len() < PREFIX_RUNS_MAX {
                left -= run.end - run.start;
                runs.push(run);
            }
        }
        merged(runs)
    }
}

/// In order and apart.
fn merged(mut runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    runs.sort_unstable_by_key(|run| run.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(runs.len());
    for run in runs {
        match out.last_mut() {
            Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
            _ => out.push(run),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_has_moved_is_found() {
        let baseline = noise(1 << 20, 1);
        let regions = Regions::of(&baseline);
        let residue = [noise(1000, 2), baseline[500_000..540_000].to_vec(), noise(1000, 3)].concat();
        let runs = regions.similar(&residue, &[]);
        let covered = |place: u64| runs.iter().any(|run| run.contains(&place));
        assert!((501_000..539_000).all(covered), "{runs:?}");
        assert!(runs.iter().map(|run| run.end - run.start).sum::<u64>() < 100_000, "{runs:?}");
        assert!(regions.similar(&noise(100_000, 4), &[]).is_empty());
    }

    /// DELTA-4.2
    #[test]
    fn a_prefix_keeps_its_bounds() {
        let baseline = vec![noise(64, 1); 1 << 19].concat();
        let regions = Regions::of(&baseline);
        let same = [0..5, 5..1 << 40, 7..9];
        let runs = regions.similar(&baseline, &same);
        assert!(runs.iter().map(|run| run.end - run.start).sum::<u64>() <= PREFIX_BYTES_MAX as u64);
        assert!(runs.is_sorted_by(|a, b| a.end < b.start));
        assert!(Regions::of(b"").similar(b"x", &same).is_empty());
    }
}
