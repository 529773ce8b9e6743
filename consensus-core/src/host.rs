//! The thread that owns the Raft member: the host of `consensus-raft`'s contract. What it does between two waits is
//! [`Host::turn`], which the simulator calls as well.

mod leaderless;
mod reads;

use std::{
    collections::{BTreeMap, VecDeque},
    iter, mem,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Acquire},
        mpsc,
    },
    time::{Duration, Instant},
};

use consensus_disk::{Disk, DiskError, Durability};
use consensus_raft::{
    Committed, Member, MemberChange, Membership, Message, Role, SnapshotMetadata, Status, StepError,
    proposal::Request,
};
use tokio::sync::{mpsc::Receiver, watch};

use crate::{
    ProposeError, StateMachineError,
    apply::Task,
    clock::Clock,
    inbox::{self, Desk, Input, Waiter},
    lease::SharedLease,
    metrics::Metrics,
    readers::Readers,
};

/// Inputs taken before the member is asked what to do: all of their requests share a write.
const INPUTS_AT_ONCE: usize = 4096;
/// Entries that are committed and not applied; with more, requests are refused as by etcd.
const UNAPPLIED_MAX: u64 = 5000;
/// Ticks for which a change of the membership waits for another one, and how many wait.
const CHANGE_WAIT_TICKS: u64 = 20;
const CHANGES_WAITING_MAX: usize = 16;
/// While a leader's entries are on their way to a majority, requests wait for them, to share the next write, but not longer
/// than this: a majority may be far away.
/// As long, reads wait for those before them, and whoever waits for nothing is not told what is committed: the next entries may say
/// it.
const HELD_MAX: Duration = Duration::from_millis(1);
/// Nor more than these.
const HELD_REQUESTS_MAX: usize = 4096;
/// Tasks that wait for room at the apply thread; with more, this thread waits, and stops taking part.
const WAITING_TO_APPLY_MAX: usize = 256;

/// The way to the other members.
pub trait Outbox {
    /// Sends what there is room for at once; gives whom something was for that did not go out.
    fn send(&mut self, messages: Vec<Message>) -> Vec<u64>;

    /// Who the members are now, this one included. To anybody else, messages go only as answers: a member that lags may be led
    /// by one that it does not know.
    fn set_members(&mut self, membership: &Membership);
}

pub(crate) struct Host<D: Disk, R, O> {
    pub(crate) member: Member<D>,
    pub(crate) disk: Arc<D>,
    pub(crate) desk: Arc<Desk<R>>,
    pub(crate) outbox: O,
    pub(crate) clock: Clock,
    pub(crate) lease: Arc<SharedLease>,
    pub(crate) to_apply: mpsc::SyncSender<Task>,
    pub(crate) applied: Arc<AtomicU64>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) membership: watch::Sender<Membership>,
    pub(crate) ticks: u64,
    pub(crate) proposals: VecDeque<Request>,
    /// Changes of the membership that wait for another one, each until a tick.
    pub(crate) changes: Vec<(MemberChange, u64, u64)>,
    /// The same of other members.
    pub(crate) changes_passed_on: Vec<(Message, u64)>,
    /// Requests of other members.
    pub(crate) passed_on: Vec<Message>,
    /// Requests wait for those that are on their way.
    pub(crate) holds: bool,
    /// Some followers do not know what is committed.
    pub(crate) untold: bool,
    /// Reads that were not asked for yet.
    pub(crate) reads: Vec<Waiter<()>>,
    /// They wait for the answer to those that were.
    pub(crate) reads_wait: bool,
    /// Those that were, and the number that they were first asked for with, for each number they were asked for with.
    pub(crate) asked: BTreeMap<u64, reads::Asked>,
    pub(crate) asked_as: BTreeMap<u64, u64>,
    pub(crate) next_read: u64,
    /// The leader that they were asked of, and its term.
    pub(crate) asked_of: Option<(u64, u64)>,
    /// Requests and changes of this member on their way, with the term in which they were proposed.
    pub(crate) proposed: VecDeque<(u64, u64)>,
    /// As many of them, the last ones, were proposed in this turn.
    pub(crate) proposed_now: usize,
    /// The term of the last committed entry.
    pub(crate) committed_term: u64,
    /// What the apply thread has no room for yet.
    pub(crate) waiting_to_apply: VecDeque<Task>,
    pub(crate) compaction: Compaction,
    /// A snapshot of at least this index is to be fetched.
    pub(crate) wanted: watch::Sender<Option<u64>>,
    /// One that was, until the member takes it.
    pub(crate) fetched: Option<(SnapshotMetadata, PathBuf)>,
    /// It is a member no more.
    pub(crate) removed: bool,
    pub(crate) metrics: Metrics,
}

