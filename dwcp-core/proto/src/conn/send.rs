//! The sending half of a stream: what is queued, and how far credit goes.

use std::collections::{BTreeMap, VecDeque};

use super::OutFrame;
use crate::{
    frame::{Codec, Flags, FrameHeader, FrameType, HEADER_LEN},
    limits::{CODEC_RAW_LEN_MIN, STREAM_UNSENT_BYTES_MAX},
};

/// A frame of stream data as the driver hands it in.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    /// Where its first raw byte lies in the stream; from [`Reservation`].
    pub offset: u64,
    /// Raw bytes it stands for.
    pub raw_len: u32,
    /// How `payload` is encoded.
    pub codec: Codec,
    /// The wire bytes.
    pub payload: bytes::Bytes,
    /// CRC-32 of `payload`, where the connection has payload checksums.
    pub payload_crc: Option<u32>,
}

/// Room for one frame, paid for with credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Stream offset in raw bytes.
    pub offset: u64,
    /// Raw bytes, 1..=the frame bound.
    pub len: u32,
}

/// Why nothing can be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No credit or buffer space now; an event says when to try again.
    Blocked,
    /// The peer asked to stop, with this code.
    Stopped(u32),
    /// Finished or reset before.
    Finished,
    /// The connection ended, or the stream does not exist.
    Closed,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(super) enum SendState {
    #[default]
    Open,
    Finished,
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct SendHalf {
    pub(super) state: SendState,
    /// Code with which the peer asked to stop.
    pub(super) stopped: Option<u32>,
    /// Next raw offset to hand out.
    pub(super) next_offset: u64,
    /// Raw offset that credit allows.
    pub(super) limit: u64,
    /// Frames to send, in order.
    pub(super) queue: VecDeque<OutFrame>,
    /// End of the last frame that was queued.
    queued_to: u64,
    /// Frames that were submitted before one in front of them, by offset.
    early: BTreeMap<u64, OutFrame>,
    pub(super) queued_bytes: usize,
    /// Reservations not yet submitted.
    pub(super) reserved: usize,
    /// Frames submitted and not acknowledged.
    pub(super) outstanding: usize,
    /// The stream is in the round-robin list.
    pub(super) scheduled: bool,
    /// A writer wants to know when there is room.
    pub(super) blocked: bool,
}

impl SendHalf {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn check_writable(&self) -> Result<(), SendError> {
        match (self.stopped, self.state) {
            (Some(code), _) => Err(SendError::Stopped(code)),
            (None, SendState::Open) => Ok(()),
            (None, _) => Err(SendError::Finished),
        }
    }

    pub(super) fn room(&self) -> u64 {
        if self.queued_bytes >= STREAM_UNSENT_BYTES_MAX {
            return 0;
        }
        self.limit.saturating_sub(self.next_offset)
    }

    pub(super) fn push(&mut self, frame: OutFrame) {
        self.queued_bytes += frame.unsent_cost();
        self.outstanding += 1;
        // In order: whatever is sent ahead of a missing frame the receiver has to hold, without a bound on frames.
        if frame.header.offset != self.queued_to {
            self.early.insert(frame.header.offset, frame);
            return;
        }
        self.append(frame);
        while let Some(next) = self.early.remove(&self.queued_to) {
            self.append(next);
        }
    }

    fn append(&mut self, frame: OutFrame) {
        self.queued_to += u64::from(frame.header.raw_len);
        self.queue.push_back(frame);
    }

    /// Frames submitted and not sent.
    pub(super) fn unsent_frames(&self) -> usize {
        self.queue.len() + self.early.len()
    }

    pub(super) fn pop(&mut self) -> Option<OutFrame> {
        let frame = self.queue.pop_front()?;
        self.queued_bytes -= frame.unsent_cost();
        Some(frame)
    }

    /// Forgets what was not sent; returns its cost.
    pub(super) fn clear(&mut self) -> usize {
        self.outstanding -= self.unsent_frames();
        self.queue.clear();
        self.early.clear();
        std::mem::take(&mut self.queued_bytes)
    }

    /// Nothing is left to send or to be acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.state != SendState::Open && self.outstanding == 0 && self.reserved == 0
    }
}

impl OutFrame {
    /// What it counts for in the bounds of unsent data; the header as well, for frames of a few bytes.
    pub(super) fn unsent_cost(&self) -> usize {
        self.payload.len() + HEADER_LEN
    }
}

impl StreamFrame {
    pub(super) fn into_out(self, stream: u32) -> OutFrame {
        let shorter = self.raw_len >= CODEC_RAW_LEN_MIN && self.payload.len() < self.raw_len as usize;
        assert!(self.codec == Codec::Identity || shorter, "a codec makes a payload shorter (clause 3.7)");
        let header = FrameHeader {
            flags: Flags::default().with_codec(self.codec).with_payload_crc(self.payload_crc.is_some()),
            stream,
            wire_len: self.payload.len() as u32,
            raw_len: self.raw_len,
            offset: self.offset,
            payload_crc: self.payload_crc.unwrap_or(0),
            ..FrameHeader::new(FrameType::Data)
        };
        OutFrame::new(header, self.payload)
    }
}
