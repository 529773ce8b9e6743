//! How long to look for completions before going to sleep: between two ends that answer each other at once, most of a
//! round trip is the sleep and the wake-up. Pure numbers: the caller has the clock.
//!
//! A wait that polls in vain halves the time of the next; below [`POLL_MIN`] waits do without, and twice as many after
//! each further attempt in vain. So a link whose answers take longer, or that is idle, spends next to nothing on this.

use std::time::Duration;

/// Longest time of polling. It must be longer than a peer that sleeps takes to wake up and answer, or two ends that once sleep
/// would never find out that polling pays; and it is little beside a scheduler's slice.
pub const POLL_MAX: Duration = Duration::from_micros(500);
/// Shorter polling is none: it would end before any answer.
const POLL_MIN: Duration = Duration::from_micros(20);
/// After so many attempts in vain in a row, one in `2^FAILURES_MAX` waits still tries.
const FAILURES_MAX: u32 = 6;

/// Whether polling paid lately; of one stream.
#[derive(Debug)]
pub(crate) struct Polling {
    budget: Duration,
    failures: u32,
    /// Waits that will do without.
    skip: u32,
}

impl Default for Polling {
    fn default() -> Self {
        Self { budget: POLL_MAX, failures: 0, skip: 0 }
    }
}

impl Polling {
    /// For how long this wait may poll; told what came of it by [`learn`](Self::learn), unless it is zero.
    pub(crate) fn budget(&mut self) -> Duration {
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        self.budget
    }

    /// Whether completions came while it polled.
    pub(crate) fn learn(&mut self, paid: bool) {
        if paid {
            self.budget = (self.budget * 2).min(POLL_MAX);
            self.failures = 0;
            return;
        }
        self.budget /= 2;
        if self.budget < POLL_MIN || self.failures > 0 {
            self.failures = (self.failures + 1).min(FAILURES_MAX);
            self.skip = (1 << self.failures) - 1;
            self.budget = POLL_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(polling: &mut Polling) -> u128 {
        polling.budget().as_micros()
    }

    #[test]
    fn the_time_shrinks_in_vain_and_grows_when_it_pays() {
        let mut polling = Polling::default();
        let mut budgets = Vec::new();
        for paid in [true, false, false, true, false, true, true, true] {
            budgets.push(micros(&mut polling));
            polling.learn(paid);
        }
        assert_eq!(budgets, [500, 500, 250, 125, 250, 125, 250, 500]);
    }

    #[test]
    fn an_idle_stream_polls_ever_less() {
        let mut polling = Polling::default();
        let mut without = Vec::new();
        for _ in 0..13 {
            without.push((0..).take_while(|_| polling.budget().is_zero()).count());
            polling.learn(false);
        }
        assert_eq!(without, [0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 63, 63]);
        while polling.budget().is_zero() {}
        polling.learn(true);
        assert_eq!(micros(&mut polling), 500, "one hit makes up for it");
    }
}
