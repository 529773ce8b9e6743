//! How a leader's followers hear of what is committed.
//!
//! Every append says it. raft-rs follows each commit with an empty append besides, which each follower answers: three more
//! wake-ups a follower, whether anybody there waits or not. Here a follower that waits, because it has passed on requests or
//! reads, is told at once by a message that nobody answers, and the others by the entries that come next, or a
//! little later when the host says so.
//!
//! Not here: when that is.

use std::collections::BTreeMap;

use consensus_disk::Disk;
use raft::{
    StateRole,
    eraftpb::{self, MessageType},
};

use super::{Member, StepError};
use crate::message::COMMITTED;

/// What this leader's followers were told in a term.
#[derive(Debug, Default)]
pub(super) struct Told {
    term: u64,
    /// The commit index that each was told.
    commit: BTreeMap<u64, u64>,
    /// The commit indices that each waits for: the first, and the last.
    waits: BTreeMap<u64, (u64, u64)>,
}

impl<D: Disk> Member<D> {
    /// A follower has passed something on that is done when this is committed, and applied there.
    pub(super) fn follower_waits(&mut self, id: u64, index: u64) {
        if self.raw.raft.prs().get(id).is_some() {
            let (first, last) = self.told_in_this_term().waits.entry(id).or_insert((index, index));
            (*first, *last) = (index.min(*first), index.max(*last));
        }
    }

    fn told_in_this_term(&mut self) -> &mut Told {
        let term = self.raw.raft.term;
        if self.told.term != term {
            self.told = Told { term, ..Told::default() };
        }
        &mut self.told
    }

    /// A leader tells those of its followers that wait for it what is committed, or all of them. Whether some were not told:
    /// they are to be, before long.
    pub fn tell_commit(&mut self, all: bool) -> bool {
        if self.raw.raft.state != StateRole::Leader {
            return false;
        }
        // Whatever it is about to ask says it, too.
        self.ask();
        let (id, mut told) = (self.config.id, std::mem::take(self.told_in_this_term()));
        let raft = &mut self.raw.raft;
        for message in &raft.msgs {
            if let MessageType::MsgAppend | MessageType::MsgHeartbeat = message.get_msg_type() {
                let known = told.commit.entry(message.to).or_default();
                *known = message.commit.max(*known);
            }
        }
        told.commit.retain(|id, _| raft.prs().get(*id).is_some());
        let (commit, last) = (raft.raft_log.committed, raft.raft_log.last_index());
        // Of what the log does not have any more, everybody has heard: its term is 0.
        let commit_term = raft.raft_log.term(commit).unwrap_or_default();
        let untold = |told: &Told, id: &u64| told.commit.get(id).is_none_or(|told| *told < commit);
        let followers: Vec<(u64, bool)> =
            raft.prs().iter().map(|(id, it)| (*id, it.next_idx <= last)).collect();
        let mut some_are_not = false;
        for (to, lags) in followers.into_iter().filter(|(to, _)| *to != id) {
            if !untold(&told, &to) {
                continue;
            }
            let waits = told.waits.get(&to).is_some_and(|(first, _)| *first <= commit);
            if lags {
                // raft-rs leaves it to the empty append to send what an answer has made room for.
                raft.send_append(to);
            } else if waits || all {
                let (from, term) = (id, raft.term);
                let mut message = eraftpb::Message {
                    from,
                    to,
                    term,
                    log_term: commit_term,
                    index: commit,
                    ..Default::default()
                };
                message.set_msg_type(COMMITTED);
                raft.msgs.push(message);
            } else {
                some_are_not = true;
                continue;
            }
            told.commit.insert(to, commit);
        }
        told.waits.retain(|_, (first, last)| {
            *first = (commit + 1).max(*first);
            *first <= *last
        });
        self.told = told;
        some_are_not
    }

    /// The leader says that something is committed. Of an entry that this member does not have, it will hear again.
    pub(super) fn hear_of_commit(&mut self, message: &eraftpb::Message) -> Result<(), StepError> {
        let raft = &mut self.raw.raft;
        if message.from == raft::INVALID_ID || message.from == self.config.id {
            let what = "it comes from nobody, or from its receiver";
            return Err(StepError::Impossible { from: message.from, what });
        }
        let from_leader = message.term == raft.term && message.from == raft.leader_id;
        let is_news = raft.state == StateRole::Follower && message.index > raft.raft_log.committed;
        // raft-rs gives term 0 to what its log does not have.
        if from_leader
            && is_news
            && message.log_term != 0
            && raft.raft_log.match_term(message.index, message.log_term)
        {
            raft.raft_log.commit_to(message.index);
        }
        if from_leader {
            self.note_committed(message.index);
        }
        Ok(())
    }
}

const _: () = assert!(matches!(COMMITTED, MessageType::MsgCheckQuorum), "raft-rs sends no such message");
