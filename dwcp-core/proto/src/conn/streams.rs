//! Opening, writing, reading and forgetting streams; sending and receiving messages.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Connection, Event, Incoming, MessageSendError, OutFrame, Priority, Read, RequestId, Reservation,
    ResponseStatus, SendError, StreamFrame,
    messages::OutQueue,
    recv::RecvHalf,
    send::{SendHalf, SendState},
};
use crate::{
    frame::{Flags, FrameHeader, FrameType},
    limits::{CONNECTION_UNSENT_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX, STREAM_ID_MAX},
};

/// Why no stream can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer's bound is reached; [`Event::StreamsAvailable`] says when to try again.
    Blocked,
    /// The connection drains.
    Draining,
    /// The connection ended, or its stream numbers are used up.
    Closed,
}

impl Connection {
    /// Opens a stream and returns its id.
    pub fn open_stream(&mut self) -> Result<u32, OpenError> {
        if self.closed.is_some() || self.next_stream >= STREAM_ID_MAX {
            return Err(OpenError::Closed);
        }
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        // The nth stream of this side has id 2n-1 or 2n.
        if self.next_stream.div_ceil(2) > self.streams_max {
            self.open_blocked = true;
            return Err(OpenError::Blocked);
        }
        let id = self.next_stream;
        self.next_stream += 2;
        self.insert_stream(id);
        Ok(id)
    }

    pub(super) fn insert_stream(&mut self, id: u32) {
        let limit = self.config.peer.stream_window;
        self.send.insert(id, SendHalf::new(limit));
        self.recv.insert(id, RecvHalf::new(self.config.local.stream_window));
    }

    pub(super) fn is_own(&self, id: u32) -> bool {
        id % 2 == self.next_stream % 2
    }

    /// The next stream that the peer opened.
    pub fn accept_stream(&mut self) -> Option<u32> {
        let id = self.incoming.pop_front()?;
        if let Some(code) = self.stopped_early.remove(&id) {
            self.events.push_back(Event::StreamStopped(id, code));
        }
        Some(id)
    }

    /// Takes room for at most `want` raw bytes (at least 1) in one frame.
    pub fn stream_reserve(&mut self, id: u32, want: usize) -> Result<Reservation, SendError> {
        if self.closed.is_some() {
            return Err(SendError::Closed);
        }
        let half = self.send.get_mut(&id).ok_or(SendError::Closed)?;
        half.check_writable()?;
        let connection = if self.unsent_bytes >= CONNECTION_UNSENT_BYTES_MAX {
            0
        } else {
            self.flow.send_limit - self.flow.sent
        };
        let room = half.room().min(connection).min(u64::from(self.frame_len));
        let len = room.min(want as u64) as u32;
        if len == 0 {
            if !std::mem::replace(&mut half.blocked, true) {
                self.blocked.push_back(id);
            }
            return Err(SendError::Blocked);
        }
        let offset = half.next_offset;
        half.next_offset += u64::from(len);
        half.reserved += 1;
        self.flow.sent += u64::from(len);
        Ok(Reservation { offset, len })
    }

    /// Queues the frame of a reservation. Frames of one stream may be submitted in any order and are sent in order.
    pub fn stream_submit(&mut self, now: Duration, id: u32, frame: StreamFrame) {
        self.last_activity = self.last_activity.max(now);
        let Some(half) = self.send.get_mut(&id) else { return };
        assert!(half.reserved > 0, "a frame is submitted once for each reservation");
        half.reserved -= 1;
        if half.state == SendState::Reset {
            self.forget_send_if_done(id);
            return self.advance_drain();
        }
        self.queue_data(id, frame.into_out(id));
    }

    fn queue_data(&mut self, id: u32, frame: OutFrame) {
        let Some(half) = self.send.get_mut(&id) else { return };
        self.unsent_bytes += frame.unsent_cost();
        half.push(frame);
        if !half.queue.is_empty() && !std::mem::replace(&mut half.scheduled, true) {
            self.scheduled.push_back(id);
        }
    }

    /// Says that nothing follows what was reserved so far.
    pub fn stream_finish(&mut self, id: u32) -> Result<(), SendError> {
        let half = self.send.get_mut(&id).ok_or(SendError::Closed)?;
        half.check_writable()?;
        half.state = SendState::Finished;
        let header = FrameHeader {
            flags: Flags::default().with_fin(true),
            stream: id,
            offset: half.next_offset,
            ..FrameHeader::new(FrameType::Data)
        };
        self.queue_data(id, OutFrame::new(header, Bytes::new()));
        Ok(())
    }

