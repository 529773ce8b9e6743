//! What goes onto a link next.
//!
//! Links pull: whichever can take bytes asks for a batch and gets the most urgent frames. So a slow link never
//! holds more than it can send, and no schedule has to guess the links' speeds.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

use super::{Closed, Connection, Event, LinkId, OutFrame, Priority, link::Link, messages::OutMessage};
use crate::{
    close::CloseCode,
    frame::{Flags, FrameHeader, FrameType},
    limits::{BATCH_BYTES, INLINE_PAYLOAD_MAX},
};

/// A piece of a batch, in order.
#[derive(Clone, Debug)]
pub enum Segment {
    /// A range of [`TxBatch::inline`].
    Inline(Range<usize>),
    /// A payload, by reference.
    Payload(Bytes),
}

/// Frames for one link, ready for a vectored write: headers and small payloads in one buffer, large payloads by
/// reference. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct TxBatch {
    /// Headers and small payloads.
    pub inline: Vec<u8>,
    /// What to write, in order.
    pub segments: Vec<Segment>,
    /// Bytes of all segments.
    pub len: usize,
}

impl TxBatch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.inline.clear();
        self.segments.clear();
        self.len = 0;
    }

    /// Appends a frame.
    pub fn push(&mut self, header: &FrameHeader, payload: &Bytes) {
        self.push_inline(&header.encode());
        if payload.len() <= INLINE_PAYLOAD_MAX {
            self.push_inline(payload);
            return;
        }
        self.len += payload.len();
        self.segments.push(Segment::Payload(payload.clone()));
    }

    fn push_inline(&mut self, bytes: &[u8]) {
        let start = self.inline.len();
        self.inline.extend_from_slice(bytes);
        self.len += bytes.len();
        match self.segments.last_mut() {
            Some(Segment::Inline(range)) => range.end = self.inline.len(),
            _ => self.segments.push(Segment::Inline(start..self.inline.len())),
        }
    }

    fn is_full(&self) -> bool {
        self.len >= BATCH_BYTES
    }
}

impl Connection {
    /// Whether [`poll_transmit`](Self::poll_transmit) has something for some link.
    pub fn wants_transmit(&self) -> bool {
        self.links.iter().any(|(&id, link)| self.wants_link(id, link))
    }

