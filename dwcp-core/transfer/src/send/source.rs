//! One content being sent: where its bytes are, which of them are data, and whether it stayed the same.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{FileType, SeekFrom, Stat},
    io::Errno,
};

use dwcp_delta::DeltaError;

use super::{
    buffer::{Buffer, Pool},
    delta::{Counterpart, Known},
    found::metadata_of,
    place::Place,
};
use crate::{
    BaselineStore, ContentHash, Failure, FailureKind, RelPath,
    content::{Layout, PieceDigest, PieceHasher, content_hash},
    delta::Offer,
    limits::{EXTENTS_MAX, FILE_BYTES_MAX},
    manifest::Metadata,
    record::Extent,
};

/// Read and hashed at once, so that the hash finds the bytes in the cache.
const READ_BYTES: usize = 256 << 10;
/// Time stamps of files advance in steps of at most this. A write within the same step as the one before leaves the
/// same stamp, so reading begins only when the step of the last write is over.
const STAMP_STEP: Duration = Duration::from_millis(20);
/// Runs of zeros of this length in a block device become holes.
const ZERO_RUN_BYTES: usize = 64 << 10;

pub(super) struct SourceFile {
    pub(super) id: u64,
    pub(super) path: RelPath,
    pub(super) metadata: Metadata,
    /// How often its content was read before, and found changed.
    pub(super) reads: u32,
    content: Content,
    cancelled: AtomicBool,
    pieces: Mutex<Pieces>,
    /// What the receiver has of it, as far as is known.
    baseline: Mutex<Known>,
}

#[derive(Clone)]
enum Content {
    File { place: Place, layout: Layout, identity: Identity },
    Device { place: Place, layout: Layout },
    Stream(Arc<Mutex<Option<Box<dyn Read + Send>>>>),
}

/// What changes if somebody writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// `None`: nobody writes to it, and that it gets or loses a name, which changes this as well, does not matter.
    changed: Option<(i64, i64)>,
}

#[derive(Default)]
struct Pieces {
    /// Opened by the first worker, closed by the last.
    file: Option<Arc<File>>,
    has: HashMap<u64, [u8; 32]>,
    digests: HashMap<u64, PieceDigest>,
    sent: u64,
    /// Bytes of pieces that are among the progress of the transfer.
    counted: u64,
    /// Pieces that went as deltas, and what each saved: those that the receiver may refuse, once.
    deltas: HashMap<u64, u64>,
    /// A content of this side's store that it was compared with.
    compared: Option<(ContentHash, u64)>,
}

/// A piece as read.
pub(super) struct Piece {
    pub(super) index: u64,
    pub(super) len: u32,
    pub(super) extents: Vec<Extent>,
    /// What was read; holds the data of all extents.
    pub(super) data: Buffer,
    /// Where in `data` each extent lies.
    pub(super) starts: Vec<usize>,
    pub(super) digest: PieceDigest,
}

/// All pieces are dealt with.
pub(super) struct Complete {
    pub(super) size: u64,
    pub(super) pieces_sent: u64,
    pub(super) hash: ContentHash,
}

impl SourceFile {
    pub(super) fn file(
        id: u64,
        path: RelPath,
        place: Place,
        found: &Stat,
        metadata: Metadata,
        written_once: bool,
    ) -> Self {
        let mut identity = Identity::of(found);
        identity.changed = identity.changed.filter(|_| !written_once);
        let content = Content::File { place, layout: Layout::new(found.st_size.cast_unsigned()), identity };
        Self::new(id, path, metadata, content)
    }

    pub(super) fn device(id: u64, path: RelPath, place: Place, size: u64, metadata: Metadata) -> Self {
        Self::new(id, path, metadata, Content::Device { place, layout: Layout::new(size) })
    }

    pub(super) fn stream(id: u64, path: RelPath, reader: Box<dyn Read + Send>, metadata: Metadata) -> Self {
        Self::new(id, path, metadata, Content::Stream(Arc::new(Mutex::new(Some(reader)))))
    }

    /// The same file under a new id.
    pub(super) fn again(&self, id: u64) -> Self {
        let again = Self::new(id, self.path.clone(), self.metadata.clone(), self.content.clone());
        Self { reads: self.reads, ..again }
    }

