//! Messages: queues by priority on the way out, exactly-once on the way in.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::sequence::SequenceWindow;
use crate::{
    error::ProtocolError,
    frame::{FrameHeader, FrameType, HEADER_LEN},
    limits::{
        BATCHED_MESSAGE_MAX, JOIN_BELOW, MESSAGE_BATCH_BYTES, MESSAGE_LEN_MAX, MESSAGE_QUEUE_BYTES_MAX,
        MESSAGES_SHARING_BUFFERS_MAX, REQUESTS_IN_FLIGHT_MAX,
    },
};

/// Bytes of the length before each message of a batch.
const LENGTH_LEN: usize = 4;

/// Which messages go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Before everything.
    Control = 0,
    /// Before bulk.
    Normal = 1,
    /// Among the streams.
    Bulk = 2,
}

impl Priority {
    /// Every priority, first the most urgent.
    pub const ALL: [Self; 3] = [Self::Control, Self::Normal, Self::Bulk];

    pub(super) fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

/// Names a request on the side that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Priority of the request.
    pub priority: Priority,
    /// Its number among the messages of that priority.
    pub sequence: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ResponseStatus {
    /// Answered.
    Ok = 0,
    /// Answered with an error.
    Error = 1,
    /// Dropped without an answer.
    Dropped = 2,
}

/// A message from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// As the sender set it.
    pub priority: Priority,
    /// Present if the sender waits for an answer.
    pub request: Option<RequestId>,
    /// How long the sender waits, milliseconds; 0: for ever.
    pub deadline_ms: u32,
    /// The content.
    pub payload: Bytes,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSendError {
    /// The queue is full or too many requests wait; an event says when to try again.
    Blocked,
    /// Larger than [`Connection::message_len_max`](super::Connection::message_len_max).
    TooLarge,
    /// The connection ended.
    Closed,
}

#[derive(Debug)]
pub(super) struct OutMessage {
    pub(super) ty: FrameType,
    /// Deadline of a request, status of a response, count of batched messages (0: not a batch).
    pub(super) stream: u32,
    pub(super) sequence: u64,
    cost: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    One(Bytes),
    /// Small messages, each behind its length (clause 7.8).
    Batch(BytesMut),
}

impl OutMessage {
    pub(super) fn into_payload(self) -> Bytes {
        match self.body {
            Body::One(payload) => payload,
            Body::Batch(messages) => messages.freeze(),
        }
    }

    /// Joins another small one-way message to this frame, if that can be.
    fn join(&mut self, payload: &[u8], batch_len_max: usize) -> bool {
        if self.ty != FrameType::Message || payload.len() > BATCHED_MESSAGE_MAX {
            return false;
        }
        // No batch costs more than the largest message, so that the smallest window takes every frame.
        if self.cost + cost(payload.len()) > cost(MESSAGE_LEN_MAX) {
            return false;
        }
        let added = LENGTH_LEN + payload.len();
        let batch = match &mut self.body {
            Body::Batch(batch) if batch.len() + added <= batch_len_max => batch,
            Body::One(first)
                if first.len() <= BATCHED_MESSAGE_MAX
                    && first.len() + LENGTH_LEN + added <= batch_len_max =>
            {
                let mut batch = BytesMut::with_capacity(2 * (LENGTH_LEN + first.len() + added)); // and doubles
                push_batched(&mut batch, first);
                self.stream = 1;
                self.body = Body::Batch(batch);
                let Body::Batch(batch) = &mut self.body else { return false };
                batch
            }
            _ => return false,
        };
        push_batched(batch, payload);
        self.stream += 1;
        self.cost += cost(payload.len());
        true
    }
}

fn push_batched(batch: &mut BytesMut, payload: &[u8]) {
    batch.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    batch.extend_from_slice(payload);
}

/// Outgoing messages of one priority.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    queue: VecDeque<OutMessage>,
    /// Answers need no credit: each was paid for by its request.
    responses: VecDeque<OutMessage>,
    queued_bytes: usize,
    next_sequence: u64,
    credit_used: u64,
    pub(super) credit_limit: u64,
    batch_len_max: usize,
    pub(super) blocked: bool,
}

