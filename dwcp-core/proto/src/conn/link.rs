//! One link of a connection: what was sent on it and not acknowledged, and what arrived.

use std::{collections::VecDeque, time::Duration};

use super::OutFrame;
use crate::{
    error::ProtocolError,
    frame::FrameType,
    limits::{ACK_BYTES, ACK_DELAY, ACK_FRAMES},
};

/// Number of a link in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retirement {
    pub(super) sent: bool,
    pub(super) received: bool,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    /// Reliable frames sent and not acknowledged, oldest first.
    pub(super) unacked: VecDeque<OutFrame>,
    /// How many of them, from the front, are on other links as well or are repetitions themselves (see `reinject`).
    pub(super) reinjected: usize,
    /// How long frames take to be acknowledged, smoothed.
    pub(super) ack_time: Option<Duration>,
    acked: u64,
    received: u64,
    ack_sent: u64,
    received_bytes_since_ack: u64,
    ack_deadline: Option<Duration>,
    ack_now: bool,
    pub(super) last_heard: Duration,
    pub(super) last_ping: Duration,
    pub(super) ping_due: bool,
    pub(super) pong_due: Option<u64>,
    /// Round trip of the last ping.
    pub(super) ping_rtt: Option<Duration>,
    /// Set once this side or the peer wants to retire the link.
    pub(super) retirement: Option<Retirement>,
    pub(super) close_sent: bool,
}

impl Link {
    pub(super) fn new(now: Duration) -> Self {
        Self { last_heard: now, last_ping: now, ..Self::default() }
    }

    /// May carry new reliable frames.
    pub(super) fn is_active(&self) -> bool {
        self.retirement.is_none()
    }

    /// May carry frames at all: after its LINK_RETIRE the peer may close the link without reading on.
    pub(super) fn is_open(&self) -> bool {
        self.retirement.is_none_or(|retirement| !retirement.sent)
    }

    /// Counts a reliable frame that arrived.
    pub(super) fn count_received(&mut self, now: Duration, bytes: usize) {
        self.received += 1;
        self.received_bytes_since_ack += bytes as u64;
        if self.received - self.ack_sent >= ACK_FRAMES || self.received_bytes_since_ack >= ACK_BYTES {
            self.ack_now = true;
        }
        if !self.ack_now {
            self.ack_deadline.get_or_insert(now.saturating_add(ACK_DELAY));
        }
    }

    /// Reliable frames that arrived.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn ack_deadline(&self) -> Option<Duration> {
        self.ack_deadline
    }

    pub(super) fn expire_ack(&mut self, now: Duration) {
        if self.ack_deadline.is_some_and(|deadline| deadline <= now) {
            self.ack_now = true;
            self.ack_deadline = None; // what is due is no longer a matter of time
        }
    }

    pub(super) fn ack_is_due(&self) -> bool {
        self.ack_now
    }

    /// The count to acknowledge, if any; it counts as sent.
    pub(super) fn take_ack(&mut self) -> Option<u64> {
        if self.received == self.ack_sent {
            return None;
        }
        self.ack_sent = self.received;
        self.received_bytes_since_ack = 0;
        self.ack_deadline = None;
        self.ack_now = false;
        Some(self.received)
    }

    /// Takes the oldest frame, which was acknowledged.
    pub(super) fn pop_acknowledged(&mut self, now: Duration) -> Option<OutFrame> {
        let frame = self.unacked.pop_front()?;
        self.reinjected = self.reinjected.saturating_sub(1);
        self.skip_repetitions();
        self.learn_ack_time(now.saturating_sub(frame.sent_at));
        Some(frame)
    }

    /// How many of `unacked` an acknowledgement up to `count` covers.
    pub(super) fn acknowledge(&mut self, count: u64) -> Result<usize, ProtocolError> {
        let sent = self.acked + self.unacked.len() as u64;
        if count > sent {
            return Err(ProtocolError::Invalid {
                ty: FrameType::LinkAck,
                what: "acknowledges frames that were not sent",
            });
        }
        let newly = count.saturating_sub(self.acked);
        self.acked += newly;
        Ok(newly as usize)
    }
}
