//! Encoding and decoding of one frame payload. Each frame stands alone, so frames may be encoded and decoded in any
//! order and on any thread. Deliberately without policy: see `controller`.

use std::{cell::RefCell, io};

use bytes::Bytes;
use dwcp_proto::{frame::Codec, limits::CODEC_RAW_LEN_MIN};
use lz4_flex::block::CompressTable;
use zstd::bulk::{Compressor, Decompressor};

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
    static DECODER: RefCell<Decompressor<'static>> = RefCell::new(Decompressor::default());
}

/// Encodes a payload. `None`: it does not shrink by a useful margin and should travel as [`Codec::Identity`].
/// The result owns exactly its length.
pub fn encode(encoding: Encoding, raw: &[u8]) -> Option<Bytes> {
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
        let len = scratch.run(encoding, raw)?;
        let useful = len + raw.len() / MARGIN < raw.len();
        useful.then(|| Bytes::copy_from_slice(&scratch.out[..len]))
    })
}

impl Scratch {
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

/// Decodes a payload to exactly `raw_len` bytes. The caller has checked `raw_len` against its frame bound: that many
/// bytes are allocated, and never more are written.
pub fn decode(codec: Codec, wire: &[u8], raw_len: usize) -> Result<Bytes, DecodeError> {
    let corrupt = |reason: String| DecodeError::Corrupt { codec, reason };
    let (out, found) = match codec {
        Codec::Identity => (wire.to_vec(), wire.len()),
        Codec::Zstd => {
            let mut out = Vec::with_capacity(raw_len);
            let found = DECODER
                .with_borrow_mut(|decoder| decoder.decompress_to_buffer(wire, &mut out))
                .map_err(|error: io::Error| corrupt(error.to_string()))?;
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
                match encode(encoding, &raw) {
                    Some(wire) => {
                        assert!(wire.len() < raw.len() - raw.len() / MARGIN);
                        assert_eq!(
                            decode(encoding.codec(), &wire, raw.len()).unwrap(),
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
            let (codec, wire) = (encoding.codec(), encode(encoding, &raw).unwrap());
            assert!(decode(codec, &wire, raw.len() - 1).is_err(), "{encoding}: one less");
            let longer = decode(codec, &wire, raw.len() + 1);
            assert_eq!(longer, Err(DecodeError::Length { codec, expected: 10_001, found: 10_000 }));
        }
        assert!(decode(Codec::Identity, &raw, 9_999).is_err());
    }

    #[test]
    fn a_bomb_is_cut_at_the_promised_length() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(matches!(decode(Codec::Zstd, &bomb, 256 << 10), Err(DecodeError::Corrupt { .. })));
    }

    #[test]
    fn a_failed_decode_does_not_spoil_the_next() {
        let raw = SampleData::Vm.generate(3, 50_000);
        let wire = encode(Encoding::Zstd(3), &raw).unwrap();
        assert!(decode(Codec::Zstd, &wire[..wire.len() / 2], raw.len()).is_err());
        assert_eq!(decode(Codec::Zstd, &wire, raw.len()).unwrap(), raw);
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip_or_are_refused(raw in proptest::collection::vec(0u8..4, 0..5000), which in 0..5usize) {
            let encoding = ENCODINGS[which];
            if let Some(wire) = encode(encoding, &raw) {
                prop_assert!(wire.len() < raw.len());
                prop_assert_eq!(&decode(encoding.codec(), &wire, raw.len()).unwrap()[..], &raw[..]);
            }
        }

        #[test]
        fn garbage_never_panics_and_never_grows(wire in proptest::collection::vec(any::<u8>(), 0..2000), raw_len in 1..4096usize) {
            for codec in [Codec::Zstd, Codec::Lz4, Codec::Identity] {
                if let Ok(out) = decode(codec, &wire, raw_len) {
                    prop_assert_eq!(out.len(), raw_len);
                }
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(bit in 0..8usize, at in 0..1000usize) {
            let raw = SampleData::Text.generate(5, 8192);
            for encoding in [Encoding::Lz4, Encoding::Zstd(1)] {
                let mut wire = encode(encoding, &raw).unwrap().to_vec();
                let at = at % wire.len();
                wire[at] ^= 1 << bit;
                if let Ok(out) = decode(encoding.codec(), &wire, raw.len()) {
                    prop_assert_eq!(out.len(), raw.len());
                }
            }
        }
    }
}
