//! Packet numbers, the replay window and key phases, as transcripts and against simple models.

use std::collections::BTreeSet;

use dwcp_proto::datagram::{
    DATAGRAMS_PER_KEY_MAX, DatagramHeader, DatagramType, FORGED_MAX, HEADER_LEN, Limits, Opened,
    PAYLOAD_LEN_MAX, PROBES_RESERVED, Place, REPLAY_WINDOW, RecvFlow, RecvRefused, ReplayWindow, SendFlow,
    SendRefused, TAG_LEN, UPDATE_AFTER,
};
use proptest::prelude::*;

#[path = "../../../../fuzz/bodies/datagram_flow/toy_keys.rs"]
mod toy_keys;
use toy_keys::{ToyOpening, ToySealing};

const SPECIFICATION: &str = include_str!("../../../../docs/spec/datagram-1.md");
const FEW: Limits = Limits { update_after: 4, per_key_max: 10, reserved: 2, forged_max: 3 };

fn flow(limits: Limits) -> (SendFlow<ToySealing>, RecvFlow<ToyOpening>) {
    (SendFlow::new(9, ToySealing::default(), limits), RecvFlow::new(ToyOpening::default(), limits))
}

fn seal(send: &mut SendFlow<ToySealing>, plain: &[u8]) -> Result<Vec<u8>, SendRefused> {
    let mut datagram = Vec::new();
    send.seal(DatagramType::Message, plain, &mut datagram).map(|_| datagram)
}

fn open(recv: &mut RecvFlow<ToyOpening>, datagram: &[u8]) -> Result<Opened, RecvRefused> {
    let (header, _) = DatagramHeader::decode(datagram).expect("a datagram");
    recv.open(&header, &mut datagram.to_vec()[HEADER_LEN..])
}

fn phase(datagram: &[u8]) -> bool {
    DatagramHeader::decode(datagram).unwrap().0.key_phase
}

