//! Records of a data stream: one piece each (T4.3). Pure.
//!
//! A record is a fixed header, the extents of the piece that hold data, and that data. What lies between the
//! extents is zeros: a hole at the destination where it can have holes.

use crate::{
    DecodeError,
    codec::{Put, Reader},
    limits::{EXTENTS_MAX, PIECE_BYTES_LARGE},
};

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const EXTENT_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    /// Index of the piece.
    pub(crate) index: u64,
    /// Bytes of the piece, holes included; at least 1.
    pub(crate) len: u32,
    /// Bytes that follow the extents: their sum.
    pub(crate) data_len: u32,
    pub(crate) extents: u16,
    /// Instead of extents and their data, a delta follows.
    pub(crate) delta: bool,
    /// BLAKE3 chaining value of the piece.
    pub(crate) cv: [u8; 32],
}

/// A run of data in a piece, relative to its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Header {
    pub(crate) fn encode(&self, extents: &[Extent], out: &mut Vec<u8>) {
        out.put_u64(self.id);
        out.put_u64(self.index);
        out.put_u32(self.len);
        out.put_u32(self.data_len);
        out.put_u16(self.extents);
        out.extend_from_slice(&[self.delta.into(), 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.cv);
        for extent in extents {
            out.put_u32(extent.start);
            out.put_u32(extent.len);
        }
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (id, index) = (reader.u64()?, reader.u64()?);
        let (len, data_len, extents) = (reader.u32()?, reader.u32()?, reader.u16()?);
        let delta = reader.flag("coding of a piece")?;
        if reader.array::<5>()? != [0; 5] {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let cv = reader.array()?;
        let has_extents =
            if delta { data_len > 0 && extents == 0 } else { (extents == 0) == (data_len == 0) };
        if len == 0 || data_len > len || !has_extents {
            return Err(DecodeError::Invalid("piece length"));
        }
        let bounds =
            [("piece length", len, PIECE_BYTES_LARGE), ("extents", extents.into(), EXTENTS_MAX as u64)];
        for (what, value, max) in bounds {
            let value = u64::from(value);
            if value > max {
                return Err(DecodeError::TooLarge { what, value, max });
            }
        }
        Ok(Self { id, index, len, data_len, extents, delta, cv })
    }

    /// Decodes the extents: ascending, apart, inside the piece, summing up to the data.
    pub(crate) fn decode_extents(&self, bytes: &[u8], out: &mut Vec<Extent>) -> Result<(), DecodeError> {
        out.clear();
        let mut reader = Reader::new(bytes);
        let (mut end, mut sum) = (0u32, 0u64);
        for number in 0..self.extents {
            let extent = Extent { start: reader.u32()?, len: reader.u32()? };
            let apart = if number == 0 { extent.start >= end } else { extent.start > end };
            let next = extent.start.checked_add(extent.len).filter(|&next| next <= self.len);
            match next {
                Some(next) if apart && extent.len > 0 => end = next,
                _ => return Err(DecodeError::Invalid("extents")),
            }
            sum += u64::from(extent.len);
            out.push(extent);
        }
        if !self.delta && sum != u64::from(self.data_len) {
            return Err(DecodeError::Invalid("sum of extents"));
        }
        reader.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn header(len: u32, data_len: u32, extents: u16) -> Header {
        Header { id: 1, index: 2, len, data_len, extents, delta: false, cv: [9; 32] }
    }

    fn round(header: Header, extents: &[(u32, u32)]) -> Result<Vec<Extent>, DecodeError> {
        let extents: Vec<_> = extents.iter().map(|&(start, len)| Extent { start, len }).collect();
        let mut bytes = Vec::new();
        header.encode(&extents, &mut bytes);
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        assert_eq!(Header::decode(head)?, header);
        let mut out = Vec::new();
        header.decode_extents(rest, &mut out)?;
        assert_eq!(out, extents);
        Ok(out)
    }

    #[test]
    fn t4_3_which_extents_are_valid() {
        assert!(round(header(100, 100, 1), &[(0, 100)]).is_ok());
        assert!(round(header(100, 20, 2), &[(5, 10), (90, 10)]).is_ok());
        assert!(round(header(100, 0, 0), &[]).is_ok());
        let bad: &[(Header, &[(u32, u32)])] = &[
            (header(0, 0, 0), &[]),
            (header(100, 101, 1), &[(0, 101)]),
            (header(100, 10, 1), &[(95, 10)]),
            (header(100, 20, 2), &[(50, 10), (40, 10)]),
            (header(100, 20, 2), &[(0, 10), (10, 10)]),
            (header(100, 10, 1), &[(u32::MAX, 10)]),
            (header(100, 10, 2), &[(0, 10), (20, 0)]),
            (header(100, 30, 1), &[(0, 10)]),
            (header(100, 0, 1), &[(0, 0)]),
            (header(u32::MAX, 1, 1), &[(0, 1)]),
        ];
        for (header, extents) in bad {
            assert!(round(*header, extents).is_err(), "{header:?} {extents:?}");
        }
    }

    #[test]
    fn t7_4_a_delta_has_no_extents_and_is_not_longer_than_its_piece() {
        let delta = |len, data_len, extents| Header { delta: true, ..header(len, data_len, extents) };
        assert!(round(delta(100, 100, 0), &[]).is_ok());
        for bad in [delta(100, 0, 0), delta(100, 101, 0), delta(0, 0, 0)] {
            assert!(round(bad, &[]).is_err(), "{bad:?}");
        }
        assert!(round(delta(100, 10, 1), &[(0, 10)]).is_err());
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in any::<[[u8; 32]; 2]>(), rest in vec(any::<u8>(), 0..100)) {
            if let Ok(header) = Header::decode(bytes.as_flattened().try_into().unwrap()) {
                let _ = header.decode_extents(&rest, &mut Vec::new());
            }
        }
    }
}
