//! Makes finished files appear: sync, rename, sync the directory (T5.5). Like a database's group commit: what
//! finishes while one group is being synced shares the next.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, RenameFlags},
    io::Errno,
};
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    area, baseline,
    folder::{Directory, lookup},
    session::Session,
    target::{Opened, Target},
};
use crate::{
    Failure, FailureKind,
    control::Outcome,
    limits::{COMMIT_GROUP_MAX, KEPT_LATER_MAX},
};

/// From this many files on, one `syncfs` is cheaper than syncing each.
const SYNCFS_MIN: usize = 5;

pub(super) struct Commit {
    pub(super) target: Arc<Target>,
    pub(super) opened: Arc<Opened>,
    pub(super) parent: Arc<Directory>,
    pub(super) replace: bool,
}

/// Works until nobody can send any more.
pub(super) fn run(session: &Session, mut queue: mpsc::Receiver<Commit>, fsync: bool) {
    let mut kept_later = VecDeque::new();
    while let Some(first) = next(session, &mut queue, &mut kept_later) {
        let mut group = vec![first];
        while group.len() < COMMIT_GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        commit(session, group, fsync, &mut kept_later);
    }
    kept_later.iter().for_each(|later| keep(session, later));
}

/// A file that has its name, and will be kept as a baseline when nothing else is to be done.
type KeptLater = (Arc<Target>, Arc<Opened>);

fn keep(session: &Session, (target, opened): &KeptLater) {
    baseline::keep(session, target, &opened.file);
}

fn next(
    session: &Session,
    queue: &mut mpsc::Receiver<Commit>,
    kept_later: &mut VecDeque<KeptLater>,
) -> Option<Commit> {
    loop {
        match queue.try_recv() {
            Ok(commit) => return Some(commit),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => match kept_later.pop_front() {
                Some(later) => keep(session, &later),
                None => return queue.blocking_recv(),
            },
        }
    }
}

fn commit(session: &Session, group: Vec<Commit>, fsync: bool, kept_later: &mut VecDeque<KeptLater>) {
    let mut failed: Vec<Option<Failure>> = vec![None; group.len()];
    if fsync {
        sync_files(&group, &mut failed);
    }
    for (commit, failed) in group.iter().zip(&mut failed).filter(|(_, failed)| failed.is_none()) {
        *failed = publish(commit).err();
    }
    if fsync {
        sync_directories(&group, &mut failed);
    }
    let mut outcomes = Vec::with_capacity(group.len());
    for (commit, failed) in group.into_iter().zip(failed) {
        let Commit { target, opened, parent, .. } = commit;
        match failed {
            None => {
                if target.is_resumable() {
                    // Without its data file a journal means nothing; one left behind is cleaned by age.
                    let _ = parent.area.remove(&area::journal_name(&target.path));
                }
                outcomes.push((target.id, Outcome::Done));
                if session.delta().is_some_and(|delta| delta.store.is_some()) {
                    kept_later.push_back((target, opened));
                }
            }
            Some(failure) => {
                if !target.is_resumable() {
                    opened.remove_from(&parent.area);
                }
                outcomes.push((target.id, Outcome::Failed(failure)));
            }
        }
    }
    session.settle(outcomes);
    while kept_later.len() > KEPT_LATER_MAX
        && let Some(later) = kept_later.pop_front()
    {
        keep(session, &later);
    }
}

fn sync_files(group: &[Commit], failed: &mut [Option<Failure>]) {
    if group.len() < SYNCFS_MIN {
        for (commit, failed) in group.iter().zip(failed) {
            *failed = rustix::fs::fsync(&commit.opened.file).err().map(|e| Failure::from_errno("fsync", e));
        }
        return;
    }
    let mut done: BTreeMap<*const area::Area, Option<Failure>> = BTreeMap::new();
    for (commit, failed) in group.iter().zip(failed) {
        let area = &commit.parent.area;
        let result = done.entry(Arc::as_ptr(area)).or_insert_with(|| syncfs(area.as_fd()));
        failed.clone_from(result);
    }
}

