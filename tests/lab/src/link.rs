//! The model of one direction of a WAN link: what becomes of each wire segment, and when.
//!
//! Owns: loss, the drop-tail queue, serialization at a rate, delay, jitter, reordering, outages. Pure: time is an
//! argument, randomness is seeded, nothing is stored but numbers. It never sees a packet's bytes; `gso` cuts packets
//! into segments and `pump` carries them.
//!
//! Order of events for a segment, the same as in Linux `netem` with a rate: it may be lost on arrival (a lost segment
//! takes no capacity), else it waits in the queue if there is room, is serialized, and arrives one delay later.

use crate::Nanos;
use crate::random::{SplitMix64, unit_at};
use crate::rate::RateSchedule;
use std::ops::Range;

/// A new jitter target is drawn this often, or every four jitters if that is longer: the delay then never falls faster
/// than time passes, so jitter alone cannot reorder.
const JITTER_INTERVAL_MIN: Nanos = 10_000_000;

/// What one direction of a link does to segments. Times in nanoseconds since the link came up.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Rate of IP payload bytes (transport header and data); IP headers ride free, so that IPv4 and IPv6 fill alike.
    pub rate: RateSchedule,
    /// Propagation delay, one way.
    pub delay: Nanos,
    /// Extra delay wanders between 0 and this.
    pub jitter: Nanos,
    /// Probability that a segment is lost.
    pub loss: f64,
    /// Bytes that may wait for the serializer, the one on the wire included.
    pub queue_bytes: u64,
    /// Probability that a segment is held back, so that later ones overtake it.
    pub reorder: f64,
    /// How long such a segment is held back.
    pub reorder_delay: Nanos,
    /// Spans in which nothing passes.
    pub outages: Vec<Range<Nanos>>,
    /// Seed of this direction.
    pub seed: u64,
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Arrives at this moment, in order.
    Deliver(Nanos),
    /// Arrives at this moment, later than segments sent after it.
    HeldBack(Nanos),
    /// Lost at random.
    Lost,
    /// Dropped: the queue was full.
    QueueFull,
    /// Dropped: the link is down.
    Down,
}

/// One direction of the link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    loss: SplitMix64,
    reorder: SplitMix64,
    /// When the serializer has sent all that is queued.
    free_at: Nanos,
    up: bool,
}

impl Link {
    /// An idle link.
    pub fn new(config: LinkConfig) -> Self {
        Self {
            loss: SplitMix64::new(config.seed, 1),
            reorder: SplitMix64::new(config.seed, 2),
            free_at: 0,
            up: true,
            config,
        }
    }

    /// Decides about a segment of `bytes` (IP payload) that arrives at `now`. `now` must not go backwards.
    pub fn send(&mut self, now: Nanos, bytes: u64) -> Fate {
        // Drawn first and for every segment: the n-th segment of a seed is lost whatever the sender or the queue did.
        let lost = self.config.loss > 0.0 && self.loss.chance(self.config.loss);
        let held_back = self.config.reorder > 0.0 && self.reorder.chance(self.config.reorder);
        if !self.is_up(now) {
            return Fate::Down;
        }
        if lost {
            return Fate::Lost;
        }
        if self.config.rate.bytes_between(now, self.free_at) + bytes > self.config.queue_bytes {
            return Fate::QueueFull;
        }
        self.free_at = self.config.rate.transmit_end(self.free_at.max(now), bytes);
        let at = self.free_at + self.config.delay + self.jitter(self.free_at);
        if held_back { Fate::HeldBack(at + self.config.reorder_delay) } else { Fate::Deliver(at) }
    }

    /// Whether the link passes anything at `now`: asked on arrival, and again on delivery for what was in flight.
    pub fn is_up(&self, now: Nanos) -> bool {
        self.up && !self.config.outages.iter().any(|outage| outage.contains(&now))
    }

