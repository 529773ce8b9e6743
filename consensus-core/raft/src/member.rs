//! One member of a group: what to write, to send and to apply next. No I/O but reading old entries, no clock, no
//! randomness but a seed.

mod guard;
mod lease;
mod leave;
mod loss;
#[cfg(test)]
mod played;
mod preference;
mod promise;
mod reads;
mod snapshot;
mod split;
mod successor;
mod told;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk};
use lease::Lease;
use promise::Promise;
use raft::{Config as RaftConfig, RawNode, StateRole, eraftpb};

pub use work::{Committed, MembershipApplied, Read, Work};

use crate::{
    codec::DecodeError,
    limits,
    log::{Log, LogError},
    logger,
    membership::{MemberChange, Membership},
    message::{COMMITTED, LEADER_LOST, Message},
    proposal::{self, Request},
    snapshot::SnapshotMetadata,
};

/// What a member is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the groups of the process.
    pub group: u64,
    /// The member's id, not 0.
    pub id: u64,
    /// Ticks without a leader after which a follower campaigns; the time is drawn from this to twice this.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// The election timeout by the clock, for promises; the same on all members.
    pub election_timeout: Duration,
    /// As a leader, it answers reads from a lease where it can.
    pub leases: bool,
    /// Entries that the state machine has already applied.
    pub applied: u64,
    /// A leader hands leadership over to a voter of higher priority that has all of the log, after a while.
    pub priority: u32,
    /// Entries of one message at most.
    pub entries_per_message_max: usize,
    /// For the election timeouts, and to tell the reads of this run from those of others: another one at each start.
    pub seed: u64,
}

/// A member that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nothing of the group is on this disk.
    #[error("group {group} was never started on this disk")]
    Unknown {
        /// Which group.
        group: u64,
    },
    /// raft-rs refuses the settings.
    #[error("settings of group {group}: {text}")]
    Settings {
        /// Which group.
        group: u64,
        /// What is wrong with them.
        text: String,
    },
}

impl OpenError {
    /// Whether what was written is lost.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_damage())
    }
}

/// A proposal or a read that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// No leader is known, or leadership is being transferred.
    #[error("there is no leader")]
    NoLeader,
    /// Too much is appended and not committed.
    #[error("too many requests are on their way")]
    Busy,
    /// Another change of the membership is under way.
    #[error("another change of the membership is under way")]
    ChangePending,
}

/// A message that does no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// It is for someone else.
    #[error("a message for member {to} of group {group}")]
    Misrouted {
        /// The member it is for.
        to: u64,
        /// The group it is for.
        group: u64,
    },
    /// An honest member never sends it.
    #[error("a message of member {from} contradicts what Raft guarantees: {what}")]
    Impossible {
        /// Who sent it.
        from: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// raft-rs dropped it: from a member that is gone, or a proposal without a leader.
    #[error("dropped: {0}")]
    Dropped(String),
}

/// Part in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    Leader,
    Candidate,
    Follower,
}

/// What a member knows of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its part.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// Index of the first entry of its log: what is before it is in snapshots only.
    pub first: u64,
    /// Index of the last entry of its log.
    pub last: u64,
    /// Index up to which entries are committed.
    pub commit: u64,
    /// Index up to which the host has applied them, or will have with the snapshot that it was told to restore: not what there is
    /// to read.
    pub applied: u64,
}

/// One member of a group.
pub struct Member<D: Disk> {
    config: Config,
    raw: RawNode<Log<D>>,
    /// State of the generator of election timeouts, and the term and role that the current one was drawn for.
    random: u64,
    timeout_for: (u64, StateRole),
    committed: Vec<eraftpb::Entry>,
    /// The commit index has grown, and is not saved.
    commit_unsaved: bool,
    written: Option<raft::Ready>,
    ticks: u64,
    /// What the clock said last.
    now: Duration,
    lease: Lease,
    reads: reads::Reads,
    promise: Promise,
    /// The tick at which each member was last heard from.
    heard: BTreeMap<u64, u64>,
    loss: loss::Loss,
    preference: preference::Preference,
    told: told::Told,
    leave: leave::Leave,
    /// By a leader that hands over, while a change of the membership is not applied.
    asked_to_lead: Option<eraftpb::Message>,
    /// The leader has nothing for this member but a snapshot of at least this index.
    wanted: Option<u64>,
    /// The snapshot that the next step begins with.
    restoring: Option<SnapshotMetadata>,
}

