//! Conversations with peers that are damaged or hostile. The fuzz target `consensus_member` found each of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consensus_disk::{Disk as _, Durability, MemoryDisk};
use raft::eraftpb::{ConfState, Message as Raw, MessageType};

use crate::{
    Config, Member, MemberChange, MemberInfo, Membership, MembershipApplied, Message, Role, SnapshotMetadata,
    StepError, bootstrap, codec::DecodeError,
};

/// Member 1 of three, whose peers are played by hand.
struct Played {
    disk: Arc<MemoryDisk>,
    member: Member<MemoryDisk>,
}

fn of_three() -> Membership {
    Membership::of_voters((1..=3).map(|id| (id, MemberInfo::default())).collect())
}

fn open(disk: &Arc<MemoryDisk>) -> Member<MemoryDisk> {
    let (election_ticks, heartbeat_ticks) = (10, 2);
    let config = Config {
        group: 1,
        id: 1,
        election_ticks,
        heartbeat_ticks,
        election_timeout: Duration::from_secs(1),
        leases: false,
        applied: 0,
        priority: 0,
        entries_per_message_max: 1000,
        seed: 1,
    };
    Member::open(Arc::clone(disk), config).unwrap()
}

/// What member 2 says.
fn message(kind: MessageType, term: u64) -> Raw {
    let mut raw = Raw::default();
    raw.set_msg_type(kind);
    (raw.from, raw.to, raw.term) = (2, 1, term);
    raw
}

fn snapshot(message_term: u64, index: u64, term: u64) -> Raw {
    let mut raw = message(MessageType::MsgSnapshot, message_term);
    let metadata = raw.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.mut_conf_state().set_voters(vec![1, 2, 3]);
    raw
}

impl Played {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        disk.write(bootstrap(1, &of_three()), Durability::Synced).unwrap();
        let member = open(&disk);
        Self { disk, member }
    }

    fn hears(&mut self, raw: Raw) -> Result<(), StepError> {
        self.member.step(Message { group: 1, raw }, Duration::ZERO)
    }

    fn refuses(&mut self, raw: Raw) -> &'static str {
        match self.hears(raw) {
            Err(StepError::Impossible { from: 2, what }) => what,
            other => panic!("{other:?}"),
        }
    }

    /// Does all there is to do; the changes of the membership that were committed.
    fn works(&mut self) -> Vec<MembershipApplied> {
        let mut changes = Vec::new();
        while let Some(work) = self.member.work() {
            self.disk.write(work.batch, work.durability).unwrap();
            self.member.written();
            assert_eq!(work.restored, None);
            changes.extend(work.committed.into_iter().filter_map(|committed| committed.membership));
            let commit = self.member.status().commit;
            self.member.applied(commit);
        }
        changes
    }

    fn is_elected(&mut self) {
        self.member.campaign();
        self.works();
        let term = self.member.status().term;
        self.hears(message(MessageType::MsgRequestPreVoteResponse, term + 1)).unwrap();
        self.works();
        self.hears(message(MessageType::MsgRequestVoteResponse, term + 1)).unwrap();
        self.works();
        assert_eq!(self.member.status().role, Role::Leader);
    }

    fn is_acknowledged(&mut self) -> Vec<MembershipApplied> {
        let status = self.member.status();
        let mut answer = message(MessageType::MsgAppendResponse, status.term);
        answer.index = status.last;
        self.hears(answer).unwrap();
        self.works()
    }
}

/// One of 2^64 - 1 would make the next election one of term 0.
#[test]
fn a_term_at_the_end_of_the_numbers_is_refused() {
    let mut played = Played::new();
    assert_eq!(
        played.refuses(message(MessageType::MsgTimeoutNow, u64::MAX)),
        "a term that no election gets to"
    );
    played.is_elected();
    assert_eq!(played.member.status().term, 2);
}

/// To raft-rs, whatever is not in the log has term 0: it would take the snapshot for something that it has, and commit it.
#[test]
fn a_snapshot_of_term_0_commits_nothing() {
    let mut played = Played::new();
    assert_eq!(played.refuses(snapshot(2, 19, 0)), "a snapshot of nothing");
    assert_eq!(played.member.status().commit, 1);
    let metadata = SnapshotMetadata { index: 19, term: 0, membership: of_three() };
    played.hears(message(MessageType::MsgHeartbeat, 2)).unwrap();
    assert!(!played.member.restore(&metadata), "nor if the host offers it");
}

/// raft-rs would restore it, although nobody has given the host a copy.
#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_refused() {
    let mut played = Played::new();
    let what = "a snapshot of something else than what is committed";
    assert_eq!(played.refuses(snapshot(3, 1, 3)), what);
    assert_eq!(played.hears(snapshot(3, 1, 1)), Ok(()), "one of what is there is no harm");
    assert_eq!(played.works(), []);
}

/// A host passes on whatever id a client names. As a change that raft-rs knows of, it would be an entry that the log refuses to
/// read at the next start.
#[test]
fn a_change_of_member_0_is_answered_and_not_done() {
    let mut played = Played::new();
    played.is_elected();
    let add = MemberChange::Add { id: 0, info: MemberInfo::default(), learner: true };
    for (number, change) in
        [MemberChange::Remove { id: 0 }, MemberChange::Promote { id: 0 }, add].into_iter().enumerate()
    {
        played.member.propose_member_change(&change, (1, number as u64)).unwrap();
        played.works();
        let answered = played.is_acknowledged();
        assert_eq!(answered.len(), 1, "{change:?}");
        assert_eq!((answered[0].request, answered[0].done), ((1, number as u64), false));
    }
    assert_eq!(open(&played.disk).membership().members.len(), 3);
}

/// raft-rs panics on members that it could not have got to one change at a time, and on a snapshot without the receiver.
#[test]
fn members_that_make_no_sense_are_refused() {
    let conf = |voters: &[u64], learners: &[u64], outgoing: &[u64]| {
        let mut conf = ConfState::default();
        conf.set_voters(voters.to_vec());
        conf.set_learners(learners.to_vec());
        conf.set_voters_outgoing(outgoing.to_vec());
        conf
    };
    let known = |ids: &[u64]| ids.iter().map(|id| (*id, MemberInfo::default())).collect::<BTreeMap<_, _>>();
    let refused = Err(DecodeError::Contradiction { what: "membership" });
    for (conf, members, expected) in [
        (conf(&[1, 2], &[3], &[]), known(&[1, 2, 3]), Ok(())),
        (conf(&[], &[], &[]), known(&[1, 2, 3]), Ok(())), // of one that joins
        (conf(&[1, 2], &[2], &[]), known(&[1, 2]), refused.clone()),
        (conf(&[1, 1], &[], &[]), known(&[1]), refused.clone()),
        (conf(&[1, 2], &[], &[]), known(&[1, 2, 3]), refused.clone()),
        (conf(&[1, 2], &[], &[1]), known(&[1, 2]), refused.clone()),
        (conf(&[], &[1], &[]), known(&[1]), refused.clone()),
        (conf(&[0], &[], &[]), known(&[0]), refused),
    ] {
        let membership = Membership { index: 1, conf, members };
        assert_eq!(Membership::decode(membership.encode()).map(drop), expected, "{membership:?}");
    }

    let mut played = Played::new();
    played.hears(message(MessageType::MsgHeartbeat, 2)).unwrap();
    let mut metadata = SnapshotMetadata { index: 9, term: 2, membership: Membership::default() };
    metadata.membership.members = known(&[1, 2, 3]);
    assert!(!played.member.restore(&metadata), "nobody has a role");
}
