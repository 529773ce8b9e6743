//! The newest versions of keys that changed lately, in memory: whoever reads one of them, or changes it again, need not look for it
//! on the disk, which takes more than all the rest of a read. With them, which keys are known to be gone (`gaps`). Not here: what
//! readers have read, and older versions.

// Nobody goes through them in their order, which differs from run to run.
#![expect(clippy::disallowed_types)]

use std::{
    collections::HashMap,
    mem,
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use bytes::Bytes;

use crate::{gaps::Gaps, version::Version};

/// Bytes of keys and values in one of the two halves.
const HALF_BYTES_MAX: usize = 4 << 20;
/// What an entry takes beside its key and its value, about.
const ENTRY_BYTES: usize = 128;

/// One thread writes, any may read.
#[derive(Debug, Default)]
pub(crate) struct SharedRecent(RwLock<Recent>);

impl SharedRecent {
    /// A key's version in force at this revision, which may be a deletion; `None`: it is not known here. Every change up to the
    /// revision must have been put: then none is between the newest version and the revision.
    pub(crate) fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        let recent = self.0.read().unwrap_or_else(PoisonError::into_inner);
        recent.get(key).filter(|version| version.mod_revision <= revision).cloned()
    }

    /// The first key behind those that are all deleted, among which this one is, for who reads at this revision.
    pub(crate) fn end_of_gap(&self, key: &[u8], revision: i64) -> Option<Bytes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).gaps.end_of(key, revision).cloned()
    }

    /// All keys from `first` to `last` were deleted at this revision.
    pub(crate) fn learn_gap(&self, first: Bytes, last: &Bytes, revision: i64) {
        self.write().gaps.learn(first, last, revision);
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two halves: what was used since the last change of halves, and what was used in the one before. What was not used in
/// either is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    new: HashMap<Bytes, Version>,
    new_bytes: usize,
    old: HashMap<Bytes, Version>,
    gaps: Gaps,
}

impl Recent {
    /// The newest version of a key, which may be a deletion; `None`: it is not known here.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Version> {
        self.new.get(key).or_else(|| self.old.get(key))
    }

    /// This is the newest version of a key from now on.
    pub(crate) fn put(&mut self, key: &Bytes, version: &Version) {
        // A copy: the key is a piece of a whole message, which would stay in memory with it.
        let key = &Bytes::copy_from_slice(key);
        self.gaps.changed(key, version.mod_revision, version.is_deletion());
        let bytes = key.len() + version.value.len() + ENTRY_BYTES;
        if bytes > HALF_BYTES_MAX / 2 {
            self.new.remove(key);
            self.old.remove(key);
            return;
        }
        if self.new_bytes + bytes > HALF_BYTES_MAX {
            self.old = mem::take(&mut self.new);
            self.new_bytes = 0;
        }
        let copy = Version { value: Bytes::copy_from_slice(&version.value), ..*version };
        match self.new.get_mut(key) {
            Some(known) => {
                self.new_bytes = self.new_bytes + copy.value.len() - known.value.len();
                *known = copy;
            }
            None => {
                self.new_bytes += bytes;
                self.new.insert(key.clone(), copy);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(mod_revision: i64, value_bytes: usize) -> Version {
        Version { mod_revision, value: vec![0; value_bytes].into(), ..Version::default() }
    }

    fn key(n: i64) -> Bytes {
        n.to_be_bytes().to_vec().into()
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::default();
        for n in 0..100_000 {
            recent.put(&key(0), &version(n, 1000));
            recent.put(&key(n + 1), &version(n, 1000));
            assert!(recent.new_bytes <= HALF_BYTES_MAX);
        }
        assert_eq!(recent.get(&key(0)).unwrap().mod_revision, 99_999);
        assert_eq!(recent.get(&key(100_000)).unwrap().mod_revision, 99_999);
        assert_eq!(recent.get(&key(1)), None);
        assert!(recent.new.len() + recent.old.len() < 2 * HALF_BYTES_MAX / 1000);
    }

    #[test]
    fn one_that_is_too_large_hides_no_newer_one() {
        let mut recent = Recent::default();
        recent.put(&key(1), &version(1, 10));
        recent.put(&key(1), &version(2, HALF_BYTES_MAX));
        assert_eq!(recent.get(&key(1)), None);
    }

    #[test]
    fn bytes_are_counted_through_changes() {
        let mut recent = Recent::default();
        for (n, bytes) in [10, 5000, 0, 70].into_iter().enumerate() {
            recent.put(&key(1), &version(n as i64, bytes));
            assert_eq!(recent.new_bytes, 8 + bytes + ENTRY_BYTES);
        }
    }
}
