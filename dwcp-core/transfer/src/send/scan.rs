//! Finds what there is to send: walks the sources and puts entries into manifest batches, in bounded memory.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata as FsMetadata, ReadDir},
    io::{Seek, SeekFrom},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    Ended, Source,
    shared::{Aborted, InFlight, Shared},
    source::SourceFile,
};
use crate::{
    Failure, FailureKind, PathError, RelPath, TransferError,
    control::Message,
    limits::{
        BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX, FILE_BYTES_MAX, HARD_LINKS_MAX, XATTR_BYTES_MAX,
        XATTR_VALUE_BYTES_MAX, XATTRS_MAX,
    },
    manifest::{self, Batch, Entry, EntryKind, Metadata, Time},
    path::PARTIAL_AREA,
    progress::Add,
};

/// Follows the links of a path given by the user and checks that it can be sent.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, TransferError> {
    let setup = |call| move |source| TransferError::Setup { call, path: path.to_owned(), source };
    let resolved = fs::canonicalize(path).map_err(setup("realpath"))?;
    let found = fs::symlink_metadata(&resolved).map_err(setup("lstat"))?;
    let kind = found.file_type();
    if kind.is_file() || kind.is_dir() || kind.is_block_device() {
        return Ok(resolved);
    }
    let reason = "only files, directories and block devices can be sent; use - for other streams";
    Err(TransferError::Source { path: path.to_owned(), reason })
}

/// Sends the manifest of all sources; returns when everything is dealt with at the receiver, or nothing is under way
/// any more.
pub(super) fn run(shared: &Shared, sources: Vec<Source>, written_once: bool) -> Ended {
    // Aborted: the async side knows why.
    Scan::new(shared, written_once).all(sources).unwrap_or(Ended::Other)
}

struct Scan<'a> {
    shared: &'a Shared,
    /// As in [`SenderConfig`](super::SenderConfig).
    written_once: bool,
    batch: Vec<Entry>,
    batch_bytes: usize,
    /// First path of each inode with several.
    inodes: HashMap<(u64, u64), RelPath>,
    links: Vec<(RelPath, RelPath, Metadata)>,
    /// Not all sources were looked through.
    cut_short: bool,
}

