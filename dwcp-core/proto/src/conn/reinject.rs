//! Reinjection: a frame that is stuck on one link goes out on another as well.
//!
//! A link whose segments are lost again and again holds up all of a stream that is striped over several: the receiver
//! has everything but a few frames, and once the windows are used up, or at the end of the data, all other links
//! stand still. They repeat what the slow link has, oldest first. A repetition is exact, so the receiver ignores
//! whichever comes second (clauses 5.3 and 7.2). The slow link's frames stay its own: a repetition acknowledges
//! nothing but itself. Nothing is repeated while there is something new to send.

use std::time::Duration;

use super::{Connection, LinkId, OutFrame, link::Link};
use crate::limits::{REINJECT_AFTER, REINJECT_WAIT_MIN};

impl Link {
    /// The oldest frame that is neither a repetition nor repeated.
    fn oldest(&self) -> Option<&OutFrame> {
        self.unacked.get(self.reinjected)
    }

    fn is_stuck(&self, before: Duration) -> bool {
        self.oldest().is_some_and(|frame| frame.sent_at <= before)
    }

    /// Passes over repetitions, after any change of `unacked`.
    pub(super) fn skip_repetitions(&mut self) {
        while self.oldest().is_some_and(|frame| frame.repetition) {
            self.reinjected += 1;
        }
    }

    /// Remembers how long a frame took to be acknowledged.
    pub(super) fn learn_ack_time(&mut self, took: Duration) {
        self.ack_time = Some(self.ack_time.map_or(took, |known| (known * 7 + took) / 8));
    }
}

impl Connection {
    /// How long a frame is on its way before others would have delivered it; `None` without another link.
    fn reinject_wait(&self) -> Option<Duration> {
        if self.links.len() < 2 {
            return None;
        }
        let fastest =
            self.links.values().filter(|link| link.is_active()).filter_map(|link| link.ack_time).min()?;
        Some((fastest * REINJECT_AFTER).max(REINJECT_WAIT_MIN))
    }

    /// When to look for stuck frames next.
    pub(super) fn reinject_deadline(&self) -> Option<Duration> {
        if self.links.len() < 2 || self.has_reliable() {
            return None;
        }
        let wait = self.reinject_wait()?;
        let oldest = self.links.values().filter_map(Link::oldest).map(|frame| frame.sent_at).min()?;
        // Not at once again if those who could help are busy themselves.
        Some(oldest.saturating_add(wait).max(self.reinject_looked.saturating_add(wait / 4)))
    }

    /// Looks whether frames are stuck by now.
    pub(super) fn look_for_stuck_frames(&mut self, now: Duration) {
        self.reinject_looked = now;
        let before = self.reinject_wait().and_then(|wait| now.checked_sub(wait));
        self.reinject_before = before.filter(|&before| self.links.values().any(|link| link.is_stuck(before)));
    }

    /// Whether a link other than `id`, which is not stuck itself, has a stuck frame, and nothing new is to be sent.
    pub(super) fn can_reinject_on(&self, id: LinkId, link: &Link) -> bool {
        let Some(before) = self.reinject_before else { return false };
        let mut others = self.links.iter().filter(|&(&other, _)| other != id);
        !self.has_reliable() && !link.is_stuck(before) && others.any(|(_, other)| other.is_stuck(before))
    }

    /// The oldest stuck frame of `self.links`, for `link`, which is not among them.
    pub(super) fn next_reinjected(&mut self, link: &Link) -> Option<OutFrame> {
        let before = self.reinject_before?;
        if link.is_stuck(before) {
            return None; // it would be stuck there as well
        }
        let stuck = self.links.values_mut().filter(|other| other.is_stuck(before));
        let Some(from) = stuck.min_by_key(|other| other.oldest().map(|frame| frame.serial)) else {
            self.reinject_before = None;
            return None;
        };
        let frame = OutFrame { repetition: true, ..from.oldest()?.clone() };
        from.reinjected += 1;
        from.skip_repetitions();
        Some(frame)
    }
}
