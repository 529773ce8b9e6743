//! Whoever runs the cluster: adds, promotes and removes members, and moves leadership.

use std::collections::BTreeMap;

use consensus_core::{
    ProposeError,
    sim::{GROUP, Reply},
};
use consensus_raft::{MemberChange, MemberInfo, Membership, Role};

use crate::{Mistake, client::Clients, computer::Computer, plan::Plan, random::Random};

/// Machines there ever are in a run.
const COMPUTERS_MAX: u64 = 10;
/// Steps that an answer is waited for.
const PATIENCE: u64 = 60;
/// Entries that a learner may lack and become a voter.
const NEARLY: u64 = 20;
/// With this few voters nobody is removed.
const VOTERS_MIN: usize = 3;

pub(crate) struct Operator {
    random: Random,
    mistake: Option<Mistake>,
    change: Option<(u64, Reply<Result<Membership, ProposeError>>)>,
    pub(crate) changed: u64,
}

impl Operator {
    pub(crate) fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        Self { random: Random::new(seed, 4), mistake, change: None, changed: 0 }
    }

    /// Looks after the change that is under way.
    pub(crate) fn look(&mut self, now: u64) {
        let Some((deadline, mut reply)) = self.change.take() else { return };
        match reply.take() {
            None if now < deadline => self.change = Some((deadline, reply)),
            Some(Some(Ok(_))) => self.changed += 1,
            _ => {}
        }
    }

    /// Asks for a change, if none is under way.
    pub(crate) fn change(
        &mut self,
        now: u64,
        plan: &Plan,
        computers: &mut BTreeMap<u64, Computer>,
        clients: &mut Clients,
    ) {
        if self.change.is_some() {
            return;
        }
        let up: Vec<u64> = computers.values().filter(|c| c.member.is_some()).map(|c| c.id).collect();
        let Some(at) = self.random.pick(&up) else { return };
        let Some(member) = &computers[&at].member else { return };
        let membership = member.membership();
        let members: Vec<u64> = membership.members.keys().copied().collect();
        let learner = members.iter().copied().find(|id| membership.is_learner(*id));
        let Some(one) = self.random.pick(&members) else { return };
        let change = match (self.random.below(3), learner) {
            (0, Some(id)) if caught_up(&computers[&id], member.status().commit) => {
                MemberChange::Promote { id }
            }
            (1, Some(id)) => MemberChange::Remove { id },
            (1, None) if membership.voters() > VOTERS_MIN => MemberChange::Remove { id: one },
            (_, None) if (computers.len() as u64) < COMPUTERS_MAX => {
                let id = computers.len() as u64 + 1;
                let mut others = membership.members.clone();
                others.insert(id, MemberInfo::default());
                let begin = consensus_raft::join(GROUP, &others);
                let mut computer = Computer::new(id, begin, plan, self.mistake, &mut self.random);
                computer.down_until = now + self.random.below(40);
                computers.insert(id, computer);
                MemberChange::Add { id, info: MemberInfo::default(), learner: true }
            }
            _ => return,
        };
        let request = clients.next_request();
        if let Some(member) = &computers[&at].member {
            self.change = Some((now + PATIENCE, member.change_members(request, change)));
        }
    }

    /// Has leadership moved, to anybody or to whoever has most of the log.
    pub(crate) fn move_leader(&mut self, computers: &BTreeMap<u64, Computer>) {
        let members = computers.values().filter_map(|computer| computer.member.as_ref());
        for member in members.filter(|member| member.status().role == Role::Leader) {
            let others: Vec<u64> = member.membership().members.keys().copied().collect();
            match self.random.pick(&others) {
                Some(to) if self.random.one_in(2) => member.transfer_leader(to),
                _ => member.hand_over(),
            }
        }
    }
}

fn caught_up(computer: &Computer, commit: u64) -> bool {
    computer.member.as_ref().is_some_and(|member| member.status().applied + NEARLY >= commit)
}
