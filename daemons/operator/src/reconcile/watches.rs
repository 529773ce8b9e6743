//! How watches end and begin again.
//!
//! All watches of a controller share one pause after an error, and an API server that goes away ends all of them at once: pauses
//! that grow, as is usual, would be waited for one after the other, for minutes after it is back.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher};

/// After an error of a watch, for all watches of the controller.
const PAUSE: Duration = Duration::from_millis(500);
/// After so many seconds the API server ends a watch, and it begins anew; one that says nothing for 5 s more is given up.
pub const WATCH_SECONDS: u32 = 60;

/// A watch of objects with these labels, or of all.
pub(super) fn config(labels: Option<&str>) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    match labels {
        Some(labels) => config.labels(labels),
        None => config,
    }
}

/// The same pause each time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_watches_of_a_controller_are_back_soon_after_the_api_server() {
        // Those of regions: the region itself, what it owns, pods, clusters; each may have failed twice.
        const WATCHES: usize = 12;
        let pauses: Duration = Steady.take(2 * WATCHES).sum();
        assert!(pauses <= Duration::from_secs(15), "{pauses:?}");
    }
}
