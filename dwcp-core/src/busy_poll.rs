//! Waiting for a message by polling the links' sockets for some microseconds, while that pays.
//!
//! Between two nodes that answer each other at once, most of a round trip is the sleep and the wake-up of a thread.
//! Whoever waits for a message therefore reads the socket itself for up to [`WAIT_MAX`] before it goes to sleep
//! (as the kernel does with `net.core.busy_poll`). A wait in vain doubles the number of waits that do without,
//! so a connection whose answers take longer spends next to nothing on this.

use std::{
    num::NonZero,
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{shared::Shared, task::CallGuard};

/// How long a socket is polled: longer than a round trip and a wake-up on one machine or in one rack, and no longer
/// than a task may keep its thread from others.
const WAIT_MAX: Duration = Duration::from_micros(50);
/// After as many waits in vain in a row, one in `2^FAILURES_MAX` waits still tries.
const FAILURES_MAX: u32 = 10;
/// Successful waits in a row before other tasks get their turn.
const TURNS_MAX: u32 = 128;

/// One thread of a process polls at a time, the others do the work; none where there is only one processor.
static POLLING: AtomicBool = AtomicBool::new(false);
static MAY_POLL: LazyLock<bool> =
    LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count > NonZero::<usize>::MIN));

/// Ends the turn of the thread that polls, even by a panic.
struct Polling;

impl Drop for Polling {
    fn drop(&mut self) {
        POLLING.store(false, Ordering::Relaxed);
    }
}

/// Whether polling paid lately; of one connection.
#[derive(Debug, Default)]
pub(crate) struct BusyPoll {
    failures: AtomicU32,
    /// Waits that will do without.
    skip: AtomicU32,
    turns: AtomicU32,
}

impl BusyPoll {
    /// Whether this wait is one that tries.
    fn is_due(&self) -> bool {
        let skip = self.skip.load(Ordering::Relaxed);
        if skip > 0 {
            self.skip.store(skip - 1, Ordering::Relaxed);
        }
        skip == 0
    }

    fn learn(&self, paid: bool) {
        if paid {
            self.failures.store(0, Ordering::Relaxed);
            return;
        }
        let failures = (self.failures.load(Ordering::Relaxed) + 1).min(FAILURES_MAX);
        self.failures.store(failures, Ordering::Relaxed);
        self.skip.store((1 << failures) - 1, Ordering::Relaxed);
    }

    fn is_turn_over(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
            && self.turns.fetch_add(1, Ordering::Relaxed) % TURNS_MAX == TURNS_MAX - 1
    }
}

impl Shared {
    /// Polls the link that was heard last, if polling paid lately, until `arrived`. Whatever the outcome, the caller
    /// looks again before it goes to sleep. Cancellation-safe.
    pub(crate) async fn busy_poll(&self, arrived: impl FnMut() -> bool) {
        if self.busy_poll.is_turn_over() {
            tokio::task::yield_now().await;
        }
        if self.busy_poll.is_due() && *MAY_POLL && !POLLING.swap(true, Ordering::Relaxed) {
            let _polling = Polling;
            let _guard = CallGuard::new(self);
            let paid = self.heard_last().is_some_and(|link| link.poll(self, WAIT_MAX, arrived));
            self.busy_poll.learn(paid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_in_vain_is_followed_by_more_that_do_without() {
        let busy_poll = BusyPoll::default();
        let mut without = Vec::new();
        for _ in 0..12 {
            let waits = (0..).take_while(|_| !busy_poll.is_due()).count();
            without.push(waits);
            busy_poll.learn(false);
        }
        assert_eq!(without, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1023]);
        assert_eq!((0..).take_while(|_| !busy_poll.is_due()).count(), 1023);
        busy_poll.learn(true);
        assert!((0..100).all(|_| busy_poll.is_due()));
    }
}
