//! For tests: a member whose peers are played by hand, with a clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use raft::eraftpb::{Entry, Message as Raw, MessageType};

use super::lease::Context;
use crate::{Config, Member, MemberInfo, Membership, Message, Read, Role, bootstrap};

pub(super) const TIMEOUT: Duration = ms(1000);
pub(super) const LEASE: Duration = ms(900);

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Member 1 of three, whose peers are played by hand, with a clock.
pub(super) struct Played {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) member: Member<MemoryDisk>,
    pub(super) now: Duration,
    pub(super) reads: Vec<Read>,
}

fn open(disk: &Arc<MemoryDisk>) -> Member<MemoryDisk> {
    let config = Config {
        group: 1,
        id: 1,
        election_ticks: 10,
        heartbeat_ticks: 2,
        election_timeout: TIMEOUT,
        leases: true,
        applied: 0,
        priority: 0,
        entries_per_message_max: 1000,
        seed: 1,
    };
    Member::open(Arc::clone(disk), config).unwrap()
}

/// What another member says.
pub(super) fn message(from: u64, kind: MessageType, term: u64) -> Raw {
    let mut raw = Raw::default();
    raw.set_msg_type(kind);
    (raw.from, raw.to, raw.term) = (from, 1, term);
    raw
}

impl Played {
    pub(super) fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        let members = (1..=3).map(|id| (id, MemberInfo::default())).collect();
        disk.write(bootstrap(1, &Membership::of_voters(members)), Durability::Synced).unwrap();
        let member = open(&disk);
        Self { disk, member, now: ms(5000), reads: Vec::new() }
    }

    /// One that leads, in term 2, and has its first entry committed.
    pub(super) fn leader() -> Self {
        let mut played = Self::new();
        played.member.campaign();
        played.works();
        played.hears(message(2, MessageType::MsgRequestPreVoteResponse, 2));
        played.hears(message(2, MessageType::MsgRequestVoteResponse, 2));
        assert_eq!(played.member.status().role, Role::Leader);
        played.is_acknowledged(2);
        played
    }

    pub(super) fn restart(&mut self) {
        self.member = open(&self.disk);
    }

    /// What it answers.
    pub(super) fn hears(&mut self, raw: Raw) -> Vec<Raw> {
        let _ = self.member.step(Message { group: 1, raw }, self.now);
        self.works()
    }

    /// Does all there is to do; what it has sent.
    pub(super) fn works(&mut self) -> Vec<Raw> {
        let mut sent = Vec::new();
        while let Some(work) = self.member.work() {
            self.disk.write(work.batch, work.durability).unwrap();
            sent.extend(work.messages.into_iter().chain(work.messages_after));
            sent.extend(self.member.written());
            self.reads.extend(work.reads);
            let commit = self.member.status().commit;
            self.member.applied(commit);
        }
        sent.into_iter().map(|message| message.raw).collect()
    }

    pub(super) fn ticks(&mut self, ticks: u32, each: Duration) -> Vec<Raw> {
        let mut sent = Vec::new();
        for _ in 0..ticks {
            self.now += each;
            self.member.tick(self.now);
            sent.extend(self.works());
        }
        sent
    }

    pub(super) fn is_acknowledged(&mut self, by: u64) -> Vec<Raw> {
        let status = self.member.status();
        let mut answer = message(by, MessageType::MsgAppendResponse, status.term);
        answer.index = status.last;
        self.hears(answer)
    }

    /// Begins a round; what the others are asked.
    pub(super) fn asks(&mut self, number: u64) -> Raw {
        self.member.read_index(number, self.now);
        self.member.ask_beside();
        let sent = self.works();
        sent.into_iter().find(|raw| raw.get_msg_type() == MessageType::MsgHeartbeat).expect("a round")
    }

    /// What is sent when another member asks where to read.
    pub(super) fn is_asked(&mut self, by: u64) -> Vec<Raw> {
        let mut question = message(by, MessageType::MsgReadIndex, 0);
        question.set_entries(vec![Entry { data: self.known_by(by), ..Entry::default() }].into());
        self.hears(question)
    }

    /// By what another member knows its reads.
    pub(super) fn known_by(&self, id: u64) -> Bytes {
        Context { id, seed: 4, number: 1, promise: None }.encode().into()
    }

    /// Member 2 answers a heartbeat.
    pub(super) fn is_answered(&mut self, asked: &Raw) -> Vec<Raw> {
        let mut answer = message(2, MessageType::MsgHeartbeatResponse, asked.term);
        answer.context = asked.context.clone();
        self.hears(answer)
    }

    /// Member 3 asks for a vote, or a promise of one.
    pub(super) fn is_asked_to_vote(&mut self, kind: MessageType, term: u64, context: &'static [u8]) -> bool {
        let mut request = message(3, kind, term);
        (request.index, request.log_term) = (100, term - 1);
        request.context = context.into();
        let answers = self.hears(request);
        answers.iter().any(|answer| answer.to == 3 && !answer.reject)
    }

    /// Member 2, which leads, asks for a promise.
    pub(super) fn promises(&mut self, term: u64) {
        let mut heartbeat = message(2, MessageType::MsgHeartbeat, term);
        let context = Context { id: 2, seed: 9, number: 1, promise: Some(TIMEOUT) }.encode();
        heartbeat.context = context.clone().into();
        let answers = self.hears(heartbeat);
        assert!(answers.iter().any(|answer| answer.context[..] == context[..]), "{answers:?}");
    }
}