// DATAGRAM-2.7, DATAGRAM-5.1
#[test]
fn each_datagram_is_delivered_once_in_whatever_order() {
    let (mut send, mut recv) = flow(Limits::default());
    let sent: Vec<_> = (0..4_u8).map(|content| seal(&mut send, &[content]).unwrap()).collect();
    let numbers: Vec<_> = sent.iter().map(|d| DatagramHeader::decode(d).unwrap().0.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    for (which, place) in [(1, Place::Newest), (0, Place::Late), (3, Place::Newest), (2, Place::Late)] {
        let opened = open(&mut recv, &sent[which]).unwrap();
        assert_eq!((opened.number, opened.place, opened.len), (which as u64, place, 1));
    }
    for datagram in &sent {
        assert_eq!(open(&mut recv, datagram), Err(RecvRefused::Replayed));
    }
}

// DATAGRAM-5.2, DATAGRAM-6.1: the header is authenticated, too; what is altered leaves the flow as it was.
#[test]
fn what_is_altered_anywhere_is_forged() {
    let (mut send, mut recv) = flow(Limits::default());
    let honest = seal(&mut send, b"content").unwrap();
    for at in 0..honest.len() * 8 {
        let mut altered = honest.clone();
        altered[at / 8] ^= 1 << (at % 8);
        if DatagramHeader::decode(&altered).is_ok_and(|(header, _)| header.flow == 9) {
            assert_eq!(open(&mut recv, &altered), Err(RecvRefused::Forged), "bit {at}");
        }
    }
    assert!(open(&mut recv, &honest).is_ok());
}

// DATAGRAM-6.2, DATAGRAM-6.3: the sender goes on to the next key once the peer has confirmed the one before.
#[test]
fn a_key_ends_when_it_is_used_up_and_the_next_was_never_skipped() {
    let (mut send, mut recv) = flow(FEW);
    assert!(!send.update(), "the peer may not have anything of the first key");
    let first: Vec<_> = (0..6).map(|_| seal(&mut send, b"").unwrap()).collect();
    assert!(first.iter().all(|d| !phase(d)), "not confirmed: the key goes on being used");
    assert!(open(&mut recv, &first[5]).is_ok());
    send.on_answer(5);
    let second = seal(&mut send, b"").unwrap();
    assert!(phase(&second));
    assert!(!send.update(), "an answer to the key before says nothing of this one");
    send.on_answer(5);
    assert!(!send.update());
    // The receiver follows; what was sent with the key before is still good, once.
    assert!(open(&mut recv, &second).is_ok());
    assert_eq!(open(&mut recv, &first[0]).map(|opened| opened.place), Ok(Place::Late));
    assert_eq!(open(&mut recv, &first[5]), Err(RecvRefused::Replayed));
    send.on_answer(6);
    assert!(send.update());
    let third = seal(&mut send, b"").unwrap();
    assert!(!phase(&third));
    assert!(open(&mut recv, &third).is_ok());
    // Of the first key nothing is left, although its phase is the same.
    assert_eq!(open(&mut recv, &first[1]), Err(RecvRefused::Forged));
}

// DATAGRAM-6.2: nothing is encrypted beyond the limit, and its last part is for what confirms the key.
#[test]
fn a_peer_that_does_not_answer_uses_the_key_up() {
    let (mut send, _) = flow(FEW);
    for _ in 0..8 {
        seal(&mut send, b"").unwrap();
    }
    let before = seal(&mut send, b"");
    assert_eq!(before, Err(SendRefused::KeyUsedUp));
    let mut out = vec![1];
    assert_eq!(send.seal(DatagramType::Probe, b"", &mut out), Ok(8));
    assert_eq!(send.seal(DatagramType::ProbeReply, b"", &mut out), Ok(9));
    let len = out.len();
    assert_eq!(send.seal(DatagramType::Probe, b"", &mut out), Err(SendRefused::KeyUsedUp));
    assert_eq!(out.len(), len, "nothing was added");
    send.on_answer(8);
    assert!(seal(&mut send, b"").is_ok(), "the next key");
}

// DATAGRAM-6.3: the key before is let go when the window has passed it.
#[test]
fn the_previous_key_is_of_use_for_as_long_as_the_window() {
    let (mut send, mut recv) = flow(Limits::default());
    let late: Vec<_> = (0..2).map(|_| seal(&mut send, b"").unwrap()).collect();
    assert!(open(&mut recv, &seal(&mut send, b"").unwrap()).is_ok());
    send.on_answer(2);
    assert!(send.update());
    for _ in 3..REPLAY_WINDOW {
        assert!(open(&mut recv, &seal(&mut send, b"").unwrap()).is_ok());
    }
    assert!(open(&mut recv, &late[0]).is_ok(), "as old as can be");
    for _ in 0..2 {
        assert!(open(&mut recv, &seal(&mut send, b"").unwrap()).is_ok());
    }
    assert_eq!(open(&mut recv, &late[1]), Err(RecvRefused::Replayed), "too old");
    for _ in 0..3 {
        assert!(open(&mut recv, &seal(&mut send, b"").unwrap()).is_ok()); // the toy keys look that it is let go once
    }
}

// DATAGRAM-6.4
#[test]
fn a_flow_that_is_attacked_for_long_closes() {
    let (mut send, mut recv) = flow(FEW);
    let honest = seal(&mut send, b"").unwrap();
    let mut forged = honest.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..3 {
        assert_eq!(open(&mut recv, &forged), Err(RecvRefused::Forged));
    }
    assert_eq!(open(&mut recv, &honest), Err(RecvRefused::Closed));
}

// DATAGRAM-6.2, DATAGRAM-6.4, DATAGRAM-5.1: the numbers of the specification are those of the code.
#[test]
fn limits_are_those_of_the_specification() {
    let specification: Vec<_> = SPECIFICATION.split_whitespace().collect();
    let specification = specification.join(" ");
    for text in [
        format!("2^{} datagrams", DATAGRAMS_PER_KEY_MAX.ilog2()),
        format!("2^{}, or", UPDATE_AFTER.ilog2()),
        format!("last 2^{} ", PROBES_RESERVED.ilog2()),
        format!("2^{} forged", FORGED_MAX.ilog2()),
        format!("{REPLAY_WINDOW} or more"),
    ] {
        assert!(specification.contains(&text), "the specification says: {text}");
    }
    let powers = [DATAGRAMS_PER_KEY_MAX, UPDATE_AFTER, PROBES_RESERVED, FORGED_MAX];
    assert!(powers.iter().all(|limit| limit.is_power_of_two()));
}

// DATAGRAM-2.5
#[test]
fn the_longest_datagram_and_one_more_byte() {
    let (mut send, mut recv) = flow(Limits::default());
    let longest = vec![5; PAYLOAD_LEN_MAX - TAG_LEN];
    assert!(open(&mut recv, &seal(&mut send, &longest).unwrap()).is_ok());
    assert_eq!(
        seal(&mut send, &vec![5; longest.len() + 1]),
        Err(SendRefused::TooLong(PAYLOAD_LEN_MAX - TAG_LEN + 1))
    );
}

proptest! {
    // DATAGRAM-5.1: against a set of all that has arrived.
    #[test]
    fn the_window_is_a_set_of_numbers(
        steps in prop::collection::vec((any::<bool>(), prop_oneof![0..200_u64, 0..5_000_u64, 3_900..4_200_u64]), 1..300),
        start in prop_oneof![Just(0), 0..1_u64 << 61],
    ) {
        let mut window = ReplayWindow::default();
        let mut taken = BTreeSet::new();
        let mut at = start;
        for (ahead, by) in steps {
            let number = if ahead { at + by } else { at.saturating_sub(by) };
            let end = taken.last().map_or(0, |last| last + 1);
            let expected = if number >= end {
                Some(Place::Newest)
            } else if taken.contains(&number) || end - number > REPLAY_WINDOW {
                None
            } else {
                Some(Place::Late)
            };
            prop_assert_eq!(window.place(number), expected, "number {} end {}", number, end);
            if expected.is_some() {
                window.take(number);
                taken.insert(number);
                at = at.max(number);
            }
            prop_assert_eq!(window.end(), taken.last().map_or(0, |last| last + 1));
        }
    }
}
