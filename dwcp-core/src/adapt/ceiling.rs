//! A ceiling for what all BBR links of a connection send together.
//!
//! A BBR flow takes the most that it got in ten round trips for what the path has for it. Of several flows on one path
//! each gets more than its part now and then, so together they believe in more than there is, until the queue overflows,
//! and recovering from that leaves the link idle. In the lab at 200 ms (`make lab`), four flows below such a ceiling carry
//! 4 % more, and the queue drops next to nothing. The ceiling is a little above what the links carried together, and
//! follows that.

use std::time::Duration;

use super::goodput::Goodput;

/// The ceiling over the most that was carried lately, and what was lost of that.
pub(crate) const HEADROOM: f64 = 1.1;
/// A path that carries this share of the ceiling has room: it never could with `HEADROOM` above what it has. There is no
/// ceiling then for so many round trips: BBR grows by a quarter in eight.
const ROOM: f64 = 0.97;
const ROOM_RTTS: u32 = 16;
/// There is no ceiling while the links carry less than this share of the most: they have to find their parts, which BBR's
/// probes do, and below a ceiling they are weak. The median of so many slots; three are spoiled by a probe for the
/// round-trip time.
const FOUND: f64 = 0.8;
const FOUND_SLOTS: usize = 8;
/// Slots in which losses are counted, and the most that is made up for: beyond it BBR itself gives up.
const LOSS_SLOTS: usize = 8;
const LOSS_MAX: f64 = 0.5;
/// The most that was carried is forgotten at this rate. Slowly: one link that lags behind for a while must find its part
/// again, and a ceiling that is too high for a path that got slower only does no good.
const FORGOTTEN_PER_SECOND: f64 = 0.01;
/// A queue this long in round-trip times while the links carry less than this share of the most, for so many round trips,
/// is not ours alone: someone else fills it, and would get what we hold back.
const FOREIGN_QUEUE: f64 = 1.5;
const FOREIGN_SHARE: f64 = 0.95;
const FOREIGN_RTTS: u32 = 40;
/// How long there is no ceiling then.
const LIFTED: Duration = Duration::from_secs(60);
/// What was measured so long ago says nothing any more.
const STALE: Duration = Duration::from_secs(10);
/// Below this nothing is gained (bytes per second), and pacing that is nearly zero would hold a socket for minutes.
const RATE_MIN: f64 = 1e6;

#[derive(Debug, Default)]
pub(super) struct Ceiling {
    /// Bytes per second.
    rate: Option<f64>,
    /// The most that was carried, and when that was brought up to date.
    most: f64,
    at: Duration,
    room_until: Duration,
    queued_since: Option<Duration>,
    lifted_until: Duration,
}

impl Ceiling {
    /// Takes note of a slot that was measured.
    pub(super) fn follow(&mut self, now: Duration, rtt: Duration, rtt_min: Duration, goodput: &Goodput) {
        if now < self.lifted_until {
            return;
        }
        // Without a ceiling a long queue may well be ours.
        let median = goodput.median(FOUND_SLOTS);
        let gets_less =
            self.rate.is_some() && median.is_some_and(|median| median < FOREIGN_SHARE * self.most);
        let queues = rtt >= rtt_min.mul_f64(FOREIGN_QUEUE);
        if !gets_less || !queues {
            self.queued_since = None;
        } else if now > *self.queued_since.get_or_insert(now) + FOREIGN_RTTS * rtt {
            self.lifted_until = now + LIFTED;
            self.lift();
            return;
        }
        // What was carried before it was watched counts as well.
        let slots = if self.most > 0.0 { 1 } else { usize::MAX };
        let carried = goodput.newest(slots).fold(0.0, f64::max);
        // A path that loses one in ten has to be sent that much more; without this the ceiling would sink for ever.
        let arrives = 1.0 - goodput.lost_share(LOSS_SLOTS).min(LOSS_MAX);
        if self.rate.is_some_and(|rate| carried > ROOM * arrives * rate) {
            self.room_until = now + ROOM_RTTS * rtt;
        }
        // Not while it has to be told whether others take a part of it.
        let seconds = if queues { 0.0 } else { now.saturating_sub(self.at).as_secs_f64() };
        let kept = (1.0 - FORGOTTEN_PER_SECOND).powf(seconds);
        self.most = carried.max(kept * self.most);
        self.at = now;
        let found = match median {
            Some(median) => median > FOUND * self.most,
            // A trial has just begun: it is held against what was carried below the ceiling.
            None => self.rate.is_some(),
        };
        self.rate =
            (found && now >= self.room_until && self.most > RATE_MIN).then(|| HEADROOM * self.most / arrives);
    }

