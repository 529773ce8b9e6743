//! Transcripts: how followers hear of what is committed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, Member, MemberInfo, Membership, Message, Role, Work, bootstrap, proposal::Request,
};

const GROUP: u64 = 1;
const HEARTBEAT_TICKS: usize = 3;
const TICK: Duration = Duration::from_millis(100);
/// Numbers on the wire.
const APPEND: u8 = 2;
const COMMITTED: u8 = 15;

/// Three members, of which the first leads, and whatever is on its way.
struct Group {
    disks: Vec<Arc<MemoryDisk>>,
    members: Vec<Member<MemoryDisk>>,
    now: Duration,
    on_their_way: VecDeque<Message>,
    /// Type, and whom it was for, of all that was delivered.
    delivered: Vec<(u8, u64)>,
    /// Messages of this type to this member are lost.
    lost: Option<(u8, u64)>,
}

fn kind(message: &Message) -> u8 {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes[1]
}

impl Group {
    fn new() -> Self {
        let infos: BTreeMap<_, _> = (1..=3).map(|id| (id, MemberInfo::default())).collect();
        let disks: Vec<_> = (0..3).map(|_| Arc::new(MemoryDisk::default())).collect();
        let open = |(n, disk): (usize, &Arc<MemoryDisk>)| {
            disk.write(bootstrap(GROUP, &Membership::of_voters(infos.clone())), Durability::Synced).unwrap();
            let config = Config {
                group: GROUP,
                id: n as u64 + 1,
                election_ticks: 10,
                heartbeat_ticks: HEARTBEAT_TICKS,
                election_timeout: TICK * 10,
                leases: false,
                applied: 0,
                priority: 0,
                entries_per_message_max: 1000,
                seed: n as u64,
            };
            Member::open(Arc::clone(disk), config).unwrap()
        };
        let members = disks.iter().enumerate().map(open).collect();
        let mut group = Self {
            disks,
            members,
            now: Duration::ZERO,
            on_their_way: VecDeque::new(),
            delivered: Vec::new(),
            lost: None,
        };
        group.members[0].campaign();
        group.settle();
        assert_eq!(group.members[0].status().role, Role::Leader);
        group.tell(true);
        group.settle();
        group.delivered.clear();
        group
    }

    fn do_work(&mut self, n: usize) {
        while let Some(work) = self.members[n].work() {
            let Work { messages, batch, durability, messages_after, committed, .. } = work;
            self.disks[n].write(batch, durability).unwrap();
            self.on_their_way.extend(messages.into_iter().chain(messages_after));
            self.on_their_way.extend(self.members[n].written());
            if let Some(last) = committed.last() {
                self.members[n].applied(last.index);
            }
        }
    }

    /// Until nothing is on its way, without anybody being told of commits.
    fn settle(&mut self) {
        loop {
            (0..3).for_each(|n| self.do_work(n));
            let Some(message) = self.on_their_way.pop_front() else { return };
            let what = (kind(&message), message.to());
            if self.lost != Some(what) {
                self.delivered.push(what);
                let _ = self.members[message.to() as usize - 1].step(message, self.now);
            }
        }
    }

    /// Has the leader tell; whether somebody is to be told later.
    fn tell(&mut self, all: bool) -> bool {
        let some_are_not = self.members[0].tell_commit(all);
        self.do_work(0);
        some_are_not
    }

    /// A request that member `n` takes.
    fn propose(&mut self, n: usize) {
        self.begin(n);
        self.settle();
    }

    fn begin(&mut self, n: usize) {
        let request = Request { origin: n as u64 + 1, id: 1, payload: Bytes::from_static(b"request") };
        self.members[n].propose(&mut [request].into(), &mut Vec::new()).unwrap();
        self.do_work(n);
        // A host gives its member what was passed on together with its own requests.
        let (mut passed_on, rest): (Vec<_>, Vec<_>) =
            self.on_their_way.drain(..).partition(Message::is_request);
        self.on_their_way = rest.into();
        self.members[0].propose(&mut VecDeque::new(), &mut passed_on).unwrap();
    }

    fn commits(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.status().commit).collect()
    }
}

