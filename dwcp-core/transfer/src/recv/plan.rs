//! Decides what becomes of each entry, before any content travels; makes what has no content.

use std::{fs::File, sync::Arc};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{
    DestinationSetup, baseline,
    commit::move_into_place,
    folder::{Directory, Folder, file_type, lookup},
    metadata,
    session::Worker,
    target::{Place, Target, hash_of},
};
use crate::{
    Failure, FailureKind, RelPath, TransferError,
    content::Layout,
    control::{Message, Outcome},
    limits::{DELTA_BYTES_MIN, HAVE_PIECES_MAX, OFFERS_OPEN_MAX},
    manifest::{self, Entry, EntryKind, Metadata},
};

/// `None`: the outcome comes later.
type Decision = Result<Option<Outcome>, Failure>;

/// Works until the sender has finished or the control stream is gone.
pub(super) fn run(worker: &Worker, mut queue: mpsc::Receiver<Message>) -> Result<(), TransferError> {
    while let Some(message) = queue.blocking_recv() {
        match message {
            Message::Batch(bytes) => {
                let batch = manifest::decode(&bytes)
                    .map_err(|source| TransferError::Decode { what: "manifest batch", source })?;
                let mut outcomes = Vec::with_capacity(batch.entries.len());
                for entry in batch.entries {
                    let (id, path, kind) = (entry.id, entry.path.clone(), entry.kind.clone());
                    worker.session.announced(&kind)?;
                    match decide(worker, entry) {
                        Ok(None) => {}
                        Ok(Some(outcome)) => {
                            if let (Outcome::Skipped, EntryKind::File { size, .. }) = (&outcome, kind) {
                                worker.session.skipped(size);
                            }
                            outcomes.push((id, outcome));
                        }
                        Err(failure) => {
                            worker.session.failed(&path, &failure);
                            outcomes.push((id, Outcome::Failed(failure)));
                        }
                    }
                }
                worker.session.decided(outcomes);
            }
            Message::FileEnd(end) => {
                if let Some(target) = worker.session.target(end.id) {
                    target.set_end(end)?;
                    worker.finish_if_complete(&target);
                }
            }
            Message::Describe { id } => {
                if let Some(target) = worker.session.target(id) {
                    baseline::describe(worker, target);
                }
            }
            Message::Abandon { id, failure } => worker.session.abandoned(id, failure),
            Message::Withdraw { id } => worker.session.withdrawn(id),
            Message::Finish => {
                if !worker.session.is_idle() {
                    return Err(TransferError::Protocol { rule: "T3.7: Finish before all outcomes" });
                }
                // Whichever is faster: the outcome of the file that met it, or the message that nothing more is taken.
                if let Some((failure, path)) = worker.session.fatal() {
                    return Err(TransferError::Destination { failure, path: path.to_string() });
                }
                if let DestinationSetup::Folder(folder) = &worker.session.setup.destination {
                    folder
                        .sync()
                        .map_err(|failure| TransferError::Destination { failure, path: ".".into() })?;
                }
                worker.session.send(Message::Finished);
                return Ok(());
            }
            _ => return Err(TransferError::Protocol { rule: "T3.1: message of the other side" }),
        }
    }
    Ok(())
}

fn decide(worker: &Worker, entry: Entry) -> Decision {
    let Entry { id, path, kind, metadata } = entry;
    let folder = match &worker.session.setup.destination {
        DestinationSetup::Folder(folder) => folder,
        DestinationSetup::Device { file, size } => {
            let place = Place::Device(file.clone());
            return single(worker, Target::new(id, path, metadata, layout(&kind)?, place), Some(*size));
        }
        DestinationSetup::Output(output) => {
            let place = Place::Output(output.clone());
            return single(worker, Target::new(id, path, metadata, layout(&kind)?, place), None);
        }
    };
    match kind {
        EntryKind::Directory => directory(folder, &path, metadata.mode),
        EntryKind::DirectoryEnd => {
            let directory = folder.open_directory(&path)?;
            metadata::apply(&directory, &metadata, worker.session.setup.privileged)?;
            Ok(Some(Outcome::Done))
        }
        EntryKind::File { size, differs } => {
            let (parent, name) = folder.parent(&path)?;
            let existing = lookup(&*parent, name)?;
            let layout = Layout::new(size);
            if let Some(found) = &existing
                && !differs
            {
                let announced = Announced { id, parent: &parent, name, metadata: &metadata, layout };
                match compare(worker, &announced, found)? {
                    Comparison::Same => return Ok(Some(Outcome::Skipped)),
                    Comparison::UnderWay => return Ok(None),
                    Comparison::Different => {}
                }
            }
            check_clobber(worker, existing.as_ref())?;
            content(worker, id, path.clone(), metadata, Some(layout), parent)
        }
        EntryKind::Stream => {
            let (parent, name) = folder.parent(&path)?;
            check_clobber(worker, lookup(&*parent, name)?.as_ref())?;
            content(worker, id, path.clone(), metadata, None, parent)
        }
        EntryKind::Symlink { target } => symlink(worker, folder, &path, &target, &metadata),
        EntryKind::HardLink { target } => hard_link(worker, folder, &path, &target),
    }
}