/// When the log gets shorter.
pub(crate) struct Compaction {
    /// Entries after which the state is saved; half as many stay.
    entries: u64,
    /// Ticks after which it is saved too.
    interval_ticks: u64,
    /// The tick of the last time.
    last: u64,
    /// The apply thread was asked to save the state, and has not answered.
    saving: bool,
    /// What it answered: the log may forget entries up to here.
    saved: Option<u64>,
    /// Told when the state is saved.
    inbox: tokio::sync::mpsc::WeakSender<Input>,
}

impl Compaction {
    /// Nothing is saved yet.
    pub(crate) fn new(
        entries: u64,
        interval_ticks: u64,
        inbox: tokio::sync::mpsc::WeakSender<Input>,
    ) -> Self {
        Self { entries, interval_ticks, last: 0, saving: false, saved: None, inbox }
    }
}

/// Why a member takes part no more.
#[derive(Debug)]
pub enum End {
    /// It was told to stop.
    Asked,
    /// Its log cannot be written.
    Disk(DiskError),
    /// Its state machine cannot go on.
    StateMachine,
    /// It was removed from the cluster.
    Removed,
}

impl<D: Disk, R, O: Outbox> Host<D, R, O> {
    pub(crate) fn run(mut self, mut inbox: Receiver<Input>) {
        let mut held_until = None;
        let end = loop {
            // What is held back from one turn to the next is not held for longer than what was before it.
            held_until = (self.holds || self.untold || self.reads_wait || self.member.reads_wait())
                .then(|| held_until.unwrap_or_else(|| Instant::now() + HELD_MAX));
            let woken = inbox::wait(&mut inbox, held_until);
            if matches!(woken, Some(None)) {
                break End::Asked;
            }
            // There may be something to do all the time.
            let release = held_until.is_some_and(|until| Instant::now() >= until);
            if release {
                held_until = None;
            }
            if let Err(end) = self.turn(woken.flatten(), release, &mut inbox) {
                break end;
            }
        };
        match end {
            End::Asked => tracing::info!("the member stops"),
            End::Disk(error) => tracing::error!(%error, "the log cannot be written: this member stops"),
            End::StateMachine => {}
            End::Removed => tracing::error!("this member was removed from the cluster: it stops"),
        }
    }