    /// Whether it has something for this link.
    pub fn wants_transmit_on(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| self.wants_link(id, link))
    }

    fn wants_link(&self, id: LinkId, link: &Link) -> bool {
        if self.closed.is_some() {
            return !link.close_sent;
        }
        link.wants_own()
            || (link.is_open() && self.wants_state())
            || (link.is_active() && (self.has_reliable() || self.can_reinject_on(id, link)))
    }

    fn wants_state(&self) -> bool {
        self.flow.credit_due
            || self.streams_max_due
            || !self.credits_due.is_empty()
            || self.links_wanted_due
            || !self.lost_links.is_empty()
            || self.in_messages.iter().any(|queue| queue.credit_due)
    }

    pub(super) fn has_reliable(&self) -> bool {
        !self.retransmit.is_empty()
            || self.flight.has_room()
                && (!self.control.is_empty()
                    || !self.scheduled.is_empty()
                    || self.out_messages.iter().any(|queue| queue.can_pop()))
    }

    /// Fills `batch` with the most urgent frames for a link that can take bytes. `false`: there is nothing.
    pub fn poll_transmit(&mut self, now: Duration, id: LinkId, batch: &mut TxBatch) -> bool {
        let Some(mut link) = self.links.remove(&id) else { return false };
        self.fill(now, id, &mut link, batch);
        // Only now that its last batch was taken: the LINK_RETIRE in it has to reach the peer.
        let retired = batch.len == 0 && link.retirement.is_some_and(|r| r.sent && r.received);
        self.links.insert(id, link);
        if retired && self.closed.is_none() {
            self.finish_retirement(now, id);
        }
        batch.len > 0
    }

    fn fill(&mut self, now: Duration, id: LinkId, link: &mut Link, batch: &mut TxBatch) {
        if let Some(closed) = &self.closed {
            if !std::mem::replace(&mut link.close_sent, true) {
                // The peer should know what arrived, whichever link brings the news first.
                push_ack(id, link, batch);
                for (&other, state) in &self.links {
                    push_ack_of(other, state.received(), batch);
                }
                push_close(closed, batch);
            }
            return;
        }
        if link.ack_is_due() {
            push_ack(id, link, batch);
        }
        push_probes(now, link, batch);
        if link.is_open() {
            self.push_state(batch);
        }
        if link.is_active() {
            let unsent_before = self.unsent_bytes;
            while !batch.is_full() {
                let Some(mut frame) = self.next_reliable().or_else(|| self.next_reinjected(link)) else {
                    break;
                };
                batch.push(&frame.header, &frame.payload);
                frame.serial.get_or_insert_with(|| self.flight.launch(frame.payload.len()));
                frame.sent_at = now;
                link.unacked.push_back(frame);
                link.skip_repetitions();
            }
            if self.unsent_bytes < unsent_before {
                self.wake_blocked();
            }
        } else if let Some(retirement) = &mut link.retirement
            && !retirement.sent
            && link.unacked.is_empty()
        {
            retirement.sent = true;
            push_ack(id, link, batch);
            batch.push(&FrameHeader::new(FrameType::LinkRetire), &Bytes::new());
        }
        if batch.len > 0 {
            push_ack(id, link, batch);
        }
    }

    /// Frames that say what the state is now; a later one replaces an earlier.
    fn push_state(&mut self, batch: &mut TxBatch) {
        let mut push = |header: FrameHeader| batch.push(&header, &Bytes::new());
        if std::mem::take(&mut self.flow.credit_due) {
            push(FrameHeader { offset: self.flow.receive_limit, ..FrameHeader::new(FrameType::Credit) });
        }
        for (priority, queue) in Priority::ALL.into_iter().zip(&mut self.in_messages) {
            if std::mem::take(&mut queue.credit_due) {
                push(FrameHeader {
                    flags: Flags::default().with_priority(priority as u8),
                    offset: queue.credit_limit,
                    ..FrameHeader::new(FrameType::MessageCredit)
                });
            }
        }
        if std::mem::take(&mut self.streams_max_due) {
            push(FrameHeader { stream: self.peer_streams_limit, ..FrameHeader::new(FrameType::StreamsMax) });
        }
        if std::mem::take(&mut self.links_wanted_due)
            && let Some(count) = self.links_wanted
        {
            push(FrameHeader { stream: count, ..FrameHeader::new(FrameType::LinksWanted) });
        }
        while let Some(lost) = self.lost_links.pop_front() {
            push(FrameHeader { stream: lost.0, ..FrameHeader::new(FrameType::LinkLost) });
        }
        while !batch.is_full()
            && let Some(stream) = self.credits_due.pop_front()
        {
            let Some(half) = self.recv.get_mut(&stream) else { continue };
            half.credit_due = false;
            let header = FrameHeader { stream, offset: half.limit, ..FrameHeader::new(FrameType::Credit) };
            batch.push(&header, &Bytes::new());
        }
    }

    /// The most urgent reliable frame: control, control messages, what lost links had, normal messages, then bulk
    /// messages and streams in turns.
    fn next_reliable(&mut self) -> Option<OutFrame> {
        if !self.flight.has_room() {
            return self.retransmit.pop_front();
        }
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if let Some(frame) = self.next_message(Priority::Control) {
            return Some(frame);
        }
        if let Some(frame) = self.retransmit.pop_front() {
            return Some(frame);
        }
        if let Some(frame) = self.next_message(Priority::Normal) {
            return Some(frame);
        }
        self.bulk_messages_turn = !self.bulk_messages_turn;
        if self.bulk_messages_turn {
            self.next_message(Priority::Bulk).or_else(|| self.next_data())
        } else {
            self.next_data().or_else(|| self.next_message(Priority::Bulk))
        }
    }

    fn next_data(&mut self) -> Option<OutFrame> {
        while let Some(id) = self.scheduled.pop_front() {
            let Some(half) = self.send.get_mut(&id) else { continue };
            let frame = half.pop();
            half.scheduled = !half.queue.is_empty();
            if half.scheduled {
                self.scheduled.push_back(id);
            }
            if let Some(frame) = frame {
                self.unsent_bytes -= frame.unsent_cost();
                return Some(frame);
            }
        }
        None
    }

    fn next_message(&mut self, priority: Priority) -> Option<OutFrame> {
        let queue = &mut self.out_messages[priority as usize];
        let message = queue.pop()?;
        if queue.blocked && queue.has_room() {
            queue.blocked = false;
            self.events.push_back(Event::MessagesWritable);
        }
        let OutMessage { ty, stream, sequence, .. } = message;
        let payload = message.into_payload();
        let len = payload.len() as u32;
        let crc = self.payload_crc && len > 0;
        let header = FrameHeader {
            ty,
            flags: Flags::default().with_priority(priority as u8).with_payload_crc(crc),
            stream,
            wire_len: len,
            raw_len: len,
            offset: sequence,
            payload_crc: if crc { crc32fast::hash(&payload) } else { 0 },
        };
        Some(OutFrame::new(header, payload))
    }
}

impl Link {
    /// Something is due that only this link can carry.
    fn wants_own(&self) -> bool {
        self.ack_is_due()
            || self.ping_due
            || self.pong_due.is_some()
            || self.retirement.is_some_and(|r| if r.sent { r.received } else { self.unacked.is_empty() })
    }
}

fn push_probes(now: Duration, link: &mut Link, batch: &mut TxBatch) {
    if let Some(token) = link.pong_due.take() {
        let header = FrameHeader { offset: token, ..FrameHeader::new(FrameType::Pong) };
        batch.push(&header, &Bytes::new());
    }
    if std::mem::take(&mut link.ping_due) {
        let header = FrameHeader { offset: now.as_micros() as u64, ..FrameHeader::new(FrameType::Ping) };
        batch.push(&header, &Bytes::new());
    }
}

fn push_ack(id: LinkId, link: &mut Link, batch: &mut TxBatch) {
    if let Some(count) = link.take_ack() {
        push_ack_of(id, count, batch);
    }
}

fn push_ack_of(id: LinkId, count: u64, batch: &mut TxBatch) {
    let header = FrameHeader { stream: id.0, offset: count, ..FrameHeader::new(FrameType::LinkAck) };
    batch.push(&header, &Bytes::new());
}

fn push_close(closed: &Closed, batch: &mut TxBatch) {
    let (code, text) = match closed {
        Closed::Local(code, text) => (*code, text.clone()),
        Closed::Protocol(error) => (error.close_code(), error.to_string()),
        Closed::Idle => (CloseCode::IDLE, String::new()),
        Closed::Peer(..) | Closed::ResumeTimedOut => return,
    };
    let mut payload = code.0.to_le_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    let len = payload.len() as u32;
    let header = FrameHeader { wire_len: len, raw_len: len, ..FrameHeader::new(FrameType::Close) };
    batch.push(&header, &payload.into());
}
