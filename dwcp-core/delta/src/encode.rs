//! Makes deltas: of each block of a part, the cheapest way to say it (DELTA-2, DELTA-3, DELTA-4).

use std::{ops::Range, sync::Arc};

use crate::{
    Baseline, BaselineName, Regions, Unreadable,
    chunks::{Cutting, Index, is_zero},
    format::{FORMAT, Op},
    limits::{
        BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PART_BYTES_MAX, PREFIX_BYTES_MAX, PREFIX_RUNS_MAX, REGION_BYTES,
        XOR_EARLY_DIVISOR,
    },
    residue, xor,
};

/// A difference of more than this part of a block is none.
const XOR_LATE_DIVISOR: usize = 2;
/// Bytes of blocks that could be either a difference or residue of which both are tried.
const TRIAL_BYTES: usize = 64 << 10;
/// A delta that saves less than this part of it is none: the transport compresses, too.
const GAIN_DIVISOR: usize = 16;

/// How a run of a part is said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Zeros,
    Same,
    Copy(u64),
    /// Where in `differences`.
    Xor(Range<usize>),
    /// The same, if that turns out to be the cheaper way.
    Either(Range<usize>),
    Residue,
}

/// Encodes parts of contents, one after the other; keeps its buffers.
pub struct Encoder {
    block_bytes: usize,
    level: i32,
    said: Vec<(Said, usize)>,
    old: Vec<u8>,
    differences: Vec<u8>,
    residue: Vec<u8>,
    prefix: Vec<u8>,
}

