//! Members that are too far behind for the log, and how the log gets shorter.

use consensus_disk::{Batch, Disk};
use raft::{
    ProgressState, SnapshotStatus, StateRole,
    eraftpb::{self, MessageType},
};

use super::Member;
use crate::{limits::LOG_BYTES_MAX, snapshot::SnapshotMetadata};

impl<D: Disk> Member<D> {
    /// The leader's log begins after what this member has: the host has to fetch a snapshot of at least this index, and give
    /// it to [`restore`](Self::restore).
    pub fn snapshot_wanted(&self) -> Option<u64> {
        self.wanted.filter(|index| *index > self.raw.raft.raft_log.committed)
    }

    /// What a copy of the state machine is of that has everything up to `index`. `None`: the log does not say, or the
    /// membership has changed since; a later copy does.
    pub fn describe(&self, index: u64) -> Option<SnapshotMetadata> {
        let log = self.raw.store();
        if index > log.hard_state.commit || log.membership.index > index {
            return None;
        }
        let term = raft::Storage::term(log, index).ok()?;
        Some(SnapshotMetadata { index, term, membership: log.membership.clone() })
    }

    /// Goes on from a snapshot that the host has on its disk, for good. `false`: not now, because no leader is known, or it is
    /// of no use. Otherwise the next step says so in [`Work::restored`](super::Work::restored).
    pub fn restore(&mut self, metadata: &SnapshotMetadata) -> bool {
        let raft = &self.raw.raft;
        let known = metadata.membership.has_role(self.config.id);
        let of_use =
            metadata.index > raft.raft_log.committed && (1..=raft.term).contains(&metadata.term) && known;
        if !of_use || raft.state != StateRole::Follower || raft.leader_id == raft::INVALID_ID {
            return false;
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (raft.leader_id, self.config.id, raft.term);
        let position = message.mut_snapshot().mut_metadata();
        (position.index, position.term) = (metadata.index, metadata.term);
        position.set_conf_state(metadata.membership.conf.clone());
        // A follower of this term takes whatever its leader sends.
        let stepped = self.raw.step(message).is_ok();
        self.draw_timeout();
        let taken = stepped && self.raw.raft.raft_log.unstable_snapshot().is_some();
        if taken {
            self.restoring = Some(metadata.clone());
            self.wanted = None;
        }
        taken
    }

    /// Holds back what would replace this member's state by a copy that is not here yet; to raft-rs it is a heartbeat.
    pub(super) fn hold_back(&mut self, mut message: eraftpb::Message) -> eraftpb::Message {
        let log = &self.raw.raft.raft_log;
        let position = message.get_snapshot().get_metadata();
        let (index, term) = (position.index, position.term);
        let kept = message.get_msg_type() == MessageType::MsgSnapshot
            && message.term >= self.raw.raft.term
            && index > log.committed
            && !log.match_term(index, term);
        if kept {
            self.wanted = Some(self.wanted.map_or(index, |wanted| wanted.max(index)));
            message.clear_snapshot();
            message.set_msg_type(MessageType::MsgHeartbeat);
            message.commit = 0;
        }
        message
    }

    /// Whoever was told to fetch a snapshot is told again: the message may be lost, or the snapshot of no use.
    pub(super) fn repeat_snapshots(&mut self) {
        if self.raw.raft.state != StateRole::Leader
            || !self.ticks.is_multiple_of(self.config.election_ticks as u64)
        {
            return;
        }
        let fetching = self.raw.raft.prs().iter().filter(|(_, p)| p.state == ProgressState::Snapshot);
        let fetching: Vec<u64> = fetching.map(|(id, _)| *id).collect();
        for id in fetching {
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// Forgets entries up to `index`, or to before what a member that is heard from still needs, as long as the log does not
    /// get too large. To be written; it needs no sync, and not at once.
    ///
    /// The host has to be sure that its state machine has everything up to `index` even after a crash.
    pub fn compact(&mut self, index: u64) -> Option<Batch> {
        let mut index = index.min(self.raw.raft.raft_log.applied);
        if self.raw.store().bytes() < LOG_BYTES_MAX {
            index = index.min(self.needed_from());
        }
        let mut batch = Batch::default();
        let compacted = self.raw.mut_store().compact(index, &mut batch);
        compacted.then_some(batch)
    }

    /// What all members have that this leader has heard from lately.
    fn needed_from(&self) -> u64 {
        if self.raw.raft.state != StateRole::Leader {
            return u64::MAX;
        }
        let lately = 2 * self.config.election_ticks as u64;
        let heard = |id: &u64| self.heard.get(id).is_some_and(|tick| tick + lately >= self.ticks);
        let others = self.raw.raft.prs().iter().filter(|(id, _)| **id != self.config.id && heard(id));
        others.map(|(_, progress)| progress.matched).min().unwrap_or(u64::MAX)
    }
}
