//! What a payload looks like, from a sample of it: far cheaper than compressing it. Owns the classes of content;
//! deliberately not what to do about them (see `controller`).
//!
//! The sample is 16 pieces of 128 bytes at even distances. Two numbers come of it: the collision entropy of single
//! bytes (Renyi entropy of order 2, whose estimate is not biased by a small sample as Shannon's is, and which needs one
//! logarithm), and the share of four-byte sequences that were seen before in the sample.

/// Pieces of a payload that are looked at.
const PIECES: usize = 16;
/// Bytes of a piece.
const PIECE_LEN: usize = 128;
/// Slots of the table of sequences seen.
const SEEN_BITS: u32 = 9;
/// Bits per byte above which single bytes tell nothing. A uniform sample of 2048 bytes has 8.00 +- 0.03.
const RANDOM_BITS: f32 = 7.8;

/// Classes of content, by how well they are expected to compress. A class has its own measured costs and ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nearly all of the sample is one byte value or repeats.
    Uniform,
    /// Much redundancy: sparse pages, tables of pointers.
    Redundant,
    /// Text, code, and mixtures.
    Structured,
    /// Little redundancy: dense binary.
    Dense,
    /// Random, encrypted or already compressed.
    Incompressible,
}

impl Content {
    /// Every class, the most compressible first.
    pub const ALL: [Self; 5] =
        [Self::Uniform, Self::Redundant, Self::Structured, Self::Dense, Self::Incompressible];
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Redundant => "redundant",
            Self::Structured => "structured",
            Self::Dense => "dense",
            Self::Incompressible => "incompressible",
        })
    }
}

/// The result of looking at a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probe {
    /// Collision entropy, bits per byte, 0.0..=8.0.
    pub entropy_bits: f32,
    /// Share of sampled four-byte sequences that had been seen before, 0.0..=1.0.
    pub repeats: f32,
}

impl Probe {
    /// Looks at a payload.
    pub fn of(payload: &[u8]) -> Self {
        // Two histograms: equal bytes in a row would otherwise wait for each other's store.
        let mut counts = [[0u16; 256]; 2];
        let mut seen = [0u32; 1 << SEEN_BITS];
        let (mut sampled, mut sequences, mut repeated) = (0u32, 0u32, 0u32);
        let step = (payload.len() / PIECES).max(PIECE_LEN);
        for piece in payload.chunks(step).take(PIECES) {
            let piece = &piece[..piece.len().min(PIECE_LEN)];
            sampled += piece.len() as u32;
            for four in piece.chunks_exact(4) {
                counts[0][usize::from(four[0])] += 1;
                counts[1][usize::from(four[1])] += 1;
                counts[0][usize::from(four[2])] += 1;
                counts[1][usize::from(four[3])] += 1;
            }
            for &byte in piece.chunks_exact(4).remainder() {
                counts[0][usize::from(byte)] += 1;
            }
            // Every second position: odd and even ones meet often enough in text, and words are aligned elsewhere.
            for four in piece.windows(4).step_by(2) {
                let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                let slot = &mut seen[(word.wrapping_mul(0x9e37_79b1) >> (32 - SEEN_BITS)) as usize];
                // One is added so that an empty slot matches nothing; 0xffff_ffff then counts as empty, once.
                let tag = word.wrapping_add(1);
                repeated += u32::from(*slot == tag);
                *slot = tag;
                sequences += 1;
            }
        }
        let pairs = u64::from(sampled) * u64::from(sampled.saturating_sub(1));
        let colliding: u64 = (0..256)
            .map(|byte| u64::from(counts[0][byte]) + u64::from(counts[1][byte]))
            .map(|n| n * n.saturating_sub(1))
            .sum();
        // Without a single collision there is no estimate: nothing speaks against random.
        let entropy_bits = match (pairs, colliding) {
            (0, _) | (_, 0) => 8.0,
            _ => (pairs as f32 / colliding as f32).log2().clamp(0.0, 8.0),
        };
        Self { entropy_bits, repeats: repeated as f32 / sequences.max(1) as f32 }
    }

    /// The class of content.
    pub fn content(&self) -> Content {
        match (self.entropy_bits, self.repeats) {
            (_, r) if r > 0.9 => Content::Uniform,
            (h, r) if h < 2.5 || r > 0.5 => Content::Redundant,
            (h, r) if h < 5.5 || r > 0.15 => Content::Structured,
            (h, r) if h < RANDOM_BITS || r > 0.02 => Content::Dense,
            _ => Content::Incompressible,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample_data::SampleData;

    const FRAME: usize = 256 << 10;

    #[test]
    fn tells_kinds_of_data_apart() {
        let compressed = zstd::bulk::compress(&SampleData::Text.generate(1, 16 << 20), 3).unwrap();
        assert!(compressed.len() > 4 * FRAME);
        let base64 = SampleData::Random
            .generate(1, FRAME)
            .iter()
            .map(|b| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(b & 63)])
            .collect();
        let page = SampleData::Random.generate(1, 4096);
        let cases: [(&str, Vec<u8>, &[Content]); 7] = [
            ("zeros", SampleData::Zeros.generate(1, 4 * FRAME), &[Content::Uniform]),
            ("text", SampleData::Text.generate(1, 4 * FRAME), &[Content::Structured]),
            ("random", SampleData::Random.generate(1, 4 * FRAME), &[Content::Incompressible]),
            ("compressed", compressed, &[Content::Incompressible]),
            ("base64", base64, &[Content::Structured, Content::Dense]),
            ("one page again and again", page.repeat(64), &[Content::Uniform, Content::Redundant]),
            ("0xff", vec![0xff; FRAME], &[Content::Uniform]),
        ];
        for (name, data, expected) in cases {
            for frame in data.chunks_exact(FRAME) {
                let probe = Probe::of(frame);
                assert!(expected.contains(&probe.content()), "{name}: {:?} {probe:?}", probe.content());
            }
        }
    }

    /// What matters: a frame called incompressible does not shrink, one that shrinks well is not called so.
    #[test]
    fn vm_frames_are_judged_like_zstd_does() {
        for seed in 0..4 {
            for frame in SampleData::Vm.generate(seed, 16 << 20).chunks_exact(FRAME) {
                let ratio = FRAME as f64 / zstd::bulk::compress(frame, 1).unwrap().len() as f64;
                let content = Probe::of(frame).content();
                match content {
                    Content::Incompressible => assert!(ratio < 1.2, "seed {seed}: {content:?} {ratio:.2}"),
                    _ => assert!(ratio > 1.02, "seed {seed}: {content:?} {ratio:.2}"),
                }
            }
        }
    }

    #[test]
    fn small_payloads_have_an_answer() {
        assert_eq!(Probe::of(&[]).content(), Content::Incompressible);
        assert_eq!(Probe::of(&[1, 2, 3]).content(), Content::Incompressible);
        assert_eq!(Probe::of(&[0; 64]).content(), Content::Uniform);
    }

    proptest! {
        #[test]
        fn random_of_any_length_is_incompressible(seed: u64, len in 2048..300_000usize) {
            let probe = Probe::of(&SampleData::Random.generate(seed, len));
            prop_assert_eq!(probe.content(), Content::Incompressible, "{:?}", probe);
        }

        #[test]
        fn numbers_are_in_range(payload in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let probe = Probe::of(&payload);
            prop_assert!((0.0..=8.0).contains(&probe.entropy_bits) && (0.0..=1.0).contains(&probe.repeats));
        }
    }
}
