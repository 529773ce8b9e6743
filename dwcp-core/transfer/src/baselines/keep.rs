//! Adds contents: copied (shared, where the file system can), hashed as they are read back, and only then given their name.

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use dwcp_delta::BaselineName;
use rustix::{fs::SeekFrom, io::Errno};

use super::{BaselineStore, CONTENTS, GROWING, StoreError, VERSIONS, entry::Entry, failed};
use crate::ContentHash;

const COPY_BYTES: usize = 1 << 20;

/// What became of a content that should be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// It is there.
    Yes,
    /// It is larger than the store may be.
    TooLarge,
    /// It does not have the hash any more that it had.
    Changed,
}

/// A file that is removed unless it gets its name; locked, so that nobody takes it for one that was left behind.
pub(super) struct Growing {
    path: PathBuf,
    pub(super) file: File,
}

impl Growing {
    /// Gives it its name, over whatever has it.
    pub(super) fn publish(self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // It is gone if it has got its name.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl BaselineStore {
    pub(super) fn growing(&self) -> io::Result<Growing> {
        loop {
            // Unlike process ids, different in processes that share nothing but the folder.
            let name = format!("{:016x}", RandomState::new().build_hasher().finish());
            let path = self.config.folder.join(GROWING).join(name);
            let file = File::options().create_new(true).read(true).write(true).open(&path)?;
            file.lock()?;
            // Before it was locked, it may have been taken for one that was left behind.
            if file.metadata()?.nlink() > 0 {
                return Ok(Growing { path, file });
            }
        }
    }

    /// Keeps a content as the newest version of something, unless it is that already; then evicts what is too much.
    pub(crate) fn keep(
        &self,
        id: [u8; 16],
        label: &[u8],
        hash: ContentHash,
        content: &File,
    ) -> Result<Kept, StoreError> {
        let at = |call| move |source| failed(call, self.folder(), source);
        let found = content.metadata().map_err(at("fstat"))?;
        if found.blocks() * 512 > self.config.bytes_max {
            return Ok(Kept::TooLarge);
        }
        let mut growing = None;
        let locked = loop {
            if growing.is_none() && self.with_hash(hash, found.len()).is_none() {
                match self.copied(content, hash, found.len())? {
                    Some(copied) => growing = Some(copied),
                    None => return Ok(Kept::Changed),
                }
            }
            let locked = self.locked()?;
            // It may have been evicted meanwhile.
            if growing.is_some() || self.content_path(&hash).exists() {
                break locked;
            }
        };
        if let Some(growing) = growing {
            growing.publish(&self.content_path(&hash)).map_err(at("rename"))?;
            self.sync_folder(CONTENTS)?;
        }
        self.add_version(id, label, hash, found.len())?;
        self.evict(&locked)?;
        Ok(Kept::Yes)
    }

    /// A copy of a content, if it has this hash.
    fn copied(&self, content: &File, hash: ContentHash, len: u64) -> Result<Option<Growing>, StoreError> {
        let at = |call| move |source| failed(call, self.folder(), source);
        let growing = self.growing().map_err(at("open"))?;
        copy(content, &growing.file, len).map_err(at("copy"))?;
        if hash_of(&growing.file, len).map_err(at("read"))? != hash {
            return Ok(None);
        }
        if self.config.fsync {
            growing.file.sync_all().map_err(at("fsync"))?;
        }
        Ok(Some(growing))
    }

    fn add_version(&self, id: [u8; 16], label: &[u8], hash: ContentHash, len: u64) -> Result<(), StoreError> {
        let versions = self.entries().into_iter().map(|entry| entry.name).filter(|name| name.id == id);
        let newest = versions.max_by_key(|name| name.version);
        if newest.is_some_and(|newest| newest.hash == hash.0) {
            return Ok(());
        }
        let version = newest.map_or(1, |newest| newest.version.saturating_add(1));
        let name = BaselineName { id, version, hash: hash.0 };
        let entry = Entry { name, len, label: label.to_vec() };
        let path = self.config.folder.join(VERSIONS).join(entry.file_name());
        let at = |call| move |source| failed(call, self.folder(), source);
        let growing = self.growing().map_err(at("open"))?;
        growing.file.write_all_at(&entry.encode(), 0).map_err(at("write"))?;
        if self.config.fsync {
            growing.file.sync_all().map_err(at("fsync"))?;
        }
        growing.publish(&path).map_err(at("rename"))?;
        self.sync_folder(VERSIONS)
    }

    fn sync_folder(&self, name: &str) -> Result<(), StoreError> {
        let path = self.config.folder.join(name);
        let synced = || File::open(&path)?.sync_all();
        if self.config.fsync { synced().map_err(|source| failed("fsync", &path, source)) } else { Ok(()) }
    }
}

/// Shares the blocks of a file, or copies its data; holes stay holes.
fn copy(from: &File, to: &File, len: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(len)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let (start, end) = next_data(from, at, len);
        at = start;
        while at < end {
            let part = &mut buffer[..(end - at).min(COPY_BYTES as u64) as usize];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        at = at.max(end);
    }
    Ok(())
}

/// The next run of data; to the end, where that cannot be told.
fn next_data(file: &File, at: u64, len: u64) -> (u64, u64) {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) if start < len => match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) if end > start => (start, end.min(len)),
            _ => (start, len),
        },
        Ok(_) | Err(Errno::NXIO) => (len, len),
        Err(_) => (at, len),
    }
}

/// BLAKE3 of a file.
pub(super) fn hash_of(file: &File, len: u64) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let part = &mut buffer[..(len - at).min(COPY_BYTES as u64) as usize];
        file.read_exact_at(part, at)?;
        hasher.update(part);
        at += part.len() as u64;
    }
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}
