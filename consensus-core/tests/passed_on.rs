//! Requests that a follower passes on to its leader: whatever becomes of the leader or of the way to it, each is answered.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use consensus_core::{
    Job, ProposeError, Request, StateMachine, StateMachineError,
    sim::{Clock, GROUP, Outbox, Reply, Settings, SteppedMember},
};
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{MemberChange, MemberInfo, Membership, Message, Role, bootstrap};

/// Turns within which everything happens that will.
const TURNS: usize = 400;

/// Answers each request with its index.
#[derive(Default)]
struct Indices(u64);

impl StateMachine for Indices {
    type Response = u64;

    fn applied(&self) -> u64 {
        self.0
    }

    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<u64>, StateMachineError> {
        self.0 = index;
        Ok(vec![index; requests.len()])
    }

    fn save(&mut self) -> Job {
        Box::new(|| Err("nothing is saved here".into()))
    }

    fn copy(&mut self, _: PathBuf) -> Job {
        Box::new(|| Err("nothing is copied here".into()))
    }

    fn restore(&mut self, _: &Path) -> Result<(), StateMachineError> {
        Err("nothing is restored here".into())
    }
}

/// What is on its way, and the ways that are closed, from and to.
#[derive(Default)]
struct Ways {
    messages: VecDeque<Message>,
    closed: Vec<(u64, u64)>,
    /// Whoever sends there is not told.
    cut: Vec<(u64, u64)>,
}

struct Way(u64, Rc<RefCell<Ways>>);

impl Outbox for Way {
    fn send(&mut self, messages: Vec<Message>) -> Vec<u64> {
        let mut ways = self.1.borrow_mut();
        let mut lost = Vec::new();
        for message in messages {
            let way = (self.0, message.to());
            if ways.closed.contains(&way) {
                lost.push(message.to());
            } else if !ways.cut.contains(&way) {
                ways.messages.push_back(message);
            }
        }
        lost
    }

    fn set_members(&mut self, _: &Membership) {}
}

struct Group {
    members: BTreeMap<u64, SteppedMember<MemoryDisk, Indices, Way>>,
    ways: Rc<RefCell<Ways>>,
    asked: u64,
}

type Answer = Reply<Result<u64, ProposeError>>;

impl Group {
    /// Three members that know their leader, which is led to be the first.
    fn led_by_1() -> Self {
        let ways = Rc::<RefCell<Ways>>::default();
        let infos = (1..=3).map(|id| (id, MemberInfo::default())).collect();
        let begin = bootstrap(GROUP, &Membership::of_voters(infos));
        let open = |id| {
            let disk = Arc::new(MemoryDisk::default());
            disk.write(begin.clone(), Durability::Synced).unwrap();
            let settings = Settings {
                id,
                election_ticks: 20,
                heartbeat_ticks: 2,
                priority: 0,
                election_timeout: Duration::from_millis(20),
                leases: false,
                clock: Clock::new(|| Duration::ZERO),
                entries_per_message_max: 1000,
                seed: id,
                snapshot_entries: 1000,
                snapshot_interval_ticks: 1000,
            };
            let way = Way(id, Rc::clone(&ways));
            (id, SteppedMember::open(settings, disk, Indices::default(), way, |_| None).unwrap())
        };
        let mut group = Self { members: (1..=3).map(open).collect(), ways, asked: 0 };
        group.until(|group| group.leader().is_some());
        let leader = group.leader().unwrap();
        group.members[&leader].transfer_leader(1);
        group.until(|group| group.members.values().all(|member| member.status().leader == Some(1)));
        group
    }

    fn leader(&self) -> Option<u64> {
        self.members.iter().find(|(_, member)| member.status().role == Role::Leader).map(|(id, _)| *id)
    }

    fn step(&mut self) {
        while let Some(message) = { self.ways.borrow_mut().messages.pop_front() } {
            if let Some(member) = self.members.get(&message.to()) {
                member.message(message);
            }
        }
        for member in self.members.values_mut() {
            member.tick();
            member.turn(true).unwrap();
            while let Some((_, applied)) = member.apply() {
                applied.unwrap();
            }
        }
    }

