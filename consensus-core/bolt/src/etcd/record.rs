//! What pairs are made of: revisions as keys, versions of keys, leases, and numbers of the whole.

use consensus_proto::mvccpb::KeyValue;

/// Bytes of a revision.
const REVISION_BYTES: usize = 17;
/// Between its two numbers.
const SEPARATOR: u8 = b'_';
/// Behind the revision of a deletion.
const TOMBSTONE: u8 = b't';

/// When a key changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Of the transaction.
    pub main: i64,
    /// Of the change in it, from 0.
    pub sub: i64,
}

impl Revision {
    /// As a key of the file: sorts like the revision, which is not negative.
    pub(crate) fn encode(self) -> [u8; REVISION_BYTES] {
        let mut out = [SEPARATOR; REVISION_BYTES];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[9..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (main, rest) = bytes.split_first_chunk()?;
        let (&SEPARATOR, sub) = rest.split_first()? else { return None };
        let revision =
            Self { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(sub.try_into().ok()?) };
        (revision.main >= 0 && revision.sub >= 0).then_some(revision)
    }

    /// The key of a record.
    pub(crate) fn encode_key(self, deleted: bool) -> Vec<u8> {
        let mut key = self.encode().to_vec();
        key.extend(deleted.then_some(TOMBSTONE));
        key
    }

    /// The revision, and whether it deleted.
    pub(crate) fn decode_key(key: &[u8]) -> Option<(Self, bool)> {
        match key.split_at_checked(REVISION_BYTES)? {
            (revision, []) => Some((Self::decode(revision)?, false)),
            (revision, [TOMBSTONE]) => Some((Self::decode(revision)?, true)),
            _ => None,
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When.
    pub revision: Revision,
    /// Whether it deleted the key: `key_value` has nothing but the key then.
    pub deleted: bool,
    /// What the key is from here on.
    pub key_value: KeyValue,
}

/// A lease (etcd's `leasepb.Lease`). When it ends is not kept: it begins anew in a cluster that is restored.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lease {
    /// Not 0.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds, as granted.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Seconds that were left at etcd's last checkpoint; 0: there was none.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

/// Numbers of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last log entry that is in the data.
    pub consistent_index: u64,
    /// Revision of the compaction that was asked for last; 0: none was. If it is greater than `compacted`, etcd goes on
    /// with it when it starts.
    pub compaction_scheduled: i64,
    /// Revision up to which superseded records are gone. No less than the greatest revision if that one's record is gone
    /// as well: etcd counts on from the greater of both.
    pub compacted: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_revision_is_laid_out_as_in_etcd() {
        let key = Revision { main: 0x0102, sub: 3 }.encode_key(true);
        assert_eq!(key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
    }

    /// Numbers of leasepb's fields: etcd itself tells a remaining time only once it has made a checkpoint.
    #[test]
    fn a_lease_is_laid_out_as_in_etcd() {
        let lease = Lease { id: 1, ttl: 2, remaining_ttl: 3 };
        assert_eq!(prost::Message::encode_to_vec(&lease), [1 << 3, 1, 2 << 3, 2, 3 << 3, 3]);
    }

    #[test]
    fn what_is_no_revision_is_refused() {
        let good = Revision { main: 5, sub: 0 }.encode_key(false);
        let negative = Revision { main: -1, sub: 0 }.encode_key(false);
        let mut separator = good.clone();
        separator[8] = b'-';
        let other_mark = [&good[..], b"x"].concat();
        let two_marks = [&good[..], b"tt"].concat();
        for bad in [&good[..16], &[], &negative, &separator, &other_mark, &two_marks] {
            assert_eq!(Revision::decode_key(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn revisions_are_read_back_and_sort_like_their_keys(
            a in (0..=i64::MAX, 0..=i64::MAX), b in (0..=i64::MAX, 0..=i64::MAX), deleted: bool,
        ) {
            let (a, b) = (Revision { main: a.0, sub: a.1 }, Revision { main: b.0, sub: b.1 });
            prop_assert_eq!(Revision::decode_key(&a.encode_key(deleted)), Some((a, deleted)));
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
        }
    }
}
