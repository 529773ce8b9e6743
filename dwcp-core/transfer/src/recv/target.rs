//! One content being received: where its bytes go, which pieces are there, and when it is complete.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustix::{
    fs::{FallocateFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    area::{self, Area},
    baseline::Offered,
    folder::{Directory, file_type},
    journal::Journal,
    metadata,
};
use crate::{
    ContentHash, Failure, FailureKind, RelPath, TransferError,
    content::{Layout, PieceDigest, PieceHasher, content_hash},
    control::FileEnd,
    limits::{FLUSH_BYTES, PIECE_BYTES, PIECES_MAX},
    manifest::Metadata,
    progress::Add,
    record,
};

/// Re-read at once when a partial file is checked.
const REREAD_BYTES: usize = 256 << 10;

pub(super) type Output = Arc<Mutex<Box<dyn Write + Send>>>;

pub(super) struct Target {
    pub(super) id: u64,
    pub(super) path: RelPath,
    pub(super) metadata: Metadata,
    /// `None`: a stream, whose size comes at its end.
    layout: Option<Layout>,
    pub(super) place: Place,
    state: Mutex<State>,
    /// Shared by those who write, and had alone when nobody does.
    writing: RwLock<()>,
    /// Bytes of this target among the progress of the transfer.
    counted_bytes: AtomicU64,
    baseline: Mutex<Option<Arc<Offered>>>,
}

pub(super) enum Place {
    Folder {
        parent: Arc<Directory>,
        /// An existing file may be replaced.
        replace: bool,
    },
    Device(Arc<File>),
    /// In order, and hashed only while it passes.
    Output(Output),
}

#[derive(Default)]
struct State {
    opened: Option<Arc<Opened>>,
    digests: HashMap<u64, PieceDigest>,
    received: std::collections::HashSet<u64>,
    /// Bytes of the pieces received so far, holes included.
    received_bytes: u64,
    end: Option<FileEnd>,
    finished: bool,
    /// Failed or abandoned: what still comes for it is of no use.
    discarded: bool,
}

/// The file that grows, and its journal if it can be resumed.
pub(super) struct Opened {
    pub(super) file: File,
    /// Its name in the partial area; `None`: it has no name yet, and goes away by itself.
    pub(super) name: Option<String>,
    journal: Option<Mutex<Journal>>,
    /// May hold bytes where the content has zeros.
    dirty: bool,
    unflushed: AtomicU64,
}

impl Target {
    pub(super) fn new(
        id: u64,
        path: RelPath,
        metadata: Metadata,
        layout: Option<Layout>,
        place: Place,
    ) -> Self {
        let (state, writing, baseline) = (Mutex::default(), RwLock::default(), Mutex::default());
        let counted_bytes = AtomicU64::new(0);
        Self { id, path, metadata, layout, place, state, writing, counted_bytes, baseline }
    }

    /// More than one piece, at a place that keeps unfinished files.
    pub(super) fn is_resumable(&self) -> bool {
        matches!(self.place, Place::Folder { .. }) && self.layout.is_some_and(|layout| layout.pieces() > 1)
    }

    pub(super) fn size(&self) -> u64 {
        self.layout.map_or(0, Layout::size)
    }

    /// Whether a file has the size and time that this content will have.
    pub(super) fn looks_like(&self, found: &Stat) -> bool {
        let same_size = self.layout.is_some_and(|layout| layout.size() == found.st_size.cast_unsigned());
        same_size && file_type(found) == FileType::RegularFile && metadata::same_time(found, &self.metadata)
    }

    /// Known to have no content.
    pub(super) fn is_empty(&self) -> bool {
        self.layout.is_some_and(|layout| layout.size() == 0)
    }

    /// Complete with its only piece; no end is announced (T4.5).
    pub(super) fn is_one_piece(&self) -> bool {
        self.layout.is_some_and(|layout| layout.pieces() == 1)
    }

    /// A stream is cut in small pieces whatever its length.
    fn piece_bytes(&self) -> u64 {
        self.layout.map_or(PIECE_BYTES, Layout::piece_bytes)
    }

    pub(super) fn offset(&self, index: u64) -> u64 {
        index * self.piece_bytes()
    }

