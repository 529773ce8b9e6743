//! What there is in a store, whether it is what it should be, and what of it goes.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    BaselineStore, CONTENTS, CUTS, GROWING, Locked, StoreError, VERSIONS, entry::Entry, failed, keep,
};
use crate::{ContentHash, limits::STORE_ENTRIES_MAX};

/// A version of something, as listed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredVersion {
    /// What it was called when it was kept.
    pub label: String,
    /// Which version.
    pub version: u64,
    /// Its BLAKE3.
    pub hash: ContentHash,
    /// Bytes.
    pub bytes: u64,
    /// Since it was used last; `None`: its content is gone.
    pub unused: Option<Duration>,
}

/// All of a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Baselines {
    /// By label and version.
    pub versions: Vec<StoredVersion>,
    /// Allocated bytes of all contents.
    pub bytes: u64,
    /// Contents.
    pub contents: u64,
}

/// What [`BaselineStore::verify`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Contents that are what their name says.
    pub intact: u64,
    /// Contents that were not, and are removed.
    pub damaged: u64,
    /// Records that nobody could read, or whose content is gone; removed.
    pub records_removed: u64,
}

/// What was evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Contents removed.
    pub contents: u64,
    /// Their allocated bytes.
    pub bytes: u64,
}

/// A content as it lies in the store.
struct Lying {
    name: String,
    used: SystemTime,
    /// Allocated.
    bytes: u64,
}

impl BaselineStore {
    /// Everything.
    pub fn list(&self) -> Result<Baselines, StoreError> {
        let lying = self.lying()?;
        let used: HashMap<&str, SystemTime> =
            lying.iter().map(|content| (&*content.name, content.used)).collect();
        let now = SystemTime::now();
        let mut versions: Vec<_> = self
            .entries()
            .into_iter()
            .map(|Entry { name, len, label }| {
                let hash = ContentHash(name.hash);
                let unused = used.get(&*hash.to_string()).map(|&used| age(now, used));
                let label = label.escape_ascii().to_string();
                StoredVersion { label, version: name.version, hash, bytes: len, unused }
            })
            .collect();
        versions.sort_by(|a, b| (&a.label, a.version).cmp(&(&b.label, b.version)));
        let bytes = lying.iter().map(|content| content.bytes).sum();
        Ok(Baselines { versions, bytes, contents: lying.len() as u64 })
    }

    /// Reads all contents and removes those that are not what they should be, and records without content.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        for content in self.lying()? {
            let path = self.folder().join(CONTENTS).join(&content.name);
            let hash = File::open(&path)
                .and_then(|file| file.metadata().map(|found| (file, found.len())))
                .and_then(|(file, len)| keep::hash_of(&file, len));
            match hash {
                Ok(hash) if hash.to_string() == content.name => report.intact += 1,
                // Evicted meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                _ => {
                    tracing::warn!(content = content.name, "damaged: removed");
                    std::fs::remove_file(&path).map_err(|source| failed("unlink", &path, source))?;
                    report.damaged += 1;
                }
            }
        }
        let _locked = self.locked()?;
        report.records_removed = self.remove_unreadable()? + self.remove_without_content();
        self.remove_cuts_without_content();
        Ok(report)
    }

    /// Evicts what nobody has used for long, what is too much, and what was left behind by processes that ended.
    pub fn gc(&self) -> Result<EvictReport, StoreError> {
        let locked = self.locked()?;
        self.remove_unreadable()?;
        self.evict(&locked)
    }

    /// Under the lock: what was kept just now has its record.
    pub(super) fn evict(&self, _: &Locked) -> Result<EvictReport, StoreError> {
        self.remove_old_versions();
        let named: HashSet<String> =
            self.entries().iter().map(|entry| ContentHash(entry.name.hash).to_string()).collect();
        let mut lying = self.lying()?;
        lying.sort_by_key(|content| std::cmp::Reverse(content.used));
        let now = SystemTime::now();
        let (mut report, mut total) = (EvictReport::default(), 0u64);
        for content in lying {
            let stays = total + content.bytes <= self.config.bytes_max
                && age(now, content.used) <= self.config.ttl
                && named.contains(&content.name);
            if stays {
                total += content.bytes;
                continue;
            }
            let path = self.folder().join(CONTENTS).join(&content.name);
            std::fs::remove_file(&path).map_err(|source| failed("unlink", &path, source))?;
            report.contents += 1;
            report.bytes += content.bytes;
        }
        self.remove_without_content();
        self.remove_cuts_without_content();
        self.remove_left_behind();
        Ok(report)
    }

    fn lying(&self) -> Result<Vec<Lying>, StoreError> {
        let folder = self.folder().join(CONTENTS);
        let listing = std::fs::read_dir(&folder).map_err(|source| failed("readdir", &folder, source))?;
        let lying = listing.take(STORE_ENTRIES_MAX).filter_map(|entry| {
            let entry = entry.ok()?;
            let found = entry.metadata().ok()?;
            let (name, used) = (entry.file_name().into_string().ok()?, found.modified().ok()?);
            Some(Lying { name, used, bytes: found.blocks() * 512 })
        });
        Ok(lying.collect())
    }

    fn remove_entry(&self, entry: &Entry) -> bool {
        std::fs::remove_file(self.folder().join(VERSIONS).join(entry.file_name())).is_ok()
    }

    /// Of each thing only the newest versions stay.
    fn remove_old_versions(&self) {
        let mut entries = self.entries();
        entries.sort_by_key(|entry| (entry.name.id, std::cmp::Reverse(entry.name.version)));
        for versions in entries.chunk_by(|a, b| a.name.id == b.name.id) {
            for old in versions.iter().skip(self.config.versions_max.max(1)) {
                self.remove_entry(old);
            }
        }
    }

    fn remove_without_content(&self) -> u64 {
        let gone = |entry: &Entry| !self.content_path(&ContentHash(entry.name.hash)).exists();
        self.entries().iter().filter(|entry| gone(entry) && self.remove_entry(entry)).count() as u64
    }

    fn remove_cuts_without_content(&self) {
        each(&self.folder().join(CUTS), |path, name| {
            let hash = name.split('-').next().unwrap_or_default();
            if !self.folder().join(CONTENTS).join(hash).exists() {
                let _ = std::fs::remove_file(path);
            }
        });
    }

    /// What grows is locked by the process that lets it grow.
    fn remove_left_behind(&self) {
        each(&self.folder().join(GROWING), |path, _| {
            if File::open(path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = std::fs::remove_file(path);
            }
        });
    }
}

fn each(folder: &Path, mut visit: impl FnMut(&Path, &str)) {
    let Ok(listing) = std::fs::read_dir(folder) else { return };
    for entry in listing.take(STORE_ENTRIES_MAX).flatten() {
        visit(&entry.path(), &entry.file_name().to_string_lossy());
    }
}

/// A clock that was set back makes nothing old.
fn age(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}