/// What the walk meets.
enum Visit<'a> {
    Enter(&'a RelPath),
    Leave(&'a Path, &'a RelPath),
    Other(&'a Path, RelPath),
    Unreadable(&'a RelPath, Failure),
    BadName(&'a Path, PathError),
}

impl<'a> Scan<'a> {
    fn new(shared: &'a Shared, written_once: bool) -> Self {
        Self {
            shared,
            written_once,
            batch: Vec::new(),
            batch_bytes: 0,
            inodes: HashMap::new(),
            links: Vec::new(),
            cut_short: false,
        }
    }

    fn all(&mut self, sources: Vec<Source>) -> Result<Ended, Aborted> {
        let mut roots = Vec::new();
        for source in sources {
            if self.shared.is_draining() {
                let (Source::Path { dest, .. } | Source::Stream { dest, .. }) = source;
                self.shared.not_announced(&dest);
                self.cut_short = true;
                continue;
            }
            match source {
                Source::Path { path, dest } => {
                    self.parents_of(&dest)?;
                    match self.root(&path, &dest) {
                        // If it is aborted as well, waiting says so.
                        Err(Aborted) if self.shared.is_draining() => self.cut_short = true,
                        walked => walked?,
                    }
                    roots.push((path, dest));
                }
                Source::Stream { reader, dest } => {
                    self.parents_of(&dest)?;
                    let id = self.shared.next_id();
                    let file = SourceFile::stream(id, dest.clone(), reader, stream_metadata());
                    self.emit_file(id, dest, EntryKind::Stream, file, false)?;
                }
            }
        }
        self.flush()?;
        self.shared.progress.counters().totals_known.store(!self.cut_short, Relaxed);
        self.shared.wait_for_all()?;
        if self.cut_short || self.shared.leaves_out() {
            return Ok(self.drained());
        }
        self.hard_links()?;
        self.flush()?;
        self.shared.announced_all();
        self.shared.wait_for_all()?;
        // Last, because making the entries of a directory changes its times.
        for (path, dest) in &roots {
            self.directory_ends(path, dest)?;
        }
        self.flush()?;
        self.shared.wait_for_all()?;
        self.shared.send(Message::Finish)?;
        self.shared.queue.close();
        Ok(Ended::Other)
    }

    /// Something is left out, and nothing is under way. Without `Finish`, the receiver knows that it was not all.
    fn drained(&mut self) -> Ended {
        self.links.iter().for_each(|(path, ..)| self.shared.not_announced(path));
        if !self.cut_short {
            self.shared.announced_all();
        }
        self.shared.queue.close();
        Ended::Drained
    }

    /// Directories that the user named in the destination path.
    fn parents_of(&mut self, dest: &RelPath) -> Result<(), Aborted> {
        let mut parents: Vec<_> = std::iter::successors(dest.parent(), RelPath::parent).collect();
        while let Some(parent) = parents.pop() {
            self.emit(parent, EntryKind::Directory, Metadata { mode: 0o777, ..Metadata::default() })?;
        }
        Ok(())
    }

    fn root(&mut self, path: &Path, dest: &RelPath) -> Result<(), Aborted> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                walk(path, dest, &mut |visit| match visit {
                    _ if self.shared.is_draining() => Err(Aborted),
                    // Private until its own mode is set at the end.
                    Visit::Enter(dest) => {
                        let metadata = Metadata { mode: 0o700, ..Metadata::default() };
                        self.emit(dest.clone(), EntryKind::Directory, metadata)
                    }
                    Visit::Leave(..) => Ok(()),
                    Visit::Other(path, dest) => self.other(path, dest),
                    Visit::Unreadable(dest, failure) => {
                        self.failed(dest, failure);
                        Ok(())
                    }
                    Visit::BadName(path, error) => {
                        self.left_out(path, &error.to_string());
                        Ok(())
                    }
                })
            }
            Ok(found) if found.file_type().is_block_device() => self.device(path, dest, &found),
            _ => self.other(path, dest.clone()),
        }
    }

    fn other(&mut self, path: &Path, dest: RelPath) -> Result<(), Aborted> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) => {
                self.failed(&dest, Failure::at_source("lstat", &error));
                return Ok(());
            }
        };
        let kind = found.file_type();
        if kind.is_symlink() {
            return match fs::read_link(path) {
                Ok(target) => {
                    let target = target.into_os_string().into_encoded_bytes();
                    self.emit(dest, EntryKind::Symlink { target }, metadata_of(path, &found))
                }
                Err(error) => {
                    self.failed(&dest, Failure::at_source("readlink", &error));
                    Ok(())
                }
            };
        }
        if !kind.is_file() {
            self.left_out(path, "neither file, directory nor symbolic link");
            return Ok(());
        }
        self.file(path, dest, &found)
    }

    fn file(&mut self, path: &Path, dest: RelPath, found: &FsMetadata) -> Result<(), Aborted> {
        if found.len() > FILE_BYTES_MAX {
            self.failed(&dest, Failure::new(FailureKind::Limit, "larger than 64 TiB"));
            return Ok(());
        }
        let metadata = metadata_of(path, found);
        let linked = found.nlink() > 1;
        if linked {
            let inode = (found.dev(), found.ino());
            if let Some(target) = self.inodes.get(&inode) {
                self.links.push((dest, target.clone(), metadata));
                return Ok(());
            }
            if self.inodes.len() + self.links.len() < HARD_LINKS_MAX {
                self.inodes.insert(inode, dest.clone());
            }
        }
        self.shared.progress.counters().bytes_total.add(found.len());
        let id = self.shared.next_id();
        let written_once = self.written_once;
        let file = SourceFile::file(id, dest.clone(), path.to_owned(), found, metadata, written_once);
        self.emit_file(id, dest, EntryKind::File { size: found.len(), differs: false }, file, linked)
    }

    fn device(&mut self, path: &Path, dest: &RelPath, found: &FsMetadata) -> Result<(), Aborted> {
        let size = match File::open(path).and_then(|mut device| device.seek(SeekFrom::End(0))) {
            Ok(size) => size,
            Err(error) => {
                self.failed(dest, Failure::at_source("open", &error));
                return Ok(());
            }
        };
        self.shared.progress.counters().bytes_total.add(size);
        let id = self.shared.next_id();
        // The mode and owner of a device node say who may use the device, not who may read a copy.
        let metadata = Metadata { modified: time(found.mtime(), found.mtime_nsec()), ..stream_metadata() };
        let file = SourceFile::device(id, dest.clone(), path.to_owned(), size, metadata);
        // Its times do not change with its content: always compare.
        self.emit_file(id, dest.clone(), EntryKind::File { size, differs: true }, file, false)
    }

    fn hard_links(&mut self) -> Result<(), Aborted> {
        self.inodes = HashMap::new();
        for (path, target, metadata) in std::mem::take(&mut self.links) {
            if self.shared.link_target_failed(&target) {
                self.failed(&path, Failure::new(FailureKind::LinkTarget, ""));
                continue;
            }
            self.emit(path, EntryKind::HardLink { target }, metadata)?;
        }
        Ok(())
    }

    /// Walks again instead of remembering: directories changed meanwhile get what they have now.
    fn directory_ends(&mut self, path: &Path, dest: &RelPath) -> Result<(), Aborted> {
        if !path.is_dir() {
            return Ok(());
        }
        walk(path, dest, &mut |visit| match visit {
            Visit::Leave(path, dest) => match fs::symlink_metadata(path) {
                Ok(found) => self.emit(dest.clone(), EntryKind::DirectoryEnd, metadata_of(path, &found)),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        })
    }

    fn emit_file(
        &mut self,
        id: u64,
        path: RelPath,
        kind: EntryKind,
        file: SourceFile,
        has_links: bool,
    ) -> Result<(), Aborted> {
        let metadata = file.metadata.clone();
        let entry = Entry { id, path, kind, metadata };
        self.push(entry, Some(Arc::new(file)), has_links)
    }

    fn emit(&mut self, path: RelPath, kind: EntryKind, metadata: Metadata) -> Result<(), Aborted> {
        self.push(Entry { id: self.shared.next_id(), path, kind, metadata }, None, false)
    }

    fn push(&mut self, entry: Entry, file: Option<Arc<SourceFile>>, has_links: bool) -> Result<(), Aborted> {
        let bytes = manifest::encoded_len_max(&entry);
        if self.batch.len() == BATCH_ENTRIES_MAX || self.batch_bytes + bytes > BATCH_BYTES_TARGET {
            self.flush()?;
        }
        if !self.shared.has_room() {
            // What waits in the batch must leave first: the window opens only by its outcomes.
            self.flush()?;
            self.shared.wait_for_room()?;
        }
        let counted = entry.kind != EntryKind::DirectoryEnd;
        self.shared.progress.counters().entries_total.add(counted.into());
        self.shared
            .track(entry.id, InFlight { path: entry.path.clone(), file, has_links, counted, wanted: false });
        self.batch_bytes += bytes;
        self.batch.push(entry);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Aborted> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let batch = Batch { entries: std::mem::take(&mut self.batch) };
        self.shared.send(Message::Batch(manifest::encode(&batch).into()))
    }

    fn failed(&self, path: &RelPath, failure: Failure) {
        let counters = self.shared.progress.counters();
        counters.entries_total.add(1);
        counters.entries_done.add(1);
        self.shared.progress.failed(path, failure);
    }

    fn left_out(&self, path: &Path, reason: &str) {
        tracing::warn!(path = %path.display(), reason, "left out");
        self.shared.progress.counters().entries_left_out.add(1);
    }
}