    /// The growing file; opened when the first byte comes, so that announced files cost no descriptor.
    pub(super) fn open(&self) -> Result<Option<Arc<Opened>>, Failure> {
        let Place::Folder { parent, .. } = &self.place else { return Ok(None) };
        let mut state = self.state.lock().unwrap();
        if state.discarded {
            return Err(Failure::new(FailureKind::Busy, "given up already"));
        }
        if state.opened.is_none() {
            state.opened = Some(Arc::new(self.open_in(parent)?.0));
        }
        Ok(state.opened.clone())
    }

    fn open_in(&self, parent: &Directory) -> Result<(Opened, HashMap<u64, [u8; 32]>), Failure> {
        let unflushed = AtomicU64::new(0);
        let Some(layout) = self.layout.filter(|_| self.is_resumable()) else {
            let (file, name) = parent.create_file()?;
            return Ok((Opened { file, name, journal: None, dirty: false, unflushed }, HashMap::new()));
        };
        let (file, journal) = parent.area.open_resumable(&self.path)?;
        let len = file.metadata().map_err(|error| Failure::at_receiver("fstat", &error))?.len();
        file.set_len(layout.size()).map_err(|error| Failure::at_receiver("ftruncate", &error))?;
        let (journal, claims) = Journal::open(journal, &self.path, layout)
            .map_err(|error| Failure::at_receiver("journal", &error))?;
        let name = Some(area::data_name(&self.path));
        let journal = Some(Mutex::new(journal));
        Ok((Opened { file, name, journal, dirty: len > 0, unflushed }, claims))
    }

    /// Reads back what an earlier run left and gives the pieces that are as the journal says. The file stays
    /// open, and so locked: what was offered must not go away.
    pub(super) fn verify_partial(&self, stop: &dyn Fn() -> bool) -> Result<Vec<(u64, [u8; 32])>, Failure> {
        let (Place::Folder { parent, .. }, Some(layout)) = (&self.place, self.layout) else {
            return Ok(Vec::new());
        };
        let (opened, claims) = self.open_in(parent)?;
        let mut digests = HashMap::new();
        for (index, cv) in claims {
            if stop() {
                break;
            }
            let digest = digest_of(&opened.file, layout, index)
                .map_err(|error| Failure::at_receiver("pread", &error))?;
            if digest.cv == cv {
                digests.insert(index, digest);
            }
        }
        let mut have: Vec<_> = digests.iter().map(|(&index, digest)| (index, digest.cv)).collect();
        have.sort_unstable();
        let mut state = self.state.lock().unwrap();
        state.opened = Some(Arc::new(opened));
        state.digests = digests;
        Ok(have)
    }

    /// Offers everything a device holds: what is the same already need not travel.
    pub(super) fn verify_device(&self, stop: &dyn Fn() -> bool) -> Result<Vec<(u64, [u8; 32])>, Failure> {
        let (Place::Device(device), Some(layout)) = (&self.place, self.layout) else { return Ok(Vec::new()) };
        let mut state = self.state.lock().unwrap();
        for index in (0..layout.pieces()).take_while(|_| !stop()) {
            let digest =
                digest_of(device, layout, index).map_err(|error| Failure::at_receiver("pread", &error))?;
            state.digests.insert(index, digest);
        }
        Ok((0..layout.pieces()).filter_map(|index| Some((index, state.digests.get(&index)?.cv))).collect())
    }

    /// Held while a record is written; `None`: given up, and the record is of no use.
    pub(super) fn begin_writing(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let writing = self.writing.read().unwrap();
        (!self.state.lock().unwrap().discarded).then_some(writing)
    }

    /// After it was discarded: returns when nobody writes any more. Writers wait only for content that is on its way.
    pub(super) fn wait_for_writers(&self) {
        drop(self.writing.write().unwrap());
    }

    pub(super) fn count(&self, bytes: u64) {
        self.counted_bytes.add(bytes);
    }

    pub(super) fn counted_bytes(&self) -> u64 {
        self.counted_bytes.load(Relaxed)
    }

