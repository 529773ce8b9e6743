//! Signals that end a program: SIGTERM, SIGINT and SIGUSR1 ask it to drain, a second SIGTERM or SIGINT to stop now.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals. From when it exists until the process ends, signals end nothing by themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    drain: Signal,
    draining: Draining,
    /// There was a SIGTERM or SIGINT: the next means *now*.
    terminated: bool,
}

/// Whether a signal has asked to drain.
#[derive(Clone, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// There was a signal.
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// What `sigaction` says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            drain: signal(SignalKind::user_defined1())?,
            draining: Draining::default(),
            terminated: false,
        })
    }

    /// Tells whether there was one, for as long as anybody wants to know.
    pub fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Does `work`. At the first signal `drain` is done beside it; the work is given up (`None`) when that is over, or
    /// at the signal to stop now.
    pub async fn let_finish<T>(
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
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            ended = work => Some(ended),
            () = self.first() => None,
        }
    }

    /// Waits for the first.
    pub async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => self.terminated = true,
            _ = self.interrupt.recv() => self.terminated = true,
            _ = self.drain.recv() => {}
        }
        self.draining.0.store(true, Relaxed);
    }

    /// Waits for the second SIGTERM or SIGINT.
    pub async fn stop_now(&mut self) {
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
