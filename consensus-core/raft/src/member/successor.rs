//! The voter that a leader hands leadership over to: it campaigns at once.
//!
//! raft-rs does not, and forgets that it was asked to, while a change of the membership is committed and not applied. A leader
//! that was removed asks right after such a change, and is gone then. So this member remembers, until it has applied the change.
//!
//! Not here: who is asked.

use consensus_disk::Disk;
use raft::eraftpb::{self, MessageType};

use super::Member;

impl<D: Disk> Member<D> {
    /// Whether a message asks this member to campaign, and has to wait.
    pub(super) fn defers(&mut self, message: &eraftpb::Message) -> bool {
        let asks = message.get_msg_type() == MessageType::MsgTimeoutNow;
        let defers = asks && self.has_change_unapplied();
        if defers {
            self.asked_to_lead = Some(message.clone());
        }
        defers
    }

    /// Campaigns if it was asked to; of an older term, raft-rs ignores that.
    pub(super) fn campaign_if_asked(&mut self) {
        if !self.has_change_unapplied()
            && let Some(message) = self.asked_to_lead.take()
        {
            let _ = self.raw.step(message);
            self.draw_timeout();
        }
    }

    fn has_change_unapplied(&self) -> bool {
        self.membership().index > self.raw.raft.raft_log.applied
    }
}