fn layout(kind: &EntryKind) -> Result<Option<Layout>, Failure> {
    match kind {
        EntryKind::File { size, .. } => Ok(Some(Layout::new(*size))),
        EntryKind::Stream => Ok(None),
        _ => Err(Failure::new(FailureKind::Unsupported, "only one file or stream")),
    }
}

fn directory(folder: &Folder, path: &RelPath, mode: u32) -> Decision {
    let (parent, name) = folder.parent(path)?;
    match rustix::fs::mkdirat(&*parent, name, Mode::from_raw_mode(mode & 0o777)) {
        Ok(()) => return Ok(Some(Outcome::Done)),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(Failure::from_errno("mkdirat", errno)),
    }
    let found = lookup(&*parent, name)?.ok_or_else(|| Failure::from_errno("statat", Errno::NOENT))?;
    match file_type(&found) {
        FileType::Directory => {}
        FileType::Symlink => return Err(Failure::from_errno("mkdirat", Errno::LOOP)),
        _ => return Err(Failure::from_errno("mkdirat", Errno::NOTDIR)),
    }
    // An earlier run may have set its final, read-only mode already; it is set again at the end.
    if found.st_mode & 0o700 != 0o700 && found.st_uid == rustix::process::geteuid().as_raw() {
        let directory = folder.open_directory(path)?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(found.st_mode & 0o7777 | 0o700))
            .map_err(|errno| Failure::from_errno("fchmod", errno))?;
    }
    Ok(Some(Outcome::Skipped))
}

/// A file as announced, and where it will be.
struct Announced<'a> {
    id: u64,
    parent: &'a Arc<Directory>,
    name: &'a [u8],
    metadata: &'a Metadata,
    layout: Layout,
}

/// What an announced file is beside the one that has its name.
enum Comparison {
    Same,
    Different,
    /// Its content is read; the outcome comes later.
    UnderWay,
}

fn compare(worker: &Worker, announced: &Announced<'_>, found: &Stat) -> Result<Comparison, Failure> {
    let &Announced { id, parent, name, metadata, layout } = announced;
    if file_type(found) != FileType::RegularFile || found.st_size.cast_unsigned() != layout.size() {
        return Ok(Comparison::Different);
    }
    if !worker.session.checksum || layout.size() == 0 {
        let same = metadata::same_time(found, metadata);
        return Ok(if same { Comparison::Same } else { Comparison::Different });
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&**parent, name, flags, Mode::empty())
        .map_err(|errno| Failure::from_errno("openat", errno))?;
    let session = worker.session.clone();
    worker.slow(move || {
        let outcome = match hash_of(&File::from(file), layout, &|| session.is_stopped()) {
            Ok(hash) => Outcome::Check(hash),
            Err(error) => Outcome::Failed(Failure::at_receiver("pread", &error)),
        };
        session.decided(vec![(id, outcome)]);
    });
    Ok(Comparison::UnderWay)
}

fn check_clobber(worker: &Worker, existing: Option<&Stat>) -> Result<(), Failure> {
    match existing.map(file_type) {
        None => Ok(()),
        Some(FileType::Directory) => Err(Failure::from_errno("openat", Errno::ISDIR)),
        Some(_) if worker.session.setup.overwrite => Ok(()),
        Some(_) => Err(Failure::new(FailureKind::Exists, "")),
    }
}

fn content(
    worker: &Worker,
    id: u64,
    path: RelPath,
    metadata: Metadata,
    layout: Option<Layout>,
    parent: Arc<Directory>,
) -> Decision {
    let may_resume = parent.area.has_journal(&path);
    let place = Place::Folder { parent, replace: worker.session.setup.overwrite };
    let target = Arc::new(Target::new(id, path, metadata, layout, place));
    worker.session.expect(target.clone());
    if layout.is_some_and(|layout| layout.size() == 0) {
        target.open()?;
        worker.finish_if_complete(&target);
        return Ok(None);
    }
    let resumes = target.is_resumable() && may_resume && worker.session.resumed() < OFFERS_OPEN_MAX;
    let may_have_baseline = worker.session.delta().is_some() && target.size() >= DELTA_BYTES_MIN;
    if resumes || may_have_baseline {
        offer(worker, target, resumes);
        return Ok(None);
    }
    Ok(Some(Outcome::Send))
}

