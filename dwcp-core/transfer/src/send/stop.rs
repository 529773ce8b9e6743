//! How a running sender is told to end early.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Going,
    Draining,
    Stopped,
}

/// Ends a sender early. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<Stage>>);

impl Stopper {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::channel(Stage::Going).0))
    }

    /// No further content is begun; what is under way goes on to its end. If that was all there was, the transfer is
    /// complete.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Ends at once. What is under way is left as an interruption leaves it: a later run goes on there.
    pub fn stop(&self) {
        self.advance(Stage::Stopped);
    }

    fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let before = *stage;
            *stage = before.max(to);
            *stage != before
        });
    }

    /// Waits until told to drain, or to stop.
    pub(super) async fn draining(&self) {
        self.reached(Stage::Draining).await;
    }

    pub(super) async fn stopped(&self) {
        self.reached(Stage::Stopped).await;
    }

    async fn reached(&self, least: Stage) {
        let reached = self.0.subscribe().wait_for(|stage| *stage >= least).await.is_ok();
        assert!(reached, "the sending half is held here");
    }
}
