//! The memory that an AF_XDP socket and the kernel exchange frames in: equal chunks, each of which is one side's alone.
//!
//! Who owns a chunk is told by the rings: it is the kernel's from `submit` until it comes out of a ring again.

use super::mapping::Mapping;
use crate::SocketError;

/// Chunks of one length in mapped memory.
#[derive(Debug)]
pub(super) struct Umem {
    mapping: Mapping,
    chunk_bytes: u32,
}

impl Umem {
    /// So many chunks, of a length that is a power of two.
    pub(super) fn new(chunks: u32, chunk_bytes: u32) -> Result<Self, SocketError> {
        assert!(chunk_bytes.is_power_of_two(), "a chunk of {chunk_bytes} bytes");
        let mapping = Mapping::anonymous(chunks as usize * chunk_bytes as usize)?;
        Ok(Self { mapping, chunk_bytes })
    }

    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.mapping.start().as_ptr() as u64,
            len: self.mapping.bytes() as u64,
            chunk_size: self.chunk_bytes,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// The address of a chunk, as rings name it.
    pub(super) fn chunk(&self, number: u32) -> u64 {
        u64::from(number) * u64::from(self.chunk_bytes)
    }

    /// The chunk that a frame lies in.
    pub(super) fn chunk_of(&self, address: u64) -> u64 {
        address & !u64::from(self.chunk_bytes - 1)
    }

    pub(super) fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// The bytes at an address of a ring.
    ///
    /// # Safety
    /// The chunk is this side's, and nobody else has bytes of it while these are used.
    #[allow(clippy::mut_from_ref, reason = "chunks have owners of their own")]
    pub(super) unsafe fn bytes(&self, address: u64, length: u32) -> &mut [u8] {
        let (start, length) = (address as usize, length as usize);
        let inside = start.checked_add(length).is_some_and(|end| end <= self.mapping.bytes());
        assert!(inside, "a frame of {length} bytes at {start} is outside of the memory");
        // SAFETY: within the mapping, which was zeroed once and is plain bytes; the caller promises that nobody else
        // reads or writes them.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start().add(start).as_ptr(), length) }
    }
}
