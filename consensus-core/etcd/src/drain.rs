//! A member that is about to end: it takes nothing new, hands leadership over, and finishes what it accepted.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use crate::server::Server;

/// For another member to take over. Longer, and it will not: the rest waits for nothing.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Between two looks at what is not answered yet.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Server {
    /// Refuses new writes from now on, lets another member lead, and returns when all writes of before are answered. Reads
    /// and watches go on. Each write has its own time limit, and with it this has one.
    pub async fn drain(&self) {
        self.shared.draining.store(true, Relaxed);
        let node = self.node();
        if node.membership().voters() > 1 {
            node.hand_over(HAND_OVER_MAX).await;
        }
        while node.proposals_pending() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }
}
