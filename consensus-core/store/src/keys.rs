//! How users' keys and revisions become keys of the disk, in the same order.

use consensus_disk::Space;

use crate::StoreError;

/// Versions of keys: user's key, then revision, the newest first. Values are [`Version`](crate::version::Version)s.
pub(crate) const VERSIONS: Space = Space(0);
/// Changes in order: revision, then the change's number within it. The value is the user's key.
pub(crate) const HISTORY: Space = Space(1);
/// Applied index, revision, compaction.
pub(crate) const META: Space = Space(2);
/// Leases by id.
pub(crate) const LEASES: Space = Space(3);
/// Keys that are attached to leases: lease id, then user's key.
pub(crate) const LEASE_KEYS: Space = Space(4);
/// Users, roles, and whether they matter.
pub(crate) const AUTH: Space = Space(5);
/// Items of the region by place: leaf of the tree (2 bytes), then the key below the prefix.
pub(crate) const ITEMS: Space = Space(6);
/// Where changes of regions are found: region and counter (big-endian). The value is the key below the prefix.
pub(crate) const CHANGES: Space = Space(7);
/// How many spaces a data disk has.
pub const SPACES: u8 = 8;

const REVISION: usize = 8;

/// Zero bytes are escaped, so that what ends a key sorts before everything that can follow in a longer one.
fn escape(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
}

/// A user's keys `start <= key < end`, as bounds in [`VERSIONS`].
pub(crate) fn version_bounds(start: &[u8], end: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    let bound = |key: &[u8]| {
        let mut out = Vec::with_capacity(key.len() + 2);
        escape(key, &mut out);
        out
    };
    (bound(start), end.map(bound))
}

/// All versions of one key up to `revision`, as bounds in [`VERSIONS`]: the newest of them first.
pub(crate) fn versions_of(key: &[u8], revision: i64) -> (Vec<u8>, Vec<u8>) {
    let from = version_key(key, revision);
    let mut to = from[..from.len() - REVISION].to_vec();
    *to.last_mut().expect("it ends with the mark of an end") += 1;
    (from, to)
}

/// Where a version of a key is in [`VERSIONS`].
pub(crate) fn version_key(key: &[u8], revision: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2 + REVISION);
    escape(key, &mut out);
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&(!(revision as u64)).to_be_bytes());
    out
}

/// The user's key, still escaped, and the revision. Two versions are of one key if the first parts are equal.
pub(crate) fn split_version_key(disk_key: &[u8]) -> Result<(&[u8], i64), StoreError> {
    let damaged = StoreError::Damaged { what: "key of a version" };
    let (escaped, revision) = disk_key.split_last_chunk::<REVISION>().ok_or(damaged.clone())?;
    let escaped = escaped.strip_suffix(&[0, 1]).ok_or(damaged)?;
    Ok((escaped, !u64::from_be_bytes(*revision) as i64))
}

/// The user's key.
pub(crate) fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..=zero]);
        rest = rest.get(zero + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// Where a change is in [`HISTORY`].
pub(crate) fn history_key(revision: i64, sub: u32) -> Vec<u8> {
    let mut out = (revision as u64).to_be_bytes().to_vec();
    out.extend_from_slice(&sub.to_be_bytes());
    out
}

/// The revision of a change.
pub(crate) fn history_revision(disk_key: &[u8]) -> Result<i64, StoreError> {
    let first = disk_key.first_chunk::<REVISION>().ok_or(StoreError::Damaged { what: "key of a change" })?;
    Ok(u64::from_be_bytes(*first) as i64)
}

/// Where a lease is in [`LEASES`].
pub(crate) fn lease_key(id: i64) -> Vec<u8> {
    (id as u64).to_be_bytes().to_vec()
}

/// Where a key's attachment is in [`LEASE_KEYS`].
pub(crate) fn attachment_key(id: i64, key: &[u8]) -> Vec<u8> {
    let mut out = lease_key(id);
    out.extend_from_slice(key);
    out
}

/// All attachments of a lease, as bounds in [`LEASE_KEYS`]; `None`: no end.
pub(crate) fn attachments_of(id: i64) -> (Vec<u8>, Option<Vec<u8>>) {
    (lease_key(id), (id as u64).checked_add(1).map(|next| next.to_be_bytes().to_vec()))
}

/// Lease and user's key of an attachment.
pub(crate) fn split_attachment_key(disk_key: &[u8]) -> Result<(i64, &[u8]), StoreError> {
    let (id, key) =
        disk_key.split_first_chunk::<8>().ok_or(StoreError::Damaged { what: "key of an attachment" })?;
    Ok((u64::from_be_bytes(*id) as i64, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..6)
    }

    proptest! {
        #[test]
        fn versions_sort_by_key_and_then_the_newest_first(a in key(), b in key(), x in 1_i64.., y in 1_i64..) {
            let order = a.cmp(&b).then(y.cmp(&x));
            prop_assert_eq!(version_key(&a, x).cmp(&version_key(&b, y)), order);
        }

        #[test]
        fn a_version_key_gives_back_what_it_was_made_of(a in key(), x in 1_i64..) {
            let disk_key = version_key(&a, x);
            let (escaped, revision) = split_version_key(&disk_key).unwrap();
            prop_assert_eq!((unescape(escaped), revision), (a, x));
        }

        #[test]
        fn bounds_hold_the_keys_between_them(start in key(), end in key(), k in key(), x in 1_i64..) {
            let (from, to) = version_bounds(&start, Some(&end));
            let disk_key = version_key(&k, x);
            prop_assert_eq!(disk_key >= from && disk_key < to.unwrap(), k >= start && k < end);
            let (from, to) = versions_of(&k, x);
            let other = version_key(&start, x);
            prop_assert_eq!(other >= from && other < to, start == k);
        }
    }
}
