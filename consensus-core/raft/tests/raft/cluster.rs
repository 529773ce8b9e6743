//! Members with a network that loses, doubles, delays and reorders, and machines that crash: one seed, one run.
//!
//! Checked: at most one leader a term; members apply the same entries at the same indices; what was acknowledged is in every
//! later history; after the faults end, requests are committed again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, Member, MemberInfo, Membership, Message, Role, SnapshotMetadata, Work, bootstrap,
    proposal::Request,
};

const GROUP: u64 = 1;
/// Steps with faults, and then without.
const ROUGH: u64 = 2500;
const CALM: u64 = 1500;
/// Between two times that leaders tell everybody what is committed.
const COMMIT_TOLD_STEPS: u64 = 8;
/// Of everybody's clock.
const STEP: Duration = Duration::from_millis(1);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 29)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A mistake that a host could make; the checks must find it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// A disk that says it has synced, and has not.
    NoSync,
    /// Promises leave before they are written.
    PromisesFirst,
    /// The log is shortened up to what is applied, although a crash takes that back.
    CompactsTooFar,
}

struct World {
    mistake: Mistake,
    seed: u64,
    random: Random,
    now: u64,
    disks: Vec<Arc<MemoryDisk>>,
    members: Vec<Option<Member<MemoryDisk>>>,
    /// By arrival, and a number that makes arrivals differ.
    network: BTreeMap<(u64, u64), Bytes>,
    sent: u64,
    /// What is the request at each index, as the first that applied it saw it.
    applied: BTreeMap<u64, (u64, Vec<Request>)>,
    /// How far each member has applied since its last start.
    progress: Vec<u64>,
    /// How far each state machine is on its disk, which knows nothing of the log's.
    durable: Vec<u64>,
    /// Snapshots that are on their way to a member, by arrival, and those that have arrived.
    fetching: Vec<Option<(u64, SnapshotMetadata)>>,
    fetched: Vec<Option<SnapshotMetadata>>,
    snapshots_restored: u64,
    leaders: BTreeMap<u64, u64>,
    /// Requests that were acknowledged.
    acknowledged: Vec<u64>,
    next_request: u64,
    reads: BTreeMap<(usize, u64), u64>,
    next_read: Vec<u64>,
    reads_done: u64,
    trace: u64,
}

impl World {
    fn new(seed: u64, count: u64) -> Self {
        Self::with(Mistake::None, seed, count)
    }

    fn with(mistake: Mistake, seed: u64, count: u64) -> Self {
        let infos = (1..=count).map(|id| (id, MemberInfo::default())).collect();
        let disks: Vec<_> = (0..count).map(|_| Arc::new(MemoryDisk::default())).collect();
        for disk in &disks {
            let batch = bootstrap(GROUP, &Membership::of_voters(BTreeMap::clone(&infos)));
            disk.write(batch, Durability::Synced).unwrap();
        }
        let mut world = Self {
            mistake,
            seed,
            random: Random(seed),
            now: 0,
            members: disks.iter().map(|_| None).collect(),
            progress: vec![1; disks.len()],
            durable: vec![0; disks.len()],
            fetching: disks.iter().map(|_| None).collect(),
            fetched: disks.iter().map(|_| None).collect(),
            snapshots_restored: 0,
            disks,
            network: BTreeMap::new(),
            sent: 0,
            applied: BTreeMap::new(),
            leaders: BTreeMap::new(),
            acknowledged: Vec::new(),
            next_request: 0,
            reads: BTreeMap::new(),
            next_read: vec![0; count as usize],
            reads_done: 0,
            trace: seed,
        };
        (0..world.disks.len()).for_each(|n| world.start(n));
        world
    }

    fn start(&mut self, n: usize) {
        // Opened to see where its log begins: a snapshot that the log goes on from may not have been taken yet.
        let begin = self.open(n).status().first - 1;
        if begin > self.durable[n].max(1) {
            let fetched = self.fetched[n].as_ref().filter(|metadata| metadata.index == begin);
            assert!(fetched.is_some(), "seed {}: the log begins after what the state machine has", self.seed);
            self.durable[n] = begin;
        }
        self.progress[n] = self.durable[n].max(1);
        self.members[n] = Some(self.open(n));
    }

    fn open(&mut self, n: usize) -> Member<MemoryDisk> {
        let config = Config {
            group: GROUP,
            id: n as u64 + 1,
            election_ticks: 10,
            heartbeat_ticks: 2,
            election_timeout: 10 * STEP,
            leases: self.seed.is_multiple_of(3),
            applied: self.durable[n],
            priority: 0,
            // Few, so that appends are often several messages.
            entries_per_message_max: 3,
            seed: self.random.next(),
        };
        Member::open(Arc::clone(&self.disks[n]), config).unwrap()
    }

