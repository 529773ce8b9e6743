//! Bytes of peer messages and stored records.
//!
//! raft-rs' own protobuf decoder recurses into unknown groups without a bound (RUSTSEC-2024-0437), so nothing that a peer or a
//! disk gives us ever reaches it: everything is read here, field by field, with lengths checked before use. All integers
//! are little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{ConfState, Entry, EntryType};

/// Members that one configuration can name; bounds what a peer can make us allocate.
pub const MEMBERS_MAX: usize = 64;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Values that cannot be true together.
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
    /// The checksum is another one.
    #[error("{what}: the checksum is {found:#010x}, the bytes have {computed:#010x}")]
    Checksum {
        /// What was read.
        what: &'static str,
        /// The stored checksum.
        found: u32,
        /// The one of the bytes.
        computed: u32,
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
        let left = self.bytes.len();
        if left < len {
            return Err(DecodeError::Truncated { what: self.what, needed: len, left });
        }
        Ok(self.bytes.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes behind their length.
    pub(crate) fn prefixed(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    /// A count of things that are at least `each_min` bytes long, which bounds it by what is there.
    pub(crate) fn count(&mut self, each_min: usize, max: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(DecodeError::TooMany { what: self.what, value: count as u64, max: max as u64 });
        }
        let needed = count.saturating_mul(each_min);
        if needed > self.bytes.len() {
            return Err(DecodeError::Truncated { what: self.what, needed, left: self.bytes.len() });
        }
        Ok(count)
    }

    /// A term or an index, which are far below the largest number.
    pub(crate) fn position(&mut self, max: u64) -> Result<u64, DecodeError> {
        match self.u64()? {
            value if value > max => Err(DecodeError::TooMany { what: self.what, value, max }),
            value => Ok(value),
        }
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what: self.what, value: value.into() }),
        }
    }

    fn ids(&mut self) -> Result<Vec<u64>, DecodeError> {
        (0..self.count(8, MEMBERS_MAX)?).map(|_| self.u64()).collect()
    }

    pub(crate) fn conf_state(&mut self) -> Result<ConfState, DecodeError> {
        let mut state = ConfState::default();
        state.set_voters(self.ids()?);
        state.set_learners(self.ids()?);
        state.set_voters_outgoing(self.ids()?);
        state.set_learners_next(self.ids()?);
        state.set_auto_leave(self.flag()?);
        Ok(state)
    }

    pub(crate) fn entry(&mut self) -> Result<Entry, DecodeError> {
        let mut entry = Entry::default();
        entry.set_entry_type(match self.u8()? {
            0 => EntryType::EntryNormal,
            2 => EntryType::EntryConfChangeV2,
            value => return Err(DecodeError::Unknown { what: "entry type", value: value.into() }),
        });
        entry.term = self.u64()?;
        entry.index = self.u64()?;
        entry.context = self.prefixed()?;
        entry.data = self.prefixed()?;
        if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
            crate::conf_change::decode(&entry.data)?; // raft-rs parses it, so it must be what we write
        }
        Ok(entry)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what: self.what, left }),
        }
    }
}

/// Bytes that an entry takes beside its data and context.
pub(crate) const ENTRY_OVERHEAD: usize = 25;

pub(crate) fn put_prefixed(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("bounded far below 4 GiB"));
    out.put_slice(bytes);
}

fn put_ids(out: &mut BytesMut, ids: &[u64]) {
    out.put_u32_le(ids.len() as u32);
    ids.iter().for_each(|id| out.put_u64_le(*id));
}

pub(crate) fn put_conf_state(out: &mut BytesMut, state: &ConfState) {
    put_ids(out, state.get_voters());
    put_ids(out, state.get_learners());
    put_ids(out, state.get_voters_outgoing());
    put_ids(out, state.get_learners_next());
    out.put_u8(state.get_auto_leave().into());
}

pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    out.put_u8(match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => panic!("changes of the first kind are never proposed"),
        EntryType::EntryConfChangeV2 => 2,
    });
    out.put_u64_le(entry.term);
    out.put_u64_le(entry.index);
    put_prefixed(out, &entry.context);
    put_prefixed(out, &entry.data);
}

/// A stored record: its checksum, then what `write` appends.
pub(crate) fn seal(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32_le(0);
    write(&mut out);
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out.into()
}

/// The content of a stored record, after a look at its checksum.
pub(crate) fn unseal(mut record: Bytes, what: &'static str) -> Result<Reader, DecodeError> {
    if record.len() < 4 {
        return Err(DecodeError::Truncated { what, needed: 4, left: record.len() });
    }
    let crc = record.split_to(4);
    let found = u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]);
    let computed = crc32fast::hash(&record);
    if found != computed {
        return Err(DecodeError::Checksum { what, found, computed });
    }
    Ok(Reader::new(record, what))
}