/// The only entry of a destination that takes one.
fn single(worker: &Worker, target: Target, room: Option<u64>) -> Decision {
    if !worker.session.take_single() {
        return Err(Failure::new(FailureKind::Unsupported, "only one file or stream"));
    }
    if room.is_some_and(|room| target.size() > room) {
        return Err(Failure::new(FailureKind::Limit, "device is smaller than the source"));
    }
    let target = Arc::new(target);
    worker.session.expect(target.clone());
    if target.is_empty() {
        worker.finish_if_complete(&target);
        return Ok(None);
    }
    // The only piece of a content is also its end: it always travels.
    if room.is_some() && !target.is_one_piece() {
        offer(worker, target, true);
        return Ok(None);
    }
    Ok(Some(Outcome::Send))
}

/// Says what is there before asking for the rest: pieces, which are read back, and a baseline.
fn offer(worker: &Worker, target: Arc<Target>, pieces: bool) {
    let session = worker.session.clone();
    worker.slow(move || {
        let stop = || session.is_stopped();
        let have = match target.place {
            _ if !pieces => Ok(Vec::new()),
            Place::Device(_) => target.verify_device(&stop),
            _ => target.verify_partial(&stop),
        };
        match have {
            Ok(have) => {
                for pieces in have.chunks(HAVE_PIECES_MAX) {
                    session.send(Message::Have { id: target.id, pieces: pieces.to_vec() });
                }
                baseline::offer(&session, &target);
                session.decided(vec![(target.id, Outcome::Send)]);
            }
            Err(failure) => session.fail(&target, failure),
        }
    });
}

fn symlink(worker: &Worker, folder: &Folder, path: &RelPath, target: &[u8], metadata: &Metadata) -> Decision {
    let (parent, name) = folder.parent(path)?;
    let existing = lookup(&*parent, name)?;
    if let Some(found) = &existing
        && file_type(found) == FileType::Symlink
        && rustix::fs::readlinkat(&*parent, name, Vec::new()).is_ok_and(|link| link.to_bytes() == target)
    {
        return Ok(Some(Outcome::Skipped));
    }
    check_clobber(worker, existing.as_ref())?;
    let temporary = parent.area.temporary_name();
    rustix::fs::symlinkat(target, &*parent.area, &*temporary)
        .map_err(|errno| Failure::from_errno("symlinkat", errno))?;
    if worker.session.setup.privileged {
        use rustix::fs::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        rustix::fs::chownat(&*parent.area, &*temporary, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| Failure::from_errno("fchownat", errno))?;
    }
    let times = metadata::timestamps(metadata);
    // Some file systems keep no times of links.
    let _ = rustix::fs::utimensat(&*parent.area, &*temporary, &times, AtFlags::SYMLINK_NOFOLLOW);
    made(&parent, &temporary, name, existing.is_some())
}

fn hard_link(worker: &Worker, folder: &Folder, path: &RelPath, target: &RelPath) -> Decision {
    let (target_parent, target_name) = folder.parent(target)?;
    let found = lookup(&*target_parent, target_name)?
        .filter(|found| file_type(found) == FileType::RegularFile)
        .ok_or_else(|| Failure::new(FailureKind::LinkTarget, ""))?;
    let (parent, name) = folder.parent(path)?;
    let existing = lookup(&*parent, name)?;
    if existing.as_ref().is_some_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)) {
        return Ok(Some(Outcome::Skipped));
    }
    check_clobber(worker, existing.as_ref())?;
    let temporary = parent.area.temporary_name();
    rustix::fs::linkat(&*target_parent, target_name, &*parent.area, &*temporary, AtFlags::empty())
        .map_err(|errno| Failure { kind: FailureKind::Io, ..Failure::from_errno("linkat", errno) })?;
    made(&parent, &temporary, name, existing.is_some())
}

fn made(parent: &Directory, temporary: &str, name: &[u8], replace: bool) -> Decision {
    match move_into_place(parent, temporary, name, replace) {
        Ok(()) => Ok(Some(Outcome::Done)),
        Err(failure) => {
            let _ = parent.area.remove(temporary);
            Err(failure)
        }
    }
}
