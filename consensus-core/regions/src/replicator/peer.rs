//! What a leader knows of another region.

use std::collections::VecDeque;

use crate::{
    delta::Range,
    limits::{DELTAS_IN_FLIGHT_MAX, RESEND_MS_MAX, RESEND_MS_MIN},
    replica::Phase,
    vector::VersionVector,
};

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
    /// Deltas that are not acknowledged: when each was sent, and what the peer knows once it has it.
    in_flight: VecDeque<(u64, Vec<Range>)>,
}

impl Peer {
    /// When what is on its way counts as lost.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.in_flight.front().map(|(sent_ms, _)| sent_ms + self.patience_ms())
    }

    /// For how long to wait for an answer.
    pub(super) fn patience_ms(&self) -> u64 {
        (4 * self.rtt_ms.unwrap_or(0)).clamp(RESEND_MS_MIN, RESEND_MS_MAX)
    }

    pub(super) fn hear(&mut self, now_ms: u64, version: &VersionVector) {
        self.known.join(version);
        self.sent.join(version);
        let known = &self.known;
        self.in_flight.retain(|(_, ranges)| ranges.iter().any(|range| range.to > known.get(range.region)));
        (self.heard_ms, self.is_heard) = (now_ms, true);
    }

    /// A status that was sent at `echo_ms` came back.
    pub(super) fn measure(&mut self, now_ms: u64, echo_ms: u64) {
        let sample = now_ms.saturating_sub(echo_ms);
        // As in RFC 6298.
        self.rtt_ms = Some(self.rtt_ms.map_or(sample, |rtt_ms| (7 * rtt_ms + sample) / 8));
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < DELTAS_IN_FLIGHT_MAX
    }

    pub(super) fn delta_sent(&mut self, now_ms: u64, ranges: &[Range]) {
        ranges.iter().for_each(|range| self.sent.advance(range.region, range.to));
        self.in_flight.push_back((now_ms, ranges.to_vec()));
    }

    /// What is on its way is lost. It is sent again when the peer has said how far it is.
    pub(super) fn lose(&mut self) {
        self.sent = self.known.clone();
        self.in_flight.clear();
        self.is_heard = false;
    }
}
