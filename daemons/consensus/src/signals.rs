//! Signals: SIGTERM, SIGINT and SIGUSR1 ask the member to drain, a second SIGTERM or SIGINT to stop now.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From when it exists until the process ends, signals end nothing by themselves.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    drain: Signal,
    /// There was a SIGTERM or SIGINT: the next means *now*.
    terminated: bool,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("sigaction");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            drain: listen(SignalKind::user_defined1())?,
            terminated: false,
        })
    }

    /// Waits for the first.
    pub(crate) async fn drain(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => self.terminated = true,
            _ = self.interrupt.recv() => self.terminated = true,
            _ = self.drain.recv() => {}
        }
    }

    /// Waits for the second.
    pub(crate) async fn stop_now(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if std::mem::replace(&mut self.terminated, true) {
                return;
            }
        }
    }
}
