//! When what has failed is tried again: soon at first, and then less and less often.

use std::time::{Duration, Instant};

/// After the first failure, doubled with each that follows.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// At most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Attempts at one thing. The first is due at once.
#[derive(Debug, Default)]
pub(crate) struct Again {
    due: Option<Instant>,
    wait: Duration,
}

impl Again {
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.due = Some(now + self.wait);
    }

    /// The next is due at once.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_less_often_and_never_given_up() {
        let mut now = Instant::now();
        let mut again = Again::default();
        assert!(again.is_due(now));
        let waits = [1, 2, 4, 8, 16, 32, 60, 60];
        for wait in waits.map(Duration::from_secs) {
            again.failed(now);
            assert!(!again.is_due(now + wait - Duration::from_millis(1)));
            now += wait;
            assert!(again.is_due(now));
        }
        again.failed(now);
        again.reset();
        assert!(again.is_due(now));
    }
}
