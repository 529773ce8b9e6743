//! Encoding and decoding of one frame payload. Each frame stands alone, so frames may be encoded and decoded in any
//! order and on any thread. Deliberately without policy: see `controller`, and `common` for dictionaries.

use std::cell::RefCell;

use bytes::Bytes;
use dwcp_proto::{frame::Codec, limits::CODEC_RAW_LEN_MIN};
use lz4_flex::block::CompressTable;
use zstd::{bulk::Compressor, zstd_safe};

use super::common::{Common, DICTIONARY_RAW_MAX};
use crate::dictionary::Dictionary;

/// A codec with its effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// LZ4 block, fast mode.
    Lz4,
    /// Zstandard of this level, 1..=19.
    Zstd(u8),
}

impl Encoding {
    /// What the frame header says.
    pub fn codec(self) -> Codec {
        match self {
            Self::Identity => Codec::Identity,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd {level}"),
        }
    }
}

/// A payload does not decode to what its header promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It decodes to another number of bytes.
    #[error("{codec:?} payload decodes to {found} bytes instead of {expected}")]
    Length {
        /// Codec of the frame.
        codec: Codec,
        /// The header's raw length in bytes.
        expected: usize,
        /// What came out, in bytes.
        found: usize,
    },
    /// It does not decode into the promised number of bytes, or not at all.
    #[error("{codec:?} payload is corrupt: {reason}")]
    Corrupt {
        /// Codec of the frame.
        codec: Codec,
        /// What the decoder said.
        reason: String,
    },
}

/// One part in this many must be saved, or a frame is not worth decoding at the other side.
const MARGIN: usize = 32;

struct Scratch {
    zstd: Compressor<'static>,
    zstd_level: u8,
    lz4: CompressTable,
    /// Output before its size is known; grows to the bound of one frame, and stays for the life of the thread.
    out: Vec<u8>,
}

thread_local! {
    // A zstd context is hundreds of KiB to several MiB: one for each thread that encodes, made when first used.
    static ENCODER: RefCell<Option<Scratch>> = const { RefCell::new(None) };
    static DECODER: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::default());
}

/// Encodes a payload, a small one with a dictionary of both sides' if one pays. `None`: it does not shrink by a useful margin
/// and should travel as [`Codec::Identity`]. The result owns exactly its length.
pub fn encode(encoding: Encoding, raw: &[u8], common: Option<&Common>) -> Option<Bytes> {
    if encoding == Encoding::Identity || raw.len() < CODEC_RAW_LEN_MIN as usize {
        return None;
    }
    ENCODER.with_borrow_mut(|scratch| {
        // Both fail only when out of memory; a frame that is not compressed is still correct.
        if scratch.is_none() {
            let zstd = Compressor::new(1).ok()?;
            *scratch = Some(Scratch { zstd, zstd_level: 1, lz4: CompressTable::large(), out: Vec::new() });
        }
        let scratch = scratch.as_mut()?;
        match (encoding, common) {
            (Encoding::Zstd(_), Some(common)) if raw.len() <= DICTIONARY_RAW_MAX => {
                scratch.shortest(encoding, raw, common)
            }
            _ => {
                let len = scratch.run(encoding, raw)?;
                scratch.useful(len, raw)
            }
        }
    })
}

impl Scratch {
    /// The shortest of the ways that are to be tried.
    fn shortest(&mut self, encoding: Encoding, raw: &[u8], common: &Common) -> Option<Bytes> {
        let (mut lengths, mut shortest) = (Vec::new(), None::<Bytes>);
        let mut by_dictionary = false;
        for way in common.ways() {
            let len = match common.of_way(way) {
                None => self.run(encoding, raw),
                Some(dictionary) => self.run_with(dictionary, raw),
            };
            lengths.push(len.map_or(raw.len(), |len| len.min(raw.len())));
            let encoded = len.and_then(|len| self.useful(len, raw));
            if let Some(encoded) = encoded
                && shortest.as_ref().is_none_or(|other| encoded.len() < other.len())
            {
                by_dictionary = way != 0;
                shortest = Some(encoded);
            }
        }
        common.compare(&lengths);
        if by_dictionary {
            metrics::counter!("dwcp_dictionary_frames_total").increment(1);
        }
        shortest
    }

    /// What is at the start of `out`, if that is worth decoding.
    fn useful(&self, len: usize, raw: &[u8]) -> Option<Bytes> {
        (len + raw.len() / MARGIN < raw.len()).then(|| Bytes::copy_from_slice(&self.out[..len]))
    }

    /// Like [`run`](Self::run), with a dictionary, at its level.
    fn run_with(&mut self, dictionary: &Dictionary, raw: &[u8]) -> Option<usize> {
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(raw.len()));
        self.zstd.context_mut().compress_using_cdict(&mut self.out, raw, dictionary.encoder()).ok()
    }

    /// Leaves the encoded payload at the start of `out`, and returns its length.
    fn run(&mut self, encoding: Encoding, raw: &[u8]) -> Option<usize> {
        match encoding {
            Encoding::Identity => None,
            Encoding::Lz4 => {
                let bound = lz4_flex::block::get_maximum_output_size(raw.len());
                if self.out.len() < bound {
                    self.out.resize(bound, 0);
                }
                lz4_flex::block::compress_into_with_table(raw, &mut self.out, &mut self.lz4).ok()
            }
            Encoding::Zstd(level) => {
                if self.zstd_level != level {
                    self.zstd.set_compression_level(level.into()).ok()?;
                    self.zstd_level = level;
                }
                // With room for the worst case zstd takes its fast path.
                self.out.clear();
                self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
                self.zstd.compress_to_buffer(raw, &mut self.out).ok()
            }
        }
    }
}

