//! Conversations about leases: what a leader takes for one, and what a voter promises.

use std::time::Duration;

use consensus_disk::{Disk as _, Durability};
use raft::{
    CAMPAIGN_TRANSFER,
    eraftpb::{Message as Raw, MessageType},
};

use super::{
    super::played::{LEASE, Played, TIMEOUT, message, ms},
    Context, RENEWALS,
};
use crate::{MemberChange, MemberInfo, Message, Role};

#[test]
fn contexts_are_read_again() {
    for promise in [None, Some(Duration::ZERO), Some(TIMEOUT)] {
        let bytes = Context { id: 1, seed: u64::MAX, number: RENEWALS, promise }.encode();
        let read = Context::decode(&bytes).unwrap();
        assert_eq!((read.id, read.seed, read.number, read.promise), (1, u64::MAX, RENEWALS, promise));
        for bytes in [&bytes[1..], &bytes[..16], &[&bytes[..], &[0; 16]].concat()] {
            assert!(Context::decode(bytes).is_none(), "{bytes:?}");
        }
    }
}

#[test]
fn a_lease_is_counted_from_before_its_round() {
    let mut played = Played::leader();
    assert_eq!(played.member.lease_end(), None, "to be elected is not enough");
    let began = played.now;
    let asked = played.asks(1);
    played.now += ms(700);
    played.is_answered(&asked);
    assert_eq!(played.member.lease_end(), Some(began + LEASE));
    assert_eq!(played.reads.len(), 1);
    // An old answer that comes again makes nothing longer.
    let second = played.asks(2);
    played.now += ms(100);
    played.is_answered(&asked);
    assert_eq!(played.member.lease_end(), Some(began + LEASE));
    played.is_answered(&second);
    assert_eq!(played.member.lease_end(), Some(began + ms(700) + LEASE));
}

#[test]
fn who_does_not_lead_has_no_lease() {
    let mut played = Played::leader();
    let asked = played.asks(1);
    played.is_answered(&asked);
    assert!(played.member.lease_end().is_some());
    played.hears(message(3, MessageType::MsgAppendResponse, 7));
    assert_eq!(played.member.status().role, Role::Follower);
    assert_eq!(played.member.lease_end(), None);
}

#[test]
fn a_transfer_ends_the_leases_of_its_term() {
    let mut played = Played::leader();
    let asked = played.asks(1);
    played.is_answered(&asked);
    played.member.transfer_leader(9);
    assert!(played.member.lease_end().is_some(), "nobody was offered anything");
    played.member.transfer_leader(2);
    assert_eq!(played.member.lease_end(), None, "before anything is sent");
    let sent = played.works();
    assert!(sent.iter().any(|raw| raw.get_msg_type() == MessageType::MsgTimeoutNow), "{sent:?}");
    // raft-rs gives the transfer up after an election timeout. Its message may be on its way all the same.
    for number in 2..6 {
        played.ticks(4, ms(100));
        let asked = played.asks(number);
        played.is_answered(&asked);
    }
    assert_eq!(played.member.status().role, Role::Leader);
    assert_eq!(played.reads.len(), 5, "reads are answered");
    assert_eq!(played.member.lease_end(), None);
}

#[test]
fn a_change_of_voters_ends_the_lease_and_the_rounds_before_it() {
    let mut played = Played::leader();
    let asked = played.asks(1);
    played.is_answered(&asked);
    let before = played.asks(2);
    let add = MemberChange::Add { id: 4, info: MemberInfo::default(), learner: true };
    played.member.propose_member_change(&add, (1, 1)).unwrap();
    played.works();
    assert!(played.member.lease_end().is_some(), "it is not committed");
    played.is_acknowledged(2);
    assert_eq!(played.member.membership().members.len(), 4);
    assert_eq!(played.member.lease_end(), None);
    played.is_answered(&before);
    assert_eq!(
        (played.member.lease_end(), played.reads.len()),
        (None, 2),
        "good for a read, not for a lease"
    );
    let asked = played.asks(3);
    played.is_answered(&asked);
    assert!(played.member.lease_end().is_some());
}

#[test]
fn a_lease_is_renewed_if_somebody_reads() {
    let renews = |sent: &[Raw]| {
        let mut numbers = sent.iter().filter_map(|raw| Context::decode(&raw.context));
        numbers.any(|context| context.number > RENEWALS && context.promise == Some(TIMEOUT))
    };
    let mut played = Played::leader();
    let asked = played.asks(1);
    played.is_answered(&asked);
    let end = played.member.lease_end();
    assert!(!renews(&played.ticks(5, ms(100))), "nobody reads");
    played.member.lease_used();
    let sent = played.ticks(1, ms(100));
    assert!(renews(&sent), "more than half is gone: {sent:?}");
    let began = played.now;
    let asked = sent.into_iter().find(|raw| !raw.context.is_empty()).unwrap();
    played.member.lease_used();
    assert!(!renews(&played.ticks(1, ms(100))), "it has just begun");
    played.is_answered(&asked);
    assert!(played.member.lease_end() > end);
    assert_eq!(played.member.lease_end(), Some(began + LEASE));
    assert_eq!(played.reads.len(), 1, "nobody waits for it");
}

