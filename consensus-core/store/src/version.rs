//! One version of one key.

use bytes::{Buf, BufMut, Bytes};
use consensus_proto::mvccpb::KeyValue;

use crate::StoreError;

/// What a key was from one revision to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    /// Puts since it was created; 0: it was deleted.
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value: Bytes,
}

const HEAD: usize = 24;
/// Puts of one key that are not damage; the next one has to be a number too.
const VERSION_MAX: i64 = i64::MAX - 1;

impl Version {
    pub(crate) fn deleted_at(revision: i64) -> Self {
        Self { mod_revision: revision, ..Self::default() }
    }

    pub(crate) fn is_deletion(&self) -> bool {
        self.version == 0
    }

    /// As stored; the revision is in the key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.value.len());
        out.put_i64_le(self.create_revision);
        out.put_i64_le(self.version);
        out.put_i64_le(self.lease);
        out.put_slice(&self.value);
        out
    }

    /// Without its value: most of those who look at a version have no use for a copy of that.
    pub(crate) fn decode(stored: &[u8], mod_revision: i64) -> Result<Self, StoreError> {
        let damaged = StoreError::Damaged { what: "version of a key" };
        if stored.len() < HEAD {
            return Err(damaged);
        }
        let mut head = stored;
        let decoded = Self {
            create_revision: head.get_i64_le(),
            mod_revision,
            version: head.get_i64_le(),
            lease: head.get_i64_le(),
            value: Bytes::new(),
        };
        if (0..=VERSION_MAX).contains(&decoded.version) { Ok(decoded) } else { Err(damaged) }
    }

    /// The value of a version that [`decode`](Self::decode) takes.
    pub(crate) fn value_of(stored: &[u8]) -> Bytes {
        Bytes::copy_from_slice(&stored[HEAD..])
    }

    pub(crate) fn key_value(&self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease,
        }
    }
}
