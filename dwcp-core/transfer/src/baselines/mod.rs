//! A store of baselines: contents that were sent or received, kept so that the next version of each travels as a difference
//! (DELTA-6). Many transfers, of many processes, use one at a time.
//!
//! `contents/HASH` is a content, whole, under its BLAKE3; `versions/ID-NUMBER` says that it is a version of something; `cuts/`
//! caches where its chunks are; `growing/` has what is not whole yet. A content appears by a rename after it is on the disk.
//! Nothing here is trusted: what is made from a baseline is compared with a hash that comes from the sender.
//!
//! [`entry`] is the record of a version, [`keep`] adds contents, [`cuts`] finds their chunks, [`sweep`] lists, verifies and
//! evicts.

mod cuts;
mod entry;
mod keep;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use dwcp_delta::{
    Baseline, BaselineName, Unreadable,
    chunks::{Chunk, Cutting},
};

use crate::{
    ContentHash,
    delta::count_fallback,
    limits::{BASELINE_TTL, BASELINE_VERSIONS_MAX, STORE_BYTES_MAX},
};
pub(crate) use cuts::read_cuts;
pub use keep::Kept;
pub use sweep::{Baselines, EvictReport, StoredVersion, VerifyReport};

const CONTENTS: &str = "contents";
const VERSIONS: &str = "versions";
const CUTS: &str = "cuts";
const GROWING: &str = "growing";
const LOCK: &str = "lock";

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{call} {}: {source}", path.display())]
pub struct StoreError {
    /// Which call failed.
    pub call: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What it said.
    pub source: io::Error,
}

/// Where a store is and how much it keeps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Its folder, which is made if it is missing.
    pub folder: PathBuf,
    /// Allocated bytes of contents it keeps.
    pub bytes_max: u64,
    /// A content that nobody has used for this long goes.
    pub ttl: Duration,
    /// Versions of one thing it keeps, at least 1.
    pub versions_max: usize,
    /// What it keeps survives a power failure.
    pub fsync: bool,
}

impl StoreConfig {
    /// The defaults, in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bytes_max: STORE_BYTES_MAX,
            ttl: BASELINE_TTL,
            versions_max: BASELINE_VERSIONS_MAX,
            fsync: true,
        }
    }
}

/// An open store.
#[derive(Debug)]
pub struct BaselineStore {
    config: StoreConfig,
}

/// A content of a store, or of a file, open for reading. That it is evicted meanwhile does not matter.
#[derive(Debug)]
pub struct OpenBaseline {
    /// What it is, according to whoever kept it.
    pub name: BaselineName,
    pub(crate) file: File,
    pub(crate) len: u64,
}

impl OpenBaseline {
    pub(crate) fn new(name: BaselineName, file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { name, file, len })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Baseline for OpenBaseline {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Unreadable> {
        self.file.read_exact_at(out, offset).map_err(|error| {
            tracing::warn!(%error, offset, "a baseline cannot be read");
            Unreadable
        })
    }
}

impl BaselineStore {
    /// Opens a store, made if it is missing.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let folder = &config.folder;
        for name in [CONTENTS, VERSIONS, CUTS, GROWING] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|source| failed("mkdir", &path, source))?;
        }
        let path = folder.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        lock.map_err(|source| failed("open", &path, source))?;
        Ok(Self { config })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.config.folder
    }

    /// The newest version of something that is there.
    pub fn newest(&self, id: &[u8; 16]) -> Option<OpenBaseline> {
        self.versions_of(id).iter().find_map(|entry| {
            let open = self.open_content(entry.name, entry.len);
            if open.is_none() {
                count_fallback("missing");
            }
            open
        })
    }

    /// A content with this hash.
    pub fn with_hash(&self, hash: ContentHash, len: u64) -> Option<OpenBaseline> {
        let name = BaselineName { id: [0; 16], version: 0, hash: hash.0 };
        self.open_content(name, len)
    }

    /// Whoever uses a content makes it stay.
    fn open_content(&self, name: BaselineName, len: u64) -> Option<OpenBaseline> {
        let file = File::open(self.content_path(&ContentHash(name.hash))).ok()?;
        // The owner of a file may set its times without write access.
        let _ = file.set_modified(SystemTime::now());
        OpenBaseline::new(name, file).ok().filter(|open| open.len == len)
    }

    /// The chunks of a content, from the cache or from itself.
    pub(crate) fn cuts_of(
        &self,
        baseline: &OpenBaseline,
        cutting: Cutting,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Vec<Chunk>> {
        if let Some(cuts) = cuts::cached(self, baseline, cutting) {
            return Ok(cuts);
        }
        let (cuts, hash) = read_cuts(&baseline.file, baseline.len, cutting, stop)?;
        if hash.0 == baseline.name.hash {
            cuts::cache(self, baseline, cutting, &cuts);
            return Ok(cuts);
        }
        if !stop() {
            self.discard(&ContentHash(baseline.name.hash), "its hash is another");
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Something made from a baseline was wrong: is it the baseline?
    pub(crate) fn discard_if_damaged(&self, baseline: &OpenBaseline, hash: &ContentHash) {
        match keep::hash_of(&baseline.file, baseline.len) {
            Ok(found) if found == *hash => {}
            _ => self.discard(hash, "it is damaged"),
        }
    }

    /// What a receiver made from its baseline was something else: is it this side's that is damaged?
    pub(crate) fn suspect(&self, hash: ContentHash, len: u64) {
        if let Some(open) = self.with_hash(hash, len) {
            self.discard_if_damaged(&open, &hash);
        }
    }

    /// A content has turned out not to be what its name says: nobody shall use it again.
    fn discard(&self, hash: &ContentHash, why: &str) {
        tracing::warn!(%hash, why, "a baseline is removed");
        let _ = std::fs::remove_file(self.content_path(hash));
    }

    fn content_path(&self, hash: &ContentHash) -> PathBuf {
        self.config.folder.join(CONTENTS).join(hash.to_string())
    }

    /// One process at a time changes what there is. Reading takes no lock.
    fn locked(&self) -> Result<Locked, StoreError> {
        let path = self.config.folder.join(LOCK);
        // A lock belongs to what was opened: threads of one process need one each.
        let lock = File::options().write(true).open(&path).map_err(|source| failed("open", &path, source))?;
        lock.lock().map_err(|source| failed("flock", &path, source))?;
        Ok(Locked(lock))
    }
}

struct Locked(#[expect(dead_code, reason = "the lock is held for as long as the file is open")] File);

fn failed(call: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError { call, path: path.to_owned(), source }
}
