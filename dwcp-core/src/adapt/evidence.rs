//! What kind of loss a path has. Losses while the queue is (nearly) empty are random: noise, policers, shallow buffers.
//! A path that loses only while its queue is long drops at the tail of it: congestion. The kernel's round-trip time
//! tells how long the queue is, its retransmission counters what was lost.
//!
//! Owns the judgement; what follows from it is the controller's.

use std::time::Duration;

use super::LinkSample;

/// A segment of an Ethernet path, bytes. Only to speak of losses in segments.
const SEGMENT: f64 = 1448.0;
/// Evidence of this age counts half.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// The queue is called empty up to this share of the longest seen...
const QUIET_SHARE: f64 = 0.4;
/// ...and in any case below this multiple of the smallest round-trip time plus a millisecond.
const QUIET_RTT: f64 = 1.25;
/// Random loss above this rate makes loss-based congestion control slow on a long path.
const RANDOM_RATE: f64 = 3e-5;
/// Random loss is believed from this many lost segments.
const RANDOM_LOSSES: f64 = 3.0;
/// A path is believed to be free of random loss after this many segments with an empty queue: 0.1 % would have shown
/// with a probability of 92 %.
const CLEAN_SEGMENTS: f64 = 2500.0;
/// Losses with a long queue that speak for drop-tail.
const QUEUE_LOSSES: f64 = 10.0;
/// A sample that lost this share with a long queue is an overflow: what is still found lost in the next two round
/// trips belongs to it, although the queue has drained.
const OVERFLOW_SHARE: f64 = 0.02;

/// What the path does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loss {
    /// Not enough seen, or contradictory.
    Unknown,
    /// Not enough sent with an empty queue, but losses with a long one.
    QueueLosses,
    /// Much sent, and losses only while the queue was long.
    DropTail,
    /// Losses at this rate while the queue was empty.
    Random(f64),
}

#[derive(Debug, Default)]
struct Tally {
    segments: f64,
    lost: f64,
}

/// Collects evidence over all links of a connection.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    previous: Vec<(u32, LinkCounters)>,
    at: Duration,
    rtt_min: Option<Duration>,
    rtt_peak: Duration,
    quiet: Tally,
    queued: Tally,
    overflow_until: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkCounters {
    sent: u64,
    lost: u64,
}

impl Evidence {
    /// The smallest round-trip time of any link.
    pub(super) fn rtt_min(&self) -> Option<Duration> {
        self.rtt_min
    }

    /// Takes a sample of the links at a time.
    pub(super) fn on_sample(&mut self, now: Duration, links: &[LinkSample]) {
        let elapsed = now.saturating_sub(self.at);
        self.at = now;
        let keep = 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for tally in [&mut self.quiet, &mut self.queued] {
            tally.segments *= keep;
            tally.lost *= keep;
        }
        for link in links.iter().filter(|link| !link.rtt_min.is_zero()) {
            self.rtt_min = Some(self.rtt_min.map_or(link.rtt_min, |known| known.min(link.rtt_min)));
        }
        let Some(rtt_min) = self.rtt_min else {
            return;
        };
        // The peak sinks slowly, so that a queue that has become shorter is recognised again.
        self.rtt_peak = rtt_min + self.rtt_peak.saturating_sub(rtt_min).mul_f64(keep);
        for link in links {
            self.rtt_peak = self.rtt_peak.max(link.rtt);
        }
        let quiet_below = (rtt_min.mul_f64(QUIET_RTT) + Duration::from_millis(1))
            .max(rtt_min + (self.rtt_peak - rtt_min).mul_f64(QUIET_SHARE));
        for link in links {
            self.on_link(now, link, quiet_below);
        }
        self.previous = links
            .iter()
            .map(|link| (link.id, LinkCounters { sent: link.bytes_sent, lost: link.bytes_lost }))
            .collect();
    }

    fn on_link(&mut self, now: Duration, link: &LinkSample, quiet_below: Duration) {
        let before =
            self.previous.iter().find(|(id, _)| *id == link.id).map_or_else(Default::default, |p| p.1);
        let segments = link.bytes_sent.saturating_sub(before.sent) as f64 / SEGMENT;
        let lost = link.bytes_lost.saturating_sub(before.lost) as f64 / SEGMENT;
        let tally = if link.rtt <= quiet_below {
            if now < self.overflow_until {
                return;
            }
            &mut self.quiet
        } else {
            if lost > OVERFLOW_SHARE * segments && lost > 2.0 {
                self.overflow_until = now + 2 * link.rtt;
            }
            &mut self.queued
        };
        tally.segments += segments;
        tally.lost += lost;
    }

    /// What the evidence says.
    pub(super) fn loss(&self) -> Loss {
        let rate = self.quiet.lost / self.quiet.segments.max(1.0);
        if self.quiet.lost >= RANDOM_LOSSES && rate > RANDOM_RATE {
            return Loss::Random(rate);
        }
        // A single loss with an empty queue is enough to doubt that the path has none by itself.
        let clean = self.quiet.lost < 0.5 || rate < RANDOM_RATE;
        match (self.queued.lost >= QUEUE_LOSSES && clean, self.quiet.segments >= CLEAN_SEGMENTS) {
            (true, true) => Loss::DropTail,
            (true, false) => Loss::QueueLosses,
            (false, _) => Loss::Unknown,
        }
    }
}
