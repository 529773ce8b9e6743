//! Transcripts: members that are removed, and messages that say so and are lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, Member, MemberChange, MemberInfo, Membership, Message, ProposeError, Role, bootstrap,
    limits::LEAVE_ELECTIONS_MAX, proposal::Request,
};

const GROUP: u64 = 1;
const ELECTION_TICKS: u64 = 10;
const HEARTBEAT_TICKS: u64 = 2;
/// Ticks within which somebody leads if anybody can.
const PATIENCE: u64 = 10 * ELECTION_TICKS;
const TICK: Duration = Duration::from_millis(10);

/// Members that hear at once what others say, and stop when they have applied their removal.
struct Group {
    disks: BTreeMap<u64, Arc<MemoryDisk>>,
    members: BTreeMap<u64, Member<MemoryDisk>>,
    /// Nothing gets from the one to the other.
    cut: BTreeSet<(u64, u64)>,
    /// These ways are cut as soon as the leader has this entry committed, before it tells anybody.
    cut_then: Option<(u64, Vec<(u64, u64)>)>,
    /// The leader crashes in the step that hands out this entry, before it has written anything.
    crash_at: Option<u64>,
    removed: u64,
    /// State machines have not applied yet what is committed.
    slow: bool,
    now: Duration,
}

impl Group {
    /// Members 1, 2...; 1 leads.
    fn new(voters: u64) -> Self {
        let infos = (1..=voters).map(|id| (id, MemberInfo::default())).collect();
        let begin = bootstrap(GROUP, &Membership::of_voters(infos));
        let (mut disks, mut members) = (BTreeMap::new(), BTreeMap::new());
        for id in 1..=voters {
            let disk = Arc::new(MemoryDisk::default());
            disk.write(begin.clone(), Durability::Synced).unwrap();
            members.insert(id, open(id, &disk));
            disks.insert(id, disk);
        }
        let mut group = Self {
            disks,
            members,
            cut: BTreeSet::new(),
            cut_then: None,
            crash_at: None,
            removed: 0,
            slow: false,
            now: Duration::ZERO,
        };
        group.member(1).campaign();
        group.settle();
        assert_eq!(group.leader(), Some(1));
        group
    }

    fn member(&mut self, id: u64) -> &mut Member<MemoryDisk> {
        self.members.get_mut(&id).unwrap()
    }

    /// Does what a member says. Whether it has applied its removal, and what it sends.
    fn work(&mut self, id: u64) -> (bool, Vec<Message>) {
        let (mut left, mut sent) = (false, Vec::new());
        let member = self.members.get_mut(&id).unwrap();
        loop {
            member.tell_commit(true);
            let Some(work) = member.work() else { return (left, sent) };
            sent.extend(work.messages);
            if self.crash_at.take_if(|at| work.committed.iter().any(|entry| entry.index == *at)).is_some() {
                self.disks[&id].crash(0);
                *member = open(id, &self.disks[&id]);
                return (false, sent);
            }
            self.disks[&id].write(work.batch, work.durability).unwrap();
            sent.extend(work.messages_after);
            sent.extend(member.written());
            let Some(last) = work.committed.last() else { continue };
            if !self.slow {
                member.applied(last.index);
            }
            let mut changes = work.committed.iter().filter_map(|entry| entry.membership.as_ref());
            left |= changes.any(|applied| !applied.membership.members.contains_key(&id));
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                let (left, messages) = self.work(id);
                sent.extend(messages);
                if left {
                    self.members.remove(&id);
                }
            }
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let cut = self.cut.contains(&(message.from(), message.to()));
                if let Some(member) = self.members.get_mut(&message.to()).filter(|_| !cut) {
                    let _ = member.step(message, self.now);
                }
                self.cut_if_committed();
            }
        }
    }

    fn cut_if_committed(&mut self) {
        let commit = self.members.values().map(|member| member.status().commit).max();
        if let Some((_, ways)) = self.cut_then.take_if(|(index, _)| commit >= Some(*index)) {
            self.cut.extend(ways);
        }
    }

    fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now += TICK;
            self.members.values_mut().for_each(|member| member.tick(self.now));
            self.settle();
        }
    }

    /// The one that leads in the newest term.
    fn leader(&self) -> Option<u64> {
        let leads = |member: &&Member<MemoryDisk>| member.status().role == Role::Leader;
        let leaders = self.members.values().filter(leads);
        leaders.max_by_key(|member| member.status().term).map(Member::id)
    }

    /// The leader, which is 1, is asked to remove a member. `lost_to` do not hear that this is committed.
    fn remove(&mut self, id: u64, lost_to: &[u64]) {
        let index = self.member(1).status().last + 1;
        self.removed = id;
        self.cut_then = Some((index, lost_to.iter().map(|to| (1, *to)).collect()));
        self.member(1).propose_member_change(&MemberChange::Remove { id }, (1, 1)).unwrap();
        self.settle();
        assert!(self.cut_then.is_none(), "it is committed");
    }

    fn propose(&mut self, at: u64) -> Result<(), ProposeError> {
        let request = Request { origin: at, id: 2, payload: "put".into() };
        let proposed = self.member(at).propose(&mut VecDeque::from([request]), &mut Vec::new());
        self.settle();
        proposed
    }

    /// Those who are left have a leader that gets something committed.
    #[track_caller]
    fn goes_on(&mut self) {
        for _ in 0..PATIENCE {
            let leader = self.leader().filter(|id| *id != self.removed);
            if let Some(leader) = leader {
                let before = self.member(leader).status().commit;
                self.propose(leader).unwrap();
                assert!(self.member(leader).status().commit > before);
                return;
            }
            self.tick(1);
        }
        panic!("nobody leads");
    }

    fn knows(&self, id: u64) -> bool {
        !self.members[&id].membership().members.contains_key(&self.removed)
    }

    fn has_left(&self) -> bool {
        !self.members.contains_key(&self.removed)
    }
}

