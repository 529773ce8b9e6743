//! `getsockopt` and `setsockopt` for plain values, where `socket2` has no method.

use std::{
    ffi::c_int,
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Values the kernel may fill or read byte by byte.
///
/// # Safety
/// The type is `Copy`, has no padding and no invalid bit pattern.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers have no padding and every bit pattern is one.
unsafe impl Plain for c_int {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Plain for [u32; WORDS] {}

/// Fills a prefix of `value` and returns the prefix's length in bytes; the rest stays as it was.
pub(crate) fn get<T: Plain>(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `len` are exclusive references to `len` writable bytes and a socklen_t
    // that live through the call; the kernel writes at most `len` bytes, and `Plain` promises that
    // any bytes are a valid `T`. `fd` is open for as long as it is borrowed.
    let rc =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (value as *mut T).cast(), &raw mut len) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize)
}

/// Sets an option to `value`.
pub(crate) fn set<T: Plain>(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` initialised bytes (`Plain`: no padding) that live through the call,
    // and the kernel only reads them. `fd` is open for as long as it is borrowed.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
