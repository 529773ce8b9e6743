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
    /// The oldest frame that is neither a repetition nor repeated, and its place.
    fn stuck(&self) -> Option<(usize, &OutFrame)> {
        self.unacked.iter().enumerate().skip(self.reinjected).find(|(_, frame)| !frame.repetition)
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
        let oldest = self.links.values().filter_map(Link::stuck).map(|(_, frame)| frame.sent_at).min()?;
        // Not at once again if those who could help are busy themselves.
        Some(oldest.saturating_add(wait).max(self.reinject_looked.saturating_add(wait / 4)))
    }

    /// Looks which frames are stuck by now.
    pub(super) fn look_for_stuck_frames(&mut self, now: Duration) {
        self.reinject_looked = now;
        self.reinject_before = self.reinject_wait().and_then(|wait| now.checked_sub(wait));
    }

    /// Whether a link other than `id` has a stuck frame, and nothing new is to be sent.
    pub(super) fn can_reinject_on(&self, id: LinkId) -> bool {
        let Some(before) = self.reinject_before else { return false };
        let stuck = |link: &Link| link.stuck().is_some_and(|(_, frame)| frame.sent_at <= before);
        !self.has_reliable() && self.links.iter().any(|(&other, link)| other != id && stuck(link))
    }

    /// The oldest stuck frame of `self.links`, among which the link that will carry it is not.
    pub(super) fn next_reinjected(&mut self) -> Option<OutFrame> {
        let before = self.reinject_before?;
        let stuck = self.links.values_mut().filter_map(|link| {
            let (place, frame) = link.stuck()?;
            (frame.sent_at <= before).then_some((frame.serial, place, link))
        });
        let (_, place, link) = stuck.min_by_key(|&(serial, ..)| serial)?;
        link.reinjected = place + 1;
        Some(OutFrame { repetition: true, ..link.unacked[place].clone() })
    }
}