    /// Everything that is done between two waits: takes what has come, and does what follows from it.
    /// `release`: what is held back has waited long enough.
    pub(crate) fn turn(
        &mut self,
        first: Option<Input>,
        release: bool,
        inbox: &mut Receiver<Input>,
    ) -> Result<(), End> {
        self.proposed_now = 0;
        let mut others = Vec::new();
        let rest = iter::from_fn(|| inbox.try_recv().ok());
        for input in first.into_iter().chain(rest).take(INPUTS_AT_ONCE) {
            match input {
                Input::Stop => {
                    self.save_commit()?;
                    return Err(End::Asked);
                }
                Input::Propose(request) => self.proposals.push_back(request),
                Input::Message(message) if message.is_request() => self.passed_on.push(message),
                other => others.push(other),
            }
        }
        let wait = self.proposals.len() + self.passed_on.len();
        let ticks = self.ticks;
        others.into_iter().for_each(|input| self.take(input));
        self.member.applied(self.applied.load(Acquire));
        self.holds = wait > 0 && wait < HELD_REQUESTS_MAX && !release && self.member.has_uncommitted();
        if wait > 0 && !self.holds {
            self.propose();
        }
        if self.ticks != ticks {
            self.save_commit()?;
        }
        self.ask_to_read(release);
        if release {
            self.member.ask_beside();
        }
        if let Some((metadata, _)) = &self.fetched {
            self.member.restore(metadata);
        }
        self.do_work(release)?;
        if self.reads_wait && self.asked.is_empty() {
            self.ask_to_read(release);
            self.do_work(release)?;
        }
        self.shorten_log()?;
        self.hand_on(None)?;
        self.share_lease();
        if self.removed {
            return Err(End::Removed);
        }
        self.publish(self.member.status());
        self.metrics.elections_hinted(self.member.hinted_elections());
        let wanted = self.member.snapshot_wanted();
        if wanted.is_none()
            && let Some((_, folder)) = self.fetched.take()
        {
            // The log had what was missing after all.
            self.waiting_to_apply.push_back(Task::Discard(folder));
        }
        self.wanted.send_if_modified(|published| mem::replace(published, wanted) != wanted);
        Ok(())
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {
                self.ticks += 1;
                if self.lease.take_used() {
                    self.member.lease_used();
                }
                self.member.tick(self.clock.now());
                while self.proposed.front().is_some_and(|(_, id)| !self.desk.has(*id)) {
                    self.proposed.pop_front();
                }
                self.retry_reads();
                for (change, id, until) in mem::take(&mut self.changes) {
                    self.change(change, id, until);
                }
                for (message, until) in mem::take(&mut self.changes_passed_on) {
                    self.change_passed_on(message, until);
                }
            }
            Input::Message(message) if message.is_proposal() => {
                self.change_passed_on(message, self.ticks + CHANGE_WAIT_TICKS);
            }
            Input::Message(message) => {
                let from = message.from();
                if let Err(error) = self.member.step(message, self.clock.now()) {
                    tracing::debug!(from, %error, "message refused");
                }
            }
            Input::Unreachable(id) => {
                self.member.unreachable(id);
                if self.member.status().leader == Some(id) {
                    // What was passed on to it may have been in the connection.
                    self.give_up(0);
                }
            }
            Input::LinksLost(id) => self.member.links_lost(id),
            Input::LinksMade(id) => self.member.links_made(id),
            Input::Change(change, id) => self.change(change, id, self.ticks + CHANGE_WAIT_TICKS),
            Input::Read(waiter) => self.reads.push(waiter),
            Input::TransferLeader(to) => self.member.transfer_leader(to),
            Input::HandOver => {
                self.member.decline_leadership();
                if let Some(to) = self.member.most_caught_up() {
                    self.member.transfer_leader(to);
                }
            }
            Input::Saved(index) => {
                self.compaction.saving = false;
                self.compaction.saved = index;
                self.metrics.state_saved(index);
            }
            Input::Copy(folder, reply) => {
                let done = Box::new(move |copied| drop(reply.send(copied)));
                self.waiting_to_apply.push_back(Task::Copy(folder, done));
            }
            Input::Describe(index, reply) => drop(reply.send(self.member.describe(index))),
            Input::Matched(reply) => drop(reply.send(self.member.matched())),
            Input::Fetched(metadata, folder) => self.fetched = Some((metadata, folder)),
            Input::Propose(_) | Input::Stop => {}
        }
    }

    /// A new leader takes no change before it has applied all that it took over: such a change waits. So does one without a
    /// leader, as long as whoever asks.
    fn change(&mut self, change: MemberChange, id: u64, until: u64) {
        let term = self.member.status().term;
        let error = match self.member.propose_member_change(&change, (self.member.id(), id)) {
            Ok(()) => {
                self.proposed.push_back((term, id));
                self.proposed_now += 1;
                return;
            }
            Err(error) => error,
        };
        let until = match error {
            consensus_raft::ProposeError::ChangePending => until,
            consensus_raft::ProposeError::NoLeader if self.desk.changes.has(id) => {
                self.ticks + CHANGE_WAIT_TICKS
            }
            _ => 0,
        };
        if self.ticks < until && self.changes.len() < CHANGES_WAITING_MAX {
            self.changes.push((change, id, until));
        } else {
            self.desk.changes.answer(iter::once((id, Err(error.into()))));
        }
    }

    /// A leader that hands over takes none, and goes on if nobody takes over.
    fn change_passed_on(&mut self, message: Message, until: u64) {
        let from = message.from();
        let Err(error) = self.member.step(message.clone(), self.clock.now()) else { return };
        let waits = matches!(error, StepError::Dropped(_)) && self.member.status().role == Role::Leader;
        if waits && self.ticks < until && self.changes_passed_on.len() < CHANGES_WAITING_MAX {
            self.changes_passed_on.push((message, until));
        } else {
            tracing::debug!(from, %error, "a change that was passed on is refused");
        }
    }

    fn propose(&mut self) {
        let status = self.member.status();
        if status.commit.saturating_sub(status.applied) > UNAPPLIED_MAX {
            self.refuse(ProposeError::Busy, 0);
        }
        let before = self.proposed.len();
        self.proposed.extend(self.proposals.iter().map(|request| (status.term, request.id)));
        let proposed = self.member.propose(&mut self.proposals, &mut self.passed_on);
        // What stays in the queue is not on its way.
        self.proposed.truncate(self.proposed.len() - self.proposals.len());
        self.proposed_now += self.proposed.len() - before;
        match proposed {
            Ok(()) => {}
            Err(consensus_raft::ProposeError::NoLeader) => self.wait_for_leader(),
            Err(error) => self.refuse(error.into(), 0),
        }
        self.bound_passed_on();
    }

    fn save_commit(&mut self) -> Result<(), End> {
        match self.member.save_commit() {
            Some(batch) => self.disk.write(batch, Durability::Ordered).map_err(End::Disk),
            None => Ok(()),
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for lost in self.outbox.send(messages) {
            self.member.unreachable(lost);
        }
    }

    /// Before anything leaves, or is applied, that the member has said.
    fn share_lease(&self) {
        self.lease.share(self.member.lease_end(), self.member.status().commit);
    }

    /// `release`: everybody is told what is committed.
    fn do_work(&mut self, release: bool) -> Result<(), End> {
        loop {
            self.untold = self.member.tell_commit(release);
            let Some(mut work) = self.member.work() else { return Ok(()) };
            self.share_lease();
            let nothing_to_write = work.batch.is_empty();
            if nothing_to_write && work.restored.is_none() {
                // Whoever waits for what is committed comes before whoever is to be told of it.
                self.commit(mem::take(&mut work.committed))?;
            }
            let passes_on = work.messages.iter().chain(&work.messages_after).any(Message::is_proposal);
            let mut lost = self.outbox.send(work.messages);
            if !nothing_to_write {
                let began = Instant::now();
                self.disk.write(work.batch, work.durability).map_err(End::Disk)?;
                self.metrics.written(began, work.durability);
            }
            lost.extend(self.outbox.send(work.messages_after));
            let messages = self.member.written();
            self.share_lease();
            self.send(messages);
            if let Some(metadata) = work.restored {
                self.take_over(metadata)?;
            }
            if passes_on {
                self.give_up_unsent(&lost);
            }
            // The member may be told only now that its step is done.
            lost.into_iter().for_each(|id| self.member.unreachable(id));
            self.commit(work.committed)?;
            for read in work.reads {
                let first = self.asked_as.remove(&read.number);
                if let Some(asked) = first.and_then(|first| self.asked.remove(&first)) {
                    self.readers.add(read.index, asked.waiters);
                }
            }
        }
    }

    fn commit(&mut self, committed: Vec<Committed>) -> Result<(), End> {
        let Some(last) = committed.last() else { return Ok(()) };
        let term = last.term;
        for applied in committed.iter().filter_map(|entry| entry.membership.as_ref()) {
            tracing::info!(change = ?applied.change, done = applied.done, "membership change committed");
            self.set_membership(applied.membership.clone());
            if applied.request.0 == self.member.id() {
                let answer = if applied.done {
                    Ok(applied.membership.clone())
                } else {
                    Err(ProposeError::ChangeRefused)
                };
                self.desk.changes.answer(iter::once((applied.request.1, answer)));
            }
        }
        // Before anybody is answered: whoever was knows what this member's status is at least.
        self.publish(self.member.status());
        self.hand_on(Some(Task::Apply(committed)))?;
        if term > self.committed_term {
            // A leader's first entry of its own is behind all that it took over. What an earlier leader was asked for, and is
            // not before it, will not come any more.
            self.committed_term = term;
            let before = self.proposed.partition_point(|(proposed_in, _)| *proposed_in < term);
            let later = self.proposed.split_off(before);
            self.give_up(0);
            self.proposed = later;
        }
        Ok(())
    }

    /// Whoever waits for what is on its way, but for the first ones, is told that nobody knows what has become of it; after the
    /// answers to what was committed before.
    fn give_up(&mut self, but: usize) {
        let gone: Vec<u64> = self.proposed.drain(but..).map(|(_, id)| id).collect();
        if !gone.is_empty() {
            self.desk.changes.answer(gone.iter().map(|id| (*id, Err(ProposeError::LeaderGone))));
            self.waiting_to_apply.push_back(Task::LeaderGone(gone));
        }
    }

    /// What was to be passed on to the leader with messages that did not go out: nobody else would answer it.
    fn give_up_unsent(&mut self, lost: &[u64]) {
        let Status { role, leader, .. } = self.member.status();
        if role != Role::Leader && leader.is_some_and(|leader| lost.contains(&leader)) {
            self.give_up(self.proposed.len().saturating_sub(self.proposed_now));
        }
    }

    /// The log goes on from a snapshot: the state has to follow.
    fn take_over(&mut self, metadata: SnapshotMetadata) -> Result<(), End> {
        let (fetched, folder) = self.fetched.take().expect("a member restores what it was offered");
        assert_eq!(fetched.index, metadata.index, "a member restores what it was offered");
        self.set_membership(metadata.membership);
        // Before anything is applied: who sees that it is sees that it was committed.
        self.publish(self.member.status());
        self.hand_on(Some(Task::Restore(metadata.index, folder)))?;
        // Whether what was asked for here is in it, nobody can say.
        self.committed_term = metadata.term;
        self.give_up(0);
        Ok(())
    }

    fn set_membership(&mut self, membership: Membership) {
        self.outbox.set_members(&membership);
        self.removed |= !membership.members.contains_key(&self.member.id());
        self.membership.send_replace(membership);
    }

    /// Has the state saved when it is time, and forgets entries that are in it.
    fn shorten_log(&mut self) -> Result<(), End> {
        let status = self.member.status();
        let keep = self.compaction.entries / 2;
        if let Some(saved) = self.compaction.saved.take() {
            let unneeded = saved.min(status.applied.saturating_sub(keep));
            if let Some(batch) = self.member.compact(unneeded) {
                self.disk.write(batch, Durability::Ordered).map_err(End::Disk)?;
                tracing::debug!(first = self.member.status().first, "the log is shorter");
            }
        }
        let unsaved = (status.applied + 1).saturating_sub(status.first + keep);
        let long_ago = self.ticks >= self.compaction.last + self.compaction.interval_ticks;
        let due = unsaved > self.compaction.entries || unsaved > 0 && long_ago;
        if due && !self.compaction.saving {
            (self.compaction.saving, self.compaction.last) = (true, self.ticks);
            let inbox = self.compaction.inbox.clone();
            let done = move |saved: Result<u64, StateMachineError>| {
                if let Err(error) = &saved {
                    tracing::error!(%error, "the state cannot be saved: the log stays as it is");
                }
                if let Some(inbox) = inbox.upgrade() {
                    // A thread of its own: it may wait.
                    let _ = inbox.blocking_send(Input::Saved(saved.ok()));
                }
            };
            self.hand_on(Some(Task::Save(Box::new(done))))?;
        }
        Ok(())
    }

    /// Gives the apply thread what it has room for, in order. Only far too much is waited for: without this thread there are
    /// no heartbeats.
    fn hand_on(&mut self, task: Option<Task>) -> Result<(), End> {
        self.waiting_to_apply.extend(task);
        while let Some(task) = self.waiting_to_apply.pop_front() {
            if self.waiting_to_apply.len() >= WAITING_TO_APPLY_MAX {
                self.to_apply.send(task).map_err(|_| End::StateMachine)?;
                continue;
            }
            match self.to_apply.try_send(task) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Full(task)) => {
                    self.waiting_to_apply.push_front(task);
                    break;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(End::StateMachine),
            }
        }
        Ok(())
    }
}

impl<D: Disk, R, O> Host<D, R, O> {
    /// Of what is applied, the member says what it has handed out or will have; others ask what there is to read.
    fn publish(&self, status: Status) {
        let status = Status { applied: self.applied.load(Acquire), ..status };
        let leader = status.leader;
        self.status.send_if_modified(|published| {
            let led_before = published.leader;
            let news = *published != status;
            if led_before != leader {
                self.metrics.leader_changed(leader);
                tracing::info!(leader = leader.map(|id| format!("{id:x}")), term = status.term, "leader");
            }
            *published = status;
            news
        });
    }
}

/// However it ends, nobody waits for it, and nobody takes it for a leader.
impl<D: Disk, R, O> Drop for Host<D, R, O> {
    fn drop(&mut self) {
        self.lease.share(None, 0);
        // A statement of its own: what is borrowed must be given back before it is written.
        let last = self.status.borrow().clone();
        self.publish(Status { role: Role::Follower, leader: None, ..last });
        self.desk.requests.fail_all(ProposeError::Stopped);
        self.desk.changes.fail_all(ProposeError::Stopped);
    }
}
