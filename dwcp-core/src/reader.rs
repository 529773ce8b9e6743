//! Turns the bytes of a link into frames, without copying large payloads.
//!
//! Small frames are cut out of a scratch buffer. The payload of a large frame is read straight into a buffer of
//! its own; only what arrived together with its header is copied.

use std::{io, io::IoSliceMut, sync::Arc};

use bytes::Bytes;
use dwcp_proto::{
    Located, ProtocolError, Rest,
    frame::{FrameHeader, HEADER_LEN},
};

use crate::buffers::{BufferPool, PooledBuffer};

/// Size of the scratch buffer in bytes.
pub(crate) const SCRATCH_LEN: usize = 64 << 10;
/// Incomplete payloads above this size get a buffer of their own.
const LARGE_MIN: usize = SCRATCH_LEN / 2;
/// How much is read beyond the end of a large payload: enough for the next header and some small frames.
const READ_AHEAD: usize = 4 << 10;
/// Below this, what arrived is copied out of the scratch buffer instead of handing the buffer out.
const COPY_MAX: usize = 8 << 10;

/// A payload that is read into its own buffer.
#[derive(Debug)]
enum LargeBuffer {
    Pooled(PooledBuffer),
    Exact(Vec<u8>),
}

#[derive(Debug)]
struct Large {
    header: FrameHeader,
    buffer: LargeBuffer,
    have: usize,
}

/// Reads the frames of one link.
#[derive(Debug)]
pub(crate) struct FrameReader {
    payload_max: u32,
    frame_buffers: [Arc<BufferPool>; 3],
    scratch_buffers: Arc<BufferPool>,
    scratch: PooledBuffer,
    filled: usize,
    large: Option<Large>,
    skip: usize,
    bulk: bool,
    located: Vec<Located>,
}

/// What a read gave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl LargeBuffer {
    fn as_mut_slice(&mut self, len: usize) -> &mut [u8] {
        match self {
            Self::Pooled(buffer) => &mut buffer.as_mut_slice()[..len],
            Self::Exact(buffer) => buffer,
        }
    }

    fn freeze(self, len: usize) -> Bytes {
        match self {
            Self::Pooled(buffer) => buffer.freeze(len),
            Self::Exact(buffer) => buffer.into(),
        }
    }
}

impl FrameReader {
    pub(crate) fn new(
        payload_max: u32,
        frame_buffers: [Arc<BufferPool>; 3],
        scratch_buffers: Arc<BufferPool>,
    ) -> Self {
        let scratch = scratch_buffers.take();
        Self {
            payload_max,
            frame_buffers,
            scratch_buffers,
            scratch,
            filled: 0,
            large: None,
            skip: 0,
            bulk: false,
            located: Vec::new(),
        }
    }

    /// Reads once and appends the frames that are complete. Returns the bytes read; 0 is the end of the link.
    pub(crate) fn read(
        &mut self,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        frames: &mut Vec<(FrameHeader, Bytes)>,
    ) -> Result<usize, ReadFrameError> {
        let scratch = self.scratch.as_mut_slice();
        let count = match &mut self.large {
            Some(large) => {
                let len = large.header.wire_len as usize;
                let rest = &mut large.buffer.as_mut_slice(len)[large.have..];
                let rest_len = rest.len();
                let mut parts = [IoSliceMut::new(rest), IoSliceMut::new(&mut scratch[..READ_AHEAD])];
                let count = read(&mut parts)?;
                large.have += count.min(rest_len);
                self.filled = count.saturating_sub(rest_len);
                count
            }
            None => {
                let end = if self.bulk { self.filled + READ_AHEAD } else { SCRATCH_LEN };
                let count = read(&mut [IoSliceMut::new(&mut scratch[self.filled..end])])?;
                self.filled += count;
                count
            }
        };
        if count == 0 {
            if self.filled > 0 || self.large.is_some() || self.skip > 0 {
                return Err(ProtocolError::Truncated.into());
            }
            return Ok(0);
        }
        if let Some(large) = self.large.take_if(|large| large.have == large.header.wire_len as usize) {
            let payload = large.buffer.freeze(large.have);
            large.header.check_payload(&payload)?;
            frames.push((large.header, payload));
        }
        if self.large.is_none() {
            self.cut(frames)?;
        }
        Ok(count)
    }