    #[track_caller]
    fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("it does not happen");
    }

    fn propose(&mut self, at: u64) -> Answer {
        self.asked += 1;
        self.members[&at].propose(self.asked, Bytes::from_static(b"request"))
    }

    #[track_caller]
    fn answer<T>(&mut self, mut reply: Reply<T>) -> T {
        for _ in 0..TURNS {
            self.step();
            if let Some(answer) = reply.take() {
                return answer.expect("who takes a request answers it");
            }
        }
        panic!("nobody answers");
    }
}

#[test]
fn a_request_that_does_not_go_out_is_answered_at_once() {
    let mut group = Group::led_by_1();
    let reply = group.propose(2);
    assert!(group.answer(reply).is_ok());
    group.ways.borrow_mut().closed.push((2, 1));
    let mut reply = group.propose(2);
    group.step();
    assert_eq!(reply.take().flatten(), Some(Err(ProposeError::LeaderGone)));
    assert_eq!(group.leader(), Some(1), "nobody else leads");
    group.ways.borrow_mut().closed.clear();
    let reply = group.propose(2);
    assert!(group.answer(reply).is_ok());
}

#[test]
fn a_request_on_a_connection_that_ends_is_answered() {
    let mut group = Group::led_by_1();
    group.ways.borrow_mut().cut.push((2, 1));
    let mut reply = group.propose(2);
    (0..10).for_each(|_| group.step());
    assert!(reply.take().is_none(), "nobody knows yet");
    group.members[&2].unreachable(3);
    group.step();
    assert!(reply.take().is_none(), "another member has nothing of it");
    group.members[&2].unreachable(1);
    group.step();
    assert_eq!(reply.take().flatten(), Some(Err(ProposeError::LeaderGone)));
}

#[test]
fn what_a_leader_that_is_gone_was_asked_for_is_answered_when_another_leads() {
    let mut group = Group::led_by_1();
    group.members.remove(&1);
    let request = group.propose(2);
    let change = group.members[&3].change_members(1000, MemberChange::Remove { id: 1 });
    assert_eq!(group.answer(request), Err(ProposeError::LeaderGone));
    // Of a change nothing else is left than that: nobody writes any more.
    assert_eq!(group.answer(change), Err(ProposeError::LeaderGone));
}

#[test]
fn without_a_leader_requests_and_changes_wait_for_one() {
    let mut group = Group::led_by_1();
    group.members.remove(&1);
    group.ways.borrow_mut().cut.extend([(2, 3), (3, 2)]);
    group.until(|group| group.members.values().all(|member| member.status().leader.is_none()));
    let (mut request, mut forgotten) = (group.propose(2), group.propose(2));
    group.members[&2].forget(group.asked);
    // Of the members itself, a new leader takes none before it has applied what it took over.
    let change = MemberChange::Publish { id: 2, name: "two".to_owned(), client_urls: Vec::new() };
    let change = group.members[&2].change_members(1000, change);
    (0..50).for_each(|_| group.step());
    assert!(request.take().is_none(), "it waits");
    assert_eq!(forgotten.take().map(|answer| answer.is_none()), Some(true), "nobody waits for it");
    group.ways.borrow_mut().cut.clear();
    assert!(group.answer(request).is_ok());
    assert_eq!(
        group.answer(change).map(|membership| membership.members[&2].name.clone()),
        Ok("two".to_owned())
    );
}

/// A transfer that comes to nothing is given up after an election timeout, and the same member leads on, in the same term.
#[test]
fn what_comes_to_a_leader_that_hands_over_is_not_lost() {
    let mut group = Group::led_by_1();
    let before = group.members[&1].status();
    group.ways.borrow_mut().cut.push((1, 3));
    group.members[&1].transfer_leader(3);
    group.step();
    let (own, passed_on) = (group.propose(1), group.propose(2));
    assert!(group.answer(own).is_ok());
    assert!(group.answer(passed_on).is_ok());
    assert_eq!(group.members[&1].status().term, before.term);
}
