//! Reads from a lease: what the raft thread shares with readers, so that they need not ask it.
//!
//! When a lease begins and ends is `consensus-raft`'s affair. Not here either: what is read.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{ProposeError, clock::Clock, readers::Readers};

/// A leader's lease, as of the last time that the raft thread has shared it.
#[derive(Debug, Default)]
pub(crate) struct SharedLease {
    /// Nanoseconds of the clock; 0: there is none.
    end: AtomicU64,
    /// The commit index.
    index: AtomicU64,
    /// Somebody has read.
    used: AtomicBool,
}

impl SharedLease {
    /// The index at which a linearizable read that has begun may read, if there is a lease. `now` is to be looked at after the read
    /// has begun.
    ///
    /// The read takes place, as others see it, when both the clock was looked at and the end was loaded, at the earlier of the two:
    /// until then no other leader has committed anything, because the clock had not reached the end, and because leadership
    /// was not offered to anybody, which [`share`](Self::share) would have told before. So whatever was acknowledged before
    /// the read began was committed by this leader or before it. It is in the index that is loaded last: each index is
    /// shared before anybody can acknowledge what it covers, and the first one of a term before the end of that term's lease.
    /// Loaded before the end, it could be from when this member still followed. A later index does no harm.
    pub(crate) fn read(&self, now: Duration) -> Option<u64> {
        if nanoseconds(now) >= self.end.load(SeqCst) {
            return None;
        }
        let index = self.index.load(SeqCst);
        // Looked at first: readers that all write would take the line from each other.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        Some(index)
    }

    /// Says what holds now. To be called before any message leaves, or anything is applied, that the same step of the member has
    /// brought: then whoever could know of a new index, or of a transfer, comes after this. Only the raft thread calls it.
    ///
    /// Stores are sequentially consistent: they are visible before what the caller does next, not only in order.
    pub(crate) fn share(&self, end: Option<Duration>, index: u64) {
        let end = end.map_or(0, nanoseconds);
        let before = (self.end.load(Relaxed), self.index.load(Relaxed));
        if before.1 != index {
            self.index.store(index, SeqCst);
        }
        if before.0 != end {
            self.end.store(end, SeqCst);
        }
    }

    /// Whether somebody has read from it since this was asked last.
    pub(crate) fn take_used(&self) -> bool {
        self.used.load(Relaxed) && self.used.swap(false, Relaxed)
    }
}

/// Of a time that a lease ends at or a clock says: 584 years are enough.
fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The way of readers to the lease.
#[derive(Clone, Debug)]
pub(crate) struct LeaseReads {
    pub(crate) clock: Clock,
    pub(crate) lease: Arc<SharedLease>,
    pub(crate) readers: Arc<Readers>,
}

/// How a read goes on.
#[derive(Debug)]
pub(crate) enum LeaseRead {
    /// Everything that it has to see is applied.
    Ready,
    /// It will be.
    Waits(oneshot::Receiver<Result<(), ProposeError>>),
    /// There is no lease: the leader has to be asked.
    Asks,
}

impl LeaseReads {
    /// A read begins.
    pub(crate) fn begin(&self) -> LeaseRead {
        match self.lease.read(self.clock.now()) {
            None => LeaseRead::Asks,
            Some(index) => self.readers.wait(index).map_or(LeaseRead::Ready, LeaseRead::Waits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_counts_until_its_end() {
        let lease = SharedLease::default();
        assert_eq!(lease.read(Duration::ZERO), None, "there was never one");
        lease.share(Some(ms(10)), 7);
        assert_eq!(lease.read(ms(10) - Duration::from_nanos(1)), Some(7));
        assert_eq!(lease.read(ms(10)), None);
        lease.share(Some(ms(20)), 9);
        assert_eq!(lease.read(ms(10)), Some(9));
        lease.share(None, 12);
        assert_eq!(lease.read(Duration::ZERO), None, "it was given up");
    }

    #[test]
    fn only_what_was_read_is_used() {
        let lease = SharedLease::default();
        lease.share(Some(ms(10)), 7);
        assert_eq!(lease.read(ms(11)), None);
        assert!(!lease.take_used(), "nobody got anything");
        lease.read(ms(1));
        assert!(lease.take_used());
        assert!(!lease.take_used());
    }
}
