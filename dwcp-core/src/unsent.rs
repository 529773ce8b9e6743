//! How much may wait unsent in the kernel of a link (`TCP_NOTSENT_LOWAT`), where nothing overtakes it.
//!
//! Little is good for whatever is urgent, too little starves a fast link: the kernel wakes the writer when half of it is
//! left, and the rest must last until the writer has come. So a link begins with little, gets more when it is seen three times
//! without anything to send while its writer waits, and gives back what it has not needed for long.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Bounds; where the link is long, [`min`] says more.
const UNSENT_MIN: u32 = 64 << 10;
const UNSENT_MAX: u32 = 256 << 10;
/// Half a frame of the default size keeps links of 300 Mbit/s full over 200 ms; a quarter costs them a tenth. And beside
/// such a round trip it is not worth mentioning.
const UNSENT_MIN_LONG: u32 = 128 << 10;
/// Starved samples until a link gets more: one alone may be chance.
const STARVED_SAMPLES: u32 = 3;
/// Samples without starvation after which a link gets by with half, and those before are forgotten.
const CLEAN_SAMPLES: u32 = 100;

/// What a link has at least whose smallest round-trip time is this.
pub(crate) fn min(rtt_min: Duration) -> u32 {
    if rtt_min < crate::adapt::LONG_RTT { UNSENT_MIN } else { UNSENT_MIN_LONG }
}

/// The limit of one link.
#[derive(Debug, Default)]
pub(crate) struct UnsentLimit(Mutex<Limit>);

#[derive(Debug, Default)]
struct Limit {
    /// 0: not decided yet.
    bytes: u32,
    starved: u32,
    clean: u32,
}

impl UnsentLimit {
    /// Takes note of a sample while the link had more to send than the kernel took. Returns the limit if it changes.
    pub(crate) fn on_sample(&self, starved: bool, rtt_min: Duration) -> Option<u32> {
        let mut limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = limit.bytes;
        let min = min(rtt_min);
        limit.bytes = before.max(min);
        if starved {
            limit.clean = 0;
            limit.starved += 1;
            if limit.starved == STARVED_SAMPLES {
                limit.starved = 0;
                limit.bytes = (limit.bytes * 2).min(UNSENT_MAX);
            }
        } else {
            limit.clean += 1;
            if limit.clean == CLEAN_SAMPLES {
                (limit.clean, limit.starved) = (0, 0);
                limit.bytes = (limit.bytes / 2).max(min);
            }
        }
        (limit.bytes != before).then_some(limit.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_millis(20);

    #[test]
    fn a_starved_link_gets_more_and_gives_it_back() {
        let limit = UnsentLimit::default();
        assert_eq!(limit.on_sample(false, SHORT), Some(64 << 10));
        let mut changes = (0..12).filter_map(|_| limit.on_sample(true, SHORT));
        assert_eq!(
            (changes.next(), changes.next(), changes.next()),
            (Some(128 << 10), Some(256 << 10), None)
        );
        let mut changes = (1..=500).filter_map(|sample| Some((sample, limit.on_sample(false, SHORT)?)));
        assert_eq!(changes.next(), Some((100, 128 << 10)));
        assert_eq!(changes.next(), Some((200, 64 << 10)));
        assert_eq!(changes.next(), None);
    }

    #[test]
    fn starving_now_and_then_is_chance() {
        let limit = UnsentLimit::default();
        limit.on_sample(false, SHORT);
        assert!((0..1000).all(|sample| limit.on_sample(sample % 101 == 0, SHORT).is_none()));
    }

    #[test]
    fn a_long_link_has_more_from_the_beginning() {
        let limit = UnsentLimit::default();
        assert_eq!(limit.on_sample(false, LONG), Some(128 << 10));
        assert!((0..1000).all(|_| limit.on_sample(false, LONG).is_none()));
    }
}
