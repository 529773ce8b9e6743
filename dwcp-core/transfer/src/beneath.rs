//! Opening below a directory and through no symbolic link, whatever is renamed meanwhile (T5.1, T4.9).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::Failure;

/// To look through.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To begin at, or to ask what it is; opens no device, and needs no right to read.
pub(crate) const ANYTHING: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Why something cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenError {
    pub(crate) call: &'static str,
    /// `ELOOP`: through a symbolic link; `EXDEV`: not below.
    pub(crate) errno: Errno,
}

impl OpenError {
    pub(crate) fn at_receiver(self) -> Failure {
        Failure::from_errno(self.call, self.errno)
    }

    pub(crate) fn at_source(self) -> Failure {
        Failure::at_source(self.call, &self.errno.into())
    }
}

/// Opens what is below the root at this path, whose components are names; empty: the root itself. `openat2` confines
/// in the kernel; where it is missing or filtered, each component is opened by itself.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
    let path = if path.is_empty() { b"." } else { path };
    // Its own word for a link is another error, or even the link, opened.
    let (root, flags) = (root.as_fd(), flags.difference(OFlags::NOFOLLOW));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => open_by_steps(root, path, flags),
        result => result.map_err(|errno| OpenError { call: "openat2", errno }),
    }
}

fn open_by_steps(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
    let mut components = path.split(|&byte| byte == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    loop {
        let component = components.next().expect("the last one returns");
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        if component == b".." {
            return Err(OpenError { call: "openat", errno: Errno::XDEV });
        }
        let is_last = components.peek().is_none();
        let step = if is_last { flags } else { ANYTHING | OFlags::DIRECTORY };
        let next = rustix::fs::openat(from, component, step | OFlags::NOFOLLOW, Mode::empty());
        let next = next.and_then(|fd| if is_link(&fd)? { Err(Errno::LOOP) } else { Ok(fd) });
        let next = next.map_err(|errno| match errno {
            // With O_DIRECTORY a link is reported as "not a directory".
            Errno::NOTDIR if is_symlink(from, component) => Errno::LOOP,
            errno => errno,
        });
        let next = next.map_err(|errno| OpenError { call: "openat", errno })?;
        if is_last {
            return Ok(next);
        }
        at = Some(next);
    }
}

/// `O_PATH` opens links, too.
fn is_link(fd: &OwnedFd) -> Result<bool, Errno> {
    let found = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
}

fn is_symlink(at: BorrowedFd<'_>, name: &[u8]) -> bool {
    let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn t5_1_t4_9_both_ways_of_resolving_stay_below_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("file"), b"x").unwrap();
        symlink("/etc", folder.join("out")).unwrap();
        symlink("b", folder.join("a/inside")).unwrap();
        let root: OwnedFd = fs::File::open(&folder).unwrap().into();
        let errors = |path: &str, flags: OFlags| {
            let path = path.as_bytes();
            [open(&root, path, flags), open_by_steps(root.as_fd(), path, flags)]
                .map(|result| result.err().map(|error| error.errno))
        };
        let content = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for path in [".", "a", "a/b"] {
            assert_eq!(errors(path, DIRECTORY), [None; 2], "{path}");
        }
        assert_eq!(errors("file", content), [None; 2]);
        for path in ["out", "out/ssl", "a/inside", "a/inside/x"] {
            assert_eq!(errors(path, DIRECTORY), [Some(Errno::LOOP); 2], "{path}");
            assert_eq!(errors(path, content), [Some(Errno::LOOP); 2], "{path}");
            assert_eq!(errors(path, ANYTHING), [Some(Errno::LOOP); 2], "{path}");
        }
        for path in ["..", "../folder", "../../etc"] {
            assert_eq!(errors(path, DIRECTORY), [Some(Errno::XDEV); 2], "{path}");
        }
        assert_eq!(errors("file", DIRECTORY), [Some(Errno::NOTDIR); 2]);
        assert_eq!(errors("missing", DIRECTORY), [Some(Errno::NOENT); 2]);
    }
}