#[test]
fn who_waits_is_told_at_once_and_the_others_with_the_next_entries() {
    let mut group = Group::new();
    let before = group.members[0].status().commit;
    group.propose(1);
    assert_eq!(group.commits(), [before + 1, before, before]);
    group.delivered.clear();
    assert!(group.tell(false), "the third is not told");
    group.settle();
    assert_eq!(group.commits(), [before + 1, before + 1, before]);
    assert_eq!(group.delivered, [(COMMITTED, 2)], "nobody answers");
    assert!(group.tell(false), "the third is still not told");
    group.propose(0);
    assert_eq!(group.commits(), [before + 2, before + 1, before + 1], "the entries said so");
}

#[test]
fn in_the_end_everybody_is_told_once() {
    let mut group = Group::new();
    group.propose(0);
    group.delivered.clear();
    assert!(group.tell(false), "nobody waits");
    assert!(!group.tell(true));
    assert!(!group.tell(true));
    group.settle();
    assert_eq!(group.delivered, [(COMMITTED, 2), (COMMITTED, 3)]);
    let commit = group.members[0].status().commit;
    assert_eq!(group.commits(), [commit; 3]);
}

#[test]
fn heartbeats_say_it_too() {
    let mut group = Group::new();
    group.propose(0);
    let now = group.now;
    // Asks the leader, which asks everybody by a heartbeat.
    group.members[2].read_index(1, now);
    let asked = group.on_their_way.len();
    group.do_work(2);
    let question = group.on_their_way.drain(asked..).next().unwrap();
    group.members[0].step(question, now).unwrap();
    assert!(!group.tell(false), "it is about to be said");
    group.settle();
    assert_eq!(group.commits(), [group.members[0].status().commit; 3]);
}

#[test]
fn who_writes_and_reads_waits_for_both() {
    let mut group = Group::new();
    group.begin(1);
    let now = group.now;
    // It asks what is committed now, which is less than it waits for.
    group.members[1].read_index(1, now);
    group.do_work(1);
    let question = group.on_their_way.pop_back().unwrap();
    group.members[0].step(question, now).unwrap();
    group.settle();
    group.delivered.clear();
    group.tell(false);
    group.settle();
    assert_eq!(group.delivered, [(COMMITTED, 2)]);
}

#[test]
fn what_is_committed_is_not_taken_for_an_entry_that_is_missing() {
    let mut group = Group::new();
    let before = group.members[0].status().commit;
    group.lost = Some((APPEND, 3));
    group.propose(0);
    group.tell(true);
    group.settle();
    assert!(group.delivered.contains(&(COMMITTED, 3)));
    assert_eq!(group.commits(), [before + 1, before + 1, before], "the third does not have it");
    group.lost = None;
    for _ in 0..2 * HEARTBEAT_TICKS {
        group.now += TICK;
        let now = group.now;
        group.members.iter_mut().for_each(|member| member.tick(now));
        group.settle();
    }
    assert_eq!(group.commits(), [before + 1; 3], "heartbeats find out what is missing");
}

#[test]
fn only_the_leader_is_believed() {
    let mut group = Group::new();
    let before = group.members[0].status().commit;
    group.propose(0);
    group.tell(true);
    let said: Vec<_> = group.on_their_way.drain(..).filter(|message| kind(message) == COMMITTED).collect();
    assert_eq!(said.len(), 2);
    let changed = |message: &Message, at: usize, value: u64| {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        Message::decode(bytes.freeze()).unwrap()
    };
    // After version and type: group, to, from, term, log term, index.
    let (from, term, log_term) = (18, 26, 34);
    let message = said.iter().find(|message| message.to() == 2).unwrap();
    for bad in [
        changed(message, from, 3),
        changed(message, term, message.term() + 1),
        changed(message, log_term, message.term() + 1),
        changed(message, log_term, 0),
    ] {
        let _ = group.members[1].step(bad, Duration::ZERO);
        assert_eq!(group.members[1].status().commit, before);
    }
    group.members[1].step(message.clone(), Duration::ZERO).unwrap();
    assert_eq!(group.members[1].status().commit, before + 1);
}
