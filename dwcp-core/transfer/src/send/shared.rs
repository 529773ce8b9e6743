//! Entries in flight: sent, outcome unknown. Their number is the window that keeps both sides' memory bounded.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use super::{delta::Keep, queue::Queue, source::SourceFile};
use crate::{
    ContentHash, DeltaConfig, Failure, FailureKind, ProgressSource, RelPath, TransferError, Unsent,
    control::{Message, Outcome},
    delta::{Offer, count_fallback},
    limits::{DELTA_BYTES_MIN, ENTRIES_IN_FLIGHT_MAX, SENT_KEPT_MAX, SOURCE_READS_MAX},
    manifest::{self, Batch, Entry, EntryKind},
    progress::Add,
};

/// The transfer is over or has failed: stop working.
#[derive(Debug)]
pub(super) struct Aborted;

pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) progress: ProgressSource,
    /// If both sides take deltas.
    pub(super) delta: Option<DeltaConfig>,
    /// Chunks of baselines that are held.
    chunks_held: Arc<AtomicUsize>,
    /// What was sent completely, and its hash.
    sent: Mutex<Vec<(Arc<SourceFile>, ContentHash)>>,
    /// The receiver takes pieces in order, and none twice: nothing can be sent again.
    sequential: bool,
    control: mpsc::Sender<Message>,
    next_id: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<u64, InFlight>,
    /// Files with other names that failed: links to them must not be made.
    link_targets_failed: HashSet<RelPath>,
    aborted: bool,
    /// Nothing further is begun.
    draining: bool,
    /// What is not begun because of that.
    unsent: Unsent,
    /// No entry will follow but ends of directories.
    announced_all: bool,
}

/// An entry whose outcome is not known.
pub(super) struct InFlight {
    pub(super) path: RelPath,
    /// Its content, if it has any.
    pub(super) file: Option<Arc<SourceFile>>,
    /// Hard links to it will follow.
    pub(super) has_links: bool,
    /// Counts as an entry of its own.
    pub(super) counted: bool,
    /// The receiver wants its content, or its hash compared.
    pub(super) wanted: bool,
}

impl InFlight {
    /// A content about which the receiver has not decided.
    fn is_undecided(&self) -> bool {
        self.file.is_some() && !self.wanted
    }
}

