//! Applies mode, times, owner and extended attributes to an open file or directory (T5.6).

use std::os::fd::AsFd;

use rustix::{
    fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::{
    Failure,
    manifest::{Metadata, Time},
};

/// A peer's file never becomes setuid, owned by somebody else or marked with privileged attributes unless the
/// user asked for exactly that.
const ORDINARY_MODE: u32 = 0o777;

/// `privileged`: also owner, setuid bits and extended attributes outside `user.`. Times last: all else changes them.
pub(super) fn apply(fd: impl AsFd, metadata: &Metadata, privileged: bool) -> Result<(), Failure> {
    for (name, value) in &metadata.xattrs {
        if !privileged && !name.starts_with(b"user.") {
            continue;
        }
        match rustix::fs::fsetxattr(&fd, &name[..], value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(error @ (Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS)) => {
                tracing::debug!(name = %name.escape_ascii(), %error, "fsetxattr: left out");
            }
            Err(errno) => return Err(Failure::from_errno("fsetxattr", errno)),
        }
    }
    if privileged {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(|e| Failure::from_errno("fchown", e))?;
    }
    let mode = metadata.mode & if privileged { 0o7777 } else { ORDINARY_MODE };
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| Failure::from_errno("fchmod", e))?;
    rustix::fs::futimens(&fd, &timestamps(metadata)).map_err(|e| Failure::from_errno("futimens", e))
}

/// Whether a file was last modified when the entry says.
pub(super) fn same_time(found: &Stat, metadata: &Metadata) -> bool {
    let Time { seconds, nanoseconds } = metadata.modified;
    (found.st_mtime, found.st_mtime_nsec as i64) == (seconds, nanoseconds.into())
}

pub(super) fn timestamps(metadata: &Metadata) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(metadata.accessed), last_modification: spec(metadata.modified) }
}
