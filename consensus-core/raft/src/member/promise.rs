//! The voter's side of lease reads: for how long it elects nobody.
//!
//! Whoever answers a round of a leader with leases promises not to vote, and not to campaign, until the time that the leader
//! asked for has passed on this member's clock. raft-rs has such a rule of its own, which is not enough: it counts ticks,
//! which may come late and then all at once, and forgets the leader with any message of a higher term. A member that starts does
//! not know what it promised before, so it promises an election timeout. That holds on all members, whatever their own
//! settings are: the leader's may differ.
//!
//! Only an election that the leader itself has asked for, to hand leadership over, goes past a promise.

use std::time::Duration;

use consensus_disk::Disk;
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
    /// Of a member that starts. In the first term of a log there is no leader to whom anything was promised.
    pub(super) fn of_start(term: u64) -> Self {
        /// That of a log as [`bootstrap`](crate::bootstrap) makes it.
        const NOBODY_LED: u64 = 1;
        let until = if term == NOBODY_LED { Until::Time(Duration::ZERO) } else { Until::Start };
        Self { until, given_to: None }
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
            self.promise.until = Until::Time(self.now + self.config.election_timeout);
        }
    }

    /// Whether this member may elect nobody now, itself included.
    pub(super) fn has_promised(&self) -> bool {
        match self.promise.until {
            Until::Start => true,
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
        let until = self.now + asked.min(PROMISE_MAX);
        if let Until::Time(before) = self.promise.until {
            self.promise.until = Until::Time(before.max(until));
        }
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
