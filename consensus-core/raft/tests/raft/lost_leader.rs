//! Transcripts: members whose leader's links were reset, and leaders that hand over to a preferred voter.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{Config, Member, MemberInfo, Membership, Message, Role, bootstrap, proposal::Request};

const GROUP: u64 = 1;
const ELECTION_TICKS: u64 = 50;
const TICK: Duration = Duration::from_millis(10);
const HEARTBEAT_TICKS: u64 = 10;
/// Between the campaigns of the best candidate and the next.
const STEP: u64 = 5;

/// Members that hear at once what others say.
struct Group {
    disks: BTreeMap<u64, Arc<MemoryDisk>>,
    members: BTreeMap<u64, Member<MemoryDisk>>,
    /// From and to.
    cut: BTreeSet<(u64, u64)>,
    now: Duration,
}

fn open(disk: &Arc<MemoryDisk>, id: u64, priority: u32) -> Member<MemoryDisk> {
    let config = Config {
        group: GROUP,
        id,
        election_ticks: ELECTION_TICKS as usize,
        heartbeat_ticks: HEARTBEAT_TICKS as usize,
        election_timeout: TICK * ELECTION_TICKS as u32,
        leases: false,
        applied: 0,
        priority,
        entries_per_message_max: 1000,
        seed: id,
    };
    Member::open(Arc::clone(disk), config).unwrap()
}

impl Group {
    /// Members 1, 2... of these priorities; 1 leads.
    fn new(priorities: &[u32]) -> Self {
        let ids = 1..=priorities.len() as u64;
        let infos = ids.clone().map(|id| (id, MemberInfo::default())).collect();
        let begin = bootstrap(GROUP, &Membership::of_voters(infos));
        let (mut disks, mut members) = (BTreeMap::new(), BTreeMap::new());
        for (id, priority) in ids.zip(priorities) {
            let disk = Arc::new(MemoryDisk::default());
            disk.write(begin.clone(), Durability::Synced).unwrap();
            members.insert(id, open(&disk, id, *priority));
            disks.insert(id, disk);
        }
        let mut group = Self { disks, members, cut: BTreeSet::new(), now: Duration::ZERO };
        group.member(1).campaign();
        group.settle();
        assert_eq!(group.leader(), Some(1));
        group
    }

    fn member(&mut self, id: u64) -> &mut Member<MemoryDisk> {
        self.members.get_mut(&id).unwrap()
    }

    fn work(&mut self, id: u64) -> Vec<Message> {
        let mut sent = Vec::new();
        let member = self.members.get_mut(&id).unwrap();
        while let Some(work) = member.work() {
            sent.extend(work.messages);
            self.disks[&id].write(work.batch, work.durability).unwrap();
            sent.extend(work.messages_after);
            sent.extend(member.written());
            if let Some(last) = work.committed.last() {
                member.applied(last.index);
            }
        }
        sent
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            let sent: Vec<_> = ids.into_iter().flat_map(|id| self.work(id)).collect();
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let cut = self.cut.contains(&(message.from(), message.to()));
                if let Some(member) = self.members.get_mut(&message.to()).filter(|_| !cut) {
                    let _ = member.step(message, self.now);
                }
            }
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

    fn hinted(&self) -> u64 {
        self.members.values().map(Member::hinted_elections).sum()
    }

    fn kill(&mut self, id: u64) {
        self.members.remove(&id);
    }

    fn lose(&mut self, at: &[u64], id: u64) {
        for at in at {
            self.member(*at).links_lost(id);
        }
        self.settle();
    }

    /// An entry that gets to these members.
    fn append(&mut self, to: &[u64]) {
        let leader = self.leader().unwrap();
        let missed = self.members.keys().filter(|id| !to.contains(id)).map(|id| (leader, *id));
        self.cut = missed.collect();
        let request = Request { origin: leader, id: 1, payload: "put".into() };
        self.member(leader).propose(&mut VecDeque::from([request]), &mut Vec::new()).unwrap();
        self.settle();
        self.cut.clear();
    }
}

#[test]
fn when_a_quorum_has_lost_the_leader_another_leads_at_once() {
    for voters in [3, 4, 5, 7] {
        let mut group = Group::new(&vec![0; voters]);
        let term = group.member(2).status().term;
        group.kill(1);
        let others: Vec<u64> = group.members.keys().copied().collect();
        // All but one of a quorum: nothing happens.
        let (first, rest) = others.split_at(voters / 2);
        group.lose(first, 1);
        group.tick(STEP * 3);
        assert_eq!((group.leader(), group.hinted()), (None, 0), "{voters} voters");
        assert_eq!(group.member(2).status().leader, Some(1), "it is not given up");
        group.lose(rest, 1);
        assert_eq!((group.leader(), group.hinted()), (Some(2), 1), "{voters} voters, without a tick");
        assert_eq!(group.member(2).status().term, term + 1);
    }
}

/// Where no leader has leases, nobody has promised anything before a crash.
#[test]
fn who_has_just_started_takes_part() {
    let mut group = Group::new(&[0, 0, 0]);
    group.kill(1);
    group.lose(&[2, 3], 1);
    assert_eq!(group.leader(), Some(2));
    let back = open(&group.disks[&1], 1, 0);
    group.members.insert(1, back);
    group.tick(HEARTBEAT_TICKS);
    assert_eq!(group.member(1).status().leader, Some(2));
    group.kill(2);
    group.lose(&[1, 3], 2);
    assert_eq!((group.leader().is_some(), group.hinted()), (true, 1), "without a tick");
}

