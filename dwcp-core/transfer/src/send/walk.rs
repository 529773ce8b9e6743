//! Looks through a tree: depth first, by descriptors of directories, so that no link is followed that takes the place of
//! a directory meanwhile (T4.9).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{Dir, DirEntry, FileType, Mode, OFlags, SeekFrom},
    io::Errno,
};

use super::{place::Place, shared::Aborted};
use crate::{
    Failure, FailureKind, PathError, RelPath,
    beneath::{DIRECTORY, OpenError},
    limits::DIRECTORIES_OPEN_MAX,
    path::PARTIAL_AREA,
};

/// What the walk meets.
pub(super) enum Visit<'a> {
    Enter(&'a RelPath),
    Leave(BorrowedFd<'a>, &'a RelPath),
    /// No directory, or was none just now; with the directory that has it.
    Other(BorrowedFd<'a>, &'a [u8], Place, RelPath),
    Unreadable(&'a RelPath, Failure),
    BadName(Place, PathError),
}

type Visitor<'v> = dyn FnMut(Visit<'_>) -> Result<(), Aborted> + 'v;

/// A directory that has been entered.
struct Level {
    place: Place,
    dest: RelPath,
    /// Device and inode.
    identity: (u64, u64),
    /// Where reading goes on.
    offset: u64,
    /// `None`: closed, since too many below it are open.
    entries: Option<Dir>,
}

/// Walks below this directory.
pub(super) fn walk(root: &Place, dest: &RelPath, visit: &mut Visitor<'_>) -> Result<(), Aborted> {
    let mut levels = Vec::new();
    let opened = root.open_directory();
    enter(&mut levels, root.clone(), dest.clone(), opened, visit)?;
    while let Some(level) = levels.last_mut() {
        match level.next() {
            Ok(Some(entry)) => {
                if let Some((place, dest, opened)) = level.meet(&entry, visit)? {
                    enter(&mut levels, place, dest, opened, visit)?;
                }
            }
            Ok(None) => {
                if let Some(entries) = &level.entries {
                    visit(Visit::Leave(fd(entries), &level.dest))?;
                }
                levels.pop();
            }
            Err(failure) => {
                visit(Visit::Unreadable(&level.dest, failure))?;
                levels.pop();
            }
        }
    }
    Ok(())
}

type Opened = Result<OwnedFd, OpenError>;

fn enter(
    levels: &mut Vec<Level>,
    place: Place,
    dest: RelPath,
    opened: Opened,
    visit: &mut Visitor<'_>,
) -> Result<(), Aborted> {
    visit(Visit::Enter(&dest))?;
    let begun = opened.and_then(|fd| Ok((identity(&fd)?, read(fd)?)));
    let (identity, entries) = match begun {
        Ok(begun) => begun,
        Err(error) => return visit(Visit::Unreadable(&dest, error.at_source())),
    };
    levels.push(Level { place, dest, identity, offset: 0, entries: Some(entries) });
    if let Some(far) = levels.len().checked_sub(DIRECTORIES_OPEN_MAX + 1) {
        levels[far].entries = None;
    }
    Ok(())
}

impl Level {
    fn next(&mut self) -> Result<Option<DirEntry>, Failure> {
        if self.entries.is_none() {
            self.entries = Some(self.reopen()?);
        }
        let entry = self.entries.as_mut().and_then(Dir::read).transpose();
        let entry = entry.map_err(|errno| Failure::at_source("getdents64", &errno.into()))?;
        self.offset = entry.as_ref().map_or(self.offset, |entry| entry.offset().cast_unsigned());
        Ok(entry)
    }

    /// Goes on where reading was, if it is the same directory.
    fn reopen(&self) -> Result<Dir, Failure> {
        let fd = self.place.open_directory().map_err(OpenError::at_source)?;
        if identity(&fd).map_err(OpenError::at_source)? != self.identity {
            return Err(Failure::new(FailureKind::SourceChanged, "replaced by another directory"));
        }
        rustix::fs::seek(&fd, SeekFrom::Start(self.offset))
            .map_err(|errno| Failure::at_source("lseek", &errno.into()))?;
        read(fd).map_err(OpenError::at_source)
    }

    /// `Some`: it is, or might be, a directory that is to be entered.
    fn meet(
        &self,
        entry: &DirEntry,
        visit: &mut Visitor<'_>,
    ) -> Result<Option<(Place, RelPath, Opened)>, Aborted> {
        let name = entry.file_name().to_bytes();
        let Some(entries) = &self.entries else { return Ok(None) };
        if [&b"."[..], b"..", PARTIAL_AREA.as_bytes()].contains(&name) {
            return Ok(None);
        }
        let place = self.place.join(name);
        let dest = match self.dest.join(name) {
            Ok(dest) => dest,
            Err(error) => return visit(Visit::BadName(place, error)).map(|()| None),
        };
        // Some file systems do not say what it is: opened as a directory, nothing else is touched.
        if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            return visit(Visit::Other(fd(entries), name, place, dest)).map(|()| None);
        }
        match rustix::fs::openat(fd(entries), name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                visit(Visit::Other(fd(entries), name, place, dest)).map(|()| None)
            }
            opened => {
                let opened = opened.map_err(|errno| OpenError { call: "openat", errno });
                Ok(Some((place, dest, opened)))
            }
        }
    }
}

fn read(fd: OwnedFd) -> Result<Dir, OpenError> {
    Dir::new(fd).map_err(|errno| OpenError { call: "opendir", errno })
}

fn fd(entries: &Dir) -> BorrowedFd<'_> {
    entries.fd().expect("it was opened from one")
}

fn identity(fd: impl AsFd) -> Result<(u64, u64), OpenError> {
    let found = rustix::fs::fstat(fd).map_err(|errno| OpenError { call: "fstat", errno })?;
    Ok((found.st_dev, found.st_ino))
}
