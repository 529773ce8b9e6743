//! A member that is stepped by hand, on one thread, for the simulator in `tests/sim`.
//!
//! It is the member that [`Node`](crate::Node) runs on threads: the same host, applier and queues, over a disk, an outbox and
//! a state machine of the simulator's. Not here: threads, time, the network, and what carries copies of the state. For nobody
//! else, and not promised to stay.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use consensus_disk::Disk;
use consensus_raft::{
    Committed, Config, Member, MemberChange, Membership, Message, SnapshotMetadata, Status, proposal::Request,
};
use tokio::sync::{
    mpsc,
    oneshot::{self, error::TryRecvError},
    watch,
};

use crate::{
    ProposeError, StartError, StateMachine, StateMachineError,
    apply::Task,
    engine::{Engine, catch_up_with_log},
    host::Compaction,
    inbox::{INBOX, Input},
    lease::LeaseRead,
};
pub use crate::{
    clock::Clock,
    host::{End, Outbox},
    node::GROUP,
};

/// What a member is told when it is opened.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub id: u64,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    pub priority: u32,
    pub election_timeout: Duration,
    pub leases: bool,
    pub clock: Clock,
    pub entries_per_message_max: usize,
    /// Another one at each start.
    pub seed: u64,
    pub snapshot_entries: u64,
    pub snapshot_interval_ticks: u64,
}

/// What somebody waits for.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Receiver<T>);

impl<T> Reply<T> {
    /// `None`: not yet. `Some(None)`: it will not come any more.
    pub fn take(&mut self) -> Option<Option<T>> {
        match self.0.try_recv() {
            Ok(value) => Some(Some(value)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(None),
        }
    }
}

/// A member that does nothing by itself.
pub struct SteppedMember<D: Disk, S: StateMachine, O: Outbox> {
    engine: Engine<D, S, O>,
    inbox: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
}

impl<D: Disk, S: StateMachine, O: Outbox> SteppedMember<D, S, O> {
    /// Starts from what is on the disk, as [`Node::start`](crate::Node::start) does. `left_over` says where a copy of
    /// everything up to an index is that was fetched before the last stop.
    pub fn open(
        settings: Settings,
        disk: Arc<D>,
        mut machine: S,
        mut outbox: O,
        left_over: impl FnOnce(u64) -> Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let config = Config {
            group: GROUP,
            id: settings.id,
            election_ticks: settings.election_ticks,
            heartbeat_ticks: settings.heartbeat_ticks,
            election_timeout: settings.election_timeout,
            leases: settings.leases,
            applied: machine.applied(),
            priority: settings.priority,
            entries_per_message_max: settings.entries_per_message_max,
            seed: settings.seed,
        };
        let member = Member::open(Arc::clone(&disk), config)?;
        let begin = member.status().first - 1;
        catch_up_with_log(&mut machine, begin, left_over(begin))?;
        outbox.set_members(member.membership());
        let (inbox, inputs) = mpsc::channel(INBOX);
        let compaction =
            Compaction::new(settings.snapshot_entries, settings.snapshot_interval_ticks, inbox.downgrade());
        let membership = watch::Sender::new(member.membership().clone());
        let engine = Engine::new(member, disk, machine, outbox, membership, compaction, settings.clock);
        Ok(Self { engine, inbox, inputs })
    }

    /// As [`Node`](crate::Node) does: what there is no room for is lost.
    fn push(&self, input: Input) {
        let _ = self.inbox.try_send(input);
    }

    /// Time passes.
    pub fn tick(&self) {
        self.push(Input::Tick);
    }

    /// A message of another member.
    pub fn message(&self, message: Message) {
        self.push(Input::Message(message));
    }

    /// A connection with a member has ended.
    pub fn unreachable(&self, id: u64) {
        self.push(Input::Unreachable(id));
    }

    /// All links with a member were reset, and it refuses others.
    pub fn links_lost(&self, id: u64) {
        self.push(Input::LinksLost(id));
    }

    /// There is a link with a member again.
    pub fn links_made(&self, id: u64) {
        self.push(Input::LinksMade(id));
    }

    /// As [`Node::propose`](crate::Node::propose). `id` is used once.
    pub fn propose(&self, id: u64, payload: Bytes) -> Reply<Result<S::Response, ProposeError>> {
        let answer = self.engine.host.desk.requests.add(id);
        self.push(Input::Propose(Request { origin: self.engine.host.member.id(), id, payload }));
        Reply(answer)
    }

