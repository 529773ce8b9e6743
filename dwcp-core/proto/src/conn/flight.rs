//! Which reliable frames are on their way.
//!
//! The bound is on how far the newest is ahead of the oldest (clause 6.4), not on how many there are: while one
//! frame is stuck on a slow link, what the receiver has to hold and to remember beside it stays bounded.

use std::collections::VecDeque;

use crate::limits::{BYTES_IN_FLIGHT_MAX, FRAMES_IN_FLIGHT_MAX};

#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Serial of the front of `settled`.
    oldest: u64,
    /// For each frame since the oldest unacknowledged one, whether it was acknowledged.
    settled: VecDeque<bool>,
    bytes: usize,
}

impl Flight {
    /// Whether another frame may be sent for the first time.
    pub(super) fn has_room(&self) -> bool {
        self.settled.len() < FRAMES_IN_FLIGHT_MAX && self.bytes < BYTES_IN_FLIGHT_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.settled.is_empty()
    }

    /// A frame goes out for the first time; returns its serial.
    pub(super) fn launch(&mut self, payload_len: usize) -> u64 {
        self.bytes += payload_len;
        self.settled.push_back(false);
        self.oldest + self.settled.len() as u64 - 1
    }

    /// A frame was acknowledged, or will not be sent again.
    pub(super) fn settle(&mut self, serial: u64, payload_len: usize) {
        let settled = &mut self.settled[(serial - self.oldest) as usize];
        assert!(!std::mem::replace(settled, true), "a frame is settled once");
        self.bytes -= payload_len;
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.oldest += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// (frames, payload bytes) on their way.
    pub(super) fn totals(&self) -> (usize, usize) {
        (self.settled.iter().filter(|settled| !**settled).count(), self.bytes)
    }
}