    /// Takes the link down or up, beside the configured outages.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Extra delay at a moment: straight lines between random targets, so that neighbours have similar delays as on a
    /// real path. Independent draws per packet would all be hidden behind the slowest one in an ordered link.
    fn jitter(&self, at: Nanos) -> Nanos {
        if self.config.jitter == 0 {
            return 0;
        }
        let interval = JITTER_INTERVAL_MIN.max(4 * self.config.jitter);
        let target = |index| unit_at(self.config.seed, index);
        let (index, into) = (at / interval, (at % interval) as f64 / interval as f64);
        ((target(index) * (1.0 - into) + target(index + 1) * into) * self.config.jitter as f64) as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MS;

    /// 8 Mbit/s (one byte per microsecond), 50 ms, a queue of ten 1000-byte segments, nothing else.
    fn plain() -> LinkConfig {
        LinkConfig {
            rate: RateSchedule::new(8_000_000, &[]),
            delay: 50 * MS,
            jitter: 0,
            loss: 0.0,
            queue_bytes: 10_000,
            reorder: 0.0,
            reorder_delay: 0,
            outages: vec![],
            seed: 1,
        }
    }

    #[test]
    fn an_idle_link_delivers_after_serialization_and_delay() {
        let mut link = Link::new(plain());
        assert_eq!(link.send(0, 1000), Fate::Deliver(51 * MS));
        assert_eq!(link.send(10 * MS, 1000), Fate::Deliver(61 * MS));
    }

    #[test]
    fn a_burst_is_spaced_by_the_rate_and_the_queue_drops_its_tail() {
        let mut link = Link::new(plain());
        for i in 1..=10 {
            assert_eq!(link.send(0, 1000), Fate::Deliver(50 * MS + i * MS));
        }
        assert_eq!(link.send(0, 1000), Fate::QueueFull);
        assert_eq!(link.send(MS - 1_000, 1000), Fate::QueueFull, "the first has not quite left");
        assert_eq!(link.send(MS, 1000), Fate::Deliver(61 * MS), "room for exactly one");
        assert_eq!(link.send(MS, 1), Fate::QueueFull);
    }

    #[test]
    fn loss_keeps_its_probability_and_takes_no_capacity() {
        let config = LinkConfig { loss: 0.05, queue_bytes: 1_000, ..plain() };
        let mut link = Link::new(config);
        // Offered at exactly the rate: were lost segments serialized, nothing would change; were they delayed, the
        // queue of one segment would overflow.
        let fates: Vec<Fate> = (0..100_000).map(|i| link.send(i * MS, 1000)).collect();
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        assert!((4586..=5414).contains(&lost), "{lost}: six standard deviations around 5000");
        for (i, fate) in fates.iter().enumerate().filter(|(_, f)| **f != Fate::Lost) {
            assert_eq!(*fate, Fate::Deliver((i as Nanos + 51) * MS));
        }
    }

    #[test]
    fn the_same_segments_are_lost_whatever_the_timing() {
        let config = LinkConfig { loss: 0.1, queue_bytes: u64::MAX / 2, ..plain() };
        let lost = |gap: Nanos, config: &LinkConfig| -> Vec<bool> {
            let mut link = Link::new(config.clone());
            (0..1000).map(|i| link.send(i * gap, 1000) == Fate::Lost).collect()
        };
        assert_eq!(lost(0, &config), lost(3 * MS, &config));
        assert_ne!(lost(0, &config), lost(0, &LinkConfig { seed: 2, ..config.clone() }));
    }

    #[test]
    fn held_back_segments_are_overtaken() {
        let mut link = Link::new(LinkConfig { reorder: 0.1, reorder_delay: 5 * MS, ..plain() });
        let fates: Vec<Fate> = (0..10_000).map(|i| link.send(i * MS, 1000)).collect();
        let held = fates.iter().filter(|f| matches!(f, Fate::HeldBack(_))).count();
        assert!((820..=1180).contains(&held), "{held}: six standard deviations around 1000");
        for (i, fate) in fates.iter().enumerate() {
            let at = (i as Nanos + 51) * MS;
            assert!([Fate::Deliver(at), Fate::HeldBack(at + 5 * MS)].contains(fate), "{i} {fate:?}");
        }
    }

    #[test]
    fn a_rate_change_applies_to_what_is_still_queued() {
        let rate = RateSchedule::new(8_000_000, &[(2 * MS, 80_000_000)]);
        let mut link = Link::new(LinkConfig { rate, ..plain() });
        let at: Vec<Fate> = (0..4).map(|_| link.send(0, 1000)).collect();
        let expected = [51_000_000, 52_000_000, 52_100_000, 52_200_000].map(Fate::Deliver);
        assert_eq!(at, expected);
    }

    #[test]
    fn outages_and_the_switch_stop_everything() {
        let mut link =
            Link::new(LinkConfig { outages: std::iter::once(SECOND..2 * SECOND).collect(), ..plain() });
        assert!(matches!(link.send(SECOND - 1, 1000), Fate::Deliver(_)));
        assert_eq!(link.send(SECOND, 1000), Fate::Down);
        assert!(!link.is_up(2 * SECOND - 1));
        assert!(matches!(link.send(2 * SECOND, 1000), Fate::Deliver(_)));
        link.set_up(false);
        assert_eq!(link.send(3 * SECOND, 1000), Fate::Down);
        link.set_up(true);
        assert!(matches!(link.send(3 * SECOND, 1000), Fate::Deliver(_)));
    }

    proptest! {
        #[test]
        fn order_rate_queue_and_delay_hold_for_any_arrivals(
            arrivals in prop::collection::vec((0u64..4 * MS, 40u64..1500), 1..400),
            jitter in prop_oneof![Just(0), 1..60 * MS],
            loss in prop_oneof![Just(0.0), 0.0..0.5],
            changes in prop::collection::btree_map(1..SECOND, 1_000_000u64..100_000_000, 0..3),
            seed: u64,
        ) {
            let changes: Vec<_> = changes.into_iter().collect();
            let config = LinkConfig {
                rate: RateSchedule::new(8_000_000, &changes), jitter, loss, seed, ..plain()
            };
            let (mut link, mut replay) = (Link::new(config.clone()), Link::new(config.clone()));
            let (mut now, mut last) = (0, 0);
            let mut first_sent = None;
            let mut carried = 0;
            for (gap, bytes) in arrivals {
                now += gap;
                let fate = link.send(now, bytes);
                prop_assert_eq!(fate, replay.send(now, bytes), "same seed, same fate");
                if let Fate::Deliver(at) = fate {
                    prop_assert!(at >= last, "jitter must not reorder");
                    prop_assert!(at >= config.rate.transmit_end(now, bytes) + config.delay);
                    // Whoever was admitted waits for a full queue and the widest jitter at most.
                    let worst = config.rate.transmit_end(now, config.queue_bytes + 1);
                    prop_assert!(at <= worst + config.delay + jitter);
                    last = at;
                    carried += bytes;
                    let start = *first_sent.get_or_insert(now);
                    prop_assert!(config.rate.bytes_between(start, at - config.delay) >= carried, "faster than the rate");
                }
            }
        }
    }
}
