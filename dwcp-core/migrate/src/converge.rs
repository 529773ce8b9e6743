//! When QEMU may stop the guest, and when it has to slow it down, by how fast memory gets dirty and how fast it is sent. Pure.

/// The guest's stop is at first expected to take at most this part of what is allowed.
const LIMIT_DIVISOR: u64 = 8;
const LIMIT_MS_MIN: u64 = 10;
/// A pass that has this much of the one before it to send has not helped, in percent.
const PASS_HELPED_PERCENT: u64 = 80;
/// QEMU slows a guest down that dirties more than this much of what is sent, in percent.
const TRIGGER_OFF: u64 = 100;
const TRIGGER_ON: u64 = 20;

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    pub(crate) downtime_limit_ms: u64,
    pub(crate) throttle_trigger_percent: u64,
}

/// What is seen of a migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Passes over the memory that were begun.
    pub(crate) passes: u64,
    /// Bytes that are left.
    pub(crate) remaining: u64,
    /// Bytes a second.
    pub(crate) dirtied: u64,
    /// Bytes of memory a second that get away.
    pub(crate) goodput: u64,
}

#[derive(Debug)]
pub(crate) struct Converge {
    downtime_max_ms: u64,
    knobs: Knobs,
    /// The pass that was last looked at, and what it had to send.
    pass: u64,
    remaining: u64,
}

impl Converge {
    pub(crate) fn new(downtime_max_ms: u64) -> Self {
        let downtime_limit_ms = (downtime_max_ms / LIMIT_DIVISOR).max(LIMIT_MS_MIN).min(downtime_max_ms);
        let knobs = Knobs { downtime_limit_ms, throttle_trigger_percent: TRIGGER_OFF };
        Self { downtime_max_ms, knobs, pass: 0, remaining: u64::MAX }
    }

    pub(crate) fn knobs(&self) -> Knobs {
        self.knobs
    }

    /// Looks at a pass once; says if something is to change.
    pub(crate) fn look(&mut self, seen: Seen) -> Option<Knobs> {
        if seen.passes <= self.pass {
            return None;
        }
        let helped = seen.remaining < self.remaining / 100 * PASS_HELPED_PERCENT;
        let is_first = self.remaining == u64::MAX;
        (self.pass, self.remaining) = (seen.passes, seen.remaining);
        if is_first {
            return None;
        }
        let before = self.knobs;
        if !helped {
            self.knobs.downtime_limit_ms = (2 * before.downtime_limit_ms).min(self.downtime_max_ms);
        }
        let is_stuck = !helped && before.downtime_limit_ms == self.downtime_max_ms;
        if is_stuck && seen.dirtied > seen.goodput / 2 {
            self.knobs.throttle_trigger_percent = TRIGGER_ON;
        } else if seen.dirtied < seen.goodput / 4 {
            self.knobs.throttle_trigger_percent = TRIGGER_OFF;
        }
        (self.knobs != before).then_some(self.knobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(passes: u64, remaining: u64, dirtied: u64) -> Seen {
        Seen { passes, remaining, dirtied, goodput: 100 }
    }

    #[test]
    fn a_guest_that_lets_itself_be_caught_up_with_is_not_touched() {
        let mut converge = Converge::new(300);
        assert_eq!(converge.knobs(), Knobs { downtime_limit_ms: 37, throttle_trigger_percent: 100 });
        for (pass, remaining) in [(1, 100_000), (2, 50_000), (3, 10_000), (3, 9_000), (4, 1_000)] {
            assert_eq!(converge.look(seen(pass, remaining, 90)), None);
        }
    }

    #[test]
    fn one_that_does_not_may_stop_longer_and_then_is_slowed_down() {
        let mut converge = Converge::new(100);
        assert_eq!(converge.look(seen(1, 100_000, 90)), None);
        let limits: Vec<_> = (2..8).filter_map(|pass| converge.look(seen(pass, 100_000, 90))).collect();
        let limit = |downtime_limit_ms| Knobs { downtime_limit_ms, throttle_trigger_percent: 100 };
        let slowed = Knobs { downtime_limit_ms: 100, throttle_trigger_percent: 20 };
        assert_eq!(limits, [limit(24), limit(48), limit(96), limit(100), slowed]);
        // It has slowed down by itself.
        assert_eq!(converge.look(seen(9, 10_000, 10)), Some(limit(100)));
    }
}
