//! The thread that owns the state machine.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Release},
        mpsc,
    },
};

use consensus_raft::{Committed, proposal::Request};

use crate::{
    ProposeError, StateMachine, StateMachineError, inbox::Desk, metrics::Metrics, readers::Readers, snapshot,
    state_machine::Job,
};

/// Batches that wait to be applied. A member whose state machine does not keep up stops taking more.
pub(crate) const QUEUE: usize = 16;
/// Jobs that wait for the thread beside this one.
pub(crate) const JOBS: usize = 4;

/// One thing for the apply thread.
pub(crate) enum Task {
    Apply(Vec<Committed>),
    /// Requests that were not in what a new leader's log began with: whoever waits for them is told.
    LeaderGone(Vec<u64>),
    /// What is applied is to survive a crash.
    Save(Done),
    /// A copy is wanted in this folder.
    Copy(PathBuf, Done),
    /// The copy in this folder, with everything up to this index, takes the place of the state.
    Restore(u64, PathBuf),
    /// The copy in this folder is of no use.
    Discard(PathBuf),
}

/// Is told how a job ended.
pub(crate) type Done = Box<dyn FnOnce(Result<u64, StateMachineError>) + Send>;

/// Does what takes long beside the apply thread, until that is gone.
pub(crate) fn run_jobs(jobs: &mpsc::Receiver<(Job, Done)>) {
    while let Ok((job, done)) = jobs.recv() {
        done(job());
    }
}

pub(crate) struct Applier<S: StateMachine> {
    pub(crate) id: u64,
    pub(crate) machine: S,
    pub(crate) desk: Arc<Desk<S::Response>>,
    pub(crate) applied: Arc<AtomicU64>,
    /// Readers that wait for more than is applied.
    pub(crate) readers: Arc<Readers>,
    pub(crate) jobs: mpsc::SyncSender<(Job, Done)>,
    pub(crate) metrics: Metrics,
}

impl<S: StateMachine> Applier<S> {
    /// Works until the raft thread is gone, or the state machine cannot go on.
    pub(crate) fn run(mut self, tasks: &mpsc::Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            if let Err(error) = self.handle(task) {
                tracing::error!(%error, "the state machine cannot go on: this member stops");
                break;
            }
        }
        // The raft thread sees that the queue is closed, and stops as well.
        self.desk.requests.fail_all(ProposeError::Stopped);
    }

    /// One task. After an error the state machine cannot go on.
    pub(crate) fn handle(&mut self, task: Task) -> Result<(), StateMachineError> {
        match task {
            Task::Apply(committed) => self.apply(committed)?,
            Task::LeaderGone(ids) => {
                self.desk.requests.answer(ids.into_iter().map(|id| (id, Err(ProposeError::LeaderGone))));
            }
            Task::Save(done) => {
                let job = self.machine.save();
                self.hand_out(job, done);
            }
            Task::Copy(folder, done) => {
                let job = self.machine.copy(folder);
                self.hand_out(job, done);
            }
            Task::Restore(index, folder) => self.restore(index, &folder)?,
            Task::Discard(folder) => snapshot::remove(&folder),
        }
        Ok(())
    }

    fn apply(&mut self, committed: Vec<Committed>) -> Result<(), StateMachineError> {
        let Some(last) = committed.last().map(|last| last.index) else { return Ok(()) };
        // Entries that the state machine has from before a crash come again.
        let known = self.machine.applied();
        let requests: Vec<Request> = committed
            .into_iter()
            .filter(|entry| entry.index > known)
            .flat_map(|entry| entry.requests)
            .collect();
        if last > known {
            let began = std::time::Instant::now();
            let responses = self.machine.apply(last, &requests)?;
            self.metrics.applied(began);
            assert_eq!(responses.len(), requests.len(), "a state machine answers each request");
            let own = requests.iter().zip(responses).filter(|(request, _)| request.origin == self.id);
            self.desk.requests.answer(own.map(|(request, response)| (request.id, Ok(response))));
        }
        self.applied.store(last.max(known), Release);
        self.readers.answer();
        Ok(())
    }

    fn hand_out(&self, job: Job, done: Done) {
        if let Err(mpsc::TrySendError::Full((_, done)) | mpsc::TrySendError::Disconnected((_, done))) =
            self.jobs.try_send((job, done))
        {
            done(Err("too many jobs wait".into()));
        }
    }

    fn restore(&mut self, index: u64, folder: &Path) -> Result<(), StateMachineError> {
        self.machine.restore(&snapshot::state(folder))?;
        let restored = self.machine.applied();
        if restored != index {
            return Err(format!("a snapshot of entry {index} has everything up to {restored}").into());
        }
        tracing::info!(index, "the state was replaced by a snapshot");
        snapshot::remove(folder);
        self.applied.store(index, Release);
        self.readers.answer();
        Ok(())
    }
}

/// Whether it ends by an error or a panic, nobody waits for it.
impl<S: StateMachine> Drop for Applier<S> {
    fn drop(&mut self) {
        self.readers.close();
    }
}
