//! Memory that is shared with the kernel, for as long as it lives.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

use crate::SocketError;

/// Mapped memory. That of a socket's ring keeps the socket's ring alive, not the socket.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: memory belongs to no thread; who reads and writes it is up to the types that own a mapping.
unsafe impl Send for Mapping {}
// SAFETY: a shared mapping gives away its address only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed pages of nobody else.
    pub(super) fn anonymous(bytes: usize) -> Result<Self, SocketError> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Self::new(bytes, flags, -1, 0).map_err(SocketError::in_call("mmap(UMEM)"))
    }

    /// A ring of a socket.
    pub(super) fn ring(
        socket: BorrowedFd<'_>,
        bytes: usize,
        offset: libc::off_t,
    ) -> Result<Self, SocketError> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::new(bytes, flags, socket.as_raw_fd(), offset).map_err(SocketError::in_call("mmap(ring)"))
    }

    fn new(bytes: usize, flags: i32, fd: i32, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the pages just mapped. A child process without them cannot make the kernel copy them here, away from
        // the other side. That it fails changes nothing else.
        unsafe { libc::madvise(start, bytes, libc::MADV_DONTFORK) };
        Ok(Self { start: NonNull::new(start.cast()).expect("a mapping is not at address 0"), bytes })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and whoever reads or writes it borrows what owns it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
