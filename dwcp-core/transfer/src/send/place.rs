//! Where a content lies: below a directory that is held open, and reached through no symbolic link (T4.9).

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    Failure, FailureKind, RelPath, TransferError,
    beneath::{self, ANYTHING, DIRECTORY, OpenError},
};

/// To read: what has become a pipe or a terminal meanwhile holds nobody up.
pub(super) const CONTENT: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A directory out of which no place leads.
struct Root {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
}

#[derive(Clone)]
pub(super) struct Place {
    root: Arc<Root>,
    /// Below the root; empty: the root itself.
    path: Box<[u8]>,
}

impl Place {
    /// Whatever a user of this machine names: below its `/`.
    pub(super) fn everywhere() -> Result<Self, TransferError> {
        let path = PathBuf::from("/");
        let fd = open_root(&path)?;
        Ok(Self { root: Arc::new(Root { fd, path }), path: Box::default() })
    }

    /// What is at this path of the machine, whose own links are followed. `everywhere`: as made above.
    pub(super) fn at(everywhere: &Self, path: &Path) -> Result<Self, TransferError> {
        let setup = |call, source| TransferError::Setup { call, path: path.to_owned(), source };
        let found = path.canonicalize().map_err(|error| setup("realpath", error))?;
        let below = found.as_os_str().as_bytes();
        let place =
            Self { root: everywhere.root.clone(), path: below.strip_prefix(b"/").unwrap_or(below).into() };
        let kind = place.kind().map_err(|error| setup(error.call, error.errno.into()))?;
        check(kind, path).map(|()| place)
    }

    /// What is at this path below a folder. Only the folder's own path may lead through links, and what is a directory
    /// now is the root from here on, whatever takes its name.
    pub(super) fn beneath(folder: &Path, path: &RelPath) -> Result<Self, TransferError> {
        let whole = folder.join(path.as_path());
        let setup = |error: OpenError| match error.errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                TransferError::NotBeneath { path: whole.clone() }
            }
            errno => TransferError::Setup { call: error.call, path: whole.clone(), source: errno.into() },
        };
        let fd = open_root(folder)?;
        let (parent, name) = path.split();
        let (fd, path) = match parent {
            Some(parent) => (
                beneath::open(&fd, parent, ANYTHING | OFlags::DIRECTORY).map_err(setup)?,
                whole.parent().unwrap_or(folder).to_owned(),
            ),
            None => (fd, folder.to_owned()),
        };
        let place = Self { root: Arc::new(Root { fd, path }), path: name.into() };
        let kind = place.kind().map_err(setup)?;
        check(kind, &whole)?;
        if kind != FileType::Directory {
            return Ok(place);
        }
        let fd = beneath::open(&place.root.fd, name, ANYTHING | OFlags::DIRECTORY).map_err(setup)?;
        Ok(Self { root: Arc::new(Root { fd, path: whole }), path: Box::default() })
    }

    pub(super) fn join(&self, name: &[u8]) -> Self {
        let slash: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        Self { root: self.root.clone(), path: [&self.path, slash, name].concat().into() }
    }

    /// The directory that holds this place, and the last part of its path.
    pub(super) fn parent(&self) -> Result<(OwnedFd, &[u8]), OpenError> {
        let (parent, name) = match self.path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.path[..slash], &self.path[slash + 1..]),
            None => (&b""[..], &*self.path),
        };
        Ok((beneath::open(&self.root.fd, parent, ANYTHING | OFlags::DIRECTORY)?, name))
    }

    pub(super) fn kind(&self) -> Result<FileType, OpenError> {
        let fd = beneath::open(&self.root.fd, &self.path, ANYTHING)?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| OpenError { call: "fstat", errno })?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    pub(super) fn open_directory(&self) -> Result<OwnedFd, OpenError> {
        beneath::open(&self.root.fd, &self.path, DIRECTORY)
    }

    /// Opens a content, and looks at what has been opened: by now something else may have its name.
    pub(super) fn open(&self, kind: FileType) -> Result<(File, Stat), Failure> {
        let fd = beneath::open(&self.root.fd, &self.path, CONTENT).map_err(OpenError::at_source)?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| Failure::at_source("fstat", &errno.into()))?;
        if FileType::from_raw_mode(found.st_mode) != kind {
            return Err(Failure::new(FailureKind::SourceChanged, "replaced by something that is no file"));
        }
        Ok((fd.into(), found))
    }

    /// As messages and tokens have it.
    pub(super) fn whole(&self) -> PathBuf {
        match &*self.path {
            b"" => self.root.path.clone(),
            path => self.root.path.join(OsStr::from_bytes(path)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole().display().fmt(f)
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, TransferError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno: Errno| TransferError::Setup {
        call: "openat",
        path: path.to_owned(),
        source: errno.into(),
    })
}

fn check(kind: FileType, path: &Path) -> Result<(), TransferError> {
    if matches!(kind, FileType::RegularFile | FileType::Directory | FileType::BlockDevice) {
        return Ok(());
    }
    let reason = "only files, directories and block devices can be sent; use - for other streams";
    Err(TransferError::Source { path: path.to_owned(), reason })
}
