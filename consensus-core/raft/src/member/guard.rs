//! What a message must satisfy before raft-rs sees it.
//!
//! raft-rs panics on messages that contradict what Raft guarantees, and 0.7.0 accepts one that it should not
//! (tikv/raft-rs issue 555). A peer whose disk lost data can send either.

use consensus_disk::Disk;
use raft::{
    ProgressState, StateRole,
    eraftpb::{self, EntryType, MessageType},
};

use super::{Member, StepError};
use crate::limits::{INDEX_MAX, TERM_MAX};

impl<D: Disk> Member<D> {
    /// The message, changed where it has to be; `None`: it is stale and says nothing.
    pub(super) fn guard(&self, mut message: eraftpb::Message) -> Result<Option<eraftpb::Message>, StepError> {
        let impossible = |what| Err(StepError::Impossible { from: message.from, what });
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let kind = message.get_msg_type();
        if message.from == raft::INVALID_ID || message.from == self.config.id {
            return impossible("it comes from nobody, or from its receiver");
        }
        // Requests of clients that are passed on belong to no term, everything else does.
        let passed_on = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
        if passed_on != (message.term == 0) {
            return impossible("a term where there is none, or none where there is one");
        }
        if message.term > TERM_MAX {
            return impossible("a term that no election gets to");
        }
        if message.term < raft.term && !passed_on {
            return Ok(Some(message)); // of an old term: it is answered, and has no effect
        }
        if self.breaks_promise(&message) {
            return Ok(None);
        }
        match kind {
            MessageType::MsgAppend => {
                if message.log_term == 0 {
                    return impossible("entries that follow nothing");
                }
                if message.index > INDEX_MAX {
                    return impossible("an index that no log gets to");
                }
                let mut previous = (message.index, message.log_term);
                for entry in message.get_entries() {
                    if Some(entry.index) != previous.0.checked_add(1)
                        || entry.term < previous.1
                        || entry.term > message.term
                    {
                        return impossible("entries that do not follow each other");
                    }
                    previous = (entry.index, entry.term);
                    // Of what its log has forgotten, raft-rs says that the term is 0.
                    if (log.first_index()..=log.committed).contains(&entry.index)
                        && log.term(entry.index).is_ok_and(|term| term != entry.term)
                    {
                        return impossible("another entry where one is committed");
                    }
                }
            }
            // A candidate that has learnt meanwhile that it is removed must not be elected: raft-rs would look for its progress.
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse
                if raft.prs().get(raft.id).is_none() =>
            {
                return Ok(None);
            }
            MessageType::MsgHeartbeat if message.commit > log.last_index() => {
                return impossible("it commits what this member never had: has its data been lost?");
            }
            MessageType::MsgSnapshot if message.get_snapshot().get_metadata().term > message.term => {
                return impossible("a snapshot from the future");
            }
            MessageType::MsgSnapshot => {
                // Of what is committed, raft-rs looks at nothing but whether it is older.
                let position = message.get_snapshot().get_metadata();
                if position.term == 0 {
                    return impossible("a snapshot of nothing"); // raft-rs takes it for the end of any log
                }
                if position.index == log.committed && !log.match_term(position.index, position.term) {
                    return impossible("a snapshot of something else than what is committed");
                }
            }
            // raft-rs would pass it on again, to a leader of whom its sender has not heard.
            MessageType::MsgPropose if raft.state != StateRole::Leader => return Ok(None),
            MessageType::MsgPropose if message.get_entries().is_empty() => {
                return impossible("a proposal of nothing");
            }
            MessageType::MsgPropose if raft.has_pending_conf() => {
                // raft-rs would put nothing in its place, and whoever asked would wait for ever. So it is committed as a change
                // that is not done.
                for entry in message.mut_entries().iter_mut() {
                    if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
                        entry.set_entry_type(EntryType::EntryNormal);
                        entry.data.clear();
                    }
                }
            }
            MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if message.get_entries().len() != 1 => {
                return impossible("a read without a number");
            }
            MessageType::MsgAppendResponse if raft.state == StateRole::Leader => {
                let Some(progress) = raft.prs().get(message.from) else { return Ok(Some(message)) };
                if message.index > log.last_index() && !message.reject {
                    return impossible("it has entries that this leader does not have");
                }
                if message.request_snapshot != 0 {
                    return impossible("it asks for a snapshot, which no member does");
                }
                message.reject_hint = message.reject_hint.min(log.last_index());
                let probing = progress.state == ProgressState::Probe && message.reject;
                if probing && message.index <= progress.matched {
                    return Ok(None); // an old answer: what it rejects was accepted since
                }
                if probing && message.reject_hint < progress.matched {
                    // Next must stay above match.
                    (message.reject_hint, message.log_term) = (progress.matched, 0);
                }
            }
            _ => {}
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