fn open(id: u64, disk: &Arc<MemoryDisk>) -> Member<MemoryDisk> {
    let config = Config {
        group: GROUP,
        id,
        election_ticks: ELECTION_TICKS as usize,
        heartbeat_ticks: HEARTBEAT_TICKS as usize,
        election_timeout: TICK * ELECTION_TICKS as u32,
        leases: false,
        applied: 0,
        priority: 0,
        entries_per_message_max: 1000,
        seed: id,
    };
    Member::open(Arc::clone(disk), config).unwrap()
}

#[test]
fn a_leader_that_is_removed_leaves_at_once_and_another_leads_at_once() {
    for voters in 2..=5 {
        let mut group = Group::new(voters);
        let term = group.member(1).status().term;
        group.remove(1, &[]);
        assert!(group.has_left());
        let leader = group.leader().expect("no tick has passed");
        assert_eq!(group.member(leader).status().term, term + 1);
        assert!((2..=voters).all(|id| group.knows(id)));
        group.goes_on();
    }
}

/// Who is asked to lead may not have applied the removal yet.
#[test]
fn its_successor_leads_as_soon_as_it_can() {
    let mut group = Group::new(2);
    group.slow = true;
    group.remove(1, &[]);
    assert!(group.has_left() && group.knows(2));
    assert_eq!(group.leader(), None);
    group.slow = false;
    let commit = group.member(2).status().commit;
    group.member(2).applied(commit);
    group.settle();
    assert_eq!(group.leader(), Some(2), "no tick has passed");
}

#[test]
fn it_leads_on_until_the_other_knows() {
    let mut group = Group::new(2);
    group.remove(1, &[2]);
    assert_eq!(group.leader(), Some(1), "it has not left");
    assert!(!group.knows(2));
    // It is a voter to itself as to the other.
    assert!(group.member(1).membership().is_voter(1));
    group.cut.clear();
    group.tick(HEARTBEAT_TICKS);
    assert!(group.has_left() && group.knows(2));
    assert_eq!(group.leader(), Some(2));
    group.goes_on();
}

#[test]
fn it_waits_for_a_majority_of_those_who_stay() {
    for (voters, lost_to, leaves) in
        [(3, &[3][..], false), (4, &[4], true), (4, &[3, 4], false), (5, &[4, 5], false), (5, &[5], true)]
    {
        let mut group = Group::new(voters);
        group.remove(1, lost_to);
        assert_eq!(group.has_left(), leaves, "{voters} voters, {lost_to:?} do not know");
        group.cut.clear();
        group.tick(HEARTBEAT_TICKS);
        assert!(group.has_left());
        group.goes_on();
    }
}

#[test]
fn it_does_not_wait_for_ever() {
    let mut group = Group::new(3);
    group.remove(1, &[3]);
    // It hears from a quorum of before, so nothing else makes it give up.
    group.tick(LEAVE_ELECTIONS_MAX * ELECTION_TICKS - 1);
    assert_eq!(group.leader(), Some(1));
    group.tick(1);
    assert!(group.has_left());
    group.cut.clear();
    group.goes_on();
}

#[test]
fn meanwhile_it_takes_no_requests() {
    let mut group = Group::new(3);
    group.remove(1, &[3]);
    let last = group.member(1).status().last;
    assert_eq!(group.propose(1), Err(ProposeError::NoLeader));
    let change = MemberChange::Remove { id: 2 };
    let proposed = group.member(1).propose_member_change(&change, (1, 3));
    assert_eq!(proposed, Err(ProposeError::ChangePending));
    assert_eq!(group.member(1).status().last, last);
}

/// The other needs the vote of the removed one to find out that it does not.
#[test]
fn one_that_has_lost_its_quorum_votes_for_the_other() {
    let mut group = Group::new(2);
    group.remove(1, &[2]);
    group.tick(2 * ELECTION_TICKS);
    assert_eq!(group.leader(), None, "it has not heard from a quorum");
    group.cut.clear();
    group.goes_on();
    assert!(group.has_left());
}

/// That the removal is committed is all that it remembers.
#[test]
fn one_that_was_started_again_votes_for_the_other() {
    let mut group = Group::new(2);
    group.remove(1, &[2]);
    let batch = group.member(1).save_commit().unwrap();
    group.disks[&1].write(batch, Durability::Ordered).unwrap();
    let commit = group.member(1).status().commit;
    let again = open(1, &group.disks[&1]);
    group.members.insert(1, again);
    group.cut.clear();
    group.settle();
    assert_eq!(group.member(1).status().commit, commit);
    assert!(!group.has_left() && !group.knows(2));
    group.goes_on();
    assert!(group.has_left());
}

#[test]
fn a_follower_leaves_when_its_leader_says_so() {
    let mut group = Group::new(3);
    group.remove(3, &[2]);
    assert!(group.has_left());
    assert_eq!(group.leader(), Some(1));
    group.cut.clear();
    group.tick(HEARTBEAT_TICKS);
    assert!(group.knows(2));
}

/// Otherwise the one that stays would start again without knowing of the removal, and wait for the vote of one that has left.
#[test]
fn a_leader_that_says_so_does_not_forget_it() {
    let mut group = Group::new(2);
    group.crash_at = Some(group.member(1).status().last + 1);
    group.remove(2, &[]);
    assert!(group.crash_at.is_none(), "it has crashed");
    assert!(!group.has_left());
    group.goes_on();
    assert!(group.has_left() && group.knows(1));
}
