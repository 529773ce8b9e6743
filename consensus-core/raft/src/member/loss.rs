//! A leader whose links were reset: an election that does not wait for the timer.
//!
//! A process that dies resets its links, and the host tells. Then each voter that has lost its leader tells the others, and
//! one that hears the same from a quorum gives the leader up: it votes for others, and campaigns itself if no better
//! candidate does. One that has lost its own link alone changes nothing.
//!
//! Terms and votes are what they always are, so this is as safe as a timer that fires early; only a leader that reads on a
//! lease would rely on the timer (Ongaro 2014, 6.4.1), and of such a one nobody here says that it is lost.
//!
//! Not here: how a host gets to know of links.

use std::{cmp::Reverse, collections::BTreeMap};

use consensus_disk::Disk;
use raft::{
    StateRole,
    eraftpb::{self, MessageType},
};

use super::{Member, StepError};
use crate::{limits::HINTED_CAMPAIGNS_MAX, message::LEADER_LOST};

/// After a sign of life that was on its way when the links were reset, this many ticks have to pass without another.
const SILENCE_TICKS: u64 = 2;

/// What is known of links that were reset, and of what other voters say.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Members that no link leads to or comes from any more.
    unlinked: BTreeMap<u64, Unlinked>,
    /// The leader that was known last; 0: none was.
    leader: u64,
    /// The term that the rest is about.
    term: u64,
    /// Voters that have lost the leader, too.
    said: BTreeMap<u64, Said>,
    /// When this member says it, or says it again.
    say_at: u64,
    /// Since when a quorum says so, or until when somebody's campaign is waited for.
    campaign_from: Option<u64>,
    /// Because of this leader.
    campaigns: u32,
    /// Since the start.
    campaigns_total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Unlinked {
    since: u64,
    /// From then on it counts.
    from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    tick: u64,
    candidate: Candidate,
}

/// Who should lead: the greatest. The end of its log comes first, because others would refuse it otherwise.
type Candidate = (u64, u64, i64, Reverse<u64>);

impl Loss {
    /// Takes note of a new leader, or a new term.
    fn follow(&mut self, term: u64, leader: u64, now: u64, pause: u64) {
        if leader != raft::INVALID_ID && leader != self.leader {
            (self.leader, self.campaigns) = (leader, 0);
        }
        if self.term != term {
            // Somebody campaigns, or leads: that comes first.
            (self.term, self.say_at, self.campaign_from) = (term, now + pause, None);
            self.said.clear();
        }
    }
}

impl<D: Disk> Member<D> {
    /// All links with a member were reset, and it refuses others, as the links of a process that has died.
    pub fn links_lost(&mut self, id: u64) {
        if id == self.config.id || self.raw.raft.prs().get(id).is_none() {
            return;
        }
        let now = self.ticks;
        self.follow_leader();
        self.loss.unlinked.insert(id, Unlinked { since: now, from: now });
        if id == self.loss.leader {
            (self.loss.say_at, self.loss.campaigns) = (now, 0);
        }
        self.consider_loss();
    }

    /// There is a link with a member again.
    pub fn links_made(&mut self, id: u64) {
        self.loss.unlinked.remove(&id);
    }

    /// Elections that this member began because the links of a leader were reset, since its start.
    pub fn hinted_elections(&self) -> u64 {
        self.loss.campaigns_total
    }

    /// Something of a member has come. It may have been on its way when the links ended; later, it contradicts that they did.
    pub(super) fn note_sign_of_life(&mut self, id: u64) {
        let (now, heartbeat) = (self.ticks, self.config.heartbeat_ticks as u64);
        if let Some(unlinked) = self.loss.unlinked.get_mut(&id) {
            unlinked.from = now + SILENCE_TICKS;
            if unlinked.from > unlinked.since + heartbeat.max(2 * SILENCE_TICKS) {
                self.loss.unlinked.remove(&id);
            }
        }
    }

    /// Somebody asks whether to campaign, and thereby says that the leader is lost. Who would vote for it does not campaign
    /// meanwhile.
    pub(super) fn give_way(&mut self, message: &eraftpb::Message) {
        let raft = &self.raw.raft;
        if message.get_msg_type() != MessageType::MsgRequestPreVote
            || message.term != raft.term + 1
            || !raft.prs().conf().voters().contains(message.from)
            || !raft.raft_log.is_up_to_date(message.index, message.log_term)
        {
            return;
        }
        let until = self.ticks + 2 * self.step_ticks();
        self.follow_leader();
        let candidate = (message.log_term, message.index, message.priority, Reverse(message.from));
        let said = self.loss.said.entry(message.from).or_insert(Said { tick: 0, candidate });
        said.tick = self.ticks;
        if self.has_lost_leader() && self.gives_leader_up() {
            self.loss.campaign_from = self.loss.campaign_from.max(Some(until));
        }
    }