#[test]
fn a_read_that_is_passed_on_is_answered_from_the_lease() {
    let read = |played: &mut Played| {
        let sent = played.is_asked(3);
        sent.into_iter().find(|raw| raw.get_msg_type() == MessageType::MsgReadIndexResp)
    };
    let mut played = Played::leader();
    assert_eq!(read(&mut played), None, "there is no lease yet");
    let asked = played.asks(1);
    played.is_answered(&asked);
    let answer = read(&mut played).expect("an answer at once");
    assert_eq!((answer.to, answer.index, answer.term), (3, played.member.status().commit, 2));
    played.now += LEASE;
    assert_eq!(read(&mut played), None, "it is over");
}

#[test]
fn a_promise_outlives_the_leader_and_its_term() {
    for (kind, term) in [(MessageType::MsgRequestPreVote, 8), (MessageType::MsgRequestVote, 8)] {
        let mut played = Played::new();
        played.promises(5);
        assert!(played.member.leader_has_leases());
        // After a message of a higher term, raft-rs would vote at once.
        played.hears(message(3, MessageType::MsgAppendResponse, 7));
        assert_eq!((played.member.status().term, played.member.status().leader), (7, None));
        assert!(!played.member.leader_has_leases());
        played.now += TIMEOUT - ms(1);
        assert!(!played.is_asked_to_vote(kind, term, b""));
        played.now += ms(1);
        assert!(played.is_asked_to_vote(kind, term, b""));
    }
}

#[test]
fn a_transfer_goes_past_a_promise() {
    let mut played = Played::new();
    played.promises(5);
    assert!(!played.is_asked_to_vote(MessageType::MsgRequestVote, 6, b""));
    assert!(played.is_asked_to_vote(MessageType::MsgRequestVote, 6, CAMPAIGN_TRANSFER));
    let mut played = Played::new();
    played.promises(5);
    let sent = played.hears(message(2, MessageType::MsgTimeoutNow, 5));
    assert!(sent.iter().any(|raw| raw.get_msg_type() == MessageType::MsgRequestVote), "{sent:?}");
}

#[test]
fn who_has_promised_does_not_campaign() {
    let mut played = Played::new();
    played.promises(5);
    // As after a pause: all ticks at once.
    assert!(played.ticks(100, ms(5)).is_empty());
    played.member.campaign();
    assert!(played.works().is_empty());
    let sent = played.ticks(10, ms(100));
    assert!(sent.iter().any(|raw| raw.get_msg_type() == MessageType::MsgRequestPreVote), "{sent:?}");
}

#[test]
fn a_leader_without_leases_is_promised_nothing() {
    let mut played = Played::new();
    let mut heartbeat = message(2, MessageType::MsgHeartbeat, 5);
    heartbeat.context = Context { id: 2, seed: 9, number: 1, promise: None }.encode().into();
    played.hears(heartbeat);
    assert!(!played.member.leader_has_leases() && !played.member.has_promised());
}

#[test]
fn who_starts_elects_nobody_for_as_long_as_it_ever_promised() {
    let mut played = Played::new();
    played.hears(message(2, MessageType::MsgHeartbeat, 4));
    played.restart();
    assert!(played.is_asked_to_vote(MessageType::MsgRequestPreVote, 5, b""), "no leader had leases");
    played.promises(5);
    played.now += ms(1_000_000);
    played.restart();
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote] {
        assert!(!played.is_asked_to_vote(kind, 6, b""), "it may have promised anything");
    }
    played.now += TIMEOUT;
    assert!(played.is_asked_to_vote(MessageType::MsgRequestVote, 6, b""));
    played.restart();
    assert!(!played.is_asked_to_vote(MessageType::MsgRequestVote, 7, b""));
    assert!(played.is_asked_to_vote(MessageType::MsgRequestVote, 7, CAMPAIGN_TRANSFER));
}

#[test]
fn a_promise_leaves_when_the_disk_knows_of_one_as_long() {
    let mut played = Played::new();
    for (number, promise, synced) in [(1, TIMEOUT, true), (2, TIMEOUT, false), (3, 3 * TIMEOUT, true)] {
        let mut heartbeat = message(2, MessageType::MsgHeartbeat, 5);
        let context = Context { id: 2, seed: 9, number, promise: Some(promise) }.encode();
        heartbeat.context = context.clone().into();
        played.member.step(Message { group: 1, raw: heartbeat }, played.now).unwrap();
        let work = played.member.work().expect("an answer");
        assert!(work.messages.is_empty(), "{:?}", work.messages);
        assert!(work.messages_after.iter().any(|answer| answer.raw.context[..] == context[..]));
        assert_eq!(!work.batch.is_empty() && work.durability == Durability::Synced, synced, "round {number}");
        played.disk.write(work.batch, work.durability).unwrap();
        played.member.written();
        played.works();
    }
    // Longer than this member's own election timeout: the leader's counts.
    played.restart();
    played.ticks(1, Duration::ZERO);
    played.now += 2 * TIMEOUT;
    assert!(!played.is_asked_to_vote(MessageType::MsgRequestVote, 6, b""));
    played.now += TIMEOUT;
    assert!(played.is_asked_to_vote(MessageType::MsgRequestVote, 6, b""));
}