impl Shared {
    pub(super) fn new(
        control: mpsc::Sender<Message>,
        progress: ProgressSource,
        sequential: bool,
        delta: Option<DeltaConfig>,
    ) -> Self {
        Self {
            queue: Queue::default(),
            progress,
            delta,
            chunks_held: Arc::default(),
            sent: Mutex::default(),
            sequential,
            control,
            next_id: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(super) fn abort(&self) {
        self.lock().aborted = true;
        self.queue.close();
        self.changed.notify_all();
    }

    /// Whether one more entry fits the window.
    pub(super) fn has_room(&self) -> bool {
        self.lock().in_flight.len() < ENTRIES_IN_FLIGHT_MAX
    }

    pub(super) fn wait_for_room(&self) -> Result<(), Aborted> {
        self.wait_until(|state| state.in_flight.len() < ENTRIES_IN_FLIGHT_MAX)
    }

    /// Waits for all outcomes; after [`drain`](Self::drain) not for those of contents that nobody would begin.
    pub(super) fn wait_for_all(&self) -> Result<(), Aborted> {
        self.wait_until(|state| state.in_flight.values().all(|entry| state.draining && entry.is_undecided()))
    }

    fn wait_until(&self, ready: impl Fn(&State) -> bool) -> Result<(), Aborted> {
        let mut state = self.lock();
        loop {
            if state.aborted {
                return Err(Aborted);
            }
            if ready(&state) {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Begins no further content.
    pub(super) fn drain(&self) {
        self.lock().draining = true;
        for file in self.queue.drain() {
            self.not_begun(file.id);
        }
        self.changed.notify_all();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// No further entry will be announced but ends of directories.
    pub(super) fn announced_all(&self) {
        self.lock().announced_all = true;
    }

    /// Notes something that will not be announced.
    pub(super) fn not_announced(&self, path: &RelPath) {
        self.lock().unsent.add(path);
    }

    /// Whether something was or will be left out because of [`drain`](Self::drain).
    pub(super) fn leaves_out(&self) -> bool {
        let state = self.lock();
        state.draining && (state.unsent.entries > 0 || !state.in_flight.is_empty())
    }

    /// What has no outcome yet, or was left out.
    pub(super) fn unsent(&self) -> Unsent {
        let state = self.lock();
        let mut unsent = state.unsent.clone();
        state.in_flight.values().filter(|entry| entry.counted).for_each(|entry| unsent.add(&entry.path));
        unsent.paths.sort();
        unsent.more = !state.announced_all;
        unsent
    }

    fn not_begun(&self, id: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.in_flight.remove(&id) {
            state.unsent.add(&entry.path);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn track(&self, id: u64, entry: InFlight) {
        self.lock().in_flight.insert(id, entry);
    }

    pub(super) fn send(&self, message: Message) -> Result<(), Aborted> {
        self.control.blocking_send(message).map_err(|_| Aborted)
    }

    pub(super) fn link_target_failed(&self, target: &RelPath) -> bool {
        self.lock().link_targets_failed.contains(target)
    }

    /// The receiver has decided. Unknown ids are entries abandoned meanwhile.
    pub(super) fn resolve(&self, id: u64, outcome: Outcome) {
        let counters = self.progress.counters();
        let mut state = self.lock();
        match outcome {
            Outcome::Send | Outcome::Check(_) => {
                let Some(entry) = state.in_flight.get_mut(&id) else { return };
                let Some(file) = entry.file.clone() else { return };
                entry.wanted = true;
                drop(state);
                let taken = match outcome {
                    Outcome::Check(hash) => self.queue.push_check(file, hash),
                    _ if file.has_offer() => self.queue.push_prepare(file),
                    _ => self.queue.push(file),
                };
                if !taken {
                    self.not_begun(id);
                }
                return;
            }
            Outcome::Done | Outcome::Skipped => {
                let Some(entry) = state.in_flight.remove(&id) else { return };
                let skipped = outcome == Outcome::Skipped;
                if let Some(file) = entry.file {
                    if skipped { &counters.files_skipped } else { &counters.files_done }.add(1);
                    if skipped {
                        counters.bytes_skipped.add(file.size());
                        counters.bytes_done.add(file.size());
                    }
                }
                counters.entries_done.add(entry.counted.into());
            }
            Outcome::Failed(failure) => {
                let Some(entry) = state.in_flight.remove(&id) else { return };
                self.failed(&mut state, entry, failure);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Reading a source failed. A file that changed meanwhile is sent again as it is now, a few times; what else is
    /// wrong, or does not stop changing, has failed.
    pub(super) fn source_failed(&self, file: &SourceFile, failure: Failure) -> Result<(), Aborted> {
        let last = self.sequential || file.reads + 1 >= SOURCE_READS_MAX;
        if failure.kind != FailureKind::SourceChanged || last {
            return self.abandon(file.id, failure);
        }
        match file.as_it_is_now(self.next_id()) {
            Ok(now) => self.replace(file, now, &failure),
            Err(failure) => self.abandon(file.id, failure),
        }
    }

    /// Withdraws an entry and announces its file as it is now. Several workers may find out at once: the first does it.
    fn replace(&self, old: &SourceFile, now: SourceFile, why: &Failure) -> Result<(), Aborted> {
        let now = Arc::new(now);
        {
            let mut state = self.lock();
            let Some(entry) = state.in_flight.remove(&old.id) else { return Ok(()) };
            state.in_flight.insert(now.id, InFlight { file: Some(now.clone()), wanted: false, ..entry });
        }
        self.changed.notify_all();
        tracing::warn!(path = %old.path, %why, "sent again");
        let counters = self.progress.counters();
        counters.bytes_done.take_back(old.cancel());
        counters.bytes_total.add(now.size());
        counters.bytes_total.take_back(old.size());
        self.send(Message::Withdraw { id: old.id })?;
        let kind = EntryKind::File { size: now.size(), differs: false };
        let entry = Entry { id: now.id, path: now.path.clone(), kind, metadata: now.metadata.clone() };
        self.send(Message::Batch(manifest::encode(&Batch { entries: vec![entry] }).into()))
    }

    /// The source of this entry cannot be read: tells the receiver and goes on without it.
    pub(super) fn abandon(&self, id: u64, failure: Failure) -> Result<(), Aborted> {
        // First the message: once nothing is in flight, the message that all is finished may overtake it.
        self.send(Message::Abandon { id, failure: failure.clone() })?;
        let mut state = self.lock();
        if let Some(entry) = state.in_flight.remove(&id) {
            self.failed(&mut state, entry, failure);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn failed(&self, state: &mut State, entry: InFlight, failure: Failure) {
        if let Some(file) = &entry.file {
            file.cancel();
        }
        self.progress.failed(&entry.path, failure);
        self.progress.counters().entries_done.add(entry.counted.into());
        if entry.has_links {
            state.link_targets_failed.insert(entry.path);
        }
    }

    /// The file was there with another content: asks for it again under a new id, as known to differ.
    pub(super) fn resubmit(&self, file: &SourceFile) -> Result<(), Aborted> {
        let id = self.next_id();
        let again = Arc::new(file.again(id));
        let kind = EntryKind::File { size: file.size(), differs: true };
        let entry = Entry { id, path: file.path.clone(), kind, metadata: file.metadata.clone() };
        {
            let mut state = self.lock();
            let Some(old) = state.in_flight.remove(&file.id) else { return Ok(()) };
            state.in_flight.insert(id, InFlight { file: Some(again), wanted: false, ..old });
        }
        self.changed.notify_all();
        self.send(Message::Batch(manifest::encode(&Batch { entries: vec![entry] }).into()))
    }

    /// The receiver has an older version; before it asks for the content.
    pub(super) fn receiver_offers(&self, id: u64, offer: Offer) {
        if let Some(file) = self.file(id).filter(|_| self.delta.is_some()) {
            file.offered(offer);
        }
    }

    /// Some of the chunks of an older version that this side does not have; the last ones let its content begin.
    pub(super) fn receiver_describes(&self, id: u64, last: bool, list: &[u8]) -> Result<(), TransferError> {
        let Some(file) = self.file(id) else { return Ok(()) };
        let held = file
            .described(list, &self.chunks_held)
            .map_err(|source| TransferError::Delta { what: "list of chunks", source })?;
        if held && last {
            self.begin(file);
        }
        Ok(())
    }

    /// A delta was of no use.
    pub(super) fn receiver_refuses(&self, id: u64, index: u64) {
        let Some(file) = self.file(id) else { return };
        let Some(saved) = file.delta_refused(index) else { return };
        let counters = self.progress.counters();
        counters.deltas_refused.add(1);
        counters.bytes_skipped.take_back(saved);
        counters.bytes_from_baselines.take_back(saved);
        count_fallback("refused");
        self.queue.push_again(file, index);
    }

    /// What is to be known about a baseline is known: the content can be read.
    pub(super) fn begin(&self, file: Arc<SourceFile>) {
        let id = file.id;
        if !self.queue.push(file) {
            self.not_begun(id);
        }
    }

    /// All of a content was sent.
    pub(super) fn sent(&self, file: &Arc<SourceFile>, hash: ContentHash) {
        file.forget_baseline();
        let mut sent = self.sent.lock().unwrap();
        if self.delta.is_some() && file.size() >= DELTA_BYTES_MIN && sent.len() < SENT_KEPT_MAX {
            sent.push((file.clone(), hash));
        }
    }

    /// What is left to do when everything was sent: keeping it, for the next time.
    pub(super) fn keep(&self) -> Option<Keep> {
        let store = self.delta.as_ref()?.store.clone()?;
        Some(Keep { store, sent: std::mem::take(&mut self.sent.lock().unwrap()) })
    }

    fn file(&self, id: u64) -> Option<Arc<SourceFile>> {
        self.lock().in_flight.get(&id).and_then(|entry| entry.file.clone())
    }

    pub(super) fn receiver_has(&self, id: u64, pieces: &[(u64, [u8; 32])]) {
        if let Some(file) = self.file(id) {
            file.receiver_has(pieces);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}
