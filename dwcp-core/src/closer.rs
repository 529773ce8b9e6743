//! The end of a connection: CLOSE goes out, sockets end in order, whoever waits for that is told.

use std::{sync::Arc, time::Duration};

use crate::shared::Shared;

impl Shared {
    /// When the connection has ended, gives CLOSE frames a moment to arrive and then closes the sockets.
    pub(crate) async fn run_closer(self: Arc<Self>) {
        /// Whatever happens in between.
        struct DropLinks<'a>(&'a Shared);
        impl Drop for DropLinks<'_> {
            fn drop(&mut self) {
                self.0.drop_links();
            }
        }
        let drop_links = DropLinks(&self);
        self.wait_closed().await;
        let reason = self.error(&self.lock());
        tracing::debug!(%reason, "connection ended");
        self.send_last_frames().await;
        drop(drop_links);
    }

    /// Sends CLOSE, then the end of each socket, and waits for the peer's: closing a socket in which something is unread
    /// would take back what the peer has not received yet.
    async fn send_last_frames(&self) {
        const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
        const CLOSE_POLL: Duration = Duration::from_millis(5);
        let until = self.now() + CLOSE_TIME_MAX;
        let mut ended = false;
        while self.now() < until {
            let (links, waits) = {
                let state = self.lock();
                (state.links.clone(), state.core.wants_transmit())
            };
            if links.is_empty() {
                return;
            }
            if waits || !links.iter().all(|link| link.is_flushed()) {
                links.iter().for_each(|link| link.kick());
            } else if !std::mem::replace(&mut ended, true) {
                for link in &links {
                    let _ = link.socket.shutdown_write(); // an error: the peer is gone already
                }
            }
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    fn drop_links(&self) {
        {
            let mut state = self.lock();
            for link in std::mem::take(&mut state.links) {
                let _ = link.socket.shutdown_write(); // the peer sees the end either way
                self.stop_link(&mut state, &link);
            }
        }
        self.closed.notify_waiters();
    }

    /// Waits until the connection has ended.
    pub(crate) async fn wait_closed(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.is_closed() {
                return;
            }
            closed.await;
        }
    }

    /// Waits until the sockets are closed as well.
    pub(crate) async fn wait_links_closed(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.lock().links.is_empty() {
                return;
            }
            closed.await;
        }
    }
}