    /// Has a snapshot fetched from some other member, and offers what was fetched.
    fn fetch(&mut self, n: usize, rough: bool) {
        let Some(least) = self.members[n].as_ref().and_then(Member::snapshot_wanted) else { return };
        match self.fetching[n].take() {
            Some((arrival, metadata)) if arrival <= self.now => self.fetched[n] = Some(metadata),
            Some(fetching) => self.fetching[n] = Some(fetching),
            None if self.fetched[n].as_ref().is_none_or(|fetched| fetched.index < least) => {
                let from = self.random.below(self.members.len() as u64) as usize;
                let described = self.members[from].as_ref().and_then(|m| m.describe(self.progress[from]));
                let delay = if rough { self.random.below(60) } else { 3 };
                self.fetching[n] = described
                    .filter(|metadata| from != n && metadata.index >= least)
                    .map(|metadata| (self.now + delay, metadata));
            }
            None => {}
        }
        if let (Some(member), Some(metadata)) = (&mut self.members[n], &self.fetched[n]) {
            member.restore(metadata);
        }
    }

    /// Shortens a log now and then, up to what its state machine has on its disk.
    fn compact(&mut self, n: usize) {
        let safe = match self.mistake {
            Mistake::CompactsTooFar => self.progress[n],
            _ => self.durable[n],
        };
        let index = self.random.below(safe + 1);
        if let Some(batch) = self.members[n].as_mut().and_then(|member| member.compact(index)) {
            self.disks[n].write(batch, Durability::Ordered).unwrap();
        }
    }

    fn crash(&mut self, n: usize) {
        self.members[n] = None;
        let unsynced = self.disks[n].unsynced() as u64;
        let survivors = self.random.below(unsynced + 1);
        self.disks[n].crash(survivors as usize);
    }

