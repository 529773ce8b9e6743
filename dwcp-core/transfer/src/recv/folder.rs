//! The receiver's folder. Every path is resolved here, below the folder and through no symbolic link (T5.1).

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::area::Area;
use crate::{
    Failure, RelPath, TransferError,
    beneath::{self, DIRECTORY, OpenError},
};

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
        beneath::open(&self.root.fd, path.as_bytes(), DIRECTORY).map_err(OpenError::at_receiver)
    }

    fn directory(&self, path: &[u8]) -> Result<Directory, Failure> {
        let fd = beneath::open(&self.root.fd, path, DIRECTORY).map_err(OpenError::at_receiver)?;
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