/// Decodes a payload to exactly `raw_len` bytes, with the dictionary that it names, if it names one. The caller has checked
/// `raw_len` against its frame bound: that many bytes are allocated, and never more are written.
pub fn decode(
    codec: Codec,
    wire: &[u8],
    raw_len: usize,
    common: Option<&Common>,
) -> Result<Bytes, DecodeError> {
    let corrupt = |reason: String| DecodeError::Corrupt { codec, reason };
    let (out, found) = match codec {
        Codec::Identity => (wire.to_vec(), wire.len()),
        Codec::Zstd => {
            let dictionary = match zstd_safe::get_dict_id_from_frame(wire) {
                None => None,
                Some(id) => Some(common.and_then(|common| common.by_id(id)).ok_or_else(|| {
                    corrupt(format!("it was made with dictionary {id}, which is none that both sides have"))
                })?),
            };
            let mut out = Vec::with_capacity(raw_len);
            let found = DECODER
                .with_borrow_mut(|decoder| match dictionary {
                    None => decoder.decompress(&mut out, wire),
                    Some(dictionary) => decoder.decompress_using_ddict(&mut out, wire, dictionary.decoder()),
                })
                .map_err(|code| corrupt(zstd_safe::get_error_name(code).to_owned()))?;
            (out, found)
        }
        Codec::Lz4 => {
            let mut out = vec![0; raw_len];
            let found =
                lz4_flex::block::decompress_into(wire, &mut out).map_err(|e| corrupt(e.to_string()))?;
            (out, found)
        }
    };
    if found != raw_len {
        return Err(DecodeError::Length { codec, expected: raw_len, found });
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample_data::SampleData;

    const ENCODINGS: [Encoding; 5] =
        [Encoding::Lz4, Encoding::Zstd(1), Encoding::Zstd(3), Encoding::Zstd(12), Encoding::Zstd(19)];

    #[test]
    fn round_trips_every_kind_of_data() {
        for kind in SampleData::ALL {
            let raw = kind.generate(3, 100_000);
            for encoding in ENCODINGS {
                match encode(encoding, &raw, None) {
                    Some(wire) => {
                        assert!(wire.len() < raw.len() - raw.len() / MARGIN);
                        assert_eq!(
                            decode(encoding.codec(), &wire, raw.len(), None).unwrap(),
                            raw,
                            "{kind} {encoding}"
                        );
                    }
                    None => assert_eq!(kind, SampleData::Random, "{encoding}"),
                }
            }
        }
    }

    #[test]
    fn another_length_than_promised_is_an_error() {
        let raw = SampleData::Text.generate(3, 10_000);
        for encoding in ENCODINGS {
            let (codec, wire) = (encoding.codec(), encode(encoding, &raw, None).unwrap());
            assert!(decode(codec, &wire, raw.len() - 1, None).is_err(), "{encoding}: one less");
            let longer = decode(codec, &wire, raw.len() + 1, None);
            assert_eq!(longer, Err(DecodeError::Length { codec, expected: 10_001, found: 10_000 }));
        }
        assert!(decode(Codec::Identity, &raw, 9_999, None).is_err());
    }

    #[test]
    fn a_bomb_is_cut_at_the_promised_length() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(matches!(decode(Codec::Zstd, &bomb, 256 << 10, None), Err(DecodeError::Corrupt { .. })));
    }

    #[test]
    fn a_failed_decode_does_not_spoil_the_next() {
        let raw = SampleData::Vm.generate(3, 50_000);
        let wire = encode(Encoding::Zstd(3), &raw, None).unwrap();
        assert!(decode(Codec::Zstd, &wire[..wire.len() / 2], raw.len(), None).is_err());
        assert_eq!(decode(Codec::Zstd, &wire, raw.len(), None).unwrap(), raw);
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip_or_are_refused(raw in proptest::collection::vec(0u8..4, 0..5000), which in 0..5usize) {
            let encoding = ENCODINGS[which];
            if let Some(wire) = encode(encoding, &raw, None) {
                prop_assert!(wire.len() < raw.len());
                prop_assert_eq!(&decode(encoding.codec(), &wire, raw.len(), None).unwrap()[..], &raw[..]);
            }
        }

        #[test]
        fn garbage_never_panics_and_never_grows(wire in proptest::collection::vec(any::<u8>(), 0..2000), raw_len in 1..4096usize) {
            for codec in [Codec::Zstd, Codec::Lz4, Codec::Identity] {
                if let Ok(out) = decode(codec, &wire, raw_len, None) {
                    prop_assert_eq!(out.len(), raw_len);
                }
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(bit in 0..8usize, at in 0..1000usize) {
            let raw = SampleData::Text.generate(5, 8192);
            for encoding in [Encoding::Lz4, Encoding::Zstd(1)] {
                let mut wire = encode(encoding, &raw, None).unwrap().to_vec();
                let at = at % wire.len();
                wire[at] ^= 1 << bit;
                if let Ok(out) = decode(encoding.codec(), &wire, raw.len(), None) {
                    prop_assert_eq!(out.len(), raw.len());
                }
            }
        }
    }
}
