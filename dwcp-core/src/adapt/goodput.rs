//! Goodput in slots of about a round trip. The median of slots is what trials compare: a single slot is spoiled by BBR's
//! probe for the round-trip time.

use std::{collections::VecDeque, time::Duration};

use super::LinkSample;

/// Slots that are remembered.
const SLOTS_MAX: usize = 16;
/// A slot is at least this long, also on short paths.
pub(super) const SLOT_MIN: Duration = Duration::from_millis(100);

/// Measures goodput while the network is the limit.
#[derive(Debug, Default)]
pub(super) struct Goodput {
    /// Of each open link when last seen, and of all links together since the beginning.
    links: Vec<(u32, Bytes)>,
    total: Bytes,
    /// Time and total at the start of the running slot.
    started: Option<(Duration, Bytes)>,
    /// Complete slots, the newest last.
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    delivered: u64,
    lost: u64,
}

/// Bytes per second.
#[derive(Clone, Copy, Debug)]
struct Slot {
    delivered: f64,
    lost: f64,
}

impl Goodput {
    /// Counts what links delivered since the last sample.
    pub(super) fn count(&mut self, links: &[LinkSample]) {
        for link in links {
            let before = self
                .links
                .iter()
                .find(|(id, _)| *id == link.id)
                .map_or(Bytes::default(), |(_, bytes)| *bytes);
            self.total.delivered += link.delivered_bytes.saturating_sub(before.delivered);
            self.total.lost += link.bytes_lost.saturating_sub(before.lost);
        }
        let seen = |link: &LinkSample| Bytes { delivered: link.delivered_bytes, lost: link.bytes_lost };
        self.links = links.iter().map(|link| (link.id, seen(link))).collect();
    }

    /// Measures up to now; whether that completed a slot.
    pub(super) fn measure(&mut self, now: Duration, rtt: Duration) -> bool {
        let (start, before) = *self.started.get_or_insert((now, self.total));
        let elapsed = now.saturating_sub(start);
        if elapsed < rtt.max(SLOT_MIN) {
            return false;
        }
        if self.slots.len() == SLOTS_MAX {
            self.slots.pop_front();
        }
        let rate = |bytes: u64| bytes as f64 / elapsed.as_secs_f64();
        self.slots.push_back(Slot {
            delivered: rate(self.total.delivered - before.delivered),
            lost: rate(self.total.lost - before.lost),
        });
        self.started = Some((now, self.total));
        true
    }

    /// Drops the running slot: something other than the network was the limit in it.
    pub(super) fn interrupt(&mut self) {
        self.started = None;
    }

    /// Forgets everything: what follows is not comparable.
    pub(super) fn restart(&mut self) {
        self.started = None;
        self.slots.clear();
    }

    /// Complete slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The newest `n` slots, the newest first.
    pub(super) fn newest(&self, n: usize) -> impl Iterator<Item = f64> {
        self.slots.iter().rev().take(n).map(|slot| slot.delivered)
    }

    /// Share of what was sent in the newest `n` slots that was lost, for whatever reason.
    pub(super) fn lost_share(&self, n: usize) -> f64 {
        let newest = self.slots.iter().rev().take(n);
        let [delivered, lost] =
            newest.fold([0.0, 0.0], |[delivered, lost], slot| [delivered + slot.delivered, lost + slot.lost]);
        lost / (delivered + lost).max(1.0)
    }

    /// Median of the newest `n` slots; `None` if there are fewer.
    pub(super) fn median(&self, n: usize) -> Option<f64> {
        let mut newest: Vec<f64> = self.newest(n).collect();
        if newest.len() < n || n == 0 {
            return None;
        }
        newest.sort_by(f64::total_cmp);
        Some(newest[n / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(goodput: &mut Goodput, at_ms: u64, delivered: &[(u32, u64)]) -> bool {
        let link = |&(id, delivered_bytes)| LinkSample { id, delivered_bytes, ..LinkSample::default() };
        let links: Vec<LinkSample> = delivered.iter().map(link).collect();
        goodput.count(&links);
        goodput.measure(Duration::from_millis(at_ms), Duration::from_millis(150))
    }

    #[test]
    fn median_ignores_one_bad_slot() {
        let mut goodput = Goodput::default();
        let mut delivered = 0;
        for slot in 0..=7u64 {
            sample(&mut goodput, 200 * slot, &[(1, delivered)]);
            delivered += if slot == 4 { 1_000 } else { 200_000 };
        }
        assert_eq!(goodput.len(), 7);
        assert_eq!(goodput.median(5), Some(1_000_000.0));
        assert_eq!(goodput.median(8), None);
    }

    #[test]
    fn an_interrupted_slot_does_not_count() {
        let mut goodput = Goodput::default();
        sample(&mut goodput, 0, &[(1, 0)]);
        goodput.interrupt();
        assert!(!sample(&mut goodput, 5000, &[(1, 10)]));
        assert!(sample(&mut goodput, 6000, &[(1, 1010)]));
        assert_eq!(goodput.median(1), Some(1000.0));
    }

    #[test]
    fn links_come_and_go() {
        let mut goodput = Goodput::default();
        sample(&mut goodput, 0, &[(1, 5000)]);
        sample(&mut goodput, 1000, &[(1, 6000), (2, 500)]);
        sample(&mut goodput, 2000, &[(2, 2500)]);
        assert_eq!(goodput.newest(2).collect::<Vec<_>>(), [2000.0, 1500.0]);
    }
}