impl<D: Disk> Member<D> {
    /// Starts from what is on the disk.
    pub fn open(disk: Arc<D>, config: Config) -> Result<Self, OpenError> {
        let group = config.group;
        let mut log = Log::open(disk, group)?.ok_or(OpenError::Unknown { group })?;
        let applied = config.applied.max(log_begin(&log));
        if applied > log.last() {
            return Err(LogError::Gap { group, index: log.last() + 1 }.into());
        }
        // What is applied was committed, whether or not that got to the disk.
        log.hard_state.commit = log.hard_state.commit.max(applied);
        let raft = RaftConfig {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: limits::APPEND_BYTES,
            max_inflight_msgs: limits::APPENDS_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            // Not raft-rs' own priority: its voters refuse a candidate of lower priority whose log is no longer than theirs,
            // although it may be newer, and then neither of both can win.
            priority: 0,
            max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: limits::COMMITTED_BYTES,
            ..RaftConfig::default()
        };
        let settings = |error: raft::Error| OpenError::Settings { group, text: error.to_string() };
        raft.validate().map_err(settings)?;
        let raw = RawNode::new(&raft, log, &logger::logger()).map_err(settings)?;
        let mut member = Self {
            random: config.seed,
            config,
            timeout_for: (u64::MAX, StateRole::Follower),
            raw,
            committed: Vec::new(),
            commit_unsaved: false,
            written: None,
            ticks: 0,
            now: Duration::ZERO,
            lease: Lease::default(),
            reads: reads::Reads::default(),
            promise: Promise::of_start(),
            heard: BTreeMap::new(),
            loss: loss::Loss::default(),
            preference: preference::Preference::default(),
            told: told::Told::default(),
            leave: leave::Leave::default(),
            asked_to_lead: None,
            wanted: None,
            restoring: None,
        };
        member.draw_timeout();
        Ok(member)
    }

    /// Which member it is.
    pub fn id(&self) -> u64 {
        self.config.id
    }

    /// Time passes: to be called at even intervals. `now` is the time of a clock that goes on whatever happens to the process,
    /// since any moment.
    pub fn tick(&mut self, now: Duration) {
        self.look_at_clock(now);
        self.ticks += 1;
        self.repeat_snapshots();
        self.hold_campaign();
        self.raw.tick();
        self.draw_timeout();
        self.consider_loss();
        self.prefer();
        self.renew_lease();
    }

    /// A message of another member. The clock is to be looked at after the message has come: a promise is counted from `now`.
    pub fn step(&mut self, message: Message, now: Duration) -> Result<(), StepError> {
        self.look_at_clock(now);
        let Some(raw) = self.admit(message)? else { return Ok(()) };
        let mut raw = self.hold_back(raw);
        self.promise(&raw);
        self.note_commit(&raw);
        if self.defers(&raw) {
            return Ok(());
        }
        let stepped = match raw.get_msg_type() {
            eraftpb::MessageType::MsgReadIndex if self.raw.raft.state == StateRole::Leader => {
                self.read_for_other(&mut raw);
                Ok(())
            }
            _ => self.raw.step(raw),
        };
        self.draw_timeout();
        stepped.map_err(|error| StepError::Dropped(error.to_string()))
    }

