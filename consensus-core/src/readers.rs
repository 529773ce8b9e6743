//! Readers that wait until their index is applied.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Acquire},
    },
};

use tokio::sync::oneshot;

use crate::{ProposeError, inbox::Waiter};

/// Readers that wait; more are told that there are too many.
const READERS_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Readers {
    applied: Arc<AtomicU64>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_index: BTreeMap<u64, Vec<Waiter<()>>>,
    count: usize,
    /// Nothing is applied any more.
    closed: bool,
}

impl Readers {
    /// `applied` is stored before [`answer`](Self::answer) is called.
    pub(crate) fn new(applied: Arc<AtomicU64>) -> Self {
        Self { applied, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index up to which the state machine has applied entries.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Acquire)
    }

    fn has_applied(&self, index: u64) -> bool {
        self.applied() >= index
    }

    /// What to wait for until `index` is applied; `None`: it is.
    pub(crate) fn wait(&self, index: u64) -> Option<oneshot::Receiver<Result<(), ProposeError>>> {
        if self.has_applied(index) {
            return None;
        }
        let (waiter, answer) = oneshot::channel();
        self.add(index, [waiter]);
        Some(answer)
    }

    /// Has them answered once `index` is applied.
    pub(crate) fn add(&self, index: u64, waiters: impl IntoIterator<Item = Waiter<()>>) {
        let mut waiting = self.lock();
        for waiter in waiters {
            // Under the lock, which `answer` takes after what is applied was stored: it comes later, or this sees it.
            if self.has_applied(index) {
                let _ = waiter.send(Ok(()));
            } else if waiting.closed {
                let _ = waiter.send(Err(ProposeError::Stopped));
            } else if waiting.has_room() {
                waiting.count += 1;
                waiting.by_index.entry(index).or_default().push(waiter);
            } else {
                let _ = waiter.send(Err(ProposeError::Busy));
            }
        }
    }

    /// More is applied.
    pub(crate) fn answer(&self) {
        let applied = self.applied();
        let mut waiting = self.lock();
        while let Some(first) = waiting.by_index.first_entry().filter(|first| *first.key() <= applied) {
            let waiters = first.remove();
            waiting.count -= waiters.len();
            for waiter in waiters {
                let _ = waiter.send(Ok(()));
            }
        }
    }

    /// Nothing will be applied any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        for waiter in std::mem::take(&mut waiting.by_index).into_values().flatten() {
            let _ = waiter.send(Err(ProposeError::Stopped));
        }
        waiting.count = 0;
    }
}

impl Waiting {
    /// Makes room by forgetting those who do not wait any more, if there is none.
    fn has_room(&mut self) -> bool {
        if self.count >= READERS_MAX {
            self.by_index.values_mut().for_each(|waiters| waiters.retain(|waiter| !waiter.is_closed()));
            self.by_index.retain(|_, waiters| !waiters.is_empty());
            self.count = self.by_index.values().map(Vec::len).sum();
        }
        self.count < READERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use super::*;

    fn of_applied(index: u64) -> (Readers, Arc<AtomicU64>) {
        let applied = Arc::new(AtomicU64::new(index));
        (Readers::new(Arc::clone(&applied)), applied)
    }

    #[test]
    fn each_is_answered_when_its_index_is_applied() {
        let (readers, applied) = of_applied(5);
        assert!(readers.wait(5).is_none());
        let (mut six, mut seven) = (readers.wait(6).unwrap(), readers.wait(7).unwrap());
        applied.store(6, Release);
        readers.answer();
        assert_eq!(six.try_recv().unwrap(), Ok(()));
        assert!(seven.try_recv().is_err());
        readers.close();
        assert_eq!(seven.try_recv().unwrap(), Err(ProposeError::Stopped));
        assert_eq!(readers.wait(8).unwrap().try_recv().unwrap(), Err(ProposeError::Stopped));
    }

    #[test]
    fn who_does_not_wait_any_more_makes_room() {
        let (readers, _applied) = of_applied(0);
        let mut kept: Vec<_> = (0..READERS_MAX).map(|_| readers.wait(1).unwrap()).collect();
        assert_eq!(readers.wait(1).unwrap().try_recv().unwrap(), Err(ProposeError::Busy));
        kept.truncate(1);
        assert!(readers.wait(1).unwrap().try_recv().is_err(), "it waits");
        assert_eq!(readers.lock().count, 2, "the last one, and one of those before");
    }
}