    fn send(&mut self, messages: Vec<Message>, rough: bool) {
        for message in messages {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes);
            let bytes = bytes.freeze();
            if rough && self.random.one_in(12) {
                continue;
            }
            let copies = if rough && self.random.one_in(20) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = if rough && self.random.one_in(10) {
                    self.random.below(40)
                } else {
                    self.random.below(3)
                };
                self.sent += 1;
                self.network.insert((self.now + 1 + delay, self.sent), bytes.clone());
            }
        }
    }

    /// Does what a member says; `false`: it crashed meanwhile.
    fn work(&mut self, n: usize, rough: bool) -> bool {
        let all = self.now.is_multiple_of(COMMIT_TOLD_STEPS);
        let next = |member: &mut Member<MemoryDisk>| {
            member.tell_commit(all);
            member.work()
        };
        while let Some(work) = self.members[n].as_mut().and_then(next) {
            let Work { messages, batch, durability, messages_after, restored, committed, reads } = work;
            self.send(messages, rough);
            let (promises, messages_after) = match self.mistake {
                Mistake::PromisesFirst => (messages_after, Vec::new()),
                _ => (Vec::new(), messages_after),
            };
            self.send(promises, rough);
            if rough && self.random.one_in(400) {
                self.crash(n);
                return false;
            }
            let durability = if self.mistake == Mistake::NoSync { Durability::Ordered } else { durability };
            self.disks[n].write(batch, durability).unwrap();
            if rough && self.random.one_in(400) {
                self.crash(n);
                return false;
            }
            self.send(messages_after, rough);
            let after = self.members[n].as_mut().unwrap().written();
            self.send(after, rough);
            if let Some(metadata) = restored {
                assert!(metadata.index > self.progress[n], "seed {}: a snapshot of the past", self.seed);
                if rough && self.random.one_in(4) {
                    self.crash(n);
                    return false;
                }
                self.progress[n] = metadata.index;
                self.durable[n] = metadata.index;
                self.snapshots_restored += 1;
            }
            for entry in committed {
                let seed = self.seed;
                assert_eq!(entry.index, self.progress[n] + 1, "seed {seed}: entries in order, each once");
                self.progress[n] = entry.index;
                let first = self.applied.entry(entry.index).or_insert((entry.term, entry.requests.clone()));
                assert_eq!(
                    *first,
                    (entry.term, entry.requests.clone()),
                    "seed {seed}: two entries at {}",
                    entry.index
                );
                self.trace = self.trace.wrapping_mul(31).wrapping_add(entry.index ^ entry.term << 32);
                let own = entry.requests.iter().filter(|request| request.origin == n as u64 + 1);
                self.acknowledged.extend(own.map(|request| request.id));
            }
            for read in reads {
                // An answer can come twice.
                let Some(least) = self.reads.remove(&(n, read.number)) else { continue };
                assert!(
                    read.index >= least,
                    "seed {}: a read at {} after {least} was acknowledged",
                    self.seed,
                    read.index
                );
                self.reads_done += 1;
            }
            let progress = self.progress[n];
            self.members[n].as_mut().unwrap().applied(progress);
            if self.random.one_in(10) {
                self.durable[n] = progress;
            }
        }
        self.note_leader(n);
        true
    }

    fn note_leader(&mut self, n: usize) {
        let Some(status) = self.members[n].as_ref().map(Member::status) else { return };
        if status.role == Role::Leader {
            let first = *self.leaders.entry(status.term).or_insert(n as u64);
            assert_eq!(first, n as u64, "seed {}: two leaders in term {}", self.seed, status.term);
        }
    }

    fn step(&mut self, rough: bool) {
        self.now += 1;
        let clock = STEP * self.now as u32;
        while let Some(first) = self.network.first_entry().filter(|first| first.key().0 <= self.now) {
            let message = Message::decode(first.remove()).unwrap();
            let n = message.to() as usize - 1;
            if let Some(member) = &mut self.members[n] {
                let _ = member.step(message, clock);
                self.work(n, rough);
            }
        }
        for n in 0..self.members.len() {
            match &mut self.members[n] {
                None if !rough || self.random.one_in(60) => self.start(n),
                None => continue,
                Some(member) => member.tick(clock),
            }
            if rough && self.random.one_in(600) {
                self.crash(n);
                continue;
            }
            if self.random.one_in(6) {
                self.next_request += 1;
                let payload = Bytes::from(self.next_request.to_le_bytes().to_vec());
                let request = Request { origin: n as u64 + 1, id: self.next_request, payload };
                let member = self.members[n].as_mut().unwrap();
                let _ = member.propose(&mut VecDeque::from([request]), &mut Vec::new());
            }
            if self.random.one_in(10) {
                // Members number their reads alike.
                let least = self.applied.last_key_value().map_or(0, |(index, _)| *index);
                self.next_read[n] += 1;
                self.reads.insert((n, self.next_read[n]), least);
                let number = self.next_read[n];
                self.members[n].as_mut().unwrap().read_index(number, clock);
            }
            if self.random.one_in(100) {
                self.compact(n);
            }
            self.fetch(n, rough);
            self.work(n, rough);
        }
    }

    fn run(self) -> u64 {
        self.run_and_count().0
    }

    /// A hash of what happened, and how many snapshots were restored.
    fn run_and_count(mut self) -> (u64, u64) {
        (0..ROUGH).for_each(|_| self.step(true));
        let before = self.acknowledged.len();
        (0..CALM).for_each(|_| self.step(false));
        let seed = self.seed;
        assert!(
            self.acknowledged.len() > before + 20,
            "seed {seed}: nothing is committed after the faults ended"
        );
        assert!(self.reads_done > 20, "seed {seed}: reads are answered");
        let there: std::collections::BTreeSet<_> =
            self.applied.values().flat_map(|(_, requests)| requests).map(|request| request.id).collect();
        for id in &self.acknowledged {
            assert!(there.contains(id), "seed {seed}: request {id} was acknowledged and is gone");
        }
        let last = *self.applied.last_key_value().unwrap().0;
        assert!(
            self.progress.iter().all(|progress| progress + 20 > last),
            "seed {seed}: a member stays behind"
        );
        (self.trace, self.snapshots_restored)
    }
}

#[test]
fn what_is_acknowledged_stays_whatever_happens() {
    let run = |seed| World::new(seed, if seed % 2 == 0 { 3 } else { 5 }).run_and_count().1;
    let snapshots: u64 = (0..40).map(run).sum();
    assert!(snapshots > 40, "only {snapshots} snapshots: the runs do not try what they should");
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(World::new(77, 3).run(), World::new(77, 3).run());
    assert_ne!(World::new(77, 3).run(), World::new(78, 3).run());
}

/// Checks that find nothing would be worth nothing.
#[test]
fn mistakes_are_found() {
    for mistake in [Mistake::NoSync, Mistake::PromisesFirst, Mistake::CompactsTooFar] {
        let found =
            (0..300).any(|seed| std::panic::catch_unwind(|| World::with(mistake, seed, 3).run()).is_err());
        assert!(
            found,
            "300 seeds do not find that {}",
            match mistake {
                Mistake::NoSync => "nothing is synced",
                Mistake::CompactsTooFar => "the log is shortened too far",
                _ => "promises leave before they are written",
            }
        );
    }
}