    /// Abandons a stream that is not finished and acknowledged yet.
    pub fn stream_reset(&mut self, id: u32, code: u32) {
        let Some(half) = self.send.get_mut(&id) else { return };
        if half.state == SendState::Reset {
            return;
        }
        half.state = SendState::Reset;
        self.unsent_bytes -= half.clear();
        let header =
            FrameHeader { stream: id, offset: half.next_offset, ..FrameHeader::new(FrameType::Reset) };
        self.push_control(header, Self::code_payload(code));
        self.forget_send_if_done(id);
        self.wake_blocked();
    }

    /// Whether the stream was neither finished nor reset on this side.
    pub fn stream_is_open(&self, id: u32) -> bool {
        self.send.get(&id).is_some_and(|half| half.state == SendState::Open)
    }

    /// Takes the next data of a stream.
    pub fn stream_read(&mut self, now: Duration, id: u32) -> Read {
        let Some(half) = self.recv.get_mut(&id) else {
            return Read::Closed;
        };
        let read = half.read();
        match &read {
            Read::Chunk(chunk) => {
                self.flow.consume(u64::from(chunk.raw_len));
                if half.update_credit(now, self.rtt, self.config.local.connection_window) {
                    self.credits_due.push_back(id);
                }
            }
            Read::End | Read::Reset(_) => {
                self.forget_recv_if_done(id);
                self.advance_drain();
            }
            Read::Blocked if self.closed.is_some() => return Read::Closed,
            Read::Blocked | Read::Closed => {}
        }
        read
    }

    /// Tells the sender that no more is wanted.
    pub fn stream_stop(&mut self, id: u32, code: u32) {
        let Some(half) = self.recv.get_mut(&id) else { return };
        if half.stopped || half.ended {
            return;
        }
        half.stopped = true;
        self.out_of_order_frames -= half.out_of_order_len();
        let discarded = half.discard();
        self.flow.consume(discarded);
        let header = FrameHeader { stream: id, ..FrameHeader::new(FrameType::Stop) };
        self.push_control(header, Self::code_payload(code));
        self.forget_recv_if_done(id);
    }

    pub(super) fn forget_send_if_done(&mut self, id: u32) {
        if self.send.get(&id).is_some_and(SendHalf::is_done) {
            if self.send.remove(&id).is_some_and(|half| half.blocked) {
                self.blocked.retain(|&blocked| blocked != id);
            }
            self.events.push_back(Event::StreamAcknowledged(id));
            self.forget_stream_if_done(id);
        }
    }

    pub(super) fn forget_recv_if_done(&mut self, id: u32) {
        if self.recv.get(&id).is_some_and(RecvHalf::is_done) {
            self.recv.remove(&id);
            self.forget_stream_if_done(id);
        }
    }

    fn forget_stream_if_done(&mut self, id: u32) {
        if self.send.contains_key(&id) || self.recv.contains_key(&id) {
            return;
        }
        if !self.is_own(id) {
            self.peer_streams_closed += 1;
            self.peer_streams_limit = self.config.local.streams_max.saturating_add(self.peer_streams_closed);
            self.streams_max_due = true;
        }
    }

