//! The rings that an AF_XDP socket shares with the kernel, each with one producer and one consumer (the kernel's
//! Documentation/networking/af_xdp.rst). Entries below the producer's number and not below the consumer's are the
//! consumer's, the others the producer's; numbers count on and wrap at 2^32.

use std::{
    marker::PhantomData,
    mem,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::mapping::Mapping;
use crate::SocketError;

/// What both ends know of a ring of `T`.
#[derive(Debug)]
struct Ring<T> {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
    entries: u32,
    of: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps a ring of so many entries (a power of two), which the socket has been told before.
    ///
    /// # Safety
    /// The kernel's entries at this place are `T`, and nobody else maps them to write.
    unsafe fn new(
        socket: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: libc::xdp_ring_offset,
        entries: u32,
    ) -> Result<Self, SocketError> {
        assert!(entries.is_power_of_two(), "a ring of {entries} entries");
        let bytes = offsets.desc as usize + entries as usize * mem::size_of::<T>();
        let mapping = Mapping::ring(socket, bytes, page_offset)?;
        for offset in [offsets.producer, offsets.consumer, offsets.flags] {
            assert!(offset as usize + 4 <= bytes && offset.is_multiple_of(4), "a number within the ring");
        }
        assert!((offsets.desc as usize).is_multiple_of(mem::align_of::<T>()), "entries are aligned");
        Ok(Self { mapping, offsets, entries, of: PhantomData })
    }

    fn number(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `new` has checked that four aligned bytes of the mapping are there; both sides access them as a whole.
        unsafe { self.mapping.start().add(offset as usize).cast::<AtomicU32>().as_ref() }
    }

    fn producer(&self) -> &AtomicU32 {
        self.number(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.number(self.offsets.consumer)
    }

    fn entry(&self, number: u32) -> NonNull<T> {
        let at = (number & (self.entries - 1)) as usize;
        // SAFETY: the mapping is as long as `entries` of them from `desc` on, and `at` is below.
        unsafe { self.mapping.start().add(self.offsets.desc as usize).cast::<T>().add(at) }
    }

    fn needs_wakeup(&self) -> bool {
        self.number(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that the kernel takes from.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write. The kernel knows those before only after `submit`.
    next: u32,
    /// The entries before were taken, when somebody last looked.
    taken: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// As for a ring: the kernel's entries there are `T`, and nobody else maps them.
    pub(super) unsafe fn new(
        socket: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: libc::xdp_ring_offset,
        entries: u32,
    ) -> Result<Self, SocketError> {
        // SAFETY: the caller's promise.
        let ring = unsafe { Ring::new(socket, page_offset, offsets, entries) }?;
        Ok(Self { ring, next: 0, taken: 0 })
    }

    /// Entries that the kernel has not taken yet.
    pub(super) fn pending(&mut self) -> u32 {
        self.taken = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.taken)
    }

    /// Writes an entry that the kernel does not see yet.
    ///
    /// # Panics
    /// If the ring is full: there are no more entries than frames that can be in it.
    pub(super) fn push(&mut self, entry: T) {
        let entries = self.ring.entries;
        let has_room = self.next.wrapping_sub(self.taken) < entries || self.pending() < entries;
        assert!(has_room, "there are not more frames than entries");
        // SAFETY: an entry that is ours, as the kernel has taken it; it is within the mapping and aligned.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Gives the kernel what was written.
    pub(super) fn submit(&self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Whether the kernel waits for a system call before it goes on.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// A ring that the kernel writes to.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read. The kernel keeps it until `release`.
    next: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// As for a ring: the kernel's entries there are `T`, and nobody else maps them.
    pub(super) unsafe fn new(
        socket: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: libc::xdp_ring_offset,
        entries: u32,
    ) -> Result<Self, SocketError> {
        // SAFETY: the caller's promise.
        let ring = unsafe { Ring::new(socket, page_offset, offsets, entries) }?;
        Ok(Self { ring, next: 0 })
    }

    /// How many can be read now.
    pub(super) fn available(&self) -> u32 {
        let available = self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.next);
        assert!(
            available <= self.ring.entries,
            "the kernel wrote {available} of {} entries",
            self.ring.entries
        );
        available
    }

    /// Reads one of those that are available.
    pub(super) fn pop(&mut self) -> T {
        // SAFETY: the kernel wrote it before it raised its number, which `available` has read; it is within the mapping
        // and aligned.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        entry
    }

    /// Gives the kernel back what was read.
    pub(super) fn release(&self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}