    /// The file as it is now, under a new id: it is no longer what it was when it was found.
    pub(super) fn as_it_is_now(&self, id: u64) -> Result<Self, Failure> {
        let changed = |detail| Failure::new(FailureKind::SourceChanged, detail);
        let Content::File { place, identity, .. } = &self.content else {
            return Err(changed("cannot be read again"));
        };
        let (file, found) = place.open(FileType::RegularFile)?;
        if found.st_size.cast_unsigned() > FILE_BYTES_MAX {
            return Err(Failure::new(FailureKind::Limit, "larger than 64 TiB"));
        }
        let metadata = metadata_of(&file, &found, &self.path);
        let written_once = identity.changed.is_none();
        let now = Self::file(id, self.path.clone(), place.clone(), &found, metadata, written_once);
        Ok(Self { reads: self.reads + 1, ..now })
    }

    fn new(id: u64, path: RelPath, metadata: Metadata, content: Content) -> Self {
        let (cancelled, pieces, baseline) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Self { id, path, metadata, reads: 0, content, cancelled, pieces, baseline }
    }

    /// `None`: a stream.
    pub(super) fn layout(&self) -> Option<Layout> {
        match &self.content {
            Content::File { layout, .. } | Content::Device { layout, .. } => Some(*layout),
            Content::Stream(_) => None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.layout().map_or(0, Layout::size)
    }

    /// Nothing more is read. Gives the bytes that were counted as progress, once.
    pub(super) fn cancel(&self) -> u64 {
        let mut pieces = self.pieces.lock().unwrap();
        self.cancelled.store(true, Relaxed);
        pieces.file = None;
        std::mem::take(&mut pieces.counted)
    }

    /// Notes that bytes were dealt with; `false` if that is of no use any more.
    pub(super) fn count(&self, len: u64) -> bool {
        let mut pieces = self.pieces.lock().unwrap();
        let counts = !self.is_cancelled();
        pieces.counted += if counts { len } else { 0 };
        counts
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    pub(super) fn take_reader(&self) -> Option<Box<dyn Read + Send>> {
        match &self.content {
            Content::Stream(reader) => reader.lock().unwrap().take(),
            _ => None,
        }
    }

    /// Pieces behind the end are ignored: they could never be asked for.
    pub(super) fn receiver_has(&self, pieces: &[(u64, [u8; 32])]) {
        let count = self.layout().map_or(0, Layout::pieces);
        let mut state = self.pieces.lock().unwrap();
        state.has.extend(pieces.iter().copied().filter(|(index, _)| *index < count));
    }

    /// Whether the receiver has this piece with this content, and the sender need not send it. An only piece is also
    /// the end of its content and always goes.
    pub(super) fn receiver_has_piece(&self, index: u64, digest: &PieceDigest) -> bool {
        let only = self.layout().is_some_and(|layout| layout.pieces() == 1);
        !only && self.pieces.lock().unwrap().has.get(&index) == Some(&digest.cv)
    }

    /// The receiver has an older version.
    pub(super) fn offered(&self, offer: Offer) {
        *self.baseline.lock().unwrap() = Known::Offered(offer);
    }

    pub(super) fn has_offer(&self) -> bool {
        matches!(*self.baseline.lock().unwrap(), Known::Offered(_))
    }

    /// What the receiver offers, once: looks for it in the store, or waits for its chunks. `true`: nothing has to be waited for.
    pub(super) fn prepare(&self, store: Option<&BaselineStore>) -> bool {
        let mut known = self.baseline.lock().unwrap();
        *known = std::mem::take(&mut *known).looked_for(store);
        if let Known::Ready(found) = &*known {
            self.pieces.lock().unwrap().compared = found.of_store();
        }
        !matches!(*known, Known::Waiting(..))
    }

    /// The next of its chunks. `false`: nobody waits for them.
    pub(super) fn described(&self, list: &[u8], held: &Arc<AtomicUsize>) -> Result<bool, DeltaError> {
        self.baseline.lock().unwrap().described(list, held)
    }

    /// What is known of the older version, if anything can be done with it.
    pub(super) fn counterpart(&self) -> Option<Arc<Counterpart>> {
        self.baseline.lock().unwrap().counterpart()
    }

    /// Whatever comes now is sent in full.
    pub(super) fn forget_baseline(&self) {
        *self.baseline.lock().unwrap() = Known::Nothing;
    }

    /// A piece goes as a delta that saves this many bytes.
    pub(super) fn delta_sent(&self, index: u64, saved: u64) {
        self.pieces.lock().unwrap().deltas.insert(index, saved);
    }

    /// What the delta of a piece saved, if it went as one.
    pub(super) fn delta_refused(&self, index: u64) -> Option<u64> {
        self.forget_baseline();
        self.pieces.lock().unwrap().deltas.remove(&index)
    }

    /// The content of the store that it was compared with, once.
    pub(super) fn take_compared(&self) -> Option<(ContentHash, u64)> {
        self.pieces.lock().unwrap().compared.take()
    }

    /// Reads what is around a piece, as far as there is any: bytes of the content, and where they begin.
    pub(super) fn read_around(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let file = self.open()?;
        let end = range.end.min(self.size());
        out.resize(end.saturating_sub(range.start) as usize, 0);
        file.read_exact_at(out, range.start).map_err(|error| Failure::at_source("pread", &error))
    }

    /// Reads one piece again, after all others were read.
    pub(super) fn read_piece_again(&self, index: u64, pool: &Pool) -> Result<Piece, Failure> {
        let piece = self.read_piece(index, pool)?;
        let file = self.open()?;
        self.check_unchanged(&file)?;
        Ok(piece)
    }

    /// The content as it is now, for keeping it.
    pub(super) fn reopen(&self) -> Option<File> {
        match &self.content {
            Content::File { place, .. } => place.open(FileType::RegularFile).ok().map(|(file, _)| file),
            Content::Device { .. } | Content::Stream(_) => None,
        }
    }

    /// Opens the content, or gives the handle that another worker has opened.
    fn open(&self) -> Result<Arc<File>, Failure> {
        let mut pieces = self.pieces.lock().unwrap();
        if let Some(file) = &pieces.file {
            return Ok(file.clone());
        }
        if self.is_cancelled() {
            return Err(Failure::new(FailureKind::SourceChanged, "given up already"));
        }
        let file = match &self.content {
            Content::File { place, identity, .. } => {
                let (file, found) = place.open(FileType::RegularFile)?;
                identity.compare(&found)?;
                identity.wait_for_next_stamp();
                file
            }
            Content::Device { place, .. } => place.open(FileType::BlockDevice)?.0,
            Content::Stream(_) => unreachable!("streams are read through their reader"),
        };
        let file = Arc::new(file);
        pieces.file = Some(file.clone());
        Ok(file)
    }

    /// Reads and hashes one piece.
    pub(super) fn read_piece(&self, index: u64, pool: &Pool) -> Result<Piece, Failure> {
        let file = self.open()?;
        let layout = self.layout().expect("only contents of known size have numbered pieces");
        let (offset, len) = (layout.offset(index), layout.len(index));
        let extents = match &self.content {
            Content::Device { .. } => vec![Extent { start: 0, len: len as u32 }],
            _ => data_extents(&file, offset, len)?,
        };
        let data_len = extents.iter().map(|extent| extent.len as usize).sum();
        let mut data = pool.take(data_len, layout.piece_bytes() as usize);
        let mut hasher = PieceHasher::new(offset);
        let (mut at, mut filled, mut starts) = (0, 0, Vec::with_capacity(extents.len()));
        for extent in &extents {
            hasher.update_zeros(u64::from(extent.start) - at);
            starts.push(filled);
            let target = &mut data.bytes_mut()[filled..filled + extent.len as usize];
            read_exactly(&file, target, offset + u64::from(extent.start), &mut hasher)?;
            filled += extent.len as usize;
            at = u64::from(extent.start) + u64::from(extent.len);
        }
        hasher.update_zeros(len - at);
        let digest = hasher.finish(offset);
        let mut piece = Piece { index, len: len as u32, extents, data, starts, digest };
        if matches!(self.content, Content::Device { .. }) {
            piece.cut_zeros();
        }
        // A content of one piece has no end message: whether it stayed the same is known now or never.
        if layout.pieces() == 1 {
            self.check_unchanged(&file)?;
        }
        Ok(piece)
    }

    fn check_unchanged(&self, file: &File) -> Result<(), Failure> {
        match &self.content {
            Content::File { identity, .. } => identity.check(file),
            _ => Ok(()),
        }
    }

    /// Notes that a piece was dealt with. The last one completes the content.
    pub(super) fn piece_done(
        &self,
        piece: u64,
        digest: PieceDigest,
        sent: bool,
    ) -> Result<Option<Complete>, Failure> {
        let mut state = self.pieces.lock().unwrap();
        state.digests.insert(piece, digest);
        state.sent += u64::from(sent);
        let Some(layout) = self.layout() else { return Ok(None) };
        if (state.digests.len() as u64) < layout.pieces() {
            return Ok(None);
        }
        let complete = state.complete(layout.size());
        match state.file.take() {
            // The only piece was checked before it was sent; the receiver may be done with it.
            Some(_) if layout.pieces() == 1 => Ok(Some(complete)),
            Some(file) => self.check_unchanged(&file).map(|()| Some(complete)),
            None => Ok(None),
        }
    }

    /// A stream has ended after this many bytes.
    pub(super) fn stream_done(&self, size: u64) -> Complete {
        self.pieces.lock().unwrap().complete(size)
    }

    /// Hash of the whole content, for comparing.
    pub(super) fn hash(&self, pool: &Pool) -> Result<ContentHash, Failure> {
        let layout = self.layout().expect("streams are not compared");
        let digests: Result<Vec<_>, _> = (0..layout.pieces())
            .map(|index| self.read_piece(index, pool).map(|piece| piece.digest))
            .collect();
        let hash = content_hash(&digests?);
        if let Some(file) = self.pieces.lock().unwrap().file.take() {
            self.check_unchanged(&file)?;
        }
        Ok(hash)
    }
}

impl Pieces {
    fn complete(&mut self, size: u64) -> Complete {
        let digests = std::mem::take(&mut self.digests);
        let ordered: Vec<_> = (0..digests.len() as u64).map(|index| digests[&index]).collect();
        Complete { size, pieces_sent: self.sent, hash: content_hash(&ordered) }
    }
}

impl Piece {
    /// A piece of a stream, read already.
    pub(super) fn dense(index: u64, offset: u64, data: Buffer) -> Self {
        let len = data.as_ref().len() as u32;
        let mut hasher = PieceHasher::new(offset);
        hasher.update(data.as_ref());
        let extents = vec![Extent { start: 0, len }];
        Self { index, len, extents, data, starts: vec![0], digest: hasher.finish(offset) }
    }

    pub(super) fn data_len(&self) -> u32 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// Splits the one extent of a dense piece at runs of zeros.
    fn cut_zeros(&mut self) {
        let (mut extents, mut starts): (Vec<Extent>, Vec<usize>) = (Vec::new(), Vec::new());
        for (number, run) in self.data.as_ref().chunks(ZERO_RUN_BYTES).enumerate() {
            if run.iter().all(|&byte| byte == 0) {
                continue;
            }
            let (start, len) = ((number * ZERO_RUN_BYTES) as u32, run.len() as u32);
            match extents.last_mut() {
                Some(last) if last.start + last.len == start => last.len += len,
                _ => {
                    extents.push(Extent { start, len });
                    starts.push(start as usize);
                }
            }
        }
        (self.extents, self.starts) = (extents, starts);
    }
}

impl Identity {
    fn of(found: &Stat) -> Self {
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            size: found.st_size.cast_unsigned(),
            modified: (found.st_mtime, found.st_mtime_nsec as i64),
            changed: Some((found.st_ctime, found.st_ctime_nsec as i64)),
        }
    }

    /// Returns when a write would leave a stamp that differs from this one. A stamp of the future, after a clock was
    /// set back, is not waited for.
    fn wait_for_next_stamp(&self) {
        let Some((seconds, nanoseconds)) = self.changed else { return };
        let (Ok(seconds), Ok(nanoseconds)) = (seconds.try_into(), nanoseconds.try_into()) else { return };
        let changed = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        if let Some(Ok(age)) = changed.map(|changed| SystemTime::now().duration_since(changed)) {
            std::thread::sleep(STAMP_STEP.saturating_sub(age));
        }
    }

    fn check(&self, file: &File) -> Result<(), Failure> {
        self.compare(&stat(file)?)
    }

    fn compare(&self, found: &Stat) -> Result<(), Failure> {
        let mut found = Self::of(found);
        found.changed = found.changed.filter(|_| self.changed.is_some());
        if found == *self {
            return Ok(());
        }
        let detail = match found.size.cmp(&self.size) {
            std::cmp::Ordering::Less => format!("shrank from {} to {} bytes", self.size, found.size),
            std::cmp::Ordering::Greater => format!("grew from {} to {} bytes", self.size, found.size),
            std::cmp::Ordering::Equal if found.inode != self.inode => "replaced by another file".into(),
            std::cmp::Ordering::Equal => "modified".into(),
        };
        Err(Failure::new(FailureKind::SourceChanged, &detail))
    }
}

fn stat(file: &File) -> Result<Stat, Failure> {
    rustix::fs::fstat(file).map_err(|errno| Failure::at_source("fstat", &errno.into()))
}

fn read_exactly(
    file: &File,
    target: &mut [u8],
    offset: u64,
    hasher: &mut PieceHasher,
) -> Result<(), Failure> {
    let mut at = offset;
    for part in target.chunks_mut(READ_BYTES) {
        file.read_exact_at(part, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let size = file.metadata().map_or(0, |found| found.len());
                Failure::new(FailureKind::SourceChanged, &format!("shrank to {size} bytes"))
            }
            _ => Failure::at_source("pread", &error),
        })?;
        hasher.update(part);
        at += part.len() as u64;
    }
    Ok(())
}

