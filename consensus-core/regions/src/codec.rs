//! Bytes of messages, log entries and stored items: read field by field, with lengths checked before use.
//!
//! Numbers are variable-length (LEB128), in their shortest form, and what is sorted is checked to be: so everything has one
//! encoding, on every member and in every region.

use bytes::Bytes;

use crate::{clock::Stamp, limits::COUNTER_MAX, vector::RegionId};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what}: {needed} bytes needed, {left} left")]
    Truncated {
        /// What was read.
        what: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A value that does not exist.
    #[error("{what}: {value} is not known")]
    Unknown {
        /// What was read.
        what: &'static str,
        /// What was found.
        value: u64,
    },
    /// More than allowed.
    #[error("{what}: {value} is more than {max}")]
    TooMany {
        /// What was read.
        what: &'static str,
        /// What was found.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A number that is not in its shortest form.
    #[error("{what}: a number is not in its shortest form")]
    Overlong {
        /// What was read.
        what: &'static str,
    },
    /// Values that cannot be true together, or are not in order.
    #[error("{what}: its parts contradict each other")]
    Contradiction {
        /// What was read.
        what: &'static str,
    },
    /// Bytes after the end.
    #[error("{what}: {left} bytes too many")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// Bytes that were left.
        left: usize,
    },
}

/// Reads values from the front of some bytes.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    what: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        match self.bytes.len() {
            left if left < len => Err(DecodeError::Truncated { what: self.what, needed: len, left }),
            _ => Ok(self.bytes.split_to(len)),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_le_bytes(std::array::from_fn(|at| bytes[at])))
    }

    pub(crate) fn varint(&mut self, max: u64) -> Result<u64, DecodeError> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(DecodeError::TooMany { what: self.what, value: u64::MAX, max });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Overlong { what: self.what });
                }
                break;
            }
            shift += 7;
            if shift > 63 {
                return Err(DecodeError::TooMany { what: self.what, value: u64::MAX, max });
            }
        }
        if value > max { Err(DecodeError::TooMany { what: self.what, value, max }) } else { Ok(value) }
    }

    /// Bytes behind their length.
    pub(crate) fn prefixed(&mut self, max: usize) -> Result<Bytes, DecodeError> {
        let len = self.varint(max as u64)? as usize;
        self.bytes(len)
    }

    /// A count of things that are at least `each_min` bytes long, which bounds it by what is there.
    pub(crate) fn count(&mut self, each_min: usize, max: usize) -> Result<usize, DecodeError> {
        let count = self.varint(max as u64)? as usize;
        let (needed, left) = (count.saturating_mul(each_min), self.bytes.len());
        if needed > left { Err(DecodeError::Truncated { what: self.what, needed, left }) } else { Ok(count) }
    }

    pub(crate) fn region(&mut self) -> Result<RegionId, DecodeError> {
        let id = self.varint(u32::MAX.into())? as u32;
        self.consistent(id > 0)?;
        Ok(RegionId(id))
    }

    /// A counter that has counted something.
    pub(crate) fn counter(&mut self) -> Result<u64, DecodeError> {
        let counter = self.varint(COUNTER_MAX)?;
        self.consistent(counter > 0)?;
        Ok(counter)
    }

    /// A stamp, as far before `newest_ms` as it says.
    pub(crate) fn stamp(&mut self, newest_ms: u64) -> Result<Stamp, DecodeError> {
        let age_ms = self.varint(newest_ms)?;
        Ok(Stamp::new(newest_ms - age_ms, self.varint(u16::MAX.into())? as u16))
    }

    pub(crate) fn consistent(&self, holds: bool) -> Result<(), DecodeError> {
        if holds { Ok(()) } else { Err(DecodeError::Contradiction { what: self.what }) }
    }

    pub(crate) fn ascending(&self, holds: bool) -> Result<(), DecodeError> {
        self.consistent(holds)
    }

    pub(crate) fn unknown(&self, value: u8) -> DecodeError {
        DecodeError::Unknown { what: self.what, value: value.into() }
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what: self.what, left }),
        }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How long a number is.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A stamp as its distance from `newest_ms`, which is not before it: recent ones are short.
pub(crate) fn put_stamp(out: &mut Vec<u8>, stamp: Stamp, newest_ms: u64) {
    let age_ms = newest_ms.checked_sub(stamp.millis()).expect("no stamp is after the newest");
    put_varint(out, age_ms);
    put_varint(out, stamp.logical().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), COUNTER_MAX, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value));
            assert_eq!(Reader::new(bytes.into(), "n").varint(u64::MAX), Ok(value));
        }
        let read = |bytes: &'static [u8]| Reader::new(bytes.into(), "n").varint(1000);
        assert_eq!(read(&[0x80, 0]), Err(DecodeError::Overlong { what: "n" }));
        assert_eq!(read(&[0x80]), Err(DecodeError::Truncated { what: "n", needed: 1, left: 0 }));
        assert_eq!(read(&[0xe9, 7]), Err(DecodeError::TooMany { what: "n", value: 1001, max: 1000 }));
        let huge = DecodeError::TooMany { what: "n", value: u64::MAX, max: 1000 };
        assert_eq!(read(&[0xff; 11]), Err(huge));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(huge));
    }
}