    /// Forgets what is old; called while nothing is measured. Whether there was something to forget.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let stale = self.most > 0.0 && now > self.at + STALE;
        if stale {
            self.lift();
        }
        stale
    }

    /// Nothing is known, or BBR is not in use.
    pub(super) fn lift(&mut self) {
        (self.rate, self.most, self.queued_since) = (None, 0.0, None);
    }

    /// Bytes per second of all links together.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        self.rate.map(|rate| rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::LinkSample;

    const RTT: Duration = Duration::from_millis(100);

    /// A ceiling beside a link that carries what a test says, a slot each round trip.
    #[derive(Default)]
    struct Run {
        ceiling: Ceiling,
        goodput: Goodput,
        link: LinkSample,
        now: Duration,
    }

    impl Run {
        fn slot(&mut self, rtt: Duration, delivered: f64, lost: f64) -> f64 {
            self.now += RTT;
            self.link.delivered_bytes += (delivered * RTT.as_secs_f64()) as u64;
            self.link.bytes_lost += (lost * RTT.as_secs_f64()) as u64;
            self.goodput.count(&[self.link]);
            if self.goodput.measure(self.now, RTT) {
                self.ceiling.follow(self.now, rtt, RTT, &self.goodput);
            }
            self.ceiling.bytes_per_second().map_or(f64::INFINITY, |rate| rate as f64)
        }
    }

    #[test]
    fn a_path_that_loses_much_is_not_strangled() {
        for loss in [0.0, 0.05, 0.15, 0.4] {
            let (mut run, mut ceiling) = (Run::default(), f64::INFINITY);
            for _ in 0..10_000 {
                let sent = 1e7_f64.min(ceiling);
                ceiling = run.slot(RTT, (1.0 - loss) * sent, loss * sent);
            }
            assert!((1.05e7..1.2e7).contains(&ceiling), "loss {loss}: {ceiling}");
        }
    }

    #[test]
    fn new_room_is_found_nearly_as_fast_as_without_a_ceiling() {
        let mut run = Run::default();
        let mut ceiling = (0..50).map(|_| run.slot(RTT, 2e6, 0.0)).last().unwrap();
        assert!(ceiling < 2.4e6, "{ceiling}");
        let mut sent = 2e6;
        let slots = (1..1000).find(|_| {
            // BBR grows by a quarter in eight round trips.
            sent = 50e6_f64.min(ceiling).min(sent * 1.25_f64.powf(1.0 / 8.0));
            ceiling = run.slot(RTT, sent, 0.0);
            sent >= 50e6
        });
        // 116 without a ceiling.
        assert!(slots.is_some_and(|slots| slots < 200), "{slots:?}");
    }

    #[test]
    fn links_that_lag_behind_find_their_parts_again_without_it() {
        let mut run = Run::default();
        (0..50).for_each(|_| _ = run.slot(RTT, 1e7, 0.0));
        assert!((0..FOUND_SLOTS / 2).all(|_| run.slot(RTT, 7e6, 0.0).is_finite()), "a few may be chance");
        (0..2).for_each(|_| _ = run.slot(RTT, 7e6, 0.0));
        assert!((0..100).all(|_| run.slot(RTT, 7e6, 0.0).is_infinite()));
        assert!((0..FOUND_SLOTS).any(|_| run.slot(RTT, 1e7, 0.0).is_finite()));
    }

    /// Trials compare with what was measured below the ceiling.
    #[test]
    fn it_stays_when_measuring_begins_anew() {
        let mut run = Run::default();
        (0..50).for_each(|_| _ = run.slot(RTT, 1e7, 0.0));
        run.goodput.restart();
        assert!((0..20).all(|_| run.slot(RTT, 1e7, 0.0).is_finite()));
    }

    #[test]
    fn what_carries_nothing_or_is_long_ago_has_none() {
        let mut run = Run::default();
        assert!((0..50).all(|_| run.slot(RTT, 0.0, 0.0).is_infinite()));
        (0..50).for_each(|_| _ = run.slot(RTT, 1e7, 0.0));
        assert!(!run.ceiling.expire(run.now + STALE));
        assert!(run.ceiling.bytes_per_second().is_some());
        assert!(run.ceiling.expire(run.now + STALE + RTT));
        assert!(run.ceiling.bytes_per_second().is_none());
    }

    #[test]
    fn beside_others_who_fill_the_queue_there_is_none() {
        let mut run = Run::default();
        assert!((0..50).map(|_| run.slot(RTT, 1e7, 0.0)).last().unwrap().is_finite());
        assert!((0..200).all(|_| run.slot(2 * RTT, 1e7, 0.0).is_finite()), "a queue of our own");
        assert!((0..100).any(|_| run.slot(2 * RTT, 0.9e7, 0.0).is_infinite()));
        assert!((0..100).all(|_| run.slot(RTT, 1e7, 0.0).is_infinite()));
    }
}
