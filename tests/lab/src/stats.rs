//! What the emulator counts: segments and their fates in each direction, and how late it was itself.
//!
//! Owns: the counters, the lateness histogram and the verdict that a run is void. Prints nothing.

use crate::Nanos;
use crate::link::Fate;
use serde::{Deserialize, Serialize};

/// A run in which any packet was carried later than this is void: it measured the machine, not the link. A hypervisor
/// that takes a processor away for a time slice (10 to 20 ms) is below it: that delays packets once and loses none,
/// which no figure of a run of seconds shows.
pub const LATE_MAX_VOID: Nanos = 50_000_000;
/// Likewise when one packet in a hundred was later than this, a thirtieth of the shortest standing round trip.
pub const LATE_P99_VOID: Nanos = 1_000_000;

/// Buckets of equal width up to 8, then eight per doubling: an error of at most one eighth.
const BUCKETS: usize = 8 * 62;

/// How late packets were against the model's moment of delivery.
#[derive(Debug, Clone)]
pub struct Lateness {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: Nanos,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, max: 0 }
    }
}

impl Lateness {
    pub(crate) fn record(&mut self, late: Nanos) {
        self.buckets[Self::bucket(late)] += 1;
        self.count += 1;
        self.max = self.max.max(late);
    }

    /// The worst.
    pub fn max(&self) -> Nanos {
        self.max
    }

    /// At least `q` (0.0..=1.0) of all packets were no later than this. Rounded up by an eighth at most; 0 when
    /// nothing was recorded.
    pub fn quantile(&self, q: f64) -> Nanos {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::upper(bucket).min(self.max);
            }
        }
        0
    }

    fn bucket(late: Nanos) -> usize {
        if late < 8 {
            return late as usize;
        }
        let exponent = late.ilog2() as usize;
        (exponent - 2) * 8 + ((late >> (exponent - 3)) & 7) as usize
    }

    /// The largest value of a bucket.
    fn upper(bucket: usize) -> Nanos {
        if bucket < 8 {
            return bucket as Nanos;
        }
        let shift = (bucket / 8 - 1) as u32;
        let lowest = (8 + (bucket % 8) as u64) << shift;
        lowest + ((1u64 << shift) - 1)
    }
}

/// One direction's counters. Bytes are IP payload, the unit of the rate.
#[derive(Debug, Clone, Default)]
pub struct DirectionStats {
    /// Wire segments that were offered.
    pub segments: u64,
    /// Wire segments that were carried to the other end.
    pub delivered_segments: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    /// Lost at random.
    pub lost: u64,
    /// Dropped by the full queue.
    pub queue_drops: u64,
    /// Dropped because the link was down, on arrival or in flight.
    pub down_drops: u64,
    /// Held back to be overtaken.
    pub held_back: u64,
    /// Faults of the emulator: frames it could not parse or deliver. Must be 0.
    pub faults: u64,
    /// Packets that the kernel dropped at the devices, on a machine that is too busy to take them.
    pub device_drops: u64,
    /// How late deliveries were.
    pub lateness: Lateness,
}

impl DirectionStats {
    pub(crate) fn count_fate(&mut self, fate: Fate) {
        self.segments += 1;
        match fate {
            Fate::Deliver(_) => {}
            Fate::HeldBack(_) => self.held_back += 1,
            Fate::Lost => self.lost += 1,
            Fate::QueueFull => self.queue_drops += 1,
            Fate::Down => self.down_drops += 1,
        }
    }
}

/// Both directions, and what the emulation cost.
#[derive(Debug, Clone, Default)]
pub struct LinkStats {
    /// From side A to side B.
    pub a_to_b: DirectionStats,
    /// From side B to side A.
    pub b_to_a: DirectionStats,
    /// Processor time of the pump thread, receive processing of the delivered packets included.
    pub pump_cpu_ns: u64,
}

