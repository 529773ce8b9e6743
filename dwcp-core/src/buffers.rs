//! Reused receive buffers, with a cap on how many are kept.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one size. Buffers that are handed out as [`Bytes`] come back when the last reference is dropped.
#[derive(Debug)]
pub(crate) struct BufferPool {
    buffer_len: usize,
    kept_max: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

/// A buffer of a pool.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    data: Box<[u8]>,
    len: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    pub(crate) fn new(buffer_len: usize, kept_max: usize) -> Arc<Self> {
        Arc::new(Self { buffer_len, kept_max, free: Mutex::default() })
    }

    pub(crate) fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// A buffer whose content is arbitrary.
    pub(crate) fn take(self: &Arc<Self>) -> PooledBuffer {
        let data = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        PooledBuffer {
            data: data.unwrap_or_else(|| vec![0; self.buffer_len].into_boxed_slice()),
            len: self.buffer_len,
            pool: Arc::clone(self),
        }
    }
}

impl PooledBuffer {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }

    /// The first `len` bytes, without copying.
    pub(crate) fn freeze(mut self, len: usize) -> Bytes {
        self.len = len;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.pool.kept_max {
            free.push(data);
        }
    }
}
