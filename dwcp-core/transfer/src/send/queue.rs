//! Which content is read next. Files are taken in order; pieces of one file go to as many workers as are free.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex},
};

use super::source::SourceFile;

/// One unit of work.
pub(super) enum Job {
    /// Read, hash and, unless the receiver has it, send one piece.
    Piece(Arc<SourceFile>, u64),
    /// Read to the end and send.
    Stream(Arc<SourceFile>),
    /// Look for the baseline that the receiver has of this file.
    Prepare(Arc<SourceFile>),
    /// Read and send one piece in full: its delta was of no use.
    Again(Arc<SourceFile>, u64),
    /// Is the hash of this file the one given?
    Check(Arc<SourceFile>, [u8; 32]),
}

/// Bounded by the number of entries in flight.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    files: VecDeque<(Arc<SourceFile>, u64)>,
    checks: VecDeque<(Arc<SourceFile>, [u8; 32])>,
    prepared: VecDeque<Arc<SourceFile>>,
    again: VecDeque<(Arc<SourceFile>, u64)>,
    closed: bool,
    /// Nothing new is taken.
    draining: bool,
}

impl Queue {
    /// `false`: nothing new is taken.
    pub(super) fn push(&self, file: Arc<SourceFile>) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.draining {
            return false;
        }
        state.files.push_back((file, 0));
        self.changed.notify_all();
        true
    }

    /// `false`: nothing new is taken.
    pub(super) fn push_check(&self, file: Arc<SourceFile>, hash: [u8; 32]) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.draining {
            return false;
        }
        state.checks.push_back((file, hash));
        self.changed.notify_one();
        true
    }

    /// `false`: nothing new is taken.
    pub(super) fn push_prepare(&self, file: Arc<SourceFile>) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.draining {
            return false;
        }
        state.prepared.push_back(file);
        self.changed.notify_one();
        true
    }

    /// A piece of a file that was begun.
    pub(super) fn push_again(&self, file: Arc<SourceFile>, index: u64) {
        self.state.lock().unwrap().again.push_back((file, index));
        self.changed.notify_one();
    }

    /// Takes nothing new from here on; gives back what nobody has begun.
    pub(super) fn drain(&self) -> Vec<Arc<SourceFile>> {
        let mut state = self.state.lock().unwrap();
        state.draining = true;
        let (begun, not_begun): (VecDeque<_>, Vec<_>) = {
            let files = std::mem::take(&mut state.files);
            let (begun, not_begun): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, next)| *next > 0);
            (begun.into(), not_begun)
        };
        state.files = begun;
        let checks = std::mem::take(&mut state.checks).into_iter().map(|(file, _)| file);
        let prepared = std::mem::take(&mut state.prepared);
        not_begun.into_iter().map(|(file, _)| file).chain(checks).chain(prepared).collect()
    }

    pub(super) fn close(&self) {
        self.state.lock().unwrap().closed = true;
        self.changed.notify_all();
    }

    /// What can be done at once, if anything.
    pub(super) fn try_take(&self) -> Option<Job> {
        self.state.lock().unwrap().take()
    }

    /// Waits for work; `None` once the queue is closed.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = self.state.lock().unwrap();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take() {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap();
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Job> {
        if let Some((file, index)) = self.again.pop_front() {
            return Some(Job::Again(file, index));
        }
        if let Some(file) = self.prepared.pop_front() {
            return Some(Job::Prepare(file));
        }
        if let Some((file, hash)) = self.checks.pop_front() {
            return Some(Job::Check(file, hash));
        }
        loop {
            let (file, next) = self.files.front_mut()?;
            if file.is_cancelled() {
                self.files.pop_front();
                continue;
            }
            let Some(layout) = file.layout() else {
                return self.files.pop_front().map(|(file, _)| Job::Stream(file));
            };
            if layout.pieces() == 0 {
                // Nothing to send; only a misbehaving receiver asks for it.
                self.files.pop_front();
                continue;
            }
            let (job, last) = (Job::Piece(file.clone(), *next), *next + 1 >= layout.pieces());
            *next += 1;
            if last {
                self.files.pop_front();
            }
            return Some(job);
        }
    }
}