    /// What raft-rs may see of a message; `None`: nothing.
    fn admit(&mut self, message: Message) -> Result<Option<eraftpb::Message>, StepError> {
        if message.to() != self.config.id || message.group != self.config.group {
            return Err(StepError::Misrouted { to: message.to(), group: message.group });
        }
        match message.raw.get_msg_type() {
            LEADER_LOST => return self.hear_of_loss(&message.raw).map(|()| None),
            COMMITTED => return self.hear_of_commit(&message.raw).map(|()| None),
            _ => {}
        }
        let admitted = self.guard(message.raw)?;
        // Only of members: a peer may call itself whatever it likes.
        if let Some(raw) = &admitted
            && self.raw.raft.prs().get(raw.from).is_some()
        {
            self.heard.insert(raw.from, self.ticks);
            self.note_sign_of_life(raw.from);
            self.note_priority(raw);
            self.give_way(raw);
        }
        Ok(admitted)
    }

    /// Asks for requests to be committed, those that other members passed on as well. Takes from the front what is on its way; the
    /// rest stays on an error. So does what was passed on while leadership is being transferred; otherwise, what cannot be done
    /// of it is dropped.
    pub fn propose(
        &mut self,
        requests: &mut VecDeque<Request>,
        passed_on: &mut Vec<Message>,
    ) -> Result<(), ProposeError> {
        if self.raw.raft.state != StateRole::Leader {
            passed_on.clear();
            while !requests.is_empty() {
                self.may_propose()?;
                let (data, count) = proposal::encode_some(&*requests);
                self.propose_entries(vec![normal_entry(data)])?;
                requests.drain(..count);
            }
            return Ok(());
        }
        if self.raw.raft.lead_transferee.is_some() || self.is_leaving() {
            // raft-rs would drop what was passed on, and nobody would know. Who leaves would not see what becomes of it.
            return Err(ProposeError::NoLeader);
        }
        let passed_on_bytes: usize = passed_on.iter().map(Message::payload_bytes).sum();
        let own_bytes: usize = requests.iter().map(|request| request.payload.len()).sum();
        let uncommitted = self.raw.raft.uncommitted_size();
        if uncommitted > 0
            && (uncommitted + passed_on_bytes + own_bytes) as u64 > limits::UNCOMMITTED_BYTES_MAX
        {
            return Err(ProposeError::Busy);
        }
        // All at once, so that each follower gets one message.
        let from: BTreeSet<u64> = passed_on.iter().map(Message::from).collect();
        let mut entries: Vec<eraftpb::Entry> =
            passed_on.drain(..).filter_map(|message| self.passed_on(message)).flatten().collect();
        let mut taken = 0;
        while taken < requests.len() {
            let (data, count) = proposal::encode_some(requests.iter().skip(taken));
            entries.push(normal_entry(data));
            taken += count;
        }
        if !entries.is_empty() {
            self.propose_entries(entries)?;
        }
        let last = self.raw.raft.raft_log.last_index();
        from.into_iter().for_each(|id| self.follower_waits(id, last));
        requests.clear();
        Ok(())
    }

    /// The entries of a message that carries requests.
    fn passed_on(&mut self, message: Message) -> Option<Vec<eraftpb::Entry>> {
        match self.admit(message) {
            Ok(raw) => Some(raw?.take_entries().into()),
            Err(error) => {
                tracing::debug!(%error, "requests that were passed on are refused");
                None
            }
        }
    }

    /// Asks for a change of the membership. `request` is (origin, id) as in [`Request`].
    pub fn propose_member_change(
        &mut self,
        change: &MemberChange,
        request: (u64, u64),
    ) -> Result<(), ProposeError> {
        self.may_propose()?;
        let context = change.encode(request);
        match change.conf_change() {
            None => {
                let entry = eraftpb::Entry { context, ..eraftpb::Entry::default() };
                self.propose_entries(vec![entry])
            }
            Some(_) if self.raw.raft.has_pending_conf() => Err(ProposeError::ChangePending),
            Some(conf_change) => {
                let data = crate::conf_change::encode(&conf_change);
                let mut entry = eraftpb::Entry { data, context, ..eraftpb::Entry::default() };
                entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
                self.propose_entries(vec![entry])
            }
        }
    }

    fn may_propose(&self) -> Result<(), ProposeError> {
        match self.raw.raft.leader_id {
            raft::INVALID_ID => Err(ProposeError::NoLeader),
            _ => Ok(()),
        }
    }