/// Where a file has data in `offset..offset + len`. Beyond the bound on extents, the rest counts as data.
fn data_extents(file: &File, offset: u64, len: u64) -> Result<Vec<Extent>, Failure> {
    let whole = vec![Extent { start: 0, len: len as u32 }];
    let found = file.metadata().map_err(|error| Failure::at_source("fstat", &error))?;
    if found.blocks() * 512 >= found.len() {
        return Ok(whole);
    }
    let end = offset + len;
    let mut extents = Vec::new();
    let mut at = offset;
    while at < end {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(end),
            Err(Errno::NXIO) => end,
            // A file system that knows no holes.
            Err(Errno::INVAL) => return Ok(whole),
            Err(errno) => return Err(Failure::at_source("lseek", &errno.into())),
        };
        if start >= end {
            break;
        }
        let stop = if extents.len() + 1 == EXTENTS_MAX {
            end
        } else {
            match rustix::fs::seek(file, SeekFrom::Hole(start)) {
                Ok(stop) => stop.min(end),
                Err(errno) => return Err(Failure::at_source("lseek", &errno.into())),
            }
        };
        if stop <= start {
            break;
        }
        extents.push(Extent { start: (start - offset) as u32, len: (stop - start) as u32 });
        at = stop;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that was set back leaves stamps of the future: waiting for those would take an hour, or for ever.
    #[test]
    fn t4_7_stamps_that_no_clock_will_reach_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"x").unwrap();
        let now = Identity::of(&rustix::fs::stat(&path).unwrap());
        let stamps = [
            (now.changed.unwrap().0 + 3600, 0),
            (i64::MAX, 999_999_999),
            (i64::MAX, i64::MAX),
            (-1, 0),
            (i64::MIN, 0),
        ];
        for changed in stamps {
            Identity { changed: Some(changed), ..now }.wait_for_next_stamp();
        }
        // Whatever the stamp, a file that keeps it is unchanged, and one that does not is not.
        let file = File::options().write(true).open(&path).unwrap();
        let future = SystemTime::now() + Duration::from_secs(3600);
        file.set_modified(future).unwrap();
        let stamped = Identity::of(&rustix::fs::stat(&path).unwrap());
        assert_eq!(stamped.check(&file), Ok(()));
        file.set_modified(future + Duration::from_secs(1)).unwrap();
        assert_eq!(stamped.check(&file).unwrap_err().kind, FailureKind::SourceChanged);
    }
}