    /// Tells writers that wait that there may be room.
    pub(super) fn wake_blocked(&mut self) {
        if self.unsent_bytes >= CONNECTION_UNSENT_BYTES_MAX / 2 {
            return;
        }
        let connection = self.flow.send_limit - self.flow.sent;
        if connection == 0 {
            return;
        }
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { break };
            let Some(half) = self.send.get_mut(&id) else { continue };
            if half.room().min(connection) == 0 {
                self.blocked.push_back(id);
                continue;
            }
            half.blocked = false;
            self.events.push_back(Event::StreamWritable(id));
        }
    }

    /// Sends a one-way message.
    #[inline]
    pub fn message_send(
        &mut self,
        now: Duration,
        priority: Priority,
        payload: Bytes,
    ) -> Result<(), MessageSendError> {
        self.message_queue(now, priority, payload.len())?.push(FrameType::Message, 0, payload).map(drop)
    }

    /// Sends a request; [`Event::Response`] brings the answer.
    pub fn request_send(
        &mut self,
        now: Duration,
        priority: Priority,
        deadline_ms: u32,
        payload: Bytes,
    ) -> Result<RequestId, MessageSendError> {
        if self.requests_made.len() >= REQUESTS_IN_FLIGHT_MAX && self.closed.is_none() {
            self.requests_blocked = true;
            return Err(MessageSendError::Blocked);
        }
        let queue = self.message_queue(now, priority, payload.len())?;
        let sequence = queue.push(FrameType::Request, deadline_ms, payload)?;
        let id = RequestId { priority, sequence };
        self.requests_made.insert(id, false);
        Ok(id)
    }

    /// No longer waits for the answer to a request. It counts as in flight until the peer has answered anyway.
    pub fn request_cancel(&mut self, id: RequestId) {
        let Some(cancelled) = self.requests_made.get_mut(&id) else { return };
        if !std::mem::replace(cancelled, true) {
            let flags = Flags::default().with_priority(id.priority as u8);
            let header = FrameHeader { flags, offset: id.sequence, ..FrameHeader::new(FrameType::Cancel) };
            self.push_control(header, Bytes::new());
        }
    }

    /// Answers a request of the peer. Nothing happens if it was cancelled or answered before.
    pub fn respond(
        &mut self,
        now: Duration,
        id: RequestId,
        status: ResponseStatus,
        payload: Bytes,
    ) -> Result<(), MessageSendError> {
        if payload.len() > self.message_len_max() {
            return Err(MessageSendError::TooLarge);
        }
        if self.closed.is_some() {
            return Err(MessageSendError::Closed);
        }
        if self.requests_taken.remove(&id) {
            self.last_activity = self.last_activity.max(now);
            self.out_messages[id.priority as usize].push_response(id.sequence, status, payload);
        }
        Ok(())
    }

    /// Whether the peer still waits for the answer to a request that was received.
    pub fn request_is_open(&self, id: RequestId) -> bool {
        self.requests_taken.contains(&id)
    }

    fn message_queue(
        &mut self,
        now: Duration,
        priority: Priority,
        len: usize,
    ) -> Result<&mut OutQueue, MessageSendError> {
        // Whoever has said that it has nothing left sends nothing new.
        if self.closed.is_some() || self.drain.done {
            return Err(MessageSendError::Closed);
        }
        if len > self.message_len_max() {
            return Err(MessageSendError::TooLarge);
        }
        self.last_activity = self.last_activity.max(now);
        Ok(&mut self.out_messages[priority as usize])
    }

    /// Whether [`message_send`](Self::message_send) would take a message of this priority.
    pub fn message_has_room(&self, priority: Priority) -> bool {
        self.closed.is_none() && !self.out_messages[priority as usize].is_full()
    }

    /// Whether a message of every priority, and a request, would be taken.
    pub fn messages_have_room(&self) -> bool {
        self.closed.is_some()
            || (self.requests_made.len() < REQUESTS_IN_FLIGHT_MAX
                && self.out_messages.iter().all(OutQueue::has_room))
    }

    /// Whether a message came since [`message_receive`](Self::message_receive) last found none.
    pub fn has_message(&self) -> bool {
        self.messages_signalled
    }

    /// The next message of the peer, the most urgent first.
    #[inline]
    pub fn message_receive(&mut self) -> Option<Incoming> {
        let message = self.in_messages.iter_mut().find_map(|queue| queue.pop());
        if message.is_none() {
            self.messages_signalled = false;
        }
        message
    }

    /// Gives up to `max` messages to `take` if small ones that share a frame are next, otherwise none. Returns how many.
    /// None does not say that there is none: [`message_receive`](Self::message_receive) tells, and only after it has found
    /// none there is another [`Event::MessagesReadable`].
    /// In place of [`message_receive`](Self::message_receive), for throughput: moving an [`Incoming`] around costs more
    /// than all else that a small message needs.
    #[inline]
    pub fn messages_receive_batched(&mut self, max: usize, take: impl FnMut(Priority, Bytes)) -> usize {
        let urgent = self.in_messages.iter_mut().find(|queue| !queue.is_empty());
        urgent.map_or(0, |queue| queue.pop_batched(max, take))
    }

    pub(super) fn wake_requesters(&mut self) {
        if std::mem::take(&mut self.requests_blocked) {
            self.events.push_back(Event::MessagesWritable);
        }
    }
}
