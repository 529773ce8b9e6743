//! The partial area: a private folder `.novacron-partial` in which files grow until they are complete (T5.3).
//!
//! `*.tmp` are links about to replace something, and files of one piece where `O_TMPFILE` is missing; never resumed. `HASH.data` and `HASH.journal`, named after the destination
//! path, are larger files that a later run can go on with. Every process that uses an area holds its lock shared.

use std::{
    fs::File,
    hash::{BuildHasher, Hasher},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, flock},
    io::Errno,
};

use crate::{
    Failure, FailureKind, RelPath, TransferError,
    limits::{CLEAN_ENTRIES_MAX, LOCK_WAIT_MS, PARTIAL_AGE_SECONDS_MAX, PARTIAL_LOOK_SECONDS_MIN},
    path::PARTIAL_AREA,
};

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const LOCK: &str = "lock";

pub(super) struct Area {
    fd: OwnedFd,
    /// Held shared for as long as the area is open.
    _lock: OwnedFd,
    /// Makes temporary names differ from those of other processes.
    salt: u64,
    next: AtomicU64,
}

impl AsFd for Area {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What [`clean_partials`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Files removed.
    pub files: u64,
    /// Their allocated bytes.
    pub bytes: u64,
}

impl Area {
    /// Opens the area of a directory; makes it if it is missing. Alone in it, removes what nobody will resume.
    pub(super) fn open(parent: &OwnedFd) -> Result<Self, Failure> {
        let at = |call| move |errno| Failure::from_errno(call, errno);
        match rustix::fs::mkdirat(parent, PARTIAL_AREA, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Failure::from_errno("mkdirat", errno)),
        }
        let (fd, lock) = open_existing(parent)?;
        let found = rustix::fs::fstat(&fd).map_err(at("fstat"))?;
        if found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Failure::new(FailureKind::Escapes, "partial area belongs to another user"));
        }
        rustix::fs::fchmod(&fd, Mode::RWXU).map_err(at("fchmod"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let old = found_old_before(&lock).map_err(at("futimens"))?;
            clean(&fd, old).map_err(at("unlinkat"))?;
        }
        flock(&lock, FlockOperation::LockShared).map_err(at("flock"))?;
        let salt = std::hash::RandomState::new().build_hasher().finish();
        Ok(Self { fd, _lock: lock, salt, next: AtomicU64::new(0) })
    }

    /// A name nobody uses.
    pub(super) fn temporary_name(&self) -> String {
        format!("{:016x}-{:x}.tmp", self.salt, self.next.fetch_add(1, Relaxed))
    }

    /// A new file under such a name.
    pub(super) fn create_temporary(&self) -> Result<(File, String), Failure> {
        let name = self.temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &*name, flags, PRIVATE)
            .map_err(|errno| Failure::from_errno("openat", errno))?;
        Ok((fd.into(), name))
    }

    pub(super) fn has_journal(&self, path: &RelPath) -> bool {
        rustix::fs::statat(&self.fd, journal_name(path), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Data and journal of a resumable file, made if missing, locked against other transfers.
    pub(super) fn open_resumable(&self, path: &RelPath) -> Result<(File, File), Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |name: String| {
            rustix::fs::openat(&self.fd, name, flags, PRIVATE)
                .map(File::from)
                .map_err(|errno| Failure::from_errno("openat", errno))
        };
        let deadline = Instant::now() + Duration::from_millis(LOCK_WAIT_MS);
        loop {
            let journal = open(journal_name(path))?;
            match flock(&journal, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let found = rustix::fs::fstat(&journal).map_err(|e| Failure::from_errno("fstat", e))?;
                    // Completed and removed by another transfer while this one waited: open the new one.
                    if found.st_nlink > 0 {
                        return Ok((open(data_name(path))?, journal));
                    }
                }
                // An earlier run may be about to notice that its peer is gone.
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(Errno::WOULDBLOCK) => return Err(Failure::new(FailureKind::Busy, "")),
                Err(errno) => return Err(Failure::from_errno("flock", errno)),
            }
        }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }
}

pub(super) fn data_name(path: &RelPath) -> String {
    format!("{}.data", hashed(path))
}

pub(super) fn journal_name(path: &RelPath) -> String {
    format!("{}.journal", hashed(path))
}

fn hashed(path: &RelPath) -> String {
    blake3::hash(path.as_bytes()).to_hex()[..32].to_owned()
}

/// Area and its lock file.
fn open_existing(parent: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, PARTIAL_AREA, flags, Mode::empty())
        .map_err(|errno| Failure::from_errno("openat", errno))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(&fd, LOCK, flags, PRIVATE)
        .map_err(|errno| Failure::from_errno("openat", errno))?;
    Ok((fd, lock))
}

