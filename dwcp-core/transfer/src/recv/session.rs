//! What the threads of one receiving session share: entries whose outcome is not settled, and how outcomes travel.

use std::{
    collections::HashMap,
    ops::Range,
    os::fd::AsFd as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, mpsc};

use super::{
    Setup,
    commit::Commit,
    metadata,
    target::{Opened, Place, Target},
};
use crate::{
    DeltaConfig, Failure, FailureKind, ProgressSource, RelPath, TransferError,
    control::{Message, Outcome},
    limits::{DIGESTS_HELD_MAX, ENTRIES_IN_FLIGHT_MAX, REHASHES_MAX},
    manifest::EntryKind,
    progress::Add,
    transport,
};

pub(super) struct Session {
    pub(super) setup: Arc<Setup>,
    pub(super) progress: ProgressSource,
    /// Who sends.
    pub(super) peer: String,
    /// Compare content before a file counts as there.
    pub(super) checksum: bool,
    /// Both sides take deltas.
    takes_baselines: bool,
    /// Held by each baseline that is open.
    pub(super) baselines: Arc<()>,
    out: mpsc::Sender<Message>,
    state: Mutex<State>,
    digests_held: AtomicU64,
    stopped: AtomicBool,
    rehashes: Mutex<usize>,
    rehash_ended: Condvar,
    fatal: Mutex<Option<(Failure, RelPath)>>,
    pub(super) fatal_set: Notify,
}

#[derive(Default)]
struct State {
    targets: HashMap<u64, Arc<Target>>,
    /// Files that an earlier run began, open since.
    resumed: usize,
    /// The one entry of a destination that takes one was taken.
    single_taken: bool,
}

/// What planner and writers have: the session, and the way to commits.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) session: Arc<Session>,
    pub(super) commits: mpsc::Sender<Commit>,
}

/// What the two sides have agreed on.
pub(super) struct Agreed {
    pub(super) peer: String,
    pub(super) checksum: bool,
    pub(super) baselines: bool,
}

