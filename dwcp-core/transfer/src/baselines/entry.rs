//! The record of a version: which content it is, and what it is a version of. It checks itself: one that is damaged, or was
//! half written, is as good as missing.

use std::path::{Path, PathBuf};

use dwcp_delta::{BASELINE_NAME_BYTES, BaselineName};

use super::{BaselineStore, StoreError, VERSIONS, failed};
use crate::{
    codec::{Put, Reader},
    delta::count_fallback,
    limits::{LABEL_BYTES_MAX, STORE_ENTRIES_MAX},
};

const MAGIC: [u8; 8] = *b"DWBASE\x01\n";
const CHECK_BYTES: usize = 32;
/// Largest record in bytes.
const ENTRY_BYTES_MAX: u64 = 8 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: BaselineName,
    /// Bytes of the content.
    pub(super) len: u64,
    /// What people call it.
    pub(super) label: Vec<u8>,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.name.encode());
        out.put_u64(self.len);
        out.put_blob(&self.label[..self.label.len().min(LABEL_BYTES_MAX)]);
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if blake3::hash(fields).as_bytes() != check {
            return None;
        }
        let mut reader = Reader::new(fields);
        let magic: [u8; 8] = reader.array().ok()?;
        let name = BaselineName::decode(&reader.array::<BASELINE_NAME_BYTES>().ok()?);
        let len = reader.u64().ok()?;
        let label = reader.blob("label", LABEL_BYTES_MAX).ok()?.to_vec();
        reader.end().ok()?;
        (magic == MAGIC).then_some(Self { name, len, label })
    }

    /// The name of its file.
    pub(super) fn file_name(&self) -> String {
        format!("{}{:016x}", beginning(&self.name.id), self.name.version)
    }
}

/// What the names of all records of one thing begin with.
fn beginning(id: &[u8; 16]) -> String {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{id}-")
}

fn read(path: &Path) -> Option<Entry> {
    let found = std::fs::metadata(path).ok()?;
    if found.len() > ENTRY_BYTES_MAX {
        return None;
    }
    Entry::decode(&std::fs::read(path).ok()?)
}

impl BaselineStore {
    /// All versions that can be read.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.records().filter_map(|path| read(&path)).collect()
    }

    /// The versions of one thing, the newest first. Damaged ones count as baselines that were of no use.
    pub(super) fn versions_of(&self, id: &[u8; 16]) -> Vec<Entry> {
        let beginning = beginning(id);
        let is_of = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(beginning.as_bytes()))
        };
        let read = |path: PathBuf| {
            let entry = read(&path).filter(|entry| entry.name.id == *id);
            if entry.is_none() {
                count_fallback("record_damaged");
            }
            entry
        };
        let mut versions: Vec<Entry> = self.records().filter(is_of).filter_map(read).collect();
        versions.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.name.version));
        versions
    }

    fn records(&self) -> impl Iterator<Item = PathBuf> {
        let listing = std::fs::read_dir(self.config.folder.join(VERSIONS)).into_iter().flatten();
        listing.take(STORE_ENTRIES_MAX).filter_map(|entry| entry.ok().map(|entry| entry.path()))
    }

    /// Removes records that nobody can read.
    pub(super) fn remove_unreadable(&self) -> Result<u64, StoreError> {
        let folder = self.config.folder.join(VERSIONS);
        let listing = std::fs::read_dir(&folder).map_err(|source| failed("readdir", &folder, source))?;
        let mut removed = 0;
        for path in listing.take(STORE_ENTRIES_MAX).filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if read(&path).is_none() {
                removed += u64::from(std::fs::remove_file(&path).is_ok());
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        /// DELTA-6.3
        #[test]
        fn records_come_back_and_damage_is_noticed(
            id: [u8; 16], version: u64, hash: [u8; 32], len: u64,
            label in vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let entry = Entry { name: BaselineName { id, version, hash }, len, label };
            let mut bytes = entry.encode();
            prop_assert_eq!(Entry::decode(&bytes), Some(entry));
            let at = at.index(bytes.len());
            prop_assert_eq!(Entry::decode(&bytes[..at]), None);
            bytes[at] ^= flip;
            prop_assert_eq!(Entry::decode(&bytes), None);
        }

        #[test]
        fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Entry::decode(&bytes), None);
        }
    }
}
