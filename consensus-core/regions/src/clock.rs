//! Hybrid logical clocks (Kulkarni, Demirbas, Madappa, Avva, Leone 2014).
//!
//! A region's clock is part of its replicated state: whoever proposes a change brings the time of its own machine, and applying
//! the change advances the clock. So stamps rise in the order of the region's log, whatever the machines' clocks say, and a
//! change that was made in knowledge of another has the later stamp.

use crate::limits::COUNTER_MAX;

const LOGICAL_BITS: u32 = 16;

/// A time: milliseconds since 1970 in the upper 48 bits, a counter below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The end of time, in the year 4199.
    pub const MILLIS_MAX: u64 = COUNTER_MAX >> LOGICAL_BITS;

    /// Of a time and the counter below it. Times after [`MILLIS_MAX`](Self::MILLIS_MAX) are that.
    pub fn new(millis: u64, logical: u16) -> Self {
        Self(millis.min(Self::MILLIS_MAX) << LOGICAL_BITS | u64::from(logical))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter.
    pub fn logical(self) -> u16 {
        self.0 as u16
    }
}

/// A clock, which is the latest stamp that it has given or seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    latest: Stamp,
}

/// A stamp that is further in the future than clocks can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time {ahead_ms} ms in the future: more than {allowed_ms} ms")]
pub struct TooFarAhead {
    /// How far.
    pub ahead_ms: u64,
    /// What is allowed.
    pub allowed_ms: u64,
}

impl Clock {
    /// The clock that has seen `latest`.
    pub fn at(latest: Stamp) -> Self {
        Self { latest }
    }

    /// The latest stamp that it has given or seen.
    pub fn latest(self) -> Stamp {
        self.latest
    }

    /// A stamp for a change, later than all before: `wall_ms`, if that is. When the counter is used up, it goes on in the
    /// next millisecond.
    pub fn tick(&mut self, wall_ms: u64) -> Stamp {
        let end = Stamp::new(Stamp::MILLIS_MAX, u16::MAX);
        self.latest = Stamp::new(wall_ms, 0).max(Stamp(self.latest.0 + 1)).min(end);
        self.latest
    }

    /// What comes next is later than `seen`.
    pub fn observe(&mut self, seen: Stamp) {
        self.latest = self.latest.max(seen);
    }
}

/// Whether a peer's stamp can be, if clocks differ by `allowed_ms` at most.
pub fn check_skew(seen: Stamp, now_ms: u64, allowed_ms: u64) -> Result<(), TooFarAhead> {
    match seen.millis().saturating_sub(now_ms) {
        ahead_ms if ahead_ms > allowed_ms => Err(TooFarAhead { ahead_ms, allowed_ms }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_machines_say() {
        let mut clock = Clock::default();
        // Wall time, or a stamp that is seen; what the next stamp is.
        let steps = [
            (Some(100), None, (100, 0)),
            (Some(100), None, (100, 1)),
            (Some(90), None, (100, 2)),
            (Some(101), None, (101, 0)),
            (None, Some(Stamp::new(200, 7)), (200, 7)),
            (Some(150), None, (200, 8)),
            (None, Some(Stamp::new(10, 0)), (200, 8)),
            (None, Some(Stamp::new(300, u16::MAX)), (300, u16::MAX)),
            (Some(300), None, (301, 0)),
        ];
        for (wall_ms, seen, expected) in steps {
            if let Some(seen) = seen {
                clock.observe(seen);
            }
            if let Some(wall_ms) = wall_ms {
                clock.tick(wall_ms);
            }
            assert_eq!((clock.latest().millis(), clock.latest().logical()), expected);
        }
    }

    #[test]
    fn a_stamp_from_too_far_in_the_future_is_refused() {
        let seen = Stamp::new(1_500, 3);
        assert_eq!(check_skew(seen, 1_000, 500), Ok(()));
        assert_eq!(check_skew(seen, 999, 500), Err(TooFarAhead { ahead_ms: 501, allowed_ms: 500 }));
        assert_eq!(check_skew(seen, 9_000, 0), Ok(()));
    }
}