    /// Checks a record against the layout and what came before (T4.4).
    pub(super) fn check(&self, header: &record::Header) -> Result<(), TransferError> {
        let rule = |rule| Err(TransferError::Protocol { rule });
        match self.layout {
            Some(layout) if header.index >= layout.pieces() => return rule("T4.4: piece behind the end"),
            Some(layout) if u64::from(header.len) != layout.len(header.index) => {
                return rule("T4.4: wrong piece length");
            }
            None if header.index >= PIECES_MAX || u64::from(header.len) > PIECE_BYTES => {
                return rule("T4.4: piece of a stream beyond its bounds");
            }
            _ => {}
        }
        let state = self.state.lock().unwrap();
        if state.received.contains(&header.index) || state.finished {
            return rule("T4.4: piece sent twice");
        }
        // Only the last piece of a stream is short; and what cannot seek needs its pieces in order.
        let sequential = matches!(self.place, Place::Output(_));
        let short_before = self.layout.is_none() && !state.received_bytes.is_multiple_of(PIECE_BYTES);
        if short_before || (sequential && header.index != state.received.len() as u64) {
            return rule("T4.4: piece out of order");
        }
        Ok(())
    }

    /// Writes data of a piece.
    pub(super) fn write(
        &self,
        opened: Option<&Opened>,
        index: u64,
        start: u32,
        data: &[u8],
    ) -> Result<(), Failure> {
        let offset = self.offset(index) + u64::from(start);
        match (&self.place, opened) {
            (Place::Folder { .. }, Some(opened)) => opened.file.write_all_at(data, offset),
            (Place::Device(device), _) => device.write_all_at(data, offset),
            (Place::Output(output), _) => output.lock().unwrap().write_all(data),
            (Place::Folder { .. }, None) => unreachable!("folder targets are open before they are written"),
        }
        .map_err(|error| Failure::at_receiver("write", &error))
    }

