//! How much may wait unsent in the kernel of a link (`TCP_NOTSENT_LOWAT`), where nothing overtakes it.
//!
//! Little is good for whatever is urgent, too little starves a fast link: the kernel wakes the writer when half of it is
//! left, and the rest must last until the writer has come. So a link begins with little, gets more when it is seen
//! without anything to send while its writer waits, and gives back what it has not needed for long.

use std::sync::{Mutex, PoisonError};

/// Bounds. Half a frame of the default size keeps links of 300 Mbit/s full over 200 ms; a quarter costs them a tenth.
pub(crate) const UNSENT_MIN: u32 = 128 << 10;
pub(crate) const UNSENT_MAX: u32 = 256 << 10;
/// Samples without starvation after which a link gets by with half.
const CLEAN_SAMPLES: u32 = 100;

/// The limit of one link.
#[derive(Debug)]
pub(crate) struct UnsentLimit(Mutex<Limit>);

#[derive(Debug)]
struct Limit {
    bytes: u32,
    clean: u32,
}

impl Default for UnsentLimit {
    fn default() -> Self {
        Self(Mutex::new(Limit { bytes: UNSENT_MIN, clean: 0 }))
    }
}

impl UnsentLimit {
    /// Takes note of a sample while the link had more to send than the kernel took. Returns the limit if it changes.
    pub(crate) fn on_sample(&self, starved: bool) -> Option<u32> {
        let mut limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = limit.bytes;
        limit.clean = if starved { 0 } else { limit.clean + 1 };
        if starved {
            limit.bytes = (before * 2).min(UNSENT_MAX);
        } else if limit.clean == CLEAN_SAMPLES {
            limit.clean = 0;
            limit.bytes = (before / 2).max(UNSENT_MIN);
        }
        (limit.bytes != before).then_some(limit.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starved_link_gets_more_and_gives_it_back() {
        let limit = UnsentLimit::default();
        assert_eq!(limit.on_sample(false), None);
        assert_eq!([(); 2].map(|()| limit.on_sample(true)), [Some(256 << 10), None]);
        let mut changes = (1..=500).filter_map(|sample| Some((sample, limit.on_sample(false)?)));
        assert_eq!(changes.next(), Some((100, 128 << 10)));
        assert_eq!(changes.next(), None);
    }
}
