//! Piece-sized buffers, handed to the transport without a copy and reused when it lets go of them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::limits::BUFFERS_KEPT_MAX;

/// Below this a buffer of exact size is cheaper than pinning a whole piece buffer.
const POOLED_BYTES_MIN: usize = 1 << 20;

#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer of the length asked for; its content is arbitrary.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    pool: Option<Pool>,
}

impl Pool {
    /// `capacity`: what to allocate if nothing can be reused; a pool is used with one capacity mostly.
    pub(super) fn take(&self, len: usize, capacity: usize) -> Buffer {
        if len < POOLED_BYTES_MIN {
            return Buffer { bytes: vec![0; len], len, pool: None };
        }
        let kept = self.0.lock().unwrap().pop().filter(|bytes| bytes.len() >= len);
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; capacity.max(len)]), len, pool: Some(self.clone()) }
    }
}

impl Buffer {
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(pool) = &self.pool else { return };
        let mut kept = pool.0.lock().unwrap();
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_comes_back_once_its_last_slice_is_gone() {
        let pool = Pool::default();
        let bytes = pool.take(2 << 20, 4 << 20).freeze();
        let address = bytes.as_ptr();
        let slice = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(pool.0.lock().unwrap().len(), 0);
        drop(slice);
        assert_eq!(pool.take(3 << 20, 4 << 20).bytes_mut().as_ptr(), address);
    }
}
