//! What a leader knows of another region.

use crate::{limits::RESEND_MS_MIN, message::Ack, replica::Phase, vector::VersionVector};

#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// What it is known to know.
    pub(super) known: VersionVector,
    /// What it knows once it has got all that was sent. Nothing in it is sent again, until it turns out to be lost.
    pub(super) sent: VersionVector,
    /// Up to where it is sent to.
    pub(super) goal: VersionVector,
    pub(super) phase: Option<Phase>,
    pub(super) horizon: VersionVector,
    pub(super) rtt_ms: Option<u64>,
    pub(super) heard_ms: u64,
    /// Whether it has said something since this leader began, or since something was lost. To others nothing but statuses is sent.
    pub(super) is_heard: bool,
    /// Deltas that are not acknowledged.
    pub(super) in_flight: usize,
    resend_at_ms: u64,
}

impl Peer {
    /// When what is on its way counts as lost.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        (self.in_flight > 0).then_some(self.resend_at_ms)
    }

    pub(super) fn hear(&mut self, now_ms: u64, version: &VersionVector) {
        self.known.join(version);
        self.sent.join(version);
        if self.known.includes(&self.sent) {
            self.in_flight = 0;
        }
        (self.heard_ms, self.is_heard) = (now_ms, true);
    }

    pub(super) fn acknowledge(&mut self, now_ms: u64, ack: &Ack) {
        if ack.echo_ms == 0 {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.resend_at_ms = now_ms + self.resend_after_ms();
            return;
        }
        let sample = now_ms.saturating_sub(ack.echo_ms);
        // As in RFC 6298.
        self.rtt_ms = Some(self.rtt_ms.map_or(sample, |rtt_ms| (7 * rtt_ms + sample) / 8));
    }

    pub(super) fn delta_sent(&mut self, now_ms: u64) {
        if self.in_flight == 0 {
            self.resend_at_ms = now_ms + self.resend_after_ms();
        }
        self.in_flight += 1;
    }

    fn resend_after_ms(&self) -> u64 {
        RESEND_MS_MIN.max(4 * self.rtt_ms.unwrap_or(0))
    }

    /// What is on its way is lost. It is sent again when the peer has said how far it is.
    pub(super) fn lose(&mut self) {
        self.sent = self.known.clone();
        self.in_flight = 0;
        self.is_heard = false;
    }
}