    /// Makes zeros between data: nothing to do in a new file, a hole in one that held something.
    pub(super) fn write_zeros(
        &self,
        opened: Option<&Opened>,
        index: u64,
        start: u32,
        len: u32,
    ) -> Result<(), Failure> {
        if len == 0 || opened.is_some_and(|opened| !opened.dirty) {
            return Ok(());
        }
        let file = match (&self.place, opened) {
            (Place::Folder { .. }, Some(opened)) => Some(&opened.file),
            (Place::Device(device), _) => Some(&**device),
            _ => None,
        };
        let offset = self.offset(index) + u64::from(start);
        if let Some(file) = file {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file, punch, offset, len.into()) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV) => {}
                Err(errno) => return Err(Failure::from_errno("fallocate", errno)),
            }
        }
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = 0;
        while at < len {
            let step = (len - at).min(ZEROS.len() as u32);
            self.write(opened, index, start + at, &ZEROS[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// A piece was written and its digest is as announced.
    pub(super) fn piece_received(
        &self,
        opened: Option<&Opened>,
        header: &record::Header,
        digest: PieceDigest,
        fsync: bool,
    ) -> Result<(), Failure> {
        if let Some(opened) = opened {
            opened.piece_written(header, fsync).map_err(|error| Failure::at_receiver("fdatasync", &error))?;
        }
        let mut state = self.state.lock().unwrap();
        state.digests.insert(header.index, digest);
        state.received.insert(header.index);
        state.received_bytes += u64::from(header.len);
        Ok(())
    }

    pub(super) fn set_end(&self, end: FileEnd) -> Result<(), TransferError> {
        let mut state = self.state.lock().unwrap();
        let fits = self.layout.is_none_or(|layout| layout.pieces() > 1 && layout.size() == end.size);
        if state.end.is_some() || !fits {
            return Err(TransferError::Protocol { rule: "T4.5: unexpected end of a file" });
        }
        state.end = Some(end);
        Ok(())
    }

    /// Once, when all pieces and the end are there: is the content what the sender has?
    pub(super) fn try_finish(&self) -> Option<Result<(), Failure>> {
        let mut state = self.state.lock().unwrap();
        let single = self.layout.is_some_and(|layout| layout.pieces() <= 1);
        let (pieces, hash) = match (self.layout, state.end) {
            // The digest of the only piece was compared when it came.
            (Some(layout), _) if single => (layout.pieces(), None),
            (_, Some(end)) if state.received.len() as u64 >= end.pieces_sent => {
                (end.size.div_ceil(self.piece_bytes()), Some(end.hash))
            }
            _ => return None,
        };
        if state.finished || (single && (state.digests.len() as u64) < pieces) {
            return None;
        }
        state.finished = true;
        let Some(hash) = hash else { return Some(Ok(())) };
        let ordered: Option<Vec<_>> = (0..pieces).map(|index| state.digests.get(&index).copied()).collect();
        let same_size =
            self.layout.is_some() || state.end.is_some_and(|end| end.size == state.received_bytes);
        match ordered {
            Some(ordered) if same_size && content_hash(&ordered).0 == hash => Some(Ok(())),
            _ => Some(Err(Failure::new(FailureKind::Integrity, "whole content"))),
        }
    }

    /// What the sender may refer to.
    pub(super) fn set_baseline(&self, offered: Offered) {
        *self.baseline.lock().unwrap() = Some(Arc::new(offered));
    }

    pub(super) fn baseline(&self) -> Option<Arc<Offered>> {
        self.baseline.lock().unwrap().clone()
    }

    /// The file that will be replaced.
    pub(super) fn existing(&self) -> Option<File> {
        let Place::Folder { parent, replace: true } = &self.place else { return None };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&**parent, self.path.split().1, flags, Mode::empty()).ok().map(File::from)
    }

    /// Of all pieces, once they are there.
    pub(super) fn content_hash(&self) -> Option<ContentHash> {
        let state = self.state.lock().unwrap();
        let pieces = self.layout?.pieces();
        let ordered: Option<Vec<_>> = (0..pieces).map(|index| state.digests.get(&index).copied()).collect();
        ordered.map(|ordered| content_hash(&ordered))
    }

    /// Digests this target holds: freed when it ends.
    pub(super) fn digests(&self) -> u64 {
        self.state.lock().unwrap().digests.len() as u64
    }

    /// What did not have to travel, because an earlier run had brought it.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.size().saturating_sub(self.state.lock().unwrap().received_bytes)
    }

    pub(super) fn take_opened(&self) -> Option<Arc<Opened>> {
        self.state.lock().unwrap().opened.take()
    }

    /// Gives up; removes what is no use to a later run.
    pub(super) fn discard(&self) {
        let opened = {
            let mut state = self.state.lock().unwrap();
            state.discarded = true;
            state.opened.take()
        };
        if let (Place::Folder { parent, .. }, Some(opened), false) =
            (&self.place, opened, self.is_resumable())
        {
            opened.remove_from(&parent.area);
        }
    }
}

impl Opened {
    /// Worst case: it stays until the area is cleaned.
    pub(super) fn remove_from(&self, area: &Area) {
        if let Some(name) = &self.name {
            let _ = area.remove(name);
        }
    }

    fn piece_written(&self, header: &record::Header, fsync: bool) -> io::Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.lock().unwrap().append(header.index, &header.cv)?;
        // Bounds what a power failure can take, and the time of the final sync.
        let unflushed = self.unflushed.fetch_add(header.data_len.into(), Relaxed);
        if fsync && unflushed >= FLUSH_BYTES {
            self.unflushed.store(0, Relaxed);
            self.file.sync_data()?;
        }
        Ok(())
    }
}

fn digest_of(file: &File, layout: Layout, index: u64) -> io::Result<PieceDigest> {
    let (offset, end) = (layout.offset(index), layout.offset(index) + layout.len(index));
    let mut hasher = PieceHasher::new(offset);
    let mut buffer = vec![0; REREAD_BYTES];
    let mut at = offset;
    while at < end {
        let part = &mut buffer[..(end - at).min(REREAD_BYTES as u64) as usize];
        file.read_exact_at(part, at)?;
        hasher.update(part);
        at += part.len() as u64;
    }
    Ok(hasher.finish(offset))
}

/// Hash of a whole existing file.
pub(super) fn hash_of(file: &File, layout: Layout, stop: &dyn Fn() -> bool) -> io::Result<[u8; 32]> {
    let pieces = (0..layout.pieces()).take_while(|_| !stop());
    let digests: io::Result<Vec<_>> = pieces.map(|index| digest_of(file, layout, index)).collect();
    Ok(content_hash(&digests?).0)
}
