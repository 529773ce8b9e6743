//! The voter's side of lease reads: for how long it elects nobody.
//!
//! Whoever answers a round of a leader with leases promises not to vote, and not to campaign, until the time that the leader
//! asked for has passed on this member's clock. raft-rs has such a rule of its own, which is not enough: it counts ticks,
//! which may come late and then all at once, and forgets the leader with any message of a higher term. A member that starts does
//! not know when it promised something last; how long it was at most is on its disk before the first such promise leaves, and
//! that long it waits. Where no leader has leases, nobody waits. All that holds whatever the settings of this member are: the
//! leader's count.
//!
//! Only an election that the leader itself has asked for, to hand leadership over, goes past a promise.

use std::{mem, time::Duration};

use consensus_disk::{Batch, Disk};
use raft::{
    CAMPAIGN_TRANSFER, StateRole,
    eraftpb::{Message, MessageType},
};

use super::{
    Member,
    lease::{Context, PROMISE_MAX},
};

#[derive(Debug)]
pub(super) struct Promise {
    until: Until,
    /// It is for longer than any that the disk knows of.
    unsaved: bool,
    /// The last leader that has asked for a promise, and its term.
    given_to: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// It begins when this member is first told the time.
    Start,
    Time(Duration),
}

impl Promise {
    /// Of a member that starts.
    pub(super) fn of_start() -> Self {
        Self { until: Until::Start, unsaved: false, given_to: None }
    }
}

impl<D: Disk> Member<D> {
    /// Whether the leader of this term, if one is known, has ever asked this member for a promise: then nobody may be elected
    /// early, however sure it seems that this leader is gone.
    pub fn leader_has_leases(&self) -> bool {
        let raft = &self.raw.raft;
        self.promise.given_to.is_some_and(|given| given == (raft.leader_id, raft.term))
    }

    /// Takes note of the time. It never goes back.
    pub(super) fn look_at_clock(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if let Until::Start = self.promise.until {
            self.promise.until = Until::Time(self.now + self.raw.store().promised);
        }
    }

    /// Whether this member may elect nobody now, itself included.
    pub(super) fn has_promised(&self) -> bool {
        match self.promise.until {
            Until::Start => !self.raw.store().promised.is_zero(),
            Until::Time(until) => self.now < until,
        }
    }

    /// Whether a message asks for what this member has promised not to do.
    pub(super) fn breaks_promise(&self, message: &Message) -> bool {
        let kind = message.get_msg_type();
        let asks = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        asks && self.has_promised() && message.context[..] != *CAMPAIGN_TRANSFER
    }

    /// Promises what a heartbeat asks for. Before raft-rs sees it, whose answer the leader takes for the promise.
    pub(super) fn promise(&mut self, message: &Message) {
        if message.get_msg_type() != MessageType::MsgHeartbeat || message.term < self.raw.raft.term {
            return;
        }
        let Some(asked) = Context::decode(&message.context).and_then(|context| context.promise) else {
            return;
        };
        self.promise.given_to = Some((message.from, message.term));
        let asked = asked.min(PROMISE_MAX);
        let log = self.raw.mut_store();
        if asked > log.promised {
            log.promised = asked;
            self.promise.unsaved = true;
        }
        let until = self.now + asked;
        if let Until::Time(before) = self.promise.until {
            self.promise.until = Until::Time(before.max(until));
        }
    }

    /// What is to be on the disk before a promise leaves; whether there is anything.
    pub(super) fn save_promise(&mut self, batch: &mut Batch) -> bool {
        let unsaved = mem::take(&mut self.promise.unsaved);
        if unsaved {
            self.raw.store().save_promised(batch);
        }
        unsaved
    }

    /// Before a tick: keeps a member that has promised from campaigning with it. It does with the first after the promise.
    pub(super) fn hold_campaign(&mut self) {
        if self.has_promised() && self.raw.raft.state != StateRole::Leader {
            let raft = &mut self.raw.raft;
            let before = raft.randomized_election_timeout().saturating_sub(2);
            raft.election_elapsed = raft.election_elapsed.min(before);
        }
    }
}
