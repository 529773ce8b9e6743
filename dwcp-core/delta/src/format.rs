//! How a delta is written down (DELTA-2), and who its baseline is.

use crate::{DeltaError, varint};

/// First byte of a delta.
pub(crate) const FORMAT: u8 = 1;
/// Bytes that a baseline's name takes.
pub const BASELINE_NAME_BYTES: usize = 16 + 8 + 32;

/// Names exactly one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaselineName {
    /// What it is a version of.
    pub id: [u8; 16],
    /// Which version: newer ones have larger numbers.
    pub version: u64,
    /// BLAKE3 of the content.
    pub hash: [u8; 32],
}

impl BaselineName {
    /// Little-endian, in the order of the fields.
    pub fn encode(&self) -> [u8; BASELINE_NAME_BYTES] {
        let mut out = [0; BASELINE_NAME_BYTES];
        out[..16].copy_from_slice(&self.id);
        out[16..24].copy_from_slice(&self.version.to_le_bytes());
        out[24..].copy_from_slice(&self.hash);
        out
    }

    /// Any bytes name something.
    pub fn decode(bytes: &[u8; BASELINE_NAME_BYTES]) -> Self {
        let (id, rest) = bytes.split_first_chunk().expect("16 of 56 bytes");
        let (version, hash) = rest.split_first_chunk().expect("8 of 40 bytes");
        let hash = hash.first_chunk().expect("32 bytes");
        Self { id: *id, version: u64::from_le_bytes(*version), hash: *hash }
    }
}

/// Where the next bytes of a part come from. Lengths are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Zeros(usize),
    /// The baseline at the same place.
    Same(usize),
    /// The baseline at another place.
    Copy {
        from: u64,
        len: usize,
    },
    /// The baseline at the same place, and a difference from it.
    Xor {
        len: usize,
        difference: &'a [u8],
    },
    /// The next bytes of the residue.
    Residue(usize),
}

mod tag {
    pub(super) const ZEROS: u64 = 0;
    pub(super) const SAME: u64 = 1;
    pub(super) const COPY: u64 = 2;
    pub(super) const XOR: u64 = 3;
    pub(super) const RESIDUE: u64 = 4;
}
const TAG_BITS: u32 = 3;

impl<'a> Op<'a> {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let mut head = |len: usize, tag| varint::put((len as u64) << TAG_BITS | tag, out);
        match self {
            Self::Zeros(len) => head(len, tag::ZEROS),
            Self::Same(len) => head(len, tag::SAME),
            Self::Residue(len) => head(len, tag::RESIDUE),
            Self::Copy { from, len } => {
                head(len, tag::COPY);
                varint::put(from, out);
            }
            Self::Xor { len, difference } => {
                head(len, tag::XOR);
                varint::put(difference.len() as u64, out);
                out.extend_from_slice(difference);
            }
        }
    }

    /// Takes one off the front; of a part of which `max` bytes are left.
    pub(crate) fn take(rest: &mut &'a [u8], max: usize) -> Result<Self, DeltaError> {
        let head = varint::take(rest)?;
        let len = usize::try_from(head >> TAG_BITS).ok().filter(|len| (1..=max).contains(len));
        let len = len.ok_or(DeltaError::Invalid("length of an operation"))?;
        Ok(match head & ((1 << TAG_BITS) - 1) {
            tag::ZEROS => Self::Zeros(len),
            tag::SAME => Self::Same(len),
            tag::RESIDUE => Self::Residue(len),
            tag::COPY => Self::Copy { from: varint::take(rest)?, len },
            tag::XOR => {
                let bytes = varint::take_count(rest, rest.len(), "length of a difference")?;
                Self::Xor { len, difference: varint::take_bytes(rest, bytes)? }
            }
            _ => return Err(DeltaError::Invalid("operation")),
        })
    }
}
