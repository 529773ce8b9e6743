//! The receiver's folder. Every path is resolved here, below the folder and through no symbolic link (T5.1).

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::area::Area;
use crate::{Failure, FailureKind, RelPath, TransferError};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

type RelPathBytes = Box<[u8]>;

pub(super) struct Folder {
    root: Arc<Directory>,
    device: u64,
    fsync: bool,
    /// The directory used last: entries come directory by directory.
    last: Mutex<Option<(RelPathBytes, Arc<Directory>)>>,
}

/// An open directory below the folder, and where its unfinished files live.
pub(super) struct Directory {
    fd: OwnedFd,
    pub(super) area: Arc<Area>,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// A new private file for this directory: without a name where the file system can (`O_TMPFILE`), so that it
    /// lies near its directory and a kill leaves nothing behind; else in the partial area.
    pub(super) fn create_file(&self) -> Result<(File, Option<String>), Failure> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok((fd.into(), None)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                self.area.create_temporary().map(|(file, name)| (file, Some(name)))
            }
            Err(errno) => Err(Failure::from_errno("openat", errno)),
        }
    }
}

impl Folder {
    /// Opens (and, if it is missing, makes) the folder. Its own path may go through links: the user chose it.
    pub(super) fn open(path: &Path, fsync: bool) -> Result<Self, TransferError> {
        let setup = |call| move |source| TransferError::Setup { call, path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(setup("mkdir"))?;
        let fd = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
            .map_err(|errno| setup("openat")(errno.into()))?;
        let device = rustix::fs::fstat(&fd).map_err(|errno| setup("fstat")(errno.into()))?.st_dev;
        let area = Area::open(&fd).map_err(|failure| TransferError::Destination {
            failure,
            path: path.join(crate::path::PARTIAL_AREA).display().to_string(),
        })?;
        let root = Arc::new(Directory { fd, area: Arc::new(area) });
        Ok(Self { root, device, fsync, last: Mutex::default() })
    }

    /// The directory that holds this path, and the last component.
    pub(super) fn parent<'p>(&self, path: &'p RelPath) -> Result<(Arc<Directory>, &'p [u8]), Failure> {
        let (parent, name) = path.split();
        let Some(parent) = parent else { return Ok((self.root.clone(), name)) };
        if let Some((path, directory)) = &*self.last.lock().unwrap()
            && **path == *parent
        {
            return Ok((directory.clone(), name));
        }
        let directory = Arc::new(self.directory(parent)?);
        *self.last.lock().unwrap() = Some((parent.into(), directory.clone()));
        Ok((directory, name))
    }

    /// Opens a directory below the folder.
    pub(super) fn open_directory(&self, path: &RelPath) -> Result<OwnedFd, Failure> {
        beneath(&self.root.fd, path.as_bytes())
    }

    fn directory(&self, path: &[u8]) -> Result<Directory, Failure> {
        let fd = beneath(&self.root.fd, path)?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| Failure::from_errno("fstat", errno))?;
        // Renaming needs the same file system: a file system mounted below the folder gets its own area.
        let area =
            if found.st_dev == self.device { self.root.area.clone() } else { Arc::new(Area::open(&fd)?) };
        Ok(Directory { fd, area })
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        if !self.fsync {
            return Ok(());
        }
        rustix::fs::syncfs(&self.root.fd).map_err(|errno| Failure::from_errno("syncfs", errno))
    }
}

/// `openat2` confines in the kernel; where it is missing or filtered, each component is opened by itself.
fn beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Failure> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => beneath_by_steps(root, path),
        result => result.map_err(|errno| Failure::from_errno("openat2", errno)),
    }
}

fn beneath_by_steps(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Failure> {
    let mut at: Option<OwnedFd> = None;
    for component in path.split(|&byte| byte == b'/') {
        let from = at.as_ref().unwrap_or(root);
        let next = rustix::fs::openat(from, component, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        at = Some(next.map_err(|errno| match errno {
            // With O_DIRECTORY a link is reported as "not a directory".
            Errno::NOTDIR if is_symlink(from, component) => Failure::from_errno("openat", Errno::LOOP),
            errno => Failure::from_errno("openat", errno),
        })?);
    }
    at.ok_or_else(|| Failure::new(FailureKind::Protocol, "empty path"))
}

fn is_symlink(at: &OwnedFd, name: &[u8]) -> bool {
    lookup(at, name).is_ok_and(|found| found.is_some_and(|found| file_type(&found) == FileType::Symlink))
}

/// What is at a name, links not followed.
pub(super) fn lookup(at: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Failure> {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Failure::from_errno("statat", errno)),
    }
}

pub(super) fn file_type(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn t5_1_both_ways_of_resolving_stay_below_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("file"), b"x").unwrap();
        symlink("/etc", folder.join("out")).unwrap();
        symlink("b", folder.join("a/inside")).unwrap();
        let root: OwnedFd = std::fs::File::open(&folder).unwrap().into();
        let kinds = |path: &str| {
            [beneath(&root, path.as_bytes()), beneath_by_steps(&root, path.as_bytes())]
                .map(|result| result.map(drop).map_err(|failure| failure.kind))
        };
        assert_eq!(kinds("a/b"), [Ok(()), Ok(())]);
        for link in ["out", "out/ssl", "a/inside"] {
            assert_eq!(kinds(link), [Err(FailureKind::Escapes); 2], "{link}");
        }
        assert_eq!(kinds("file"), [Err(FailureKind::WrongType); 2]);
        assert_eq!(kinds("missing"), [Err(FailureKind::Io); 2]);
    }
}