impl Session {
    pub(super) fn new(
        setup: Arc<Setup>,
        progress: ProgressSource,
        agreed: Agreed,
        out: mpsc::Sender<Message>,
    ) -> Self {
        Self {
            setup,
            progress,
            peer: agreed.peer,
            checksum: agreed.checksum,
            takes_baselines: agreed.baselines,
            baselines: Arc::default(),
            out,
            state: Mutex::default(),
            digests_held: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            rehashes: Mutex::new(0),
            rehash_ended: Condvar::new(),
            fatal: Mutex::new(None),
            fatal_set: Notify::new(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// If the other end is gone, the session's async side ends everything.
    pub(super) fn send(&self, message: Message) {
        let _ = self.out.blocking_send(message);
    }

    /// How to deal with deltas, if both sides do.
    pub(super) fn delta(&self) -> Option<&DeltaConfig> {
        self.setup.delta.as_ref().filter(|_| self.takes_baselines)
    }

    pub(super) fn target(&self, id: u64) -> Option<Arc<Target>> {
        self.state.lock().unwrap().targets.get(&id).cloned()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().unwrap().targets.is_empty()
    }

    /// Content of this target will come.
    pub(super) fn expect(&self, target: Arc<Target>) {
        self.state.lock().unwrap().targets.insert(target.id, target);
    }

    pub(super) fn take_single(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().unwrap().single_taken, true)
    }

    /// Counts one more resumed file; returns how many there were.
    pub(super) fn resumed(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.resumed += 1;
        state.resumed - 1
    }

    /// Counts an entry and keeps the sender to its window (T3.3).
    pub(super) fn announced(&self, kind: &EntryKind) -> Result<(), TransferError> {
        // Twice the window: a sender that compares content may have both an old and a new id of a file.
        if self.state.lock().unwrap().targets.len() >= 2 * ENTRIES_IN_FLIGHT_MAX {
            return Err(TransferError::Protocol { rule: "T3.3: too many entries in flight" });
        }
        let counters = self.progress.counters();
        match kind {
            EntryKind::DirectoryEnd => return Ok(()),
            EntryKind::File { size, .. } => counters.bytes_total.add(*size),
            _ => {}
        }
        counters.entries_total.add(1);
        Ok(())
    }

    /// A file was there already.
    pub(super) fn skipped(&self, size: u64) {
        let counters = self.progress.counters();
        counters.files_skipped.add(1);
        counters.bytes_skipped.add(size);
        counters.bytes_done.add(size);
    }

    /// Counts a digest that will be held until its file ends.
    pub(super) fn count_digest(&self) -> Result<(), TransferError> {
        if self.digests_held.fetch_add(1, Relaxed) >= DIGESTS_HELD_MAX {
            return Err(TransferError::Protocol { rule: "T4.6: too many pieces of unfinished files" });
        }
        Ok(())
    }

    /// Sends decisions about entries that are not targets, or not yet.
    pub(super) fn decided(&self, outcomes: Vec<(u64, Outcome)>) {
        let counters = self.progress.counters();
        for (_, outcome) in &outcomes {
            let settled = !matches!(outcome, Outcome::Send | Outcome::Check(_));
            counters.entries_done.add(settled.into());
        }
        if !outcomes.is_empty() {
            self.send(Message::Outcomes(outcomes));
        }
    }

    /// Sends the final outcomes of targets, in order; a destination that cannot go on ends the session. Whoever settles
    /// a target first tells of it, after its consequences are noted: the sender may answer at once.
    pub(super) fn settle(&self, mut outcomes: Vec<(u64, Outcome)>) {
        let counters = self.progress.counters();
        outcomes.retain(|(id, outcome)| {
            let Some(target) = self.forget(*id) else { return false };
            counters.entries_done.add(1);
            match outcome {
                Outcome::Failed(failure) => self.failed(&target.path, failure),
                _ => {
                    counters.files_done.add(1);
                    counters.bytes_skipped.add(target.kept_bytes());
                    counters.bytes_done.add(target.kept_bytes());
                }
            }
            true
        });
        if !outcomes.is_empty() {
            self.send(Message::Outcomes(outcomes));
        }
    }

    /// A part of a file was written. To a disk that is shared it goes now.
    pub(super) fn write_back(
        &self,
        target: &Target,
        opened: Option<&Opened>,
        part: Range<u64>,
    ) -> Result<(), Failure> {
        let file = match (&target.place, opened) {
            (Place::Device(device), _) => Some(&**device),
            (_, opened) => opened.map(|opened| &opened.file),
        };
        match file.filter(|_| self.setup.shares_disk) {
            Some(file) => dwcp_sys::write_back(file.as_fd(), part.start, part.end - part.start),
            None => Ok(()),
        }
        .map_err(|error| Failure::at_receiver("sync_file_range", &error))
    }

    pub(super) fn fail(&self, target: &Target, failure: Failure) {
        target.discard();
        self.settle(vec![(target.id, Outcome::Failed(failure))]);
    }

    /// Notes a failure at this side.
    pub(super) fn failed(&self, path: &RelPath, failure: &Failure) {
        self.progress.failed(path, failure.clone());
        if failure.kind == FailureKind::Integrity {
            transport::count_integrity_failure();
        }
        if failure.is_fatal() {
            self.fatal.lock().unwrap().get_or_insert((failure.clone(), path.clone()));
            self.fatal_set.notify_one();
        }
    }

    pub(super) fn fatal(&self) -> Option<(Failure, RelPath)> {
        self.fatal.lock().unwrap().clone()
    }

    /// The sender cannot complete this entry.
    pub(super) fn abandoned(&self, id: u64, failure: Failure) {
        if let Some(target) = self.forget(id) {
            target.discard();
            self.progress.counters().entries_done.add(1);
            self.progress.failed(&target.path, failure);
        }
    }

    /// The sender will announce this entry again. Returns when nobody writes for it any more: the new entry may write
    /// to the same place.
    pub(super) fn withdrawn(&self, id: u64) {
        let Some(target) = self.forget(id) else { return };
        target.discard();
        target.wait_for_writers();
        self.state.lock().unwrap().single_taken = false;
        let counters = self.progress.counters();
        counters.entries_total.take_back(1);
        counters.bytes_total.take_back(target.size());
        counters.bytes_done.take_back(target.counted_bytes());
    }

    fn forget(&self, id: u64) -> Option<Arc<Target>> {
        let target = self.state.lock().unwrap().targets.remove(&id)?;
        let held = target.digests();
        // Offered pieces were never counted.
        let _ = self.digests_held.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(held)));
        Some(target)
    }
}

