//! The receiving half of a stream: reassembly in order, whatever order the links deliver in.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use crate::{
    error::ProtocolError,
    frame::{Codec, FrameHeader, FrameType},
    limits::{JOIN_BELOW, JOINED_MAX, WINDOW_GROWTH},
};

/// Received stream data, still encoded with its codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Raw offset in the stream.
    pub offset: u64,
    /// Raw bytes it stands for.
    pub raw_len: u32,
    /// How `payload` is encoded.
    pub codec: Codec,
    /// The wire bytes.
    pub payload: Bytes,
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next data in order.
    Chunk(Chunk),
    /// Nothing yet; an event says when to try again.
    Blocked,
    /// The end of the stream.
    End,
    /// The peer abandoned the stream.
    Reset(u32),
    /// The connection ended, or the stream does not exist.
    Closed,
}

/// Ordered data that waits for the reader.
#[derive(Debug)]
enum Waiting {
    Frame(Chunk),
    /// Small frames copied together, so that each does not pin the buffer it came in.
    Joined(u64, BytesMut),
}

#[derive(Debug)]
pub(super) struct RecvHalf {
    /// Everything below is here or was read.
    next: u64,
    /// End of the furthest byte seen.
    pub(super) highest: u64,
    /// Bytes the reader took, or that were discarded.
    pub(super) consumed: u64,
    /// Offset up to which the peer may send.
    pub(super) limit: u64,
    window: u64,
    window_updated: Option<Duration>,
    ordered: VecDeque<Waiting>,
    out_of_order: BTreeMap<u64, Chunk>,
    fin: Option<u64>,
    reset: Option<u32>,
    pub(super) stopped: bool,
    /// A credit frame is due.
    pub(super) credit_due: bool,
    /// The reader has seen the end.
    pub(super) ended: bool,
}

/// What a data frame did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// By how much the furthest byte moved.
    pub(super) advanced: u64,
    /// Bytes that nobody will read: credit for them is due at once.
    pub(super) discarded: u64,
    /// The reader has something new.
    pub(super) readable: bool,
    /// Change in the number of frames that wait out of order.
    pub(super) out_of_order: isize,
}

impl RecvHalf {
    pub(super) fn new(window: u64) -> Self {
        Self {
            next: 0,
            highest: 0,
            consumed: 0,
            limit: window,
            window,
            window_updated: None,
            ordered: VecDeque::new(),
            out_of_order: BTreeMap::new(),
            fin: None,
            reset: None,
            stopped: false,
            credit_due: false,
            ended: false,
        }
    }

    /// Takes a data frame (clause 5.3: a frame is either new, or the exact repetition of one that was sent).
    pub(super) fn receive(
        &mut self,
        header: &FrameHeader,
        codec: Codec,
        payload: Bytes,
    ) -> Result<Received, ProtocolError> {
        let stream = header.stream;
        let (start, len) = (header.offset, u64::from(header.raw_len));
        let end = start + len;
        if self.fin.is_some_and(|fin| end > fin || (header.flags.fin() && end != fin)) {
            return Err(ProtocolError::FinalSize { stream });
        }
        if header.flags.fin() && end < self.highest {
            return Err(ProtocolError::FinalSize { stream });
        }
        if end > self.limit {
            return Err(ProtocolError::CreditExceeded { what: "stream", used: end, limit: self.limit });
        }
        let mut result = Received { advanced: end.saturating_sub(self.highest), ..Received::default() };
        self.highest = self.highest.max(end);
        if header.flags.fin() {
            result.readable = self.fin.is_none() && self.next == end;
            self.fin = Some(end);
        }
        if self.stopped || self.reset.is_some() {
            result.discarded = result.advanced;
            self.consumed = self.highest;
            self.next = self.highest;
            return Ok(result);
        }
        if len == 0 {
            return Ok(result);
        }
        let chunk = Chunk { offset: start, raw_len: header.raw_len, codec, payload };
        if start == self.next {
            let before = self.out_of_order.len();
            self.append(chunk);
            self.take_followers()?;
            result.out_of_order = self.out_of_order.len() as isize - before as isize;
            result.readable = true;
            return Ok(result);
        }
        if end <= self.next {
            return Ok(result); // a repetition of what is here
        }
        let overlap = ProtocolError::Invalid { ty: FrameType::Data, what: "overlaps other data" };
        if start < self.next {
            return Err(overlap);
        }
        let previous = self.out_of_order.range(..=start).next_back().map(|(_, chunk)| chunk);
        match previous {
            Some(c) if c.offset == start && c.raw_len == header.raw_len => return Ok(result),
            Some(c) if c.offset + u64::from(c.raw_len) > start => return Err(overlap),
            _ => {}
        }
        if self.out_of_order.range(start..).next().is_some_and(|(&at, _)| at < end) {
            return Err(overlap);
        }
        self.out_of_order.insert(start, detach_if_small(chunk));
        result.out_of_order = 1;
        Ok(result)
    }

    fn take_followers(&mut self) -> Result<(), ProtocolError> {
        while let Some(entry) = self.out_of_order.first_entry() {
            if *entry.key() > self.next {
                break;
            }
            if *entry.key() < self.next {
                return Err(ProtocolError::Invalid { ty: FrameType::Data, what: "overlaps other data" });
            }
            let chunk = entry.remove();
            self.append(chunk);
        }
        Ok(())
    }

