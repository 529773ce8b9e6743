//! The link's rate over time.
//!
//! Owns: how long bytes take to leave a serializer whose rate changes at known moments, and how many bytes leave in a
//! span. Exact for a packet that is on the wire while the rate changes. Knows no packets and no clock.

use crate::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A rate that changes at given moments and is constant between them.
#[derive(Debug, Clone)]
pub struct RateSchedule {
    /// (from when, bits per second), ascending; the first is at 0.
    steps: Vec<(Nanos, u64)>,
}

impl RateSchedule {
    /// `initial` bits per second from time 0, then each of `changes` from its moment on.
    ///
    /// Panics when a rate is 0 (an outage is the link model's business) or the changes are not in order.
    pub fn new(initial: u64, changes: &[(Nanos, u64)]) -> Self {
        let steps: Vec<_> = std::iter::once((0, initial)).chain(changes.iter().copied()).collect();
        assert!(steps.iter().all(|&(_, rate)| rate > 0), "a rate of zero never finishes");
        assert!(steps.is_sorted_by(|a, b| a.0 < b.0), "rate changes must be in order of time, after 0");
        Self { steps }
    }

    /// When `bytes` that start at `start` have left.
    pub fn transmit_end(&self, start: Nanos, bytes: u64) -> Nanos {
        // Work is counted in bit-nanoseconds so that nothing is rounded until the last step.
        let mut work = u128::from(bytes) * 8 * NANOS_PER_SECOND;
        let mut now = start;
        for (rate, until) in self.spans_from(start) {
            let capacity = u128::from(rate) * u128::from(until - now);
            if work <= capacity {
                return now + work.div_ceil(u128::from(rate)) as Nanos;
            }
            work -= capacity;
            now = until;
        }
        unreachable!("the last span has no end")
    }

    /// How many bytes leave between two moments when there is always something to send.
    pub fn bytes_between(&self, from: Nanos, to: Nanos) -> u64 {
        let mut work = 0u128;
        let mut now = from;
        for (rate, until) in self.spans_from(from) {
            if now >= to {
                break;
            }
            work += u128::from(rate) * u128::from(until.min(to) - now);
            now = until;
        }
        (work / (8 * NANOS_PER_SECOND)) as u64
    }

    /// (rate, end) of each span from the one that contains `start` on.
    fn spans_from(&self, start: Nanos) -> impl Iterator<Item = (u64, Nanos)> {
        let first = self.steps.partition_point(|&(at, _)| at <= start) - 1;
        (first..self.steps.len())
            .map(|i| (self.steps[i].1, self.steps.get(i + 1).map_or(Nanos::MAX, |&(at, _)| at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_constant_rate() {
        let rate = RateSchedule::new(8_000_000, &[]); // one byte per microsecond
        assert_eq!(rate.transmit_end(5_000, 1500), 5_000 + 1_500_000);
        assert_eq!(rate.bytes_between(0, 1_500_000), 1500);
        assert_eq!(rate.bytes_between(10, 10), 0);
        assert_eq!(rate.bytes_between(10, 5), 0);
    }

    #[test]
    fn a_packet_across_a_change_takes_its_time_at_both_rates() {
        let rate = RateSchedule::new(8_000_000, &[(1_000_000, 4_000_000)]);
        // 500 bytes before the change (500 us), 500 bytes after it at half the rate (1000 us).
        assert_eq!(rate.transmit_end(500_000, 1000), 2_000_000);
        assert_eq!(rate.bytes_between(500_000, 2_000_000), 1000);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn changes_out_of_order_are_refused() {
        RateSchedule::new(1, &[(5, 1), (4, 1)]);
    }

    proptest! {
        #[test]
        fn what_is_sent_until_the_end_is_what_was_to_be_sent(
            start in 0u64..10_000_000_000,
            bytes in 1u64..10_000_000,
            initial in 1_000_000u64..1_000_000_000,
            changes in prop::collection::btree_map(1u64..10_000_000_000, 1_000_000u64..1_000_000_000, 0..4),
        ) {
            let changes: Vec<_> = changes.into_iter().collect();
            let rate = RateSchedule::new(initial, &changes);
            let end = rate.transmit_end(start, bytes);
            // The end is rounded up to a whole nanosecond, in which less than one byte leaves at these rates.
            prop_assert_eq!(rate.bytes_between(start, end), bytes);
            prop_assert!(rate.bytes_between(start, end - 1) <= bytes);
            prop_assert!(rate.transmit_end(start, bytes + 1) > end);
        }
    }
}