fn cost(payload_len: usize) -> u64 {
    (payload_len + HEADER_LEN) as u64
}

impl OutQueue {
    pub(super) fn new(credit_limit: u64, frame_bytes_max: u32) -> Self {
        let batch_len_max = MESSAGE_BATCH_BYTES.min(frame_bytes_max as usize);
        Self { credit_limit, batch_len_max, ..Self::default() }
    }

    /// Queues a message and returns its sequence number. Small one-way messages that have to wait share a frame.
    pub(super) fn push(
        &mut self,
        ty: FrameType,
        deadline_ms: u32,
        payload: Bytes,
    ) -> Result<u64, MessageSendError> {
        if self.is_full() {
            self.blocked = true;
            return Err(MessageSendError::Blocked);
        }
        let cost = cost(payload.len());
        self.queued_bytes += cost as usize;
        if ty == FrameType::Message
            && let Some(last) = self.queue.back_mut()
            && last.join(&payload, self.batch_len_max)
        {
            return Ok(last.sequence);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.queue.push_back(OutMessage {
            ty,
            stream: deadline_ms,
            sequence,
            cost,
            body: Body::One(payload),
        });
        Ok(sequence)
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes >= MESSAGE_QUEUE_BYTES_MAX
    }

    pub(super) fn push_response(&mut self, sequence: u64, status: ResponseStatus, payload: Bytes) {
        let ty = FrameType::Response;
        let body = Body::One(payload);
        self.responses.push_back(OutMessage { ty, stream: status as u32, sequence, cost: 0, body });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.responses.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.responses.clear();
        self.queued_bytes = 0;
    }

    /// The next message that credit allows.
    pub(super) fn pop(&mut self) -> Option<OutMessage> {
        if let Some(response) = self.responses.pop_front() {
            return Some(response);
        }
        let cost = self.queue.front()?.cost;
        if self.credit_used + cost > self.credit_limit {
            return None;
        }
        self.credit_used += cost;
        self.queued_bytes -= cost as usize;
        self.queue.pop_front()
    }

    pub(super) fn can_pop(&self) -> bool {
        !self.responses.is_empty()
            || self.queue.front().is_some_and(|m| self.credit_used + m.cost <= self.credit_limit)
    }

    pub(super) fn assert_invariants(&self) {
        let queued: u64 = self.queue.iter().map(|m| m.cost).sum();
        assert_eq!(self.queued_bytes as u64, queued, "queued message bytes");
        assert!(self.credit_used <= self.credit_limit, "message credit kept");
        assert!(self.responses.len() <= REQUESTS_IN_FLIGHT_MAX, "answers bounded by requests");
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued_bytes < MESSAGE_QUEUE_BYTES_MAX / 2
    }
}

/// Incoming messages of one priority.
#[derive(Debug)]
pub(super) struct InQueue {
    queue: VecDeque<Entry>,
    seen: SequenceWindow,
    used: u64,
    consumed: u64,
    pub(super) credit_limit: u64,
    window: u64,
    pub(super) credit_due: bool,
}

#[derive(Debug)]
enum Entry {
    One(Incoming),
    /// What is left of a batch; its structure was checked on arrival.
    Batch(Priority, Bytes),
}

/// Cost of a batch of `count` messages, or `None` if its lengths do not add up.
fn batch_cost(mut batch: &[u8], count: u32) -> Option<u64> {
    let payload_len = batch.len().checked_sub(count as usize * LENGTH_LEN)?;
    for _ in 0..count {
        let (len, rest) = batch.split_first_chunk()?;
        batch = rest.get(u32::from_le_bytes(*len) as usize..)?;
    }
    batch.is_empty().then(|| payload_len as u64 + u64::from(count) * HEADER_LEN as u64)
}

impl InQueue {
    pub(super) fn new(window: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            seen: SequenceWindow::default(),
            used: 0,
            consumed: 0,
            credit_limit: window,
            window,
            credit_due: false,
        }
    }

