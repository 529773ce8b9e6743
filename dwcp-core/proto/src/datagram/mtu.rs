//! How long a datagram the path carries: discovery by padded probes (RFC 8899, DPLPMTUD).
//!
//! Lengths are those of whole DWCP datagrams, which are the payloads of UDP. Owns the search, and noticing that a path has
//! come to carry less; not when an answer counts as missing, which [`PathProber`](super::PathProber) knows.

use std::time::Duration;

use super::{HEADER_LEN, PAYLOAD_LEN_MAX};

/// What every path is taken to carry (RFC 8899: `BASE_PLPMTU`).
pub const BASE_LEN: u16 = 1200;
/// The longest datagram (RFC 8899: `MAX_PLPMTU`).
pub const LEN_MAX: u16 = (HEADER_LEN + PAYLOAD_LEN_MAX) as u16;
/// The search ends when what is carried and what is not are this close.
pub const SEARCH_STEP: u16 = 16;
/// Probes in a row without an answer after which a length is too long, or a path that carried it does so no more (RFC
/// 8899: `MAX_PROBES`).
pub const BLACK_HOLE_PROBES: u32 = 3;
/// Between looks whether the path still carries what it did (RFC 8899: `CONFIRMATION_TIMER`).
pub const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// When to search again for more (RFC 8899: `PMTU_RAISE_TIMER`).
pub const RAISE_INTERVAL: Duration = Duration::from_secs(600);

/// What is known of one path.
#[derive(Clone, Debug)]
pub struct PathMtu {
    /// The path carries this.
    carried: u16,
    /// It does not carry this. The search is between both.
    refused: u16,
    /// What the first hop takes at most.
    limit: u16,
    /// The length that was tried last without an answer, and how often.
    tried: Option<(u16, u32)>,
    confirm_at: Duration,
    raise_at: Duration,
}

impl PathMtu {
    /// A path of which nothing is known but what its first hop takes.
    pub fn new(now: Duration, limit: u16) -> Self {
        let limit = limit.clamp(BASE_LEN, LEN_MAX);
        Self {
            carried: BASE_LEN,
            refused: limit + 1,
            limit,
            tried: None,
            confirm_at: now + CONFIRM_INTERVAL,
            raise_at: now + RAISE_INTERVAL,
        }
    }

    /// The longest datagram that the path carries, as far as is known.
    pub fn carried(&self) -> u16 {
        self.carried
    }

    /// Whether it is not known yet what the path carries at most, up to what its first hop takes.
    pub fn is_unsettled(&self) -> bool {
        self.tried.is_some() || self.is_searching()
    }

    /// The first hop takes this from now on, or the far end does again: searches anew up to it.
    pub fn search(&mut self, now: Duration, limit: u16) {
        self.limit = limit.clamp(BASE_LEN, LEN_MAX);
        self.carried = self.carried.min(self.limit);
        self.refused = self.limit + 1;
        self.tried = None;
        self.raise_at = now + RAISE_INTERVAL;
    }

    /// The length to probe with now, if any. One probe at a time.
    pub fn poll(&mut self, now: Duration) -> Option<u16> {
        if now < self.poll_timeout()? {
            return None;
        }
        match self.tried {
            Some((len, _)) => Some(len), // again
            None if self.is_searching() => Some(self.candidate()),
            None if now >= self.raise_at && self.refused <= self.limit => {
                self.refused = self.limit + 1;
                self.raise_at = now + RAISE_INTERVAL;
                Some(self.candidate())
            }
            None => Some(self.carried),
        }
    }

    /// When [`poll`](Self::poll) has something, if ever.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.is_unsettled() {
            return Some(Duration::ZERO);
        }
        let raise_at = (self.refused <= self.limit).then_some(self.raise_at);
        let confirm_at = (self.carried > BASE_LEN).then_some(self.confirm_at);
        raise_at.into_iter().chain(confirm_at).min()
    }

    /// A probe of this length was answered.
    pub fn on_answer(&mut self, now: Duration, len: u16) {
        self.confirm_at = now + CONFIRM_INTERVAL;
        self.tried = self.tried.filter(|&(tried, _)| tried > len);
        self.carried = self.carried.max(len.min(self.limit));
        self.refused = self.refused.max(self.carried + 1);
    }

    /// A probe of this length was not answered, while the path carries shorter ones.
    pub fn on_loss(&mut self, now: Duration, len: u16) {
        let times = match self.tried {
            Some((tried, times)) if tried == len => times + 1,
            _ => 1,
        };
        self.tried = Some((len, times));
        if times >= BLACK_HOLE_PROBES {
            self.on_refusal(now, len);
        }
    }

    /// Datagrams of this length do not get onto, or over, the path.
    pub fn on_refusal(&mut self, now: Duration, len: u16) {
        self.tried = None;
        if len <= self.carried {
            // What was carried is no more: begin anew below it.
            self.carried = BASE_LEN;
            self.raise_at = now + RAISE_INTERVAL;
        }
        self.refused = self.refused.min(len).max(BASE_LEN + 1);
        self.confirm_at = now + CONFIRM_INTERVAL;
    }

    /// Most paths carry what their first hop takes: that is tried however small a step it is.
    fn is_searching(&self) -> bool {
        let is_open = self.refused > self.limit || self.refused - self.carried > SEARCH_STEP;
        self.carried < self.limit && is_open
    }

    /// First all that there may be, then the middle.
    fn candidate(&self) -> u16 {
        match self.refused > self.limit {
            true => self.limit,
            false => self.carried.midpoint(self.refused),
        }
    }
}