/// Depth first, links not followed; one open directory for each level.
fn walk(
    root: &Path,
    dest: &RelPath,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), Aborted>,
) -> Result<(), Aborted> {
    let mut open: Vec<(PathBuf, RelPath, ReadDir)> = Vec::new();
    let mut next = Some((root.to_owned(), dest.clone()));
    loop {
        if let Some((path, dest)) = next.take() {
            visit(Visit::Enter(&dest))?;
            match fs::read_dir(&path) {
                Ok(entries) => open.push((path, dest, entries)),
                Err(error) => visit(Visit::Unreadable(&dest, Failure::at_source("opendir", &error)))?,
            }
        }
        let Some((path, dest, entries)) = open.last_mut() else { return Ok(()) };
        match entries.next() {
            None => {
                visit(Visit::Leave(path, dest))?;
                open.pop();
            }
            Some(Err(error)) => {
                visit(Visit::Unreadable(dest, Failure::at_source("readdir", &error)))?;
                open.pop();
            }
            Some(Ok(entry)) => {
                let name = entry.file_name();
                if name == OsStr::new(PARTIAL_AREA) {
                    continue;
                }
                match dest.join(name.as_bytes()) {
                    Err(error) => visit(Visit::BadName(&entry.path(), error))?,
                    Ok(dest) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                        next = Some((entry.path(), dest));
                    }
                    Ok(dest) => visit(Visit::Other(&entry.path(), dest))?,
                }
            }
        }
    }
}

pub(super) fn metadata_of(path: &Path, found: &FsMetadata) -> Metadata {
    Metadata {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        modified: time(found.mtime(), found.mtime_nsec()),
        accessed: time(found.atime(), found.atime_nsec()),
        xattrs: if found.is_symlink() { Vec::new() } else { xattrs_of(path) },
    }
}

/// A new file of the user, as of now.
fn stream_metadata() -> Metadata {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Time { seconds: now.as_secs().cast_signed(), nanoseconds: now.subsec_nanos() };
    Metadata { mode: 0o600, modified: now, accessed: now, ..Metadata::default() }
}

fn time(seconds: i64, nanoseconds: i64) -> Time {
    Time { seconds, nanoseconds: nanoseconds.clamp(0, 999_999_999) as u32 }
}

/// What can be read; what cannot, or is beyond the bounds, stays behind with a warning.
fn xattrs_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(0) => return Vec::new(),
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "llistxattr");
            return Vec::new();
        }
    };
    let mut xattrs = Vec::new();
    let mut total = 0;
    let mut value = vec![0; XATTR_VALUE_BYTES_MAX];
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let Ok(len) = rustix::fs::lgetxattr(path, name, &mut value[..]) else {
            tracing::warn!(path = %path.display(), name = %name.escape_ascii(), "lgetxattr");
            continue;
        };
        total += name.len() + len;
        if total > XATTR_BYTES_MAX || xattrs.len() == XATTRS_MAX {
            tracing::warn!(path = %path.display(), "more extended attributes than can travel");
            break;
        }
        xattrs.push((name.to_vec(), value[..len].to_vec()));
    }
    xattrs
}