impl Encoder {
    /// Compares blocks of this length (of memory: the page; of a disk: the file system's block) and compresses at this
    /// level of zstd.
    pub fn new(block_bytes: usize, level: i32) -> Self {
        Self {
            block_bytes: block_bytes.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX),
            level,
            said: Vec::new(),
            old: Vec::new(),
            differences: Vec::new(),
            residue: Vec::new(),
            prefix: Vec::new(),
        }
    }

    /// Appends the delta of a part that begins at `offset` of its content, against a baseline that is at hand. `false`, and
    /// nothing appended, if the part is better sent as it is. `regions` is asked only if something has no counterpart at
    /// its own place.
    pub fn by_baseline(
        &mut self,
        (offset, part): (u64, &[u8]),
        name: &BaselineName,
        baseline: &(impl Baseline + ?Sized),
        regions: impl FnOnce() -> Option<Arc<Regions>>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Unreadable> {
        assert!(part.len() <= PART_BYTES_MAX, "a part within its bound");
        let mut old = std::mem::take(&mut self.old);
        old.resize(baseline.len().saturating_sub(offset).min(part.len() as u64) as usize, 0);
        let read = if old.is_empty() { Ok(()) } else { baseline.read_at(offset, &mut old) };
        if read.is_ok() {
            self.compare(part, &old);
        }
        self.old = old;
        read?;
        let same_place = self.gather(part, offset);
        let mut runs = Vec::new();
        if !self.residue.is_empty() {
            let clipped = clip(same_place, baseline.len());
            runs = match regions() {
                Some(regions) => regions.similar(&self.residue, &clipped),
                None => clipped,
            };
        }
        let described = self.said.iter().any(|(said, _)| *said != Said::Residue);
        if !described && runs.is_empty() {
            return Ok(false);
        }
        let mut prefix = std::mem::take(&mut self.prefix);
        let read = residue::read_prefix(&runs, baseline, &mut prefix);
        self.prefix = prefix;
        if read.is_err() {
            return Err(Unreadable);
        }
        Ok(self.put(part, name, &runs, out))
    }

    /// Appends the delta of a part against a baseline of which only the chunks are known. `window` is the part with what is
    /// before it ([`Cutting::lead_bytes`]) and behind it ([`Cutting::bytes_max`]), as far as there is any; `part` is where
    /// in it the part is. `false`, and nothing appended, if the part is better sent as it is.
    pub fn by_chunks(
        &mut self,
        (offset, window): (u64, &[u8]),
        part: Range<usize>,
        name: &BaselineName,
        (cutting, index): (Cutting, &Index),
        out: &mut Vec<u8>,
    ) -> bool {
        assert!(part.len() <= PART_BYTES_MAX && part.end <= window.len(), "a part within its bound");
        let begin = offset - part.start as u64;
        let mut found: Vec<(Range<usize>, u64)> = Vec::new();
        let mut at = part.start;
        cutting.chunks(window, begin, true, |chunk| {
            let start = (chunk.offset - begin) as usize;
            let inside = start.max(at)..(start + chunk.len as usize).min(part.end);
            if let Some(from) = index.find(&chunk).filter(|_| inside.start < inside.end) {
                found.push((inside.clone(), from + (inside.start - start) as u64));
                at = inside.end;
            }
        });
        self.said.clear();
        self.differences.clear();
        let mut at = part.start;
        for (range, from) in found {
            self.say_new(&window[at..range.start]);
            let here = begin + range.start as u64;
            let said = if from == here { Said::Same } else { Said::Copy(from) };
            self.say(said, range.len());
            at = range.end;
        }
        self.say_new(&window[at..part.end]);
        self.gather(&window[part.clone()], offset);
        let described = self.said.iter().any(|(said, _)| *said != Said::Residue);
        self.prefix.clear();
        described && self.put(&window[part], name, &[], out)
    }

    /// What of a part is in the old one at the same place, or nearly.
    fn compare(&mut self, part: &[u8], old: &[u8]) {
        self.said.clear();
        self.differences.clear();
        let early = self.block_bytes / XOR_EARLY_DIVISOR;
        for (number, block) in part.chunks(self.block_bytes).enumerate() {
            let start = number * self.block_bytes;
            let said = match old.get(start..start + block.len()) {
                Some(old) if old == block => Said::Same,
                _ if is_zero(block) => Said::Zeros,
                Some(old) => {
                    let (begin, late) = (self.differences.len(), block.len() / XOR_LATE_DIVISOR);
                    let differs = xor::encode(old, block, late, &mut self.differences);
                    let end = self.differences.len();
                    match differs {
                        true if end - begin <= early => Said::Xor(begin..end),
                        true => Said::Either(begin..end),
                        false => Said::Residue,
                    }
                }
                None => Said::Residue,
            };
            self.say(said, block.len());
        }
        self.decide(part, old);
    }

    /// Whether the blocks that could be either are differences or residue: tries some of them.
    fn decide(&mut self, part: &[u8], old: &[u8]) {
        let (mut at, mut differences) = (0, 0);
        self.residue.clear();
        self.prefix.clear();
        for (said, len) in &self.said {
            if let Said::Either(difference) = said
                && self.residue.len() < TRIAL_BYTES
            {
                self.residue.extend_from_slice(&part[at..at + len]);
                self.prefix.extend_from_slice(&old[at..at + len]);
                differences += difference.len();
            }
            at += len;
        }
        if self.residue.is_empty() {
            return;
        }
        let mut coded = Vec::new();
        residue::put(&self.residue, &[], &self.prefix, self.level, &mut coded);
        let differ = differences <= coded.len();
        for (said, _) in &mut self.said {
            if let Said::Either(difference) = said {
                *said = if differ { Said::Xor(difference.clone()) } else { Said::Residue };
            }
        }
    }

    fn say_new(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(self.block_bytes) {
            self.say(if is_zero(block) { Said::Zeros } else { Said::Residue }, block.len());
        }
    }

    /// Runs that are said in the same way are one.
    fn say(&mut self, said: Said, len: usize) {
        if let Some((last, last_len)) = self.said.last_mut() {
            let joined = match (&*last, &said) {
                (Said::Copy(last), Said::Copy(from)) => last + *last_len as u64 == *from,
                (Said::Zeros, Said::Zeros) | (Said::Same, Said::Same) | (Said::Residue, Said::Residue) => {
                    true
                }
                _ => false,
            };
            if joined {
                *last_len += len;
                return;
            }
        }
        self.said.push((said, len));
    }

    /// Puts the residue together; gives where in the content it is, near runs as one.
    fn gather(&mut self, part: &[u8], offset: u64) -> Vec<Range<u64>> {
        self.residue.clear();
        let mut places: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        for (said, len) in &self.said {
            if *said == Said::Residue {
                self.residue.extend_from_slice(&part[at..at + len]);
                let (start, end) = (offset + at as u64, offset + (at + len) as u64);
                match places.last_mut() {
                    Some(last) if start - last.end <= REGION_BYTES as u64 => last.end = end,
                    _ => places.push(start..end),
                }
            }
            at += len;
        }
        places
    }

    fn put(&self, part: &[u8], name: &BaselineName, runs: &[Range<u64>], out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.push(FORMAT);
        out.extend_from_slice(&name.encode());
        residue::put(&self.residue, runs, &self.prefix, self.level, out);
        for (said, len) in &self.said {
            match said {
                Said::Zeros => Op::Zeros(*len),
                Said::Same => Op::Same(*len),
                Said::Copy(from) => Op::Copy { from: *from, len: *len },
                Said::Xor(difference) | Said::Either(difference) => {
                    Op::Xor { len: *len, difference: &self.differences[difference.clone()] }
                }
                Said::Residue => Op::Residue(*len),
            }
            .put(out);
        }
        let gains = out.len() - begin < part.len() - part.len() / GAIN_DIVISOR;
        if !gains {
            out.truncate(begin);
        }
        gains
    }
}

/// Within a baseline, and a half of a prefix at most: the other is for what has moved.
fn clip(places: Vec<Range<u64>>, baseline_len: u64) -> Vec<Range<u64>> {
    let mut left = PREFIX_BYTES_MAX as u64 / 2;
    let mut out = Vec::with_capacity(places.len());
    for place in places {
        let place = place.start..place.end.min(baseline_len).min(place.start + left);
        if place.start < place.end && out.len() < PREFIX_RUNS_MAX {
            left -= place.end - place.start;
            out.push(place);
        }
    }
    out
}
