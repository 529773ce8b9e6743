//! One member of a group of three with hostile peers: whatever they say, it does not panic, and keeps what Raft promises of a
//! single member. Its own disk and its host are honest, so what a crash takes is only what was not synced.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, Member, MemberChange, MemberInfo, Membership, Message, Status, Work, bootstrap, proposal::Request,
};

#[path = "input.rs"]
mod input;
#[path = "consensus_member/wire.rs"]
mod wire;

use input::Input;
use wire::Kind;

pub(crate) const GROUP: u64 = 1;
pub(crate) const OWN: u64 = 1;
pub(crate) const SEED: u64 = 7;
/// Of its clock, between ticks.
const TICK: Duration = Duration::from_millis(1);
const ELECTION_TIMEOUT: Duration = Duration::from_millis(10);
/// A run that is longer shows nothing that a shorter one does not.
const OPS_MAX: usize = 300;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut host = Host::new();
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        host.op(&mut input);
        host.check();
    }
    host.work(&mut Input::new(&[]));
    host.check();
}

/// What a production host does for a member, on a disk in memory.
struct Host {
    disk: Arc<MemoryDisk>,
    member: Member<MemoryDisk>,
    /// What the state machine has applied, and has on its own disk.
    applied: u64,
    durable: u64,
    /// Reads that were asked for.
    reads: u64,
    /// Of its clock.
    now: Duration,
    /// As of the last look.
    before: Status,
}

fn open(disk: &Arc<MemoryDisk>, applied: u64) -> Member<MemoryDisk> {
    let config = Config {
        group: GROUP,
        id: OWN,
        election_ticks: 10,
        heartbeat_ticks: 2,
        election_timeout: ELECTION_TIMEOUT,
        leases: true,
        applied,
        priority: 0,
        entries_per_message_max: 1000,
        seed: SEED,
    };
    Member::open(Arc::clone(disk), config).expect("an honest disk")
}

impl Host {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        let members = (1..=3).map(|id| (id, MemberInfo::default())).collect();
        disk.write(bootstrap(GROUP, &Membership::of_voters(members)), Durability::Synced).expect("memory");
        let member = open(&disk, 0);
        let before = member.status();
        Self { disk, member, applied: 1, durable: 1, reads: 0, now: Duration::ZERO, before }
    }

    fn op(&mut self, input: &mut Input<'_>) {
        match input.below(24) {
            0..8 => self.step(wire::message(input, &self.before, self.reads)),
            8 => (0..1 + input.below(40)).for_each(|_| self.tick()),
            9..13 => self.work(input),
            13 => self.elect(),
            14 => self.acknowledge(input),
            15 => {
                let payload = Bytes::copy_from_slice(input.bytes(20));
                let _ = self
                    .member
                    .propose(&mut VecDeque::from([Request { origin: OWN, id: 1, payload }]), &mut Vec::new());
            }
            16 => drop(self.member.propose_member_change(&member_change(input), (OWN, 1))),
            17 => {
                self.reads += 1;
                self.member.read_index(self.reads, self.now);
            }
            18 => self.member.campaign(),
            19 => self.member.transfer_leader(1 + input.below(5) as u64),
            20 => {
                let id = 1 + input.below(5) as u64;
                self.member.unreachable(id);
                self.member.links_lost(id);
            }
            21 => self.compact(input),
            22 => self.restore(input),
            _ => self.crash(input),
        }
    }

    fn step(&mut self, bytes: Bytes) {
        let Ok(message) = Message::decode(bytes) else { return };
        let _ = self.member.step(message, self.now);
    }

    /// Works as the host contract says, perhaps without applying what is committed.
    fn work(&mut self, input: &mut Input<'_>) {
        let applies = !input.one_in(4);
        self.member.tell_commit(applies);
        while let Some(Work { batch, durability, restored, committed, .. }) = self.member.work() {
            self.disk.write(batch, durability).expect("memory");
            self.member.written();
            if let Some(metadata) = restored {
                assert!(metadata.index > self.applied, "a snapshot of the past");
                (self.applied, self.durable) = (metadata.index, metadata.index);
            }
            for entry in committed {
                assert_eq!(entry.index, self.applied + 1, "entries in order, each once");
                self.applied = entry.index;
            }
            if applies {
                self.member.applied(self.applied);
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.member.tick(self.now);
    }

    /// The others vote for it, when what it has promised is over.
    fn elect(&mut self) {
        self.now += ELECTION_TIMEOUT;
        self.tick();
        self.member.campaign();
        self.work(&mut Input::new(&[]));
        let term = self.member.status().term;
        self.step(wire::answer(Kind::PreVoteAnswer, 2, term + 1, 0));
        self.work(&mut Input::new(&[]));
        let term = self.member.status().term;
        self.step(wire::answer(Kind::VoteAnswer, 2, term, 0));
        self.work(&mut Input::new(&[]));
    }

    /// One of the others has everything.
    fn acknowledge(&mut self, input: &mut Input<'_>) {
        let Status { term, last, .. } = self.member.status();
        let from = 2 + input.below(3) as u64;
        self.step(wire::answer(Kind::AppendAnswer, from, term, last));
    }

    fn compact(&mut self, input: &mut Input<'_>) {
        self.durable = self.applied;
        let index = self.durable.saturating_sub(input.below(8) as u64);
        if let Some(batch) = self.member.compact(index) {
            self.disk.write(batch, Durability::Ordered).expect("memory");
        }
    }

    /// A snapshot of a peer's, as its host would fetch it.
    fn restore(&mut self, input: &mut Input<'_>) {
        if let Some(metadata) = wire::snapshot(input, &self.before) {
            self.member.restore(&metadata);
        }
    }

    /// What was not synced may be lost, and what the state machine had not stored.
    fn crash(&mut self, input: &mut Input<'_>) {
        self.disk.crash(input.below(self.disk.unsynced() + 1));
        if input.one_in(2) {
            self.durable = self.applied;
        }
        self.member = open(&self.disk, self.durable);
        self.applied = self.durable;
        self.before = self.member.status();
        assert!(self.before.first <= self.durable + 1, "the log begins after what the state machine has");
    }

    /// Nothing that was promised is taken back.
    fn check(&mut self) {
        let now = self.member.status();
        assert!(now.term >= self.before.term, "{now:?} after {:?}", self.before);
        assert!(now.commit >= self.before.commit, "{now:?} after {:?}", self.before);
        assert!(now.applied <= now.commit && now.commit <= now.last, "{now:?}");
        assert!(now.first <= now.commit + 1, "{now:?}");
        self.before = now;
    }
}

fn member_change(input: &mut Input<'_>) -> MemberChange {
    let id = input.below(7) as u64;
    match input.below(5) {
        0 => MemberChange::Add { id, info: MemberInfo::default(), learner: input.one_in(2) },
        1 => MemberChange::Promote { id },
        2 => MemberChange::Remove { id },
        3 => MemberChange::Move { id, peer_urls: Vec::new() },
        _ => MemberChange::Publish { id, name: String::new(), client_urls: Vec::new() },
    }
}
