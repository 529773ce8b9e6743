//! What a copy of the state machine is a copy of.
//!
//! Raft's own snapshot message says only from where on a member needs one. The copy itself is fetched by the host, from
//! whichever member it likes, and may be newer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    codec::{self, DecodeError},
    limits::{INDEX_MAX, TERM_MAX},
    membership::Membership,
};

const WHAT: &str = "snapshot metadata";

/// Where in the log a snapshot is.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotMetadata {
    /// Index of the last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who the members are as of that entry.
    pub membership: Membership,
}

impl SnapshotMetadata {
    /// As stored and sent, with a checksum.
    pub fn encode(&self) -> Bytes {
        codec::seal(|out: &mut BytesMut| {
            out.put_u64_le(self.index);
            out.put_u64_le(self.term);
            self.membership.put(out);
        })
        .into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = codec::unseal(bytes, WHAT)?;
        let (index, term) = (reader.position(INDEX_MAX)?, reader.position(TERM_MAX)?);
        let membership = Membership::read(&mut reader)?;
        reader.end()?;
        if membership.index > index {
            return Err(DecodeError::TooMany { what: WHAT, value: membership.index, max: index });
        }
        Ok(Self { index, term, membership })
    }
}
