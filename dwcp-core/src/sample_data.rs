//! Seeded sample data for benches and `novacron bench --data`: the same seed gives the same bytes.
//!
//! The mixes are made to behave under compression like the real thing, not to look like it:
//!
//! | kind | content | ratio of zstd 3, 256 KiB frames |
//! |---|---|---|
//! | `zeros` | zero bytes | thousands |
//! | `text` | sentences over a Zipf-distributed vocabulary of 3,000 words, and log lines | 3 to 4 |
//! | `vm` | runs of 4 KiB guest pages: 44 % zero, 16 % machine-code-like, 15 % text, 21 % pointers and small integers, 4 % random | 4 to 5 |
//! | `random` | uniform random bytes | 1 |
//!
//! The page mix follows what guest memory usually holds (zero pages between a quarter and a half, then page cache,
//! code and heap). Not part of the public API.

use std::{fmt, str::FromStr};

/// Kinds of sample data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleData {
    /// Zero bytes.
    Zeros,
    /// English-like sentences and log lines.
    Text,
    /// Pages like those of a guest's memory.
    Vm,
    /// Uniform random bytes.
    Random,
}

impl SampleData {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Zeros, Self::Text, Self::Vm, Self::Random];

    /// `len` bytes of this kind.
    pub fn generate(self, seed: u64, len: usize) -> Vec<u8> {
        let mut rng = Rng(seed);
        match self {
            Self::Zeros => vec![0; len],
            Self::Random => {
                let mut out = vec![0; len];
                rng.fill(&mut out);
                out
            }
            Self::Text => {
                let vocabulary = Vocabulary::new(&mut rng);
                let mut out = Vec::with_capacity(len + LINE_MAX);
                while out.len() < len {
                    vocabulary.line(&mut rng, &mut out);
                }
                out.truncate(len);
                out
            }
            Self::Vm => vm(&mut rng, len),
        }
    }
}

impl fmt::Display for SampleData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zeros => "zeros",
            Self::Text => "text",
            Self::Vm => "vm",
            Self::Random => "random",
        })
    }
}

impl FromStr for SampleData {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == s);
        found.ok_or_else(|| format!("{s:?} is not one of zeros, text, vm, random"))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

const WORDS: usize = 3000;
/// No line is longer.
const LINE_MAX: usize = 512;

/// Made-up words, the most frequent first.
struct Vocabulary(Vec<String>);

impl Vocabulary {
    fn new(rng: &mut Rng) -> Self {
        const ONSETS: [&str; 16] =
            ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "th", "st", "pr", "w"];
        const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "ou", "e"];
        const CODAS: [&str; 8] = ["", "n", "r", "s", "t", "nd", "ng", ""];
        let word = |rank: usize, rng: &mut Rng| {
            let syllables = 1 + rng.below(1 + u64::from(rank.checked_ilog10().unwrap_or(0))) as usize;
            let mut word = String::new();
            for _ in 0..syllables {
                word.push_str(ONSETS[rng.below(16) as usize]);
                word.push_str(VOWELS[rng.below(8) as usize]);
                word.push_str(CODAS[rng.below(8) as usize]);
            }
            word
        };
        Self((0..WORDS).map(|rank| word(rank, rng)).collect())
    }

    /// A word; the one of rank r with a probability of about 1/r.
    fn word(&self, rng: &mut Rng) -> &str {
        let u = rng.below(1 << 53) as f64 / (1u64 << 53) as f64;
        &self.0[((WORDS as f64).powf(u) as usize - 1).min(WORDS - 1)]
    }

    /// Appends a sentence, or two times in five a log line.
    fn line(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let words = 4 + rng.below(12);
        if rng.below(5) < 2 {
            let (s, ms) = (rng.below(60), rng.below(1000));
            let level = ["INFO", "INFO", "INFO", "WARN", "DEBUG"][rng.below(5) as usize];
            let (module, id, size) = (self.word(rng), rng.below(1 << 16), rng.below(1 << 20));
            write!(
                out,
                "2026-11-05T14:07:{s:02}.{ms:03}Z {level} {module}: request={id:04x} bytes={size} status=200"
            )
            .expect("writing to a Vec cannot fail");
        } else {
            for i in 0..words {
                if i > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(self.word(rng).as_bytes());
            }
            out.push(b'.');
        }
        out.push(b'\n');
    }
}

