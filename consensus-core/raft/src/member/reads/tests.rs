//! Conversations about reads: which rounds a leader begins, and what rests on them.

use raft::eraftpb::{Message as Raw, MessageType};

use super::super::{
    lease::Context,
    played::{LEASE, Played, TIMEOUT, message, ms},
};

/// The rounds that were begun: what member 2 was asked.
fn rounds(sent: &[Raw]) -> Vec<&Raw> {
    let heartbeat = |raw: &&Raw| raw.get_msg_type() == MessageType::MsgHeartbeat && raw.to == 2;
    sent.iter().filter(heartbeat).filter(|raw| !raw.context.is_empty()).collect()
}

/// Who was told where to read.
fn answered(sent: &[Raw]) -> Vec<(u64, u64)> {
    let answers = sent.iter().filter(|raw| raw.get_msg_type() == MessageType::MsgReadIndexResp);
    answers.map(|raw| (raw.to, raw.index)).collect()
}

#[test]
fn all_that_come_while_a_round_is_under_way_share_the_next() {
    let mut played = Played::leader();
    let commit = played.member.status().commit;
    let sent = played.is_asked(3);
    let [first] = rounds(&sent)[..] else { panic!("{sent:?}") };
    let first = first.clone();
    assert_eq!((rounds(&played.is_asked(3)).len(), rounds(&played.is_asked(2)).len()), (0, 0), "they wait");
    played.member.read_index(7, played.now);
    assert!(played.works().is_empty() && played.member.reads_wait());
    let sent = played.is_answered(&first);
    assert_eq!(answered(&sent), [(3, commit)]);
    let [second] = rounds(&sent)[..] else { panic!("{sent:?}") };
    let second = second.clone();
    assert!(played.reads.is_empty() && !played.member.reads_wait());
    let sent = played.is_answered(&second);
    assert_eq!(answered(&sent), [(3, commit), (2, commit)]);
    assert_eq!(played.reads.iter().map(|read| (read.number, read.index)).collect::<Vec<_>>(), [(7, commit)]);
    assert!(rounds(&sent).is_empty() && played.is_answered(&second).is_empty());
}

#[test]
fn a_round_that_takes_long_is_not_waited_for_and_is_answered_with_the_next() {
    let mut played = Played::leader();
    played.is_asked(3);
    played.is_asked(2);
    played.member.ask_beside();
    let sent = played.works();
    let [beside] = rounds(&sent)[..] else { panic!("{sent:?}") };
    let beside = beside.clone();
    played.member.ask_beside();
    assert!(played.works().is_empty(), "nobody waits");
    assert_eq!(answered(&played.is_answered(&beside)).len(), 2);
}

/// A round that got lost must not count for a lease because another one, for which nobody has promised anything, was answered.
#[test]
fn rounds_that_others_have_asked_for_are_promised_the_same() {
    let mut played = Played::leader();
    played.asks(1);
    played.now += ms(100);
    let began = played.now;
    played.is_asked(3);
    played.member.ask_beside();
    let sent = played.works();
    let asked = rounds(&sent)[0].clone();
    assert_eq!(Context::decode(&asked.context).unwrap().promise, Some(TIMEOUT));
    played.is_answered(&asked);
    assert_eq!((played.member.lease_end(), played.reads.len()), (Some(began + LEASE), 1));
}

#[test]
fn reads_wait_until_the_leader_knows_what_is_committed() {
    let mut played = Played::new();
    played.member.campaign();
    played.works();
    played.hears(message(2, MessageType::MsgRequestPreVoteResponse, 2));
    played.hears(message(2, MessageType::MsgRequestVoteResponse, 2));
    played.member.read_index(1, played.now);
    assert!(rounds(&played.is_asked(3)).is_empty());
    played.member.ask_beside();
    assert!(rounds(&played.works()).is_empty());
    let sent = played.is_acknowledged(2);
    let asked = rounds(&sent)[0].clone();
    let sent = played.is_answered(&asked);
    assert_eq!(answered(&sent), [(3, played.member.status().commit)]);
    assert_eq!(played.reads.len(), 1);
}

#[test]
fn who_leads_no_more_answers_nobody() {
    let mut played = Played::leader();
    let sent = played.is_asked(3);
    let asked = rounds(&sent)[0].clone();
    played.is_asked(2);
    played.hears(message(3, MessageType::MsgAppendResponse, 7));
    assert!(!played.member.reads_wait());
    assert!(answered(&played.is_answered(&asked)).is_empty());
}
