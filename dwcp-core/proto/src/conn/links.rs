//! The coming and going of links (clauses of section 6): nothing is lost with one.

use std::time::Duration;

use super::{Closed, Connection, Event, LinkId, OutFrame, link::Link, link::Retirement, send::SendState};
use crate::{close::CloseCode, frame::FrameType, limits::LINKS_MAX};

impl Connection {
    /// A link is ready. `false`: its number is in use, there are too many, or the connection ended.
    #[must_use]
    pub fn link_added(&mut self, now: Duration, id: LinkId) -> bool {
        if self.closed.is_some() || self.links.len() >= LINKS_MAX || self.links.contains_key(&id) {
            return false;
        }
        self.highest_link = self.highest_link.max(Some(id));
        self.links.insert(id, Link::new(now));
        self.resume_deadline = None;
        true
    }

    /// The highest link number so far.
    pub fn highest_link(&self) -> Option<LinkId> {
        self.highest_link
    }

    /// Links that carry data, by number.
    pub fn active_links(&self) -> impl Iterator<Item = LinkId> {
        self.links.iter().filter(|(_, link)| link.is_active()).map(|(&id, _)| id)
    }

    /// Round trip of the last ping on a link.
    pub fn ping_rtt(&self, id: LinkId) -> Option<Duration> {
        self.links.get(&id)?.ping_rtt
    }

    /// A link is dead. What it had not delivered goes out on the others, or waits for one.
    pub fn link_lost(&mut self, now: Duration, id: LinkId) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        if self.closed.is_some() {
            return;
        }
        for frame in link.unacked.drain(..).filter(|frame| !frame.repetition) {
            self.requeue(frame);
        }
        // Repetitions may have gone down with it: they can be made again.
        for other in self.links.values_mut() {
            other.reinjected = 0;
            other.skip_repetitions();
        }
        if self.lost_links.len() == LINKS_MAX {
            self.lost_links.pop_front(); // only a hint: the peer's own timers find a dead link, too
        }
        self.lost_links.push_back(id);
        // What says only "the state is now" was not kept: say it again.
        self.flow.credit_due = true;
        self.streams_max_due = true;
        self.links_wanted_due = self.links_wanted.is_some();
        for queue in &mut self.in_messages {
            queue.credit_due = true;
        }
        for (&stream, half) in &mut self.recv {
            if !std::mem::replace(&mut half.credit_due, true) {
                self.credits_due.push_back(stream);
            }
        }
        self.check_any_link(now);
        self.advance_drain();
    }

    fn check_any_link(&mut self, now: Duration) {
        if !self.links.is_empty() {
            return;
        }
        if self.is_drained() && self.is_idle() {
            // Both sides know that both are done: only a CLOSE did not make it.
            return self.give_up();
        }
        self.resume_deadline = Some(now.saturating_add(self.config.resume_timeout));
        self.events.push_back(Event::AllLinksLost);
    }

    /// No link will come back: the time is over, or the peer says that it does not know the connection (any more).
    pub fn give_up(&mut self) {
        self.end(if self.is_drained() {
            Closed::Peer(CloseCode::NONE, String::new()) // it had nothing left and is gone
        } else {
            Closed::ResumeTimedOut
        });
    }

    /// Something arrived on a link, if only a part of a frame: it is alive.
    pub fn link_heard(&mut self, now: Duration, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.last_heard = link.last_heard.max(now);
        }
    }

    fn requeue(&mut self, frame: OutFrame) {
        if frame.header.ty == FrameType::Data {
            match self.send.get_mut(&frame.header.stream) {
                Some(half) if half.state != SendState::Reset => {}
                Some(half) => {
                    half.outstanding -= 1;
                    self.settle(&frame);
                    return self.forget_send_if_done(frame.header.stream);
                }
                None => unreachable!("a sending half stays until its frames are acknowledged"),
            }
        }
        self.retransmit.push_back(frame);
    }

    /// Puts no more data on a link and closes it once both sides have nothing left on it. The last active link
    /// stays. Returns whether it retires.
    pub fn retire_link(&mut self, id: LinkId) -> bool {
        if self.active_links().count() < 2 {
            return false;
        }
        match self.links.get_mut(&id) {
            Some(link) if link.is_active() => {
                link.retirement = Some(Retirement::default());
                true
            }
            _ => false,
        }
    }

    /// Asks the client for this many links.
    pub fn want_links(&mut self, count: u32) {
        self.links_wanted = Some(count);
        self.links_wanted_due = true;
    }

    /// A frame needs no link any more.
    pub(super) fn settle(&mut self, frame: &OutFrame) {
        let serial = frame.serial.expect("a frame that was sent has a serial");
        self.flight.settle(serial, frame.payload.len());
    }

    /// Both sides have retired the link.
    pub(super) fn finish_retirement(&mut self, now: Duration, id: LinkId) {
        self.links.remove(&id);
        self.events.push_back(Event::LinkFinished(id));
        self.check_any_link(now); // both sides may have retired the last but one at the same time
    }
}