    fn propose_entries(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(), ProposeError> {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.id;
        message.set_entries(entries.into());
        self.raw.raft.step(message).map_err(|_| match self.raw.raft.state {
            StateRole::Leader if self.raw.raft.lead_transferee.is_none() => ProposeError::Busy,
            _ => ProposeError::NoLeader,
        })
    }

    /// Whether it leads, and a majority does not have all of its entries.
    pub fn has_uncommitted(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Leader && raft.raft_log.committed < raft.raft_log.last_index()
    }

    /// The state machine has applied entries up to this one.
    pub fn applied(&mut self, index: u64) {
        if index > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index);
            self.campaign_if_asked();
        }
    }

    /// What is committed goes to the disk with the entries that come next. This is to be written if none come; `None`: it is
    /// written already. Nothing depends on it but what a member knows before it hears of a leader.
    pub fn save_commit(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        if mem::take(&mut self.commit_unsaved) {
            self.raw.store().save_hard_state(&mut batch);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// A message to this member was not sent.
    pub fn unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    /// Hands leadership over, if this member has it.
    pub fn transfer_leader(&mut self, to: u64) {
        if self.raw.raft.state == StateRole::Leader {
            self.raw.transfer_leader(to);
            if self.raw.raft.lead_transferee.is_some() {
                self.give_up_lease();
            }
        }
    }

    /// Campaigns at once, without waiting for the election timeout, unless it has promised not to.
    pub fn campaign(&mut self) {
        if self.has_promised() {
            return;
        }
        // Refused only while a membership change is committed and not applied: the timeout comes anyway.
        let _ = self.raw.campaign();
        self.draw_timeout();
    }

    /// What this member knows of the group.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        Status {
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            },
            leader: (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id),
            term: raft.term,
            first: raft.raft_log.first_index(),
            last: raft.raft_log.last_index(),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
        }
    }

    /// Up to where each member has the log, as far as this leader knows; of who does not lead, nothing.
    pub fn matched(&self) -> BTreeMap<u64, u64> {
        let leads = self.raw.raft.state == StateRole::Leader;
        let all = self.raw.raft.prs().iter().filter(|_| leads);
        all.map(|(id, progress)| (*id, progress.matched)).collect()
    }

    /// Of the members that this leader hears from, the voter whose log is the longest.
    pub fn most_caught_up(&self) -> Option<u64> {
        let voters = self.raw.store().membership.members.keys();
        let voters = voters.filter(|id| **id != self.config.id && self.raw.store().membership.is_voter(**id));
        let known = voters.filter_map(|id| Some((self.raw.raft.prs().get(*id)?, *id)));
        known
            .filter(|(progress, _)| progress.recent_active)
            .max_by_key(|(progress, _)| progress.matched)
            .map(|known| known.1)
    }

    /// Who the members are, as of the last change that is committed.
    pub fn membership(&self) -> &Membership {
        &self.raw.store().membership
    }

    /// raft-rs draws its timeouts from the thread's generator; these come from the seed, so that a run can be repeated.
    fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        if self.timeout_for == (raft.term, raft.state) {
            return;
        }
        self.timeout_for = (raft.term, raft.state);
        // splitmix64 (Steele, Lea, Flood 2014)
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (z ^ (z >> 31)) as usize % self.config.election_ticks;
        raft.set_randomized_election_timeout(self.config.election_ticks + drawn);
    }
}

fn normal_entry(data: Bytes) -> eraftpb::Entry {
    eraftpb::Entry { data, ..eraftpb::Entry::default() }
}

fn log_begin<D: Disk>(log: &Log<D>) -> u64 {
    raft::Storage::first_index(log).expect("known without reading") - 1
}

/// What is wrong with the bytes of a committed entry: a defect of whoever proposed it.
fn skip(index: u64, error: &DecodeError) {
    tracing::error!(index, %error, "an entry that nobody can read is skipped, by all members alike");
}

impl<D: Disk> std::fmt::Debug for Member<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.config.id)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
