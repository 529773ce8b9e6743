//! A region: some members with equal logs, one of which leads.

use std::collections::VecDeque;

use bytes::Bytes;
use consensus_regions::{
    Alarm, Changed, Command, Config, Item, Local, MEMBERS_KEY, MemoryItems, Message, Output, Phase, Refused,
    RegionId, Replica, Replicator, Tree, sabotage,
};

use crate::plan::Mistake;

/// A member: what it has applied.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) replica: Replica,
    pub(crate) items: MemoryItems,
    pub(crate) tree: Tree,
    /// By how much its clock is wrong.
    pub(crate) skew_ms: i64,
}

impl Member {
    pub(crate) fn new(replica: Replica, first: Option<&Changed>, skew_ms: i64) -> Self {
        let mut member = Self { replica, items: MemoryItems::default(), tree: Tree::default(), skew_ms };
        first.into_iter().for_each(|changed| member.write(changed));
        member
    }

    /// Another machine in its place, with what is stored at `source`, read back.
    pub(crate) fn replacement(source: &Self, skew_ms: i64) -> Self {
        let mut items = MemoryItems::default();
        let mut tree = Tree::default();
        for (key, item) in source.items.iter() {
            let item = Item::from_record(item.to_record()).expect("what was written can be read");
            let changed = Changed { key: key.clone(), before: None, after: Some(item) };
            items.write(&changed);
            tree.update(&changed);
        }
        let members = items.iter().find(|(key, _)| *key == MEMBERS_KEY).map(|(_, item)| item.clone());
        let replica = Replica::from_record(source.replica.to_record(), members.as_ref());
        Self { replica: replica.expect("what was written can be read"), items, tree, skew_ms }
    }

    pub(crate) fn wall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.skew_ms)
    }

    fn write(&mut self, changed: &Changed) {
        self.items.write(changed);
        self.tree.update(changed);
    }

    fn apply(&mut self, command: Command, mistake: Option<Mistake>) -> Result<Vec<Changed>, Refused> {
        let (clock, is_merge) = (self.replica.latest(), matches!(command, Command::Merge(_)));
        let Ok(outcome) = self.replica.apply(&self.items, command);
        if is_merge && mistake == Some(Mistake::ForgetsClocks) {
            sabotage::set_clock(&mut self.replica, clock);
        }
        outcome.inspect(|all| all.iter().for_each(|changed| self.write(changed)))
    }

    pub(crate) fn local(&self) -> Local<'_, MemoryItems> {
        Local { replica: &self.replica, items: &self.items, tree: &self.tree }
    }
}

/// What a leader wants, for the world to do.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) messages: Vec<Message>,
    pub(crate) proposals: Vec<Command>,
    pub(crate) alarms: Vec<Alarm>,
}

#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) id: RegionId,
    pub(crate) members: Vec<Member>,
    pub(crate) leader: usize,
    pub(crate) replicator: Option<Replicator>,
    /// Proposed and not committed, each with the term of its proposal.
    pub(crate) pending: VecDeque<Command>,
    pub(crate) is_gone: bool,
}

impl Region {
    pub(crate) fn new(id: RegionId, members: Vec<Member>) -> Self {
        Self { id, members, leader: 0, replicator: None, pending: VecDeque::new(), is_gone: false }
    }

    pub(crate) fn leader(&self) -> &Member {
        &self.members[self.leader]
    }

    pub(crate) fn wall_ms(&self, now_ms: u64) -> u64 {
        self.leader().wall_ms(now_ms)
    }

    pub(crate) fn lead(&mut self, config: Config, now_ms: u64, seed: u64) {
        let now_ms = self.wall_ms(now_ms);
        self.replicator = Some(Replicator::new(config, self.id, now_ms, seed));
    }

    /// The leader stops, and a machine with another clock takes its place; another member leads after an election.
    pub(crate) fn lose_leader(&mut self, loses_proposals: bool, skew_ms: i64) {
        self.replicator = None;
        if loses_proposals {
            self.pending.clear();
        }
        let next = (self.leader + 1) % self.members.len();
        self.members[self.leader] = Member::replacement(&self.members[next], skew_ms);
        self.leader = next;
    }

    /// Applies an entry at all members. What the leader's member has changed.
    pub(crate) fn apply(
        &mut self,
        command: &Command,
        mistake: Option<Mistake>,
    ) -> Result<Vec<Changed>, Refused> {
        // Through the log.
        let entry: Bytes = command.encode();
        let mut outcome = Ok(Vec::new());
        for (number, member) in self.members.iter_mut().enumerate() {
            let mut command = Command::decode(entry.clone()).expect("what was written can be read");
            if let Command::Change { wall_ms, .. } = &mut command
                && mistake == Some(Mistake::ReadsItsClock)
            {
                *wall_ms = wall_ms.saturating_add_signed(member.skew_ms);
            }
            let here = member.apply(command, mistake);
            if number == self.leader {
                outcome = here;
            }
        }
        outcome
    }

    /// Calls the leader's replicator.
    pub(crate) fn with_leader(
        &mut self,
        now_ms: u64,
        call: impl FnOnce(&mut Replicator, u64, Local<'_, MemoryItems>),
    ) -> Wanted {
        let mut wanted = Wanted::default();
        let now_ms = self.wall_ms(now_ms);
        let Some(replicator) = &mut self.replicator else { return wanted };
        call(replicator, now_ms, self.members[self.leader].local());
        while let Some(output) = replicator.poll_output() {
            match output {
                Output::Send(message) => wanted.messages.push(message),
                Output::Propose(command) => wanted.proposals.push(command),
                Output::Alarm(alarm) => wanted.alarms.push(alarm),
            }
        }
        wanted
    }

    pub(crate) fn serves(&self) -> bool {
        !self.is_gone && self.replicator.is_some() && self.leader().replica.phase() == Phase::Active
    }

    /// What differs between members.
    pub(crate) fn check_members(&self) -> Result<(), String> {
        let record = |member: &Member| member.replica.to_record();
        let first = &self.members[0];
        for member in &self.members[1..] {
            if record(member) != record(first) || !member.items.iter().eq(first.items.iter()) {
                return Err(format!("members of region {} differ", self.id));
            }
            if member.tree != first.tree {
                return Err(format!("trees of members of region {} differ", self.id));
            }
        }
        Ok(())
    }
}