    /// Whoever asked waits no longer.
    pub fn forget(&self, id: u64) {
        self.engine.host.desk.requests.remove(id);
    }

    /// As [`Node::change_members`](crate::Node::change_members).
    pub fn change_members(&self, id: u64, change: MemberChange) -> Reply<Result<Membership, ProposeError>> {
        let answer = self.engine.host.desk.changes.add(id);
        self.push(Input::Change(change, id));
        Reply(answer)
    }

    /// As [`Node::read_index`](crate::Node::read_index).
    pub fn read_index(&self) -> Reply<Result<(), ProposeError>> {
        let (sender, answer) = oneshot::channel();
        Reply(match self.engine.reads.begin() {
            LeaseRead::Ready => {
                let _ = sender.send(Ok(()));
                answer
            }
            LeaseRead::Waits(answer) => answer,
            LeaseRead::Asks => {
                self.push(Input::Read(sender));
                answer
            }
        })
    }

    /// As [`Node::transfer_leader`](crate::Node::transfer_leader).
    pub fn transfer_leader(&self, to: u64) {
        self.push(Input::TransferLeader(to));
    }

    /// As [`Node::hand_over`](crate::Node::hand_over), without waiting.
    pub fn hand_over(&self) {
        self.push(Input::HandOver);
    }

    /// Another member wants a copy of the state in `folder`. Gives the index of the last entry in it.
    pub fn copy(&self, folder: PathBuf) -> Reply<Result<u64, StateMachineError>> {
        let (sender, reply) = oneshot::channel();
        self.push(Input::Copy(folder, sender));
        Reply(reply)
    }

    /// What a copy with everything up to `index` is of.
    pub fn describe(&self, index: u64) -> Reply<Option<SnapshotMetadata>> {
        let (sender, reply) = oneshot::channel();
        self.push(Input::Describe(index, sender));
        Reply(reply)
    }

    /// A snapshot that was wanted is in `folder`, for good.
    pub fn fetched(&self, metadata: SnapshotMetadata, folder: PathBuf) {
        self.push(Input::Fetched(metadata, folder));
    }

    /// What the raft thread does when it wakes up; nothing if nothing has come. `release`: because what it holds back has waited
    /// long enough.
    pub fn turn(&mut self, release: bool) -> Result<(), End> {
        match self.inputs.try_recv() {
            Err(_) if !release => Ok(()),
            first => self.engine.host.turn(first.ok(), release, &mut self.inputs),
        }
    }

    /// What the apply thread does with its next task, and the entries if they were that. `None`: there is none.
    pub fn apply(&mut self) -> Option<(Vec<Committed>, Result<(), StateMachineError>)> {
        let task = self.engine.tasks.try_recv().ok()?;
        let entries = if let Task::Apply(committed) = &task { committed.clone() } else { Vec::new() };
        Some((entries, self.engine.applier.handle(task)))
    }

    /// What the snapshot thread does with its next job. `false`: there is none.
    pub fn run_job(&mut self) -> bool {
        let next = self.engine.jobs.try_recv();
        next.is_ok_and(|(job, done)| {
            done(job());
            true
        })
    }

    /// What this member knows of the group, as of its last turn.
    pub fn status(&self) -> Status {
        self.engine.host.status.borrow().clone()
    }

    /// Elections that it began because the links of a leader were reset, since its start.
    pub fn hinted_elections(&self) -> u64 {
        self.engine.host.member.hinted_elections()
    }

    /// Until when it reads from a lease, as of its last turn.
    pub fn lease_end(&self) -> Option<Duration> {
        self.engine.host.member.lease_end()
    }

    /// Who the members are, as of its last turn.
    pub fn membership(&self) -> Membership {
        self.engine.host.membership.borrow().clone()
    }

    /// A snapshot of at least this index is to be fetched.
    pub fn snapshot_wanted(&self) -> Option<u64> {
        *self.engine.host.wanted.borrow()
    }

    /// The state machine.
    pub fn machine(&self) -> &S {
        &self.engine.applier.machine
    }
}

impl<D: Disk, S: StateMachine, O: Outbox> std::fmt::Debug for SteppedMember<D, S, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteppedMember").field("member", &self.engine.host.member).finish_non_exhaustive()
    }
}
