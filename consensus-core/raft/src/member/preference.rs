//! Which voter should lead: a leader hands leadership over to one of higher priority that has almost all of the log.
//!
//! Priorities travel with what followers answer to a leader. They change neither who may be elected nor how soon, so one
//! of high priority that is down or behind is in nobody's way. raft-rs' own priority is not used: see `Member::open`.

use std::{cmp::Reverse, collections::BTreeMap};

use consensus_disk::Disk;
use raft::{
    StateRole,
    eraftpb::{self, MessageType},
};

use super::Member;
use crate::limits::APPENDS_IN_FLIGHT;

/// Entries that a voter may lack and be handed leadership.
const LAG_MAX: u64 = APPENDS_IN_FLIGHT as u64;

#[derive(Debug, Default)]
pub(super) struct Preference {
    /// What members have said of themselves.
    priorities: BTreeMap<u64, i64>,
    /// Who should lead, and since when it is the same.
    heir: Option<(u64, u64)>,
    /// This member does not want to lead any more.
    declined: bool,
}

fn is_answer(message: &eraftpb::Message) -> bool {
    matches!(message.get_msg_type(), MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse)
}

impl<D: Disk> Member<D> {
    /// From now on, no leader hands leadership over to this member for its priority: it is about to end.
    pub fn decline_leadership(&mut self) {
        self.preference.declined = true;
    }

    pub(super) fn with_priority(&self, mut message: eraftpb::Message) -> eraftpb::Message {
        if is_answer(&message) && !self.preference.declined {
            message.priority = i64::from(self.config.priority);
        }
        message
    }

    /// Takes note of a member's priority.
    pub(super) fn note_priority(&mut self, message: &eraftpb::Message) {
        if is_answer(message) {
            self.preference.priorities.insert(message.from, message.priority);
        }
    }

    /// Hands leadership over if the same voter was the better leader for twice the election timeout. If it does not take
    /// it, the same time passes before the next attempt.
    pub(super) fn prefer(&mut self) {
        let heir = self.heir();
        let since = match (self.preference.heir, heir) {
            (Some((before, since)), Some(now)) if before == now => since,
            _ => self.ticks,
        };
        self.preference.heir = heir.map(|heir| (heir, since));
        let Some(heir) = heir else { return };
        if self.ticks >= since + 2 * self.config.election_ticks as u64 {
            self.preference.heir = Some((heir, self.ticks));
            tracing::info!(to = format!("{heir:x}"), "leadership goes to a voter of higher priority");
            self.transfer_leader(heir);
        }
    }

    /// The voter of highest priority that is heard from and lacks little, if its priority is higher than this leader's.
    fn heir(&self) -> Option<u64> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || raft.lead_transferee.is_some() {
            return None;
        }
        let now = self.ticks;
        let lately = 2 * self.config.heartbeat_ticks as u64;
        let voters = raft.prs().conf().voters().ids();
        let known = voters.iter().filter_map(|id| Some((*self.preference.priorities.get(&id)?, id)));
        let better = known.filter(|(priority, _)| *priority > i64::from(self.config.priority));
        let ready = better.filter(|(_, id)| {
            let heard = self.heard.get(id).is_some_and(|tick| tick + lately >= now);
            // It always lacks something while there are writes; raft-rs lets it have all of it first.
            let needed = raft.raft_log.committed.saturating_sub(LAG_MAX);
            heard && raft.prs().get(*id).is_some_and(|progress| progress.matched >= needed)
        });
        ready.max_by_key(|(priority, id)| (*priority, Reverse(*id))).map(|(_, id)| id)
    }
}
