//! What is at a name, and its metadata: all of it read from what has been opened, not from a path.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat};

use super::place::CONTENT;
use crate::{
    Failure, FailureKind, RelPath,
    limits::{XATTR_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_MAX},
    manifest::{Metadata, Time},
};

/// Of what the walk does not enter.
pub(super) enum Found {
    File(Stat, Metadata),
    Symlink { target: Vec<u8>, metadata: Metadata },
    Other,
}

impl Found {
    /// `dest` is for messages.
    pub(super) fn at(directory: BorrowedFd<'_>, name: &[u8], dest: &RelPath) -> Result<Self, Failure> {
        let failed = |call| move |errno: rustix::io::Errno| Failure::at_source(call, &errno.into());
        let found =
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("statat"))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(directory, name, Vec::new()).map_err(failed("readlinkat"))?;
                let metadata = metadata_of_link(&found);
                return Ok(Self::Symlink { target: target.into_bytes(), metadata });
            }
            FileType::Directory => {
                return Err(Failure::new(FailureKind::SourceChanged, "replaced by a directory"));
            }
            // Not opened: a device may do something then.
            _ => return Ok(Self::Other),
        }
        let file = rustix::fs::openat(directory, name, CONTENT, Mode::empty()).map_err(failed("openat"))?;
        let found = rustix::fs::fstat(&file).map_err(failed("fstat"))?;
        Ok(match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Self::File(found, metadata_of(&file, &found, dest)),
            _ => Self::Other,
        })
    }
}

/// Of an open file or directory; `dest` is for messages.
pub(super) fn metadata_of(fd: impl AsFd, found: &Stat, dest: &RelPath) -> Metadata {
    Metadata { xattrs: xattrs_of(fd.as_fd(), dest), ..metadata_of_link(found) }
}

fn metadata_of_link(found: &Stat) -> Metadata {
    Metadata {
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        modified: modified(found),
        accessed: time(found.st_atime, found.st_atime_nsec),
        xattrs: Vec::new(),
    }
}

pub(super) fn modified(found: &Stat) -> Time {
    time(found.st_mtime, found.st_mtime_nsec)
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time { seconds, nanoseconds: nanoseconds.min(999_999_999) as u32 }
}

/// What can be read; what cannot, or is beyond the bounds, stays behind with a warning.
fn xattrs_of(fd: BorrowedFd<'_>, dest: &RelPath) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let len = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Vec::new(),
        Ok(len) => len,
        Err(error) => {
            tracing::warn!(%dest, %error, "flistxattr");
            return Vec::new();
        }
    };
    let mut xattrs = Vec::new();
    let mut total = 0;
    let mut value = vec![0; XATTR_VALUE_BYTES_MAX];
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let Ok(len) = rustix::fs::fgetxattr(fd, name, &mut value[..]) else {
            tracing::warn!(%dest, name = %name.escape_ascii(), "fgetxattr");
            continue;
        };
        total += name.len() + len;
        if total > XATTR_BYTES_MAX || xattrs.len() == XATTRS_MAX {
            tracing::warn!(%dest, "more extended attributes than can travel");
            break;
        }
        xattrs.push((name.to_vec(), value[..len].to_vec()));
    }
    xattrs
}