const PAGE: usize = 4096;

fn vm(rng: &mut Rng, len: usize) -> Vec<u8> {
    let vocabulary = Vocabulary::new(rng);
    let instructions: Vec<u64> = (0..512).map(|_| rng.next()).collect();
    let mut out = Vec::with_capacity(len + PAGE + LINE_MAX);
    while out.len() < len {
        // Memory of one use is contiguous for a while: runs of 1 to 32 pages.
        let kind = rng.below(100);
        for _ in 0..1 + rng.below(32) {
            let end = out.len() + PAGE;
            match kind {
                0..44 => out.resize(end, 0),
                44..60 => code_page(rng, &instructions, &mut out, end),
                60..75 => {
                    while out.len() < end {
                        vocabulary.line(rng, &mut out);
                    }
                }
                75..96 => heap_page(rng, &mut out, end),
                _ => {
                    let start = out.len();
                    out.resize(end, 0);
                    rng.fill(&mut out[start..]);
                }
            }
            out.truncate(end);
            if out.len() >= len {
                break;
            }
        }
    }
    out.truncate(len);
    out
}

/// Instructions of 2 to 7 bytes, a few of them very frequent, one in six with a random operand.
fn code_page(rng: &mut Rng, instructions: &[u64], out: &mut Vec<u8>, end: usize) {
    while out.len() < end {
        let u = rng.below(1 << 20) as f64 / f64::from(1 << 20);
        let rank = (instructions.len() as f64).powf(u) as usize - 1;
        let bytes = instructions[rank].to_le_bytes();
        out.extend_from_slice(&bytes[..2 + rank % 6]);
        if rng.below(6) == 0 {
            out.extend_from_slice(&(rng.below(1 << 12) as u32).to_le_bytes());
        }
    }
}

/// 64-bit words: pointers into one arena, small integers, zeros.
fn heap_page(rng: &mut Rng, out: &mut Vec<u8>, end: usize) {
    let arena = 0x7f3a_5c00_0000 + (rng.below(16) << 20);
    while out.len() < end {
        let word = match rng.below(8) {
            0..3 => arena + (rng.below(1 << 12) << 4),
            3..5 => rng.below(64),
            _ => 0,
        };
        out.extend_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zstd_ratio(kind: SampleData, level: i32) -> f64 {
        let data = kind.generate(1, 64 << 20);
        let wire: usize =
            data.chunks(256 << 10).map(|frame| zstd::bulk::compress(frame, level).unwrap().len()).sum();
        data.len() as f64 / wire as f64
    }

    #[test]
    fn compresses_like_the_real_thing() {
        for (kind, least, most) in [
            (SampleData::Zeros, 1000.0, f64::INFINITY),
            (SampleData::Text, 3.0, 4.0),
            (SampleData::Vm, 4.0, 5.5),
            (SampleData::Random, 0.99, 1.0),
        ] {
            let ratio = zstd_ratio(kind, 3);
            assert!((least..=most).contains(&ratio), "{kind}: ratio {ratio:.2}");
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        for kind in SampleData::ALL {
            assert_eq!(kind.generate(7, 100_001), kind.generate(7, 100_001), "{kind}");
            assert_eq!(kind.to_string().parse(), Ok(kind));
            if kind != SampleData::Zeros {
                assert_ne!(kind.generate(7, 10_000), kind.generate(8, 10_000), "{kind}");
            }
        }
        assert!("video".parse::<SampleData>().is_err());
    }
}
