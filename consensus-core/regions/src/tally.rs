//! A region's share of a counter: what it has added, and what it has taken away.

use bytes::Bytes;

use crate::{
    codec::{DecodeError, Reader, put_varint},
    error::Refused,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    added: u64,
    taken: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, amount: i64) -> Result<(), Refused> {
        let side = if amount < 0 { &mut self.taken } else { &mut self.added };
        *side = side.checked_add(amount.unsigned_abs()).ok_or(Refused::CounterFull)?;
        Ok(())
    }

    pub(crate) fn value(self) -> i128 {
        i128::from(self.added) - i128::from(self.taken)
    }

    pub(crate) fn write(self) -> Bytes {
        let mut out = Vec::with_capacity(8);
        put_varint(&mut out, self.added);
        put_varint(&mut out, self.taken);
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes.clone(), "share of a counter");
        let tally = Self { added: reader.varint(u64::MAX)?, taken: reader.varint(u64::MAX)? };
        reader.end().map(|()| tally)
    }

    /// Of a cell: what is not a share was refused when it was read.
    pub(crate) fn read(bytes: &Bytes) -> Self {
        Self::decode(bytes).expect("shares of counters are checked when they are read")
    }
}
