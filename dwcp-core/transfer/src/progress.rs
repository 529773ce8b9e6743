//! Counters of a running transfer, and the summary at its end.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::{
    Failure, FailureKind, FileFailure, RelPath,
    limits::{FAILURES_KEPT_MAX, UNSENT_KEPT_MAX},
};

/// A snapshot of a running transfer. All sizes in bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Content of all files seen so far.
    pub bytes_total: u64,
    /// Content dealt with: moved, skipped, or holes.
    pub bytes_done: u64,
    /// Content that actually went through the transport.
    pub bytes_moved: u64,
    /// Content that the receiver had already.
    pub bytes_skipped: u64,
    /// Content that was made from baselines: part of `bytes_skipped`.
    pub bytes_from_baselines: u64,
    /// Pieces of which a delta was of no use.
    pub deltas_refused: u64,
    /// Entries seen so far.
    pub entries_total: u64,
    /// Entries whose outcome is known.
    pub entries_done: u64,
    /// Files whose content is complete at the destination.
    pub files_done: u64,
    /// Files that were there already.
    pub files_skipped: u64,
    /// Entries that failed.
    pub failures: u64,
    /// FIFOs, sockets and devices inside trees, and paths that cannot travel, left out with a warning.
    pub entries_left_out: u64,
    /// The totals are final.
    pub totals_known: bool,
}

/// Watches a transfer from outside. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ProgressSource(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_total: AtomicU64,
    pub(crate) bytes_done: AtomicU64,
    pub(crate) bytes_moved: AtomicU64,
    pub(crate) bytes_skipped: AtomicU64,
    pub(crate) bytes_from_baselines: AtomicU64,
    pub(crate) deltas_refused: AtomicU64,
    /// Counted as done and moved, and not yet taken by the transport.
    pub(crate) bytes_queued: AtomicU64,
    pub(crate) entries_total: AtomicU64,
    pub(crate) entries_done: AtomicU64,
    pub(crate) files_done: AtomicU64,
    pub(crate) files_skipped: AtomicU64,
    pub(crate) entries_left_out: AtomicU64,
    pub(crate) totals_known: AtomicBool,
    failures: AtomicU64,
    kept: Mutex<Vec<FileFailure>>,
}

/// What a finished transfer did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Final counters.
    pub progress: Progress,
    /// The first failures, at most [`FAILURES_KEPT_MAX`]; `progress.failures` counts all.
    pub failures: Vec<FileFailure>,
    /// A sender was told to end before everything was dealt with.
    pub unsent: Option<Unsent>,
}

/// What a sender that was told to end has not sent, as far as it had looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsent {
    /// Some of it, at most [`UNSENT_KEPT_MAX`], as named in the transfer.
    pub paths: Vec<RelPath>,
    /// How many entries it is.
    pub entries: u64,
    /// The sources were not looked through to the end: there may be more.
    pub more: bool,
}

impl Unsent {
    pub(crate) fn add(&mut self, path: &RelPath) {
        self.entries += 1;
        if self.paths.len() < UNSENT_KEPT_MAX {
            self.paths.push(path.clone());
        }
    }
}

impl ProgressSource {
    /// The counters now.
    pub fn snapshot(&self) -> Progress {
        let counters = &self.0;
        // Queues hold megabytes: on a slow path, seconds.
        let queued = counters.bytes_queued.load(Relaxed);
        Progress {
            bytes_total: counters.bytes_total.load(Relaxed),
            bytes_done: counters.bytes_done.load(Relaxed).saturating_sub(queued),
            bytes_moved: counters.bytes_moved.load(Relaxed).saturating_sub(queued),
            bytes_skipped: counters.bytes_skipped.load(Relaxed),
            bytes_from_baselines: counters.bytes_from_baselines.load(Relaxed),
            deltas_refused: counters.deltas_refused.load(Relaxed),
            entries_total: counters.entries_total.load(Relaxed),
            entries_done: counters.entries_done.load(Relaxed),
            files_done: counters.files_done.load(Relaxed),
            files_skipped: counters.files_skipped.load(Relaxed),
            failures: counters.failures.load(Relaxed),
            entries_left_out: counters.entries_left_out.load(Relaxed),
            totals_known: counters.totals_known.load(Relaxed),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary { progress: self.snapshot(), failures: self.0.kept.lock().unwrap().clone(), unsent: None }
    }

    pub(crate) fn failed(&self, path: &RelPath, failure: Failure) {
        tracing::warn!(%path, %failure, "not transferred");
        self.0.failures.fetch_add(1, Relaxed);
        let mut kept = self.0.kept.lock().unwrap();
        if kept.len() < FAILURES_KEPT_MAX {
            kept.push(FileFailure { path: path.clone(), failure });
        }
    }
}

/// Changes a counter.
pub(crate) trait Add {
    fn add(&self, count: u64);

    /// What was added before turned out not to count.
    fn take_back(&self, count: u64);
}

impl Add for AtomicU64 {
    fn add(&self, count: u64) {
        self.fetch_add(count, Relaxed);
    }

    fn take_back(&self, count: u64) {
        self.fetch_sub(count, Relaxed);
    }
}

impl Summary {
    /// Whether any failure is of this kind.
    pub fn has(&self, kind: FailureKind) -> bool {
        self.failures.iter().any(|failed| failed.failure.kind == kind)
    }
}
