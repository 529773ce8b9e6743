//! What round trips tell: RFC 6298 estimates, and the jitter of RFC 3550 section 6.4.1, of round trips.

use std::time::Duration;

/// Estimates from the round trips of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The last one.
    pub latest: Duration,
    /// The shortest one.
    pub min: Duration,
    /// Smoothed, by an eighth of each (RFC 6298).
    pub smoothed: Duration,
    /// Mean deviation from that (RFC 6298).
    pub variation: Duration,
    /// Mean difference between one and the next, by a sixteenth of each. RFC 3550 has it of transit times one way, which
    /// clocks that disagree cannot measure.
    pub jitter: Duration,
}

impl Rtt {
    /// After the first one.
    pub fn first(sample: Duration) -> Self {
        Self { latest: sample, min: sample, smoothed: sample, variation: sample / 2, jitter: Duration::ZERO }
    }

    /// Takes another one into account.
    pub fn add(&mut self, sample: Duration) {
        self.jitter = self.jitter * 15 / 16 + sample.abs_diff(self.latest) / 16;
        self.variation = self.variation * 3 / 4 + self.smoothed.abs_diff(sample) / 4;
        self.smoothed = self.smoothed * 7 / 8 + sample / 8;
        self.min = self.min.min(sample);
        self.latest = sample;
    }

    /// How long to wait for an answer (RFC 6298 section 2), without bounds.
    pub fn timeout(&self) -> Duration {
        self.smoothed + self.variation * 4
    }
}
