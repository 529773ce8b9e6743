//! Signals that end a command: SIGTERM, SIGINT and SIGUSR1 ask it to drain, a second SIGTERM or SIGINT to stop now.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From when it exists until the process ends, signals end nothing by themselves.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    drain: Signal,
    draining: Draining,
    /// There was a SIGTERM or SIGINT: the next means *now*.
    terminated: bool,
}

/// Whether a signal has asked to drain.
#[derive(Clone, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("sigaction");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            drain: listen(SignalKind::user_defined1())?,
            draining: Draining::default(),
            terminated: false,
        })
    }

    pub(crate) fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Does `work`. At the first signal `drain` is done beside it; the work is given up (`None`) when that is over, or
    /// at the signal to stop now.
    pub(crate) async fn let_finish<T>(
        &mut self,
        work: impl Future<Output = T>,
        drain: impl Future<Output = ()>,
    ) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            ended = &mut work => return Some(ended),
            () = self.first() => {}
        }
        tokio::select! {
            ended = &mut work => Some(ended),
            () = drain => None,
            () = self.stop_now() => None,
        }
    }

    /// Does `work` unless there is a signal.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            ended = work => Some(ended),
            () = self.first() => None,
        }
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => self.terminated = true,
            _ = self.interrupt.recv() => self.terminated = true,
            _ = self.drain.recv() => {}
        }
        self.draining.0.store(true, Relaxed);
    }

    async fn stop_now(&mut self) {
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