    /// Reads once and throws away what came: after a protocol error. Returns the bytes read; 0 is the end of the link.
    pub(crate) fn discard(
        &mut self,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<usize, ReadFrameError> {
        Ok(read(&mut [IoSliceMut::new(self.scratch.as_mut_slice())])?)
    }

    /// Cuts the frames out of the scratch buffer.
    fn cut(&mut self, frames: &mut Vec<(FrameHeader, Bytes)>) -> Result<(), ProtocolError> {
        let mut start = self.skip.min(self.filled);
        self.skip -= start;
        let filled = &self.scratch.as_ref()[start..self.filled];
        self.located.clear();
        let parsed = dwcp_proto::parse(filled, self.payload_max, &mut self.located)?;
        for frame in &self.located {
            frame.header.check_payload(&filled[frame.payload.clone()])?;
        }
        start += parsed.consumed;
        let base = start - parsed.consumed;
        let rest = start..self.filled;
        match parsed.rest {
            Rest::Payload(header) if header.wire_len as usize > LARGE_MIN => {
                self.large = Some(self.start_large(header, rest.start + HEADER_LEN));
                self.bulk = true;
                self.filled = rest.start; // everything beyond now lies in the large buffer
            }
            Rest::Payload(_) | Rest::Header => {}
            Rest::Skip(len) => self.skip = len,
        }
        let mut at_front = start == 0;
        if !self.located.is_empty() {
            self.bulk &= self.large.is_some();
            at_front = self.hand_out(base, parsed.consumed, frames);
        }
        // Move what is incomplete to the front (at most a small frame).
        if !at_front {
            self.scratch.as_mut_slice().copy_within(start..self.filled, 0);
            self.filled -= start;
        }
        Ok(())
    }

    fn start_large(&mut self, header: FrameHeader, payload_start: usize) -> Large {
        let len = header.wire_len as usize;
        // A pooled buffer only where the payload nearly fills it: memory held stays close to what credit paid for.
        let nearly_filled = |pool: &&Arc<BufferPool>| {
            let pooled_len = pool.buffer_len();
            len <= pooled_len && len > pooled_len - pooled_len / 8
        };
        let mut buffer = match self.frame_buffers.iter().find(nearly_filled) {
            Some(pool) => LargeBuffer::Pooled(pool.take()),
            None => LargeBuffer::Exact(vec![0; len]),
        };
        let here = &self.scratch.as_ref()[payload_start..self.filled];
        buffer.as_mut_slice(len)[..here.len()].copy_from_slice(here);
        Large { header, buffer, have: here.len() }
    }

    /// Makes the located frames' payloads slices of one shared buffer. Returns whether what follows them is at the front
    /// of the scratch buffer now.
    fn hand_out(&mut self, base: usize, consumed: usize, frames: &mut Vec<(FrameHeader, Bytes)>) -> bool {
        let mut at_front = false;
        let payload_bytes: usize = self.located.iter().map(|frame| frame.payload.len()).sum();
        let shared = if payload_bytes == 0 {
            Bytes::new()
        } else if consumed <= COPY_MAX {
            Bytes::copy_from_slice(&self.scratch.as_ref()[base..base + consumed])
        } else {
            let mut next = self.scratch_buffers.take();
            let rest = &self.scratch.as_ref()[base + consumed..self.filled];
            next.as_mut_slice()[..rest.len()].copy_from_slice(rest);
            self.filled = rest.len();
            at_front = true;
            let full = std::mem::replace(&mut self.scratch, next);
            full.freeze(base + consumed).slice(base..)
        };
        frames.extend(self.located.drain(..).map(|frame| {
            let payload = if frame.payload.is_empty() { Bytes::new() } else { shared.slice(frame.payload) };
            (frame.header, payload)
        }));
        at_front
    }
}
