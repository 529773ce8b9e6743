//! Finds what there is to send: walks the sources and puts entries into manifest batches, in bounded memory.

use std::{
    collections::HashMap,
    fmt,
    io::{Read, Seek, SeekFrom},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::fs::{FileType, Stat};

use super::{
    Ended,
    found::{Found, metadata_of, modified},
    place::Place,
    shared::{Aborted, InFlight, Shared},
    source::SourceFile,
    walk::{Visit, walk},
};
use crate::{
    Failure, FailureKind, RelPath,
    beneath::OpenError,
    control::Message,
    limits::{BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX, FILE_BYTES_MAX, HARD_LINKS_MAX},
    manifest::{self, Batch, Entry, EntryKind, Metadata, Time},
    progress::Add,
};

/// Where what is to be sent comes from.
pub(super) enum Origin {
    Place(Place),
    Reader(Box<dyn Read + Send>),
}

/// Sends the manifest of all sources; returns when everything is dealt with at the receiver, or nothing is under way
/// any more.
pub(super) fn run(shared: &Shared, sources: Vec<(Origin, RelPath)>, written_once: bool) -> Ended {
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

    fn all(&mut self, sources: Vec<(Origin, RelPath)>) -> Result<Ended, Aborted> {
        let mut roots = Vec::new();
        for (origin, dest) in sources {
            if self.shared.is_draining() {
                self.shared.not_announced(&dest);
                self.cut_short = true;
                continue;
            }
            self.parents_of(&dest)?;
            match origin {
                Origin::Place(place) => {
                    match self.root(&place, &dest) {
                        // If it is aborted as well, waiting says so.
                        Err(Aborted) if self.shared.is_draining() => self.cut_short = true,
                        walked => walked?,
                    }
                    roots.push((place, dest));
                }
                Origin::Reader(reader) => {
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
        for (place, dest) in &roots {
            self.directory_ends(place, dest)?;
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

    fn root(&mut self, place: &Place, dest: &RelPath) -> Result<(), Aborted> {
        let failed = |error: OpenError| error.at_source();
        match place.kind() {
            Ok(FileType::Directory) => walk(place, dest, &mut |visit| match visit {
                _ if self.shared.is_draining() => Err(Aborted),
                // Private until its own mode is set at the end.
                Visit::Enter(dest) => {
                    let metadata = Metadata { mode: 0o700, ..Metadata::default() };
                    self.emit(dest.clone(), EntryKind::Directory, metadata)
                }
                Visit::Leave(..) => Ok(()),
                Visit::Other(directory, name, place, dest) => self.other(directory, name, place, dest),
                Visit::Unreadable(dest, failure) => {
                    self.failed(dest, failure);
                    Ok(())
                }
                Visit::BadName(place, error) => {
                    self.left_out(&place, &error);
                    Ok(())
                }
            }),
            Ok(FileType::BlockDevice) => self.device(place, dest),
            Ok(_) => match place.parent() {
                Ok((parent, name)) => self.other(parent.as_fd(), name, place.clone(), dest.clone()),
                Err(error) => {
                    self.failed(dest, failed(error));
                    Ok(())
                }
            },
            Err(error) => {
                self.failed(dest, failed(error));
                Ok(())
            }
        }
    }

    fn other(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        place: Place,
        dest: RelPath,
    ) -> Result<(), Aborted> {
        match Found::at(directory, name, &dest) {
            Ok(Found::File(found, metadata)) => self.file(place, dest, &found, metadata),
            Ok(Found::Symlink { target, metadata }) => {
                self.emit(dest, EntryKind::Symlink { target }, metadata)
            }
            Ok(Found::Other) => {
                self.left_out(&place, &"neither file, directory nor symbolic link");
                Ok(())
            }
            Err(failure) => {
                self.failed(&dest, failure);
                Ok(())
            }
        }
    }

    fn file(&mut self, place: Place, dest: RelPath, found: &Stat, metadata: Metadata) -> Result<(), Aborted> {
        let size = found.st_size.cast_unsigned();
        if size > FILE_BYTES_MAX {
            self.failed(&dest, Failure::new(FailureKind::Limit, "larger than 64 TiB"));
            return Ok(());
        }
        let linked = found.st_nlink > 1;
        if linked {
            let inode = (found.st_dev, found.st_ino);
            if let Some(target) = self.inodes.get(&inode) {
                self.links.push((dest, target.clone(), metadata));
                return Ok(());
            }
            if self.inodes.len() + self.links.len() < HARD_LINKS_MAX {
                self.inodes.insert(inode, dest.clone());
            }
        }
        self.shared.progress.counters().bytes_total.add(size);
        let id = self.shared.next_id();
        let file = SourceFile::file(id, dest.clone(), place, found, metadata, self.written_once);
        self.emit_file(id, dest, EntryKind::File { size, differs: false }, file, linked)
    }

    fn device(&mut self, place: &Place, dest: &RelPath) -> Result<(), Aborted> {
        let opened = place.open(FileType::BlockDevice).and_then(|(mut device, found)| {
            let size = device.seek(SeekFrom::End(0));
            size.map(|size| (size, found)).map_err(|error| Failure::at_source("lseek", &error))
        });
        let (size, found) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                self.failed(dest, failure);
                return Ok(());
            }
        };
        self.shared.progress.counters().bytes_total.add(size);
        let id = self.shared.next_id();
        // The mode and owner of a device node say who may use the device, not who may read a copy.
        let metadata = Metadata { modified: modified(&found), ..stream_metadata() };
        let file = SourceFile::device(id, dest.clone(), place.clone(), size, metadata);
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
    fn directory_ends(&mut self, place: &Place, dest: &RelPath) -> Result<(), Aborted> {
        if !matches!(place.kind(), Ok(FileType::Directory)) {
            return Ok(());
        }
        walk(place, dest, &mut |visit| match visit {
            Visit::Leave(directory, dest) => match rustix::fs::fstat(directory) {
                Ok(found) => {
                    let metadata = metadata_of(directory, &found, dest);
                    self.emit(dest.clone(), EntryKind::DirectoryEnd, metadata)
                }
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

    fn left_out(&self, place: &Place, reason: &dyn fmt::Display) {
        tracing::warn!(path = %place, %reason, "left out");
        self.shared.progress.counters().entries_left_out.add(1);
    }
}

/// A new file of the user, as of now.
fn stream_metadata() -> Metadata {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Time { seconds: now.as_secs().cast_signed(), nanoseconds: now.subsec_nanos() };
    Metadata { mode: 0o600, modified: now, accessed: now, ..Metadata::default() }
}