/// `LinkStats` in the form that is printed and stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkSummary {
    /// Worst lateness of both directions, in microseconds.
    pub late_max_us: f64,
    /// 99th percentile of lateness, the worse direction's, in microseconds.
    pub late_p99_us: f64,
    /// The figures of this run measured the machine rather than the link; see `LATE_MAX_VOID`.
    pub void: bool,
    /// Faults of the emulator and drops of its devices in both directions.
    pub faults: u64,
    /// Processor time of the pump thread, in seconds.
    pub pump_cpu_s: f64,
    /// From A to B: segments offered, lost, dropped by the queue; bytes carried.
    pub a_to_b: DirectionSummary,
    /// From B to A.
    pub b_to_a: DirectionSummary,
}

/// One direction in `LinkSummary`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of `DirectionStats`")]
pub struct DirectionSummary {
    pub segments: u64,
    pub delivered_bytes: u64,
    pub lost: u64,
    pub queue_drops: u64,
    pub down_drops: u64,
    pub held_back: u64,
}

impl LinkStats {
    /// The figures to print, and whether they count.
    pub fn summary(&self) -> LinkSummary {
        let both = [&self.a_to_b, &self.b_to_a];
        let max = both.map(|d| d.lateness.max()).into_iter().max().unwrap_or(0);
        let p99 = both.map(|d| d.lateness.quantile(0.99)).into_iter().max().unwrap_or(0);
        let faults = both.map(|d| d.faults + d.device_drops).iter().sum();
        LinkSummary {
            late_max_us: max as f64 / 1e3,
            late_p99_us: p99 as f64 / 1e3,
            void: max > LATE_MAX_VOID || p99 > LATE_P99_VOID || faults > 0,
            faults,
            pump_cpu_s: self.pump_cpu_ns as f64 / 1e9,
            a_to_b: DirectionSummary::from(&self.a_to_b),
            b_to_a: DirectionSummary::from(&self.b_to_a),
        }
    }
}

impl From<&DirectionStats> for DirectionSummary {
    fn from(stats: &DirectionStats) -> Self {
        Self {
            segments: stats.segments,
            delivered_bytes: stats.delivered_bytes,
            lost: stats.lost,
            queue_drops: stats.queue_drops,
            down_drops: stats.down_drops,
            held_back: stats.held_back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values_rounded_up(mut values in prop::collection::vec(0u64..1 << 50, 1..500), q in 0.01f64..1.0) {
            let mut lateness = Lateness::default();
            values.iter().for_each(|v| lateness.record(*v));
            values.sort_unstable();
            let exact = values[((values.len() as f64 * q).ceil() as usize).max(1) - 1];
            let got = lateness.quantile(q);
            prop_assert!(exact <= got && got <= exact + exact / 8, "exact {exact} got {got}");
            prop_assert_eq!(lateness.max(), *values.last().unwrap());
        }
    }

    #[test]
    fn the_extremes_have_buckets() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.quantile(0.99), 0);
        lateness.record(0);
        lateness.record(u64::MAX);
        assert_eq!(lateness.quantile(1.0), u64::MAX);
    }

    #[test]
    fn late_or_faulty_runs_are_void() {
        let mut stats = LinkStats::default();
        (0..1000).for_each(|_| stats.a_to_b.lateness.record(LATE_P99_VOID / 2));
        assert!(!stats.summary().void);
        let mut late = stats.clone();
        late.b_to_a.lateness.record(LATE_MAX_VOID + 1);
        assert!(late.summary().void);
        let mut faulty = stats.clone();
        faulty.a_to_b.faults = 1;
        assert!(faulty.summary().void);
        let mut dropping = stats.clone();
        dropping.b_to_a.device_drops = 1;
        assert!(dropping.summary().void);
        (0..20).for_each(|_| stats.a_to_b.lateness.record(LATE_P99_VOID * 2));
        assert!(stats.summary().void);
    }
}
