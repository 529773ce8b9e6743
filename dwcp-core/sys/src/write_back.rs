//! Has a part of a file written to the disk now: `sync_file_range(2)`.
//!
//! For whoever writes much beside others that sync little: what gathers in memory is written at once some time, and their
//! syncs wait behind it. Not here: durability. What the file system knows of the file is not written, and the disk's own
//! cache is not flushed.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Returns when the disk has taken what was written to these bytes of a file before.
///
/// An error, `sync_file_range`'s, may be of bytes that were written before, and is told only once.
pub fn write_back(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, len) = (offset.try_into().map_err(too_large)?, len.try_into().map_err(too_large)?);
    let flags =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes no pointers, and `file` is open for as long as it is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd as _, unix::fs::FileExt as _},
    };

    use super::*;

    const PAGE: u64 = 4096;
    const FAR: u64 = 64 << 20;
    /// `cachestat(2)`, the same everywhere; not in all of libc.
    const CACHESTAT: libc::c_long = 451;

    /// Pages of a file that are in memory and not on the disk yet; `None`: this kernel does not tell (before 6.5).
    fn pages_to_write(file: &File) -> Option<u64> {
        // linux/mman.h: `struct cachestat_range`, and `struct cachestat` with what is cached, dirty, being written, evicted
        // and evicted lately.
        let range = [0_u64; 2];
        let mut stat = [0_u64; 5];
        // SAFETY: both are arrays of the size and layout that the call reads and writes, and live through it.
        let rc = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), stat.as_mut_ptr(), 0) };
        (rc == 0).then(|| stat[1] + stat[2])
    }

    #[test]
    fn what_was_written_there_is_on_the_disk_and_the_rest_is_left_alone() {
        // Below the folder of the build: in memory, as `/tmp` may be, nothing is ever written back.
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        // Far apart: the system writes large parts of a file as one.
        for offset in [0, FAR] {
            file.write_all_at(&[1; PAGE as usize], offset).unwrap();
        }
        let Some(dirty) = pages_to_write(&file) else {
            eprintln!("SKIP: this kernel has no cachestat");
            return;
        };
        assert_eq!(dirty, 2, "is this a file system in memory?");
        write_back(file.as_fd(), 0, PAGE).unwrap();
        assert_eq!(pages_to_write(&file), Some(1));
        write_back(file.as_fd(), 0, FAR + PAGE).unwrap();
        assert_eq!(pages_to_write(&file), Some(0));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        let error = write_back(reader.as_fd(), 0, 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESPIPE));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write_back(file.as_fd(), u64::MAX, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