/// Removes all partial files below `folder`, so that nothing can be resumed. Fails while a receiver uses them.
pub fn clean_partials(folder: &Path) -> Result<CleanReport, TransferError> {
    let setup = |call, source| TransferError::Setup { call, path: folder.join(PARTIAL_AREA), source };
    let parent: OwnedFd = File::open(folder).map_err(|error| setup("open", error))?.into();
    if !folder.join(PARTIAL_AREA).exists() {
        return Ok(CleanReport::default());
    }
    let (fd, lock) = open_existing(&parent)
        .map_err(|failure| setup("openat", io::Error::from_raw_os_error(failure.errno)))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| setup("flock", errno.into()))?;
    clean(&fd, i64::MAX).map_err(|errno| setup("unlinkat", errno.into()))
}

/// Files modified before this time, in seconds since the epoch, may go: another process has found them too old, and
/// that was some time ago. By one look at the clock they do not go: after a jump of it, what was written a minute before
/// looks old, and that is when somebody comes to resume.
///
/// The lock file's time is when that other process looked.
fn found_old_before(lock: &OwnedFd) -> Result<i64, Errno> {
    let looked = rustix::fs::fstat(lock)?.st_mtime;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = now.cast_signed().saturating_sub(looked);
    if (0..PARTIAL_LOOK_SECONDS_MIN).contains(&since) {
        return Ok(i64::MIN);
    }
    let look = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    rustix::fs::futimens(lock, &Timestamps { last_access: look, last_modification: look })?;
    Ok(if since < 0 { i64::MIN } else { looked.saturating_sub(PARTIAL_AGE_SECONDS_MAX) })
}

/// Removes temporary files, and resumable ones modified before this time.
fn clean(area: &OwnedFd, before: i64) -> Result<CleanReport, Errno> {
    let mut report = CleanReport::default();
    for entry in Dir::read_from(area)?.take(CLEAN_ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let resumable = name.ends_with(b".data") || name.ends_with(b".journal");
        if !resumable && !name.ends_with(b".tmp") {
            continue;
        }
        let found = rustix::fs::statat(area, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if resumable && found.st_mtime >= before {
            continue;
        }
        rustix::fs::unlinkat(area, name, AtFlags::empty())?;
        report.files += 1;
        report.bytes += found.st_blocks.cast_unsigned() * 512;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_3_a_partial_file_belongs_to_one_transfer_and_areas_in_use_are_not_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let parent: OwnedFd = File::open(dir.path()).unwrap().into();
        let path = RelPath::new(&b"vm.img"[..]).unwrap();
        let area = Area::open(&parent).unwrap();
        let (temporary, _) = area.create_temporary().unwrap();
        let held = area.open_resumable(&path).unwrap();
        assert!(area.has_journal(&path));
        assert!(clean_partials(dir.path()).is_err(), "in use");

        drop((temporary, held));
        drop(area);
        let area = Area::open(&parent).unwrap();
        let names = std::fs::read_dir(dir.path().join(PARTIAL_AREA)).unwrap().count();
        assert_eq!(names, 3, "lock, data and journal stay; the temporary file is gone");
        drop(area);
        assert_eq!(clean_partials(dir.path()).unwrap().files, 2);
    }

    #[test]
    fn t5_3_a_clock_that_jumps_takes_nothing_and_what_stays_old_goes() {
        const DAY: i64 = 24 * 3600;
        let dir = tempfile::tempdir().unwrap();
        let parent: OwnedFd = File::open(dir.path()).unwrap().into();
        drop(Area::open(&parent).unwrap().open_resumable(&RelPath::new(&b"vm.img"[..]).unwrap()).unwrap());
        let files = || {
            let entries = std::fs::read_dir(dir.path().join(PARTIAL_AREA)).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        // Jumps of the clock, seen from files: their times move the other way.
        let age = |of: &str, days: i64| {
            let now =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
            let time = Timespec { tv_sec: now - days * DAY, tv_nsec: 0 };
            for path in files().iter().filter(|path| path.to_str().unwrap().ends_with(of)) {
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::futimens(File::open(path).unwrap(), &times).unwrap();
            }
        };
        let open = || drop(Area::open(&parent).unwrap());
        for (days, jump) in [(31, "a month on"), (20_000, "from 1970"), (-31, "a month back"), (0, "none")] {
            for of in ["data", "journal", LOCK] {
                age(of, days);
            }
            for _ in 0..3 {
                open();
                assert_eq!(files().len(), 3, "{jump}");
            }
        }
        // Back after it was on: this look at the clock was of the future.
        age(LOCK, -40);
        open();
        assert_eq!(files().len(), 3);
        // Old when somebody looked two days ago, and since.
        age("data", 33);
        age("journal", 31);
        age(LOCK, 2);
        open();
        assert_eq!(files().len(), 2, "the journal was not 30 days old then");
        age(LOCK, 0);
        age("journal", 1000);
        open();
        assert_eq!(files().len(), 2, "nobody has seen it that old before today");
        age(LOCK, 1);
        open();
        assert_eq!(files().len(), 1, "only the lock");
    }
}
