//! What comes to the raft thread, and who waits for an answer.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use consensus_raft::{MemberChange, Membership, Message, SnapshotMetadata, proposal::Request};
use tokio::sync::{mpsc, oneshot};

use crate::{ProposeError, StateMachineError};

/// What the raft thread has not looked at yet.
pub(crate) const INBOX: usize = 16 << 10;

/// One thing for the raft thread.
#[derive(Debug)]
pub(crate) enum Input {
    Tick,
    Message(Message),
    /// A message to this member was not sent.
    Unreachable(u64),
    /// All links with a member were reset, and it refuses others.
    LinksLost(u64),
    /// There is a link with it again.
    LinksMade(u64),
    Propose(Request),
    Change(MemberChange, u64),
    Read(Waiter<()>),
    TransferLeader(u64),
    /// Leadership goes to whoever has most of the log, and comes back on request only: this member is about to end.
    HandOver,
    /// The state machine survives a crash up to this index; `None`: it could not be saved now.
    Saved(Option<u64>),
    /// A copy of the state machine is wanted in this folder.
    Copy(PathBuf, CopyReply),
    /// What a copy with everything up to this index is of.
    Describe(u64, oneshot::Sender<Option<SnapshotMetadata>>),
    /// Up to where each member has the log.
    Matched(oneshot::Sender<BTreeMap<u64, u64>>),
    /// A copy of another member's state machine is in this folder, for good.
    Fetched(SnapshotMetadata, PathBuf),
    Stop,
}

/// Unparks the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread until there is an input, or none will come any more (`Some(None)`), or until then: `None`.
pub(crate) fn wait(inbox: &mut mpsc::Receiver<Input>, until: Option<Instant>) -> Option<Option<Input>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(received) = inbox.poll_recv(&mut context) {
            return Some(received);
        }
        let Some(until) = until else {
            thread::park();
            continue;
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

/// Gets the index of the last entry in a copy.
pub(crate) type CopyReply = oneshot::Sender<Result<u64, StateMachineError>>;

pub(crate) type Waiter<T> = oneshot::Sender<Result<T, ProposeError>>;

/// Who waits for which request.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    waiters: Mutex<HashMap<u64, Waiter<T>>>,
}

/// Who waits for requests, and for changes of the membership.
#[derive(Debug)]
pub(crate) struct Desk<R> {
    pub(crate) requests: Waiting<R>,
    pub(crate) changes: Waiting<Membership>,
}

impl<R> Desk<R> {
    /// Whether somebody waits for what has this number.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.requests.has(id) || self.changes.has(id)
    }
}

impl<R> Default for Desk<R> {
    fn default() -> Self {
        Self { requests: Waiting::default(), changes: Waiting::default() }
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { waiters: Mutex::default() }
    }
}

impl<T> Waiting<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter<T>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, id: u64) -> oneshot::Receiver<Result<T, ProposeError>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(id, sender);
        receiver
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Answers many at once. Who no longer waits gets nothing.
    pub(crate) fn answer(&self, answers: impl Iterator<Item = (u64, Result<T, ProposeError>)>) {
        let mut waiters = self.lock();
        for (id, answer) in answers {
            if let Some(waiter) = waiters.remove(&id) {
                let _ = waiter.send(answer);
            }
        }
    }

    pub(crate) fn fail_all(&self, error: ProposeError) {
        for (_, waiter) in self.lock().drain() {
            let _ = waiter.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn waiting_ends_with_an_input_with_the_time_and_with_the_last_sender() {
        let (sender, mut inbox) = mpsc::channel(4);
        assert!(wait(&mut inbox, Some(Instant::now())).is_none());
        assert!(wait(&mut inbox, Some(Instant::now() + Duration::from_millis(2))).is_none());
        let sending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            sender.try_send(Input::Tick).unwrap();
            thread::sleep(Duration::from_millis(5));
        });
        assert!(matches!(wait(&mut inbox, None), Some(Some(Input::Tick))));
        assert!(matches!(wait(&mut inbox, None), Some(None)));
        sending.join().unwrap();
    }
}