fn sync_directories(group: &[Commit], failed: &mut [Option<Failure>]) {
    let mut done: BTreeMap<*const Directory, Option<Failure>> = BTreeMap::new();
    let directories: BTreeMap<_, _> = group.iter().map(|c| (Arc::as_ptr(&c.parent), ())).collect();
    let each = directories.len() < SYNCFS_MIN;
    let mut all: BTreeMap<*const area::Area, Option<Failure>> = BTreeMap::new();
    for (commit, failed) in group.iter().zip(failed).filter(|(_, failed)| failed.is_none()) {
        let parent = &commit.parent;
        let result = if each {
            done.entry(Arc::as_ptr(parent)).or_insert_with(|| {
                rustix::fs::fsync(parent).err().map(|errno| Failure::from_errno("fsync", errno))
            })
        } else {
            all.entry(Arc::as_ptr(&parent.area)).or_insert_with(|| syncfs(parent.as_fd()))
        };
        failed.clone_from(result);
    }
}

fn syncfs(fd: impl AsFd) -> Option<Failure> {
    rustix::fs::syncfs(fd).err().map(|errno| Failure::from_errno("syncfs", errno))
}

fn publish(commit: &Commit) -> Result<(), Failure> {
    let Commit { target, opened, parent, replace } = commit;
    let (_, name) = target.path.split();
    let moved = match &opened.name {
        Some(temporary) => move_into_place(parent, temporary, name, *replace),
        None => link_into_place(parent, &opened.file, name, *replace),
    };
    match moved {
        // Another run of the same transfer was faster: its file is as good as ours.
        Err(failure) if failure.kind == FailureKind::Exists && is_there(target, parent, name)? => {
            opened.remove_from(&parent.area);
            Ok(())
        }
        result => result,
    }
}

fn is_there(target: &Target, parent: &Directory, name: &[u8]) -> Result<bool, Failure> {
    let found = lookup(parent, name)?;
    Ok(found.is_some_and(|found| target.looks_like(&found)))
}

/// Renames from the partial area to the final name; without `replace` never over anything.
pub(super) fn move_into_place(
    parent: &Directory,
    temporary: &str,
    name: &[u8],
    replace: bool,
) -> Result<(), Failure> {
    let area = &*parent.area;
    if replace {
        return rustix::fs::renameat(area, temporary, parent, name).map_err(|e| in_area("renameat", e));
    }
    match rustix::fs::renameat_with(area, temporary, parent, name, RenameFlags::NOREPLACE) {
        // A file system without RENAME_NOREPLACE: a second link never replaces either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(area, temporary, parent, name, AtFlags::empty())
                .map_err(|errno| in_area("linkat", errno))?;
            area.remove(temporary).map_err(|errno| in_area("unlinkat", errno))
        }
        result => result.map_err(|errno| in_area("renameat2", errno)),
    }
}

/// Gives a file without a name its name; that never replaces, so replacing takes another step.
fn link_into_place(parent: &Directory, file: &File, name: &[u8], replace: bool) -> Result<(), Failure> {
    match link_file(file, parent.as_fd(), name) {
        Err(Errno::EXIST) if replace => {
            let temporary = parent.area.temporary_name();
            link_file(file, parent.area.as_fd(), temporary.as_bytes())
                .map_err(|errno| in_area("linkat", errno))?;
            move_into_place(parent, &temporary, name, true)
        }
        result => result.map_err(|errno| in_area("linkat", errno)),
    }
}

/// By descriptor, or where that takes privileges, through `/proc` (open(2), `O_TMPFILE`).
fn link_file(file: &File, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
        }
        result => result,
    }
}

/// Here a crossed file system is no attempt to escape.
fn in_area(call: &'static str, errno: Errno) -> Failure {
    match errno {
        Errno::XDEV => Failure { kind: FailureKind::Io, errno: errno.raw_os_error(), call: call.into() },
        errno => Failure::from_errno(call, errno),
    }
}