    fn append(&mut self, chunk: Chunk) {
        self.next = chunk.offset + u64::from(chunk.raw_len);
        if self.ordered.is_empty() {
            self.ordered.push_back(Waiting::Frame(chunk));
            return;
        }
        if chunk.codec != Codec::Identity || chunk.payload.len() >= JOIN_BELOW {
            self.ordered.push_back(Waiting::Frame(detach_if_small(chunk)));
            return;
        }
        match self.ordered.back_mut() {
            Some(Waiting::Joined(_, joined)) if joined.len() + chunk.payload.len() <= JOINED_MAX => {
                joined.extend_from_slice(&chunk.payload);
            }
            _ => {
                let joined = BytesMut::from(chunk.payload.as_ref());
                self.ordered.push_back(Waiting::Joined(chunk.offset, joined));
            }
        }
    }

    pub(super) fn read(&mut self) -> Read {
        if let Some(code) = self.reset {
            self.ended = true;
            return Read::Reset(code);
        }
        if let Some(waiting) = self.ordered.pop_front() {
            let chunk = match waiting {
                Waiting::Frame(chunk) => chunk,
                Waiting::Joined(offset, joined) => Chunk {
                    offset,
                    raw_len: joined.len() as u32,
                    codec: Codec::Identity,
                    payload: joined.freeze(),
                },
            };
            self.consumed += u64::from(chunk.raw_len);
            return Read::Chunk(chunk);
        }
        if self.fin == Some(self.next) {
            self.ended = true;
            return Read::End;
        }
        Read::Blocked
    }

    /// Raises the limit once half of the window is used, and widens the window the first time, and while the reader
    /// keeps up so well that half a window does not last four round trips. Returns whether a CREDIT has become due.
    pub(super) fn update_credit(&mut self, now: Duration, rtt: Duration, window_max: u64) -> bool {
        if self.fin.is_some() || self.limit - self.consumed > self.window / 2 {
            return false;
        }
        if self.window_updated.is_none_or(|updated| now.saturating_sub(updated) < rtt.saturating_mul(4)) {
            self.widen(window_max);
        }
        self.window_updated = Some(now);
        self.raise_limit()
    }

    /// Widens the window if the peer has nearly used it up because something is missing, and not because the reader
    /// is slow: one lost frame then stops one link, not all. Returns whether a CREDIT has become due.
    pub(super) fn bridge_gap(&mut self, window_max: u64) -> bool {
        let quarter = self.window / 4;
        let used_up = self.limit - self.highest <= quarter;
        let reader_keeps_up = self.next - self.consumed <= quarter;
        if !used_up || !reader_keeps_up || self.stopped || self.fin.is_some() || self.window >= window_max {
            return false;
        }
        self.widen(window_max);
        self.raise_limit()
    }

    fn widen(&mut self, window_max: u64) {
        self.window = self.window.saturating_mul(WINDOW_GROWTH).min(window_max.max(self.window));
    }

    fn raise_limit(&mut self) -> bool {
        self.limit = self.limit.max(self.consumed.saturating_add(self.window));
        !std::mem::replace(&mut self.credit_due, true)
    }

    /// The peer abandons the stream at `final_size`. Returns (bytes the furthest byte moved, bytes never to be read).
    pub(super) fn reset(
        &mut self,
        stream: u32,
        final_size: u64,
        code: u32,
    ) -> Result<(u64, u64), ProtocolError> {
        if final_size < self.highest || self.fin.is_some_and(|fin| fin != final_size) {
            return Err(ProtocolError::FinalSize { stream });
        }
        if final_size > self.limit {
            return Err(ProtocolError::CreditExceeded {
                what: "stream",
                used: final_size,
                limit: self.limit,
            });
        }
        let advanced = final_size - self.highest;
        self.highest = final_size;
        self.fin = Some(final_size);
        if self.ended {
            return Ok((advanced, 0));
        }
        self.reset = Some(code);
        Ok((advanced, self.discard()))
    }

    /// The code with which the peer abandoned the stream.
    pub(super) fn reset_code(&self) -> Option<u32> {
        self.reset
    }

    /// Throws away what is here; returns the bytes for which credit is due.
    pub(super) fn discard(&mut self) -> u64 {
        self.ordered.clear();
        self.out_of_order.clear();
        self.next = self.highest;
        let discarded = self.highest - self.consumed;
        self.consumed = self.highest;
        discarded
    }

    pub(super) fn out_of_order_len(&self) -> usize {
        self.out_of_order.len()
    }

    pub(super) fn assert_invariants(&self, stream: u32) {
        assert!(
            self.consumed <= self.next && self.next <= self.highest,
            "stream {stream}: positions in order"
        );
        assert!(self.highest <= self.limit, "stream {stream}: credit kept");
        assert!(self.fin.is_none_or(|fin| self.highest <= fin), "stream {stream}: nothing beyond the end");
        let mut at = self.consumed;
        for waiting in &self.ordered {
            let (offset, len) = match waiting {
                Waiting::Frame(chunk) => (chunk.offset, u64::from(chunk.raw_len)),
                Waiting::Joined(offset, joined) => (*offset, joined.len() as u64),
            };
            assert_eq!(offset, at, "stream {stream}: ordered data has no gap");
            at += len;
        }
        assert_eq!(at, self.next, "stream {stream}: ordered data ends where the next is expected");
        for (&offset, chunk) in &self.out_of_order {
            assert_eq!(offset, chunk.offset, "stream {stream}: a chunk lies where it belongs");
            assert!(offset > at || offset == at && at > self.next, "stream {stream}: chunks are disjoint");
            at = offset + u64::from(chunk.raw_len);
        }
        assert!(at <= self.highest, "stream {stream}: chunks within what was counted");
    }

    /// Nothing can come any more that matters.
    pub(super) fn is_done(&self) -> bool {
        self.ended || (self.stopped && (self.fin == Some(self.highest) || self.reset.is_some()))
    }
}

fn detach_if_small(mut chunk: Chunk) -> Chunk {
    if chunk.payload.len() < JOIN_BELOW {
        chunk.payload = Bytes::copy_from_slice(&chunk.payload);
    }
    chunk
}
