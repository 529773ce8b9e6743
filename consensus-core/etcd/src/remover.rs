//! The thread that removes what compactions have put out of reach, beside the apply thread.
//!
//! Deliberately not here: what that is, and how a crash in between is made up for, which is
//! [`Removal`](consensus_store::Removal)'s.

use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use consensus_rocks::RocksDisk;
use consensus_store::{Removal, StoreError};
use tokio::sync::watch;

/// Changes that are looked at in a step.
const CHANGES_AT_ONCE: usize = 1000;
/// Between two steps, as in etcd: the disk is for the others too.
const PAUSE: Duration = Duration::from_millis(10);
/// A step that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Compactions that the thread was not told of yet. It takes one with each step, so nobody waits long for room.
const WAITING: usize = 16;

struct Work {
    disk: Arc<RocksDisk>,
    removal: Removal,
}

/// Ends its thread when it is dropped, with the step that is under way.
#[derive(Debug)]
pub(crate) struct Remover {
    /// `None`: it ends.
    work: Option<mpsc::SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Remover {
    /// `removed` says up to which compaction everything is removed.
    pub(crate) fn start(removed: watch::Sender<i64>) -> std::io::Result<Self> {
        let (sender, work) = mpsc::sync_channel(WAITING);
        let thread = thread::Builder::new().name("remove".to_owned()).spawn(move || run(&work, &removed))?;
        Ok(Self { work: Some(sender), thread: Some(thread) })
    }

    /// Removes what is out of reach on this disk since it was compacted to this revision, and goes on nowhere else.
    pub(crate) fn remove(&self, disk: &Arc<RocksDisk>, compacted: i64) {
        let work = Work { disk: Arc::clone(disk), removal: Removal::new(compacted) };
        let sent = self.work.as_ref().map(|sender| sender.send(work));
        assert!(matches!(sent, Some(Ok(()))), "the thread lives as long as this");
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was said where it happened.
            let _ = thread.join();
        }
    }
}

fn run(queue: &mpsc::Receiver<Work>, removed: &watch::Sender<i64>) {
    while let Ok(mut work) = queue.recv() {
        while let Some(pause) = step(&mut work, removed) {
            match queue.recv_timeout(pause) {
                // What is left of the one before is part of it, or on a disk that is in use no more.
                Ok(newer) => work = newer,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// `None`: it was the last one.
fn step(work: &mut Work, removed: &watch::Sender<i64>) -> Option<Duration> {
    match work.removal.step(&*work.disk, CHANGES_AT_ONCE) {
        Ok(true) => Some(PAUSE),
        Ok(false) => {
            tracing::debug!(compacted = work.removal.compacted(), "old versions are removed");
            removed.send_replace(work.removal.compacted());
            None
        }
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, "old versions stay: they cannot be read");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "old versions cannot be removed now: it is tried again");
            Some(RETRY)
        }
    }
}
