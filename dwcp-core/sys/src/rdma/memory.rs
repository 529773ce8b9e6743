//! Memory that a device may read and write: allocated and registered once for a link, used again and again. Bytes only.
//!
//! What is inside is reached by copying: no reference to it exists while a device may change it.

use std::{ptr::NonNull, sync::Arc};

use super::{RdmaError, abi, device::Context};

/// A protection domain: what is registered in it is for the queue pairs in it.
pub(crate) struct Domain {
    pub(crate) context: Arc<Context>,
    pub(crate) raw: NonNull<abi::ProtectionDomain>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Domain {}
// SAFETY: as for `Context`.
unsafe impl Sync for Domain {}

impl Domain {
    pub(crate) fn new(context: Arc<Context>) -> Result<Arc<Self>, RdmaError> {
        // SAFETY: an open device.
        let raw = unsafe { (context.verbs.alloc_pd)(context.raw.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_alloc_pd"))?;
        Ok(Arc::new(Self { context, raw }))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: made once, freed once; what was made in it holds it alive.
        unsafe { (self.context.verbs.dealloc_pd)(self.raw.as_ptr()) };
    }
}

/// Whole pages of its own, so that nothing else lies beside what a peer may write.
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> Result<Self, RdmaError> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(RdmaError::last("mmap"));
        }
        // SAFETY: the pages just mapped. A child process without them cannot make the kernel copy them here, away from
        // the device. That it fails changes nothing else.
        unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) };
        let start = NonNull::new(start.cast()).expect("a mapping is not at address 0");
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Registered memory.
pub(crate) struct Memory {
    domain: Arc<Domain>,
    region: NonNull<abi::MemoryRegion>,
    /// Unmapped after it is registered no more.
    pages: Pages,
}

// SAFETY: it owns its pages and its registration; both may be used from any thread.
unsafe impl Send for Memory {}

impl Memory {
    /// `access`: of `abi::ACCESS_*`.
    pub(crate) fn new(domain: &Arc<Domain>, len: usize, access: i32) -> Result<Self, RdmaError> {
        let pages = Pages::new(len)?;
        // SAFETY: the pages are there and writable, and stay until after `ibv_dereg_mr`.
        let region = unsafe {
            (domain.context.verbs.reg_mr)(domain.raw.as_ptr(), pages.start.as_ptr().cast(), len, access)
        };
        let region = NonNull::new(region).ok_or_else(|| RdmaError::last("ibv_reg_mr"))?;
        Ok(Self { domain: Arc::clone(domain), region, pages })
    }

    /// Where it is, for the device and for the peer.
    pub(crate) fn address(&self) -> u64 {
        self.pages.start.as_ptr() as u64
    }

    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: the library made the structure and frees it in `ibv_dereg_mr` only.
        unsafe { (*self.region.as_ptr()).rkey }
    }

    /// A part of it, for a work request.
    pub(crate) fn part(&self, at: usize, len: usize) -> abi::Sge {
        self.check(at, len);
        // SAFETY: as in `rkey`.
        let lkey = unsafe { (*self.region.as_ptr()).lkey };
        abi::Sge { addr: self.address() + at as u64, length: len as u32, lkey }
    }

    /// Copies into it.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: the bound was checked; `bytes` is not in these pages, to which no reference is ever made. A device may
        // read them at the same time only if the caller posted them too early, and then sends either bytes.
        unsafe {
            let to = self.pages.start.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Copies out of it.
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len());
        // SAFETY: as above. A peer that writes here while this reads, which only a bad one does, changes which bytes are
        // copied: any bytes are valid.
        unsafe {
            let from = self.pages.start.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
    }

    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.pages.len),
            "{at} + {len} is outside the registered memory"
        );
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: registered once, undone once. Work requests that use it are gone with their queue pair, which owns it.
        // Should it fail, the kernel holds the pages that it has pinned.
        unsafe { (self.domain.context.verbs.dereg_mr)(self.region.as_ptr()) };
    }
}