    /// Takes a message, a batch of messages, or a request. `Ok(false)`: a repetition.
    pub(super) fn receive(
        &mut self,
        header: &FrameHeader,
        priority: Priority,
        payload: Bytes,
    ) -> Result<bool, ProtocolError> {
        let batch = header.ty == FrameType::Message && header.stream > 0;
        let cost = if batch {
            let what = "its lengths do not add up";
            batch_cost(&payload, header.stream).ok_or(ProtocolError::Invalid { ty: header.ty, what })?
        } else {
            cost(payload.len())
        };
        if !self.seen.insert(header.offset)? {
            return Ok(false);
        }
        let (used, limit) = (self.used + cost, self.credit_limit);
        if used > limit {
            return Err(ProtocolError::CreditExceeded { what: "message", used, limit });
        }
        self.used = used;
        // A reader that is behind shall not keep the driver's receive buffers alive with small payloads.
        let detach = self.queue.len() >= MESSAGES_SHARING_BUFFERS_MAX && payload.len() < JOIN_BELOW;
        let payload = if detach { Bytes::copy_from_slice(&payload) } else { payload };
        self.queue.push_back(if batch {
            Entry::Batch(priority, payload)
        } else {
            let request =
                (header.ty == FrameType::Request).then_some(RequestId { priority, sequence: header.offset });
            Entry::One(Incoming { priority, request, deadline_ms: header.stream, payload })
        });
        Ok(true)
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Incoming> {
        let message = match self.queue.front_mut()? {
            Entry::Batch(priority, _) => {
                let (priority, mut first) = (*priority, None);
                self.pop_batched(1, |_, payload| first = Some(payload));
                return first.map(|payload| Incoming { priority, request: None, deadline_ms: 0, payload });
            }
            Entry::One(message) => Incoming { payload: std::mem::take(&mut message.payload), ..*message },
        };
        self.queue.pop_front();
        self.consumed += cost(message.payload.len());
        self.update_credit();
        Some(message)
    }

    /// Gives up to `max` messages to `take` if a batch is next, otherwise none. Returns how many.
    #[inline]
    pub(super) fn pop_batched(&mut self, max: usize, mut take: impl FnMut(Priority, Bytes)) -> usize {
        let Some(Entry::Batch(priority, rest)) = self.queue.front_mut() else { return 0 };
        let mut count = 0;
        while count < max && !rest.is_empty() {
            let len = rest.get_u32_le() as usize;
            self.consumed += cost(len);
            take(*priority, rest.split_to(len));
            count += 1;
        }
        if rest.is_empty() {
            self.queue.pop_front();
        }
        self.update_credit();
        count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Throws away the request that was just received.
    pub(super) fn drop_newest(&mut self) {
        if let Some(Entry::One(message)) = self.queue.pop_back() {
            self.consumed += cost(message.payload.len());
            self.update_credit();
        }
    }

    #[inline]
    fn update_credit(&mut self) {
        let limit = self.consumed.saturating_add(self.window);
        if limit - self.credit_limit >= self.window / 4 {
            self.credit_limit = limit;
            self.credit_due = true;
        }
    }

    pub(super) fn assert_invariants(&self) {
        let waiting: u64 = self
            .queue
            .iter()
            .map(|entry| match entry {
                Entry::One(message) => cost(message.payload.len()),
                Entry::Batch(_, rest) => {
                    let mut rest = rest.clone();
                    let mut sum = 0;
                    while !rest.is_empty() {
                        let len = rest.get_u32_le() as usize;
                        rest.advance(len);
                        sum += cost(len);
                    }
                    sum
                }
            })
            .sum();
        assert_eq!(self.used - self.consumed, waiting, "message credit in use");
        assert!(waiting <= self.window, "messages waiting within the window");
        assert!(self.credit_limit <= self.consumed.saturating_add(self.window), "message credit given");
    }

    pub(super) fn has_seen(&self, sequence: u64) -> bool {
        self.seen.contains(sequence)
    }
}