    /// Another voter has lost the leader.
    pub(super) fn hear_of_loss(&mut self, message: &eraftpb::Message) -> Result<(), StepError> {
        if message.from == raft::INVALID_ID || message.from == self.config.id {
            let what = "it comes from nobody, or from its receiver";
            return Err(StepError::Impossible { from: message.from, what });
        }
        if message.term == self.raw.raft.term && self.raw.raft.prs().conf().voters().contains(message.from) {
            self.follow_leader();
            let candidate = (message.log_term, message.index, message.priority, Reverse(message.from));
            self.loss.said.insert(message.from, Said { tick: self.ticks, candidate });
            self.consider_loss();
        }
        Ok(())
    }

    /// Says that the leader is lost, and campaigns, if it is time for that.
    pub(super) fn consider_loss(&mut self) {
        self.follow_leader();
        if !self.has_lost_leader() {
            return;
        }
        let (now, step) = (self.ticks, self.step_ticks());
        if now >= self.loss.say_at {
            self.loss.say_at = now + step;
            self.say_loss();
        }
        if !self.gives_leader_up() {
            return;
        }
        let own = self.candidate();
        let better = self.loss.said.values().filter(|said| said.candidate > own).count() as u64;
        // Of whom nothing was heard yet, it is not known whether they are better.
        let unknown = u64::from(self.loss.said.len() + 1 < self.others().len());
        let from = *self.loss.campaign_from.get_or_insert(now);
        if now < from + (better + unknown) * step || self.loss.campaigns == HINTED_CAMPAIGNS_MAX {
            return;
        }
        self.loss.campaign_from = Some(now + step);
        self.loss.campaigns += 1;
        self.loss.campaigns_total += 1;
        let (leader, term) = (self.loss.leader, self.raw.raft.term);
        tracing::info!(
            leader = format!("{leader:x}"),
            term,
            "a quorum has lost the links to the leader: campaigning without waiting for the timer"
        );
        self.campaign();
    }

    /// Gives the leader up if a quorum has lost it, this member among them.
    fn gives_leader_up(&mut self) -> bool {
        let (now, fresh) = (self.ticks, self.config.heartbeat_ticks as u64);
        self.loss.said.retain(|_, said| said.tick + fresh >= now);
        let agreed = self.loss.said.keys().copied().chain([self.config.id]).collect();
        let gives_up = self.raw.raft.prs().has_quorum(&agreed);
        if gives_up {
            // Without a leader, a member does not refuse candidates for being too early.
            self.raw.raft.leader_id = raft::INVALID_ID;
        }
        gives_up
    }

    fn follow_leader(&mut self) {
        let (term, leader) = (self.raw.raft.term, self.raw.raft.leader_id);
        let pause = 2 * self.step_ticks();
        self.loss.follow(term, leader, self.ticks, pause);
    }

    /// Whether this voter knows of no leader but one whose links were reset, not longer ago than the timer takes anyway.
    fn has_lost_leader(&self) -> bool {
        let (raft, leader) = (&self.raw.raft, self.loss.leader);
        let follows_another = raft.leader_id != raft::INVALID_ID && raft.leader_id != leader;
        if raft.state == StateRole::Leader
            || !raft.promotable()
            || follows_another
            // It relies on it that nobody votes for another before the timer fires.
            || self.leader_has_leases()
            // It could neither vote nor campaign.
            || self.has_promised()
        {
            return false;
        }
        let patience = self.config.election_ticks as u64;
        let unlinked = self.loss.unlinked.get(&leader);
        unlinked.is_some_and(|unlinked| (unlinked.from..unlinked.since + patience).contains(&self.ticks))
    }

    /// Time for messages to get to others and back, and between the campaigns of those who might all campaign at once.
    fn step_ticks(&self) -> u64 {
        (self.config.heartbeat_ticks as u64).div_ceil(2)
    }

    /// Voters that may still be there: all but the leader that is lost.
    fn others(&self) -> Vec<u64> {
        let voters = self.raw.raft.prs().conf().voters().ids();
        let mut others: Vec<u64> = voters.iter().filter(|id| *id != self.loss.leader).collect();
        others.sort_unstable(); // a run can be repeated
        others
    }

    fn candidate(&self) -> Candidate {
        let log = &self.raw.raft.raft_log;
        let priority = i64::from(self.config.priority);
        (log.last_term(), log.last_index(), priority, Reverse(self.config.id))
    }

    fn say_loss(&mut self) {
        let (log_term, index, priority, _) = self.candidate();
        let (from, term) = (self.config.id, self.raw.raft.term);
        let to = self.others().into_iter().filter(|id| *id != from);
        self.raw.raft.msgs.extend(to.map(|to| {
            let mut message =
                eraftpb::Message { from, to, term, log_term, index, priority, ..Default::default() };
            message.set_msg_type(LEADER_LOST);
            message
        }));
    }
}

const _: () = assert!(matches!(LEADER_LOST, MessageType::MsgUnreachable), "raft-rs sends no such message");