impl Worker {
    /// Runs something that reads much on a thread of its own; a few at a time.
    pub(super) fn slow(&self, work: impl FnOnce() + Send + 'static) {
        let session = self.session.clone();
        // Keeps the way to commits open until it is done.
        let commits = self.commits.clone();
        tokio::task::spawn_blocking(move || {
            let mut running = session.rehashes.lock().unwrap();
            while *running == REHASHES_MAX {
                running = session.rehash_ended.wait(running).unwrap();
            }
            *running += 1;
            drop(running);
            work();
            *session.rehashes.lock().unwrap() -= 1;
            session.rehash_ended.notify_one();
            drop(commits);
        });
    }

    /// If this was the last missing part: metadata, and off to the commit.
    pub(super) fn finish_if_complete(&self, target: &Arc<Target>) {
        let verified = match target.try_finish() {
            None => return,
            Some(verified) => verified,
        };
        if let Err(failure) = verified.and_then(|()| self.complete(target)) {
            self.session.fail(target, failure);
        }
    }

    fn complete(&self, target: &Arc<Target>) -> Result<(), Failure> {
        let setup = &self.session.setup;
        match &target.place {
            Place::Folder { parent, replace } => {
                let opened = match target.open()? {
                    Some(opened) => opened,
                    None => unreachable!("folder targets have a file"),
                };
                target.take_opened();
                metadata::apply(&opened.file, &target.metadata, setup.privileged)?;
                let commit =
                    Commit { target: target.clone(), opened, parent: parent.clone(), replace: *replace };
                self.commits
                    .blocking_send(commit)
                    .map_err(|_| Failure::new(FailureKind::Io, "session is ending"))
            }
            Place::Device(device) => {
                if setup.fsync {
                    device.sync_all().map_err(|error| Failure::at_receiver("fsync", &error))?;
                }
                self.session.settle(vec![(target.id, Outcome::Done)]);
                Ok(())
            }
            Place::Output(output) => {
                let flushed = output.lock().unwrap().flush();
                flushed.map_err(|error| Failure::at_receiver("write", &error))?;
                self.session.settle(vec![(target.id, Outcome::Done)]);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::Metadata,
        recv::{DestinationSetup, target::Output},
    };

    /// A session onto standard output, and what it sends.
    fn session() -> (Session, mpsc::Receiver<Message>) {
        let destination = DestinationSetup::Output(sink());
        let setup = Setup {
            destination,
            overwrite: false,
            fsync: false,
            shares_disk: false,
            privileged: false,
            delta: None,
        };
        let (out, sent) = mpsc::channel(4);
        let agreed = Agreed { peer: "peer".into(), checksum: false, baselines: false };
        (Session::new(Arc::new(setup), ProgressSource::default(), agreed, out), sent)
    }

    fn sink() -> Output {
        Arc::new(Mutex::new(Box::new(std::io::sink())))
    }

    #[test]
    fn t4_6_the_digests_of_unfinished_contents_are_bounded() {
        let (session, _) = session();
        for _ in 0..DIGESTS_HELD_MAX {
            session.count_digest().unwrap();
        }
        assert!(matches!(session.count_digest(), Err(TransferError::Protocol { .. })));
    }

    #[test]
    fn t5_7_only_the_first_stream_that_meets_a_full_disk_tells_of_it() {
        let (session, mut sent) = session();
        let path = RelPath::new("f".as_bytes()).expect("a path");
        let target = Arc::new(Target::new(1, path, Metadata::default(), None, Place::Output(sink())));
        session.expect(target.clone());
        let full = Failure::at_receiver("write", &std::io::Error::from_raw_os_error(28));
        session.fail(&target, full.clone());
        assert!(session.fatal().is_some());
        session.fail(&target, full);
        assert!(matches!(sent.try_recv(), Ok(Message::Outcomes(outcomes)) if outcomes.len() == 1));
        assert!(sent.try_recv().is_err(), "told twice");
    }
}
