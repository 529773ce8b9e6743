//! A member's own removal: it takes part as before until those who stay can do without it.
//!
//! A change of the membership counts on each member from when that knows it to be committed. Until then, those who stay count
//! the removed one, and may need its vote (Ongaro 2014, 4.2.2). If a leader of two removed itself and stopped, and the last
//! message to the other were lost, nobody would lead any more. So a member does not hand out its own removal, nor what follows
//! it, before others know:
//!
//! - Who leads waits until a majority of the voters that stay have said that it is committed, and one of them has all of the
//!   log, to lead next. What they say is on their disks, so any quorum of theirs has one that knows, and tells the others with
//!   its request for votes.
//! - Who follows waits until its leader has said so.
//! - Who has no leader waits for one, because it was started again or has lost its quorum.
//!
//! All of them wait only so long. To raft-rs this is a member that is slow to apply: it leads, counts and votes under the
//! membership of before, so no rule of Raft, nor of leases, has an exception here.
//!
//! Not here: how a removed member stops, and removals of others.

use std::mem;

use consensus_disk::Disk;
use raft::{
    Progress, StateRole,
    eraftpb::{self, MessageType},
};

use super::Member;
use crate::{limits::LEAVE_ELECTIONS_MAX, membership::MemberChange};

#[derive(Debug, Default)]
pub(super) struct Leave {
    /// Committed entries that are held: this member's removal, and what follows it. They were on their way before it was committed,
    /// since a leader takes no more, so `UNCOMMITTED_BYTES_MAX` bounds them.
    held: Vec<eraftpb::Entry>,
    /// The tick since when they are.
    since: u64,
    /// Up to where a leader has said that entries are committed.
    heard: u64,
}

impl<D: Disk> Member<D> {
    /// Whether this member's removal is committed, and held.
    pub(super) fn is_leaving(&self) -> bool {
        !self.leave.held.is_empty()
    }

    /// Takes note of what a leader says is committed.
    pub(super) fn note_commit(&mut self, message: &eraftpb::Message) {
        let says = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat);
        if says && message.term >= self.raw.raft.term {
            self.note_committed(message.commit);
        }
    }

    pub(super) fn note_committed(&mut self, index: u64) {
        self.leave.heard = self.leave.heard.max(index);
    }

    /// Whether the next step hands out what is held.
    pub(super) fn leaves(&self) -> bool {
        let wait = LEAVE_ELECTIONS_MAX * self.config.election_ticks as u64;
        self.is_leaving() && (self.is_dispensable() || self.ticks >= self.leave.since + wait)
    }

    /// Whether others know of the removal that is held, and one can lead.
    fn is_dispensable(&self) -> bool {
        let Some(removal) = self.leave.held.first() else { return false };
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return self.leave.heard >= removal.index;
        }
        let voters = raft.prs().conf().voters().ids();
        let others = voters.iter().filter(|id| *id != self.config.id);
        let stay: Vec<_> = others.filter_map(|id| raft.prs().get(id)).collect();
        let know = stay.iter().filter(|progress| progress.committed_index >= removal.index).count();
        // Since no more requests are taken, this comes about.
        let has_all = |progress: &Progress| progress.matched == raft.raft_log.last_index();
        let successor = stay.iter().any(|progress| progress.recent_active && has_all(progress));
        stay.is_empty() || 2 * know > stay.len() && successor
    }

    /// Before the step that hands out what is held: a leader has another one lead.
    pub(super) fn prepare_to_leave(&mut self) {
        if !self.is_dispensable() {
            tracing::warn!("this member was removed, and does not know whether the others know");
        }
        if let Some(heir) = self.most_caught_up() {
            self.transfer_leader(heir);
        }
    }

    /// Of entries that are committed, those that are handed out. `leaves`: with those that were held.
    pub(super) fn hold_removal(
        &mut self,
        mut entries: Vec<eraftpb::Entry>,
        leaves: bool,
    ) -> Vec<eraftpb::Entry> {
        if self.is_leaving() {
            self.leave.held.append(&mut entries);
            return if leaves { mem::take(&mut self.leave.held) } else { entries };
        }
        if let Some(removal) = entries.iter().position(|entry| self.is_removed_by(entry)) {
            self.leave.held = entries.split_off(removal);
            self.leave.since = self.ticks;
        }
        entries
    }

    /// A snapshot has what was held.
    pub(super) fn forget_removal(&mut self) {
        self.leave.held.clear();
    }

    fn is_removed_by(&self, entry: &eraftpb::Entry) -> bool {
        if entry.context.is_empty() || entry.index <= self.membership().index {
            return false;
        }
        let change = MemberChange::decode(entry.context.clone());
        matches!(change, Ok((_, MemberChange::Remove { id })) if id == self.config.id)
    }
}