#[test]
fn the_longest_log_comes_first_and_then_the_priority() {
    let mut group = Group::new(&[0, 9, 0]);
    group.append(&[3]);
    group.kill(1);
    group.lose(&[2, 3], 1);
    assert_eq!((group.leader(), group.hinted()), (Some(3), 1));

    let mut group = Group::new(&[0, 0, 9]);
    group.kill(1);
    group.lose(&[2, 3], 1);
    assert_eq!((group.leader(), group.hinted()), (Some(3), 1));
}

/// Whom raft-rs' own priority would refuse: the preferred member has as many entries, and an older last one.
#[test]
fn a_preferred_member_with_an_old_log_stands_in_nobodys_way() {
    let mut group = Group::new(&[0, 9, 0, 0, 0]);
    group.append(&[2]);
    group.kill(1);
    group.cut = (3..=5).flat_map(|id| [(id, 2), (2, id)]).collect();
    group.lose(&[3, 4, 5], 1);
    group.tick(STEP); // of member 2 nothing is known
    assert_eq!(group.leader(), Some(3));
    assert_eq!(group.member(2).status().last, group.member(3).status().last);
    group.kill(3);
    group.cut.clear();
    // Member 2 cannot win, and nobody wins without it. Later it is handed leadership.
    let ticks = (0..6 * ELECTION_TICKS).find(|_| {
        group.tick(1);
        group.leader().is_some()
    });
    assert!(ticks.is_some() && group.leader().is_some_and(|id| id >= 4), "{:?}", group.leader());
    group.tick(3 * ELECTION_TICKS);
    assert_eq!(group.leader(), Some(2));
}

#[test]
fn one_that_alone_has_lost_the_leader_changes_nothing() {
    for voters in [3, 5] {
        let mut group = Group::new(&vec![0; voters]);
        let before = group.member(3).status();
        group.lose(&[2], 1);
        group.cut = BTreeSet::from([(1, 2), (2, 1)]);
        group.tick(4 * ELECTION_TICKS);
        let after = group.member(3).status();
        assert_eq!((after.leader, after.term), (before.leader, before.term), "{voters} voters");
        assert_eq!(group.hinted(), 0, "{voters} voters");
    }
}

#[test]
fn a_link_that_is_made_again_ends_the_hint() {
    let mut group = Group::new(&[0; 3]);
    group.lose(&[2], 1);
    group.member(2).links_made(1);
    group.cut = BTreeSet::from([(1, 2), (1, 3)]);
    group.tick(HEARTBEAT_TICKS + 1); // what it said before counts no longer
    group.lose(&[3], 1);
    group.tick(STEP * 3);
    assert_eq!((group.leader(), group.hinted()), (Some(1), 0));
}

#[test]
fn word_of_the_leader_ends_the_hint_unless_it_was_on_its_way() {
    // The leader is there after all, and everybody hears of it again and again.
    let mut group = Group::new(&[0; 3]);
    group.cut = BTreeSet::from([(2, 3), (3, 2)]);
    group.lose(&[2, 3], 1);
    group.tick(2 * HEARTBEAT_TICKS);
    group.cut.clear();
    group.tick(2 * ELECTION_TICKS);
    assert_eq!((group.leader(), group.hinted()), (Some(1), 0));

    // Something came after the links were reset, and then nothing.
    let mut group = Group::new(&[0; 3]);
    group.cut = BTreeSet::from([(2, 3), (3, 2)]);
    group.lose(&[2, 3], 1);
    group.append(&[2, 3]);
    group.kill(1);
    group.tick(1);
    assert_eq!(group.hinted(), 0);
    group.tick(STEP);
    assert!(group.leader().is_some_and(|id| id != 1) && group.hinted() == 1);
}

#[test]
fn when_the_best_candidate_dies_as_well_the_next_one_campaigns() {
    let mut group = Group::new(&[0; 5]);
    group.kill(1);
    for at in 2..=5 {
        group.member(at).links_lost(1);
    }
    let last_words = group.work(2);
    for message in last_words {
        let to = message.to();
        let now = group.now;
        let _ = group.member(to).step(message, now);
    }
    group.kill(2);
    group.settle();
    assert_eq!(group.leader(), None);
    group.tick(STEP * 3);
    assert_eq!((group.leader(), group.hinted()), (Some(3), 1));
}

#[test]
fn leadership_goes_to_a_preferred_voter_that_has_everything() {
    let long = 3 * ELECTION_TICKS;
    let mut group = Group::new(&[1, 0, 2]);
    group.tick(ELECTION_TICKS);
    assert_eq!(group.leader(), Some(1), "not at once");
    let term = group.member(1).status().term;
    group.tick(long);
    assert_eq!(group.leader(), Some(3));
    group.tick(3 * long);
    assert_eq!(group.leader(), Some(3), "and it stays there");
    assert_eq!(group.member(3).status().term, term + 1, "there was no other election");

    // One that lags, that is gone, that does not want to, or that is not better.
    for (priorities, trouble) in
        [([1, 0, 2], "lags"), ([1, 0, 2], "is gone"), ([1, 0, 2], "declines"), ([1, 0, 1], "")]
    {
        let mut group = Group::new(&priorities);
        match trouble {
            "lags" => {
                group.append(&[2]);
                group.cut = BTreeSet::from([(3, 1)]);
            }
            "is gone" => group.kill(3),
            "declines" => group.member(3).decline_leadership(),
            _ => {}
        }
        group.tick(long);
        assert_eq!(group.leader(), Some(1), "{trouble}");
    }
}
