//! The coming and going of links, and the end of a connection, as they are spoken.

use std::time::Duration;

use crate::support::{CLIENT, NOW, Pair, SERVER, assert_lines, frames, read_all, write};
use bytes::Bytes;
use dwcp_proto::{
    CloseCode,
    conn::{Closed, Event, LinkId, MessageSendError, OpenError, Priority, Read},
    limits::REINJECT_WAIT_MIN,
};

// DWCP-6.1, DWCP-6.3, DWCP-6.5: what a lost link had not delivered goes out on the other, once, and states are said again.
#[test]
fn a_lost_link() {
    let mut pair = Pair::new();
    pair.add_link(1);
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"arrives");
    pair.send(CLIENT, 0);
    pair.deliver(CLIENT, 0);
    write(&mut pair.ends[CLIENT], id, b" is lost");
    assert_lines(&pair.send(CLIENT, 0), "C 0 Data stream=1 offset=7 len=8");
    pair.on_wire.clear();
    pair.ends[CLIENT].link_lost(NOW, LinkId(0));
    // The first frame was not acknowledged: it goes out again, and is recognised.
    assert_lines(
        &pair.send(CLIENT, 1),
        "C 1 Credit offset=1048576
         C 1 MessageCredit offset=131072
         C 1 MessageCredit offset=131072 priority=1
         C 1 MessageCredit offset=131072 priority=2
         C 1 StreamsMax stream=100
         C 1 LinkLost
         C 1 Credit stream=1 offset=262144
         C 1 Data stream=1 len=7
         C 1 Data stream=1 offset=7 len=8",
    );
    pair.deliver(CLIENT, 1);
    assert_eq!(read_all(&mut pair.ends[SERVER], 1).0, b"arrives is lost");
    // The server gives up its end, too.
    assert!(pair.events(SERVER).contains(&Event::LinkLost(LinkId(0))));
    assert!(pair.ends[SERVER].active_links().eq([LinkId(1)]));
}

// DWCP-6.11: what is stuck on one link goes out on the other as well, once, and only when there is nothing new.
#[test]
fn a_stuck_frame_overtakes_on_another_link() {
    for lost in [None, Some(0), Some(1)] {
        let mut pair = Pair::new();
        pair.add_link(1);
        let id = pair.ends[CLIENT].open_stream().unwrap();
        write(&mut pair.ends[CLIENT], id, b"stuck");
        assert_lines(&pair.send(CLIENT, 0), "C 0 Data stream=1 len=5");
        write(&mut pair.ends[CLIENT], id, b" not");
        pair.send(CLIENT, 1);
        pair.deliver(CLIENT, 1);
        pair.ends[SERVER].handle_timeout(NOW + Duration::from_millis(20));
        assert_lines(&pair.send(SERVER, 1), "S 1 LinkAck stream=1 offset=1");
        pair.deliver(SERVER, 1);
        assert_eq!(read_all(&mut pair.ends[SERVER], 1).0, b"");

        let due = NOW + REINJECT_WAIT_MIN;
        assert_eq!(pair.ends[CLIENT].poll_timeout(), Some(due));
        pair.ends[CLIENT].handle_timeout(due - Duration::from_millis(1));
        assert_lines(&pair.send(CLIENT, 1), "");
        pair.ends[CLIENT].handle_timeout(due);
        assert!(!pair.ends[CLIENT].wants_transmit_on(LinkId(0)), "the slow link has it");
        assert_lines(&pair.send(CLIENT, 1), "C 1 Data stream=1 len=5");
        pair.ends[CLIENT].handle_timeout(2 * due);
        assert!(!pair.ends[CLIENT].wants_transmit(), "once");

        if lost == Some(1) {
            pair.lose_link(1); // with the repetition; the original is still on its way
        } else {
            pair.deliver(CLIENT, 1);
            assert_eq!(read_all(&mut pair.ends[SERVER], 1).0, b"stuck not");
        }
        if lost == Some(0) {
            pair.lose_link(0); // what counts as unacknowledged there goes out once more, and is recognised
        } else {
            pair.deliver(CLIENT, 0);
        }
        pair.exchange_acks();
        let read = read_all(&mut pair.ends[SERVER], 1).0;
        assert_eq!(read, if lost == Some(1) { &b"stuck not"[..] } else { b"" });
        pair.ends[CLIENT].stream_finish(id).unwrap();
        pair.ends[CLIENT].stream_stop(id, 0);
        pair.exchange_acks();
        assert_eq!(pair.ends[CLIENT].queued(), 0, "nothing is left, with link {lost:?} lost");
    }
}

// DWCP-6.6: a retired link finishes what it has.
#[test]
fn a_retired_link() {
    let mut pair = Pair::new();
    assert!(!pair.ends[CLIENT].retire_link(LinkId(0)), "the last link stays");
    pair.add_link(1);
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"on the way");
    pair.send(CLIENT, 0);
    assert!(pair.ends[CLIENT].retire_link(LinkId(0)));
    assert!(pair.ends[CLIENT].active_links().eq([LinkId(1)]));
    write(&mut pair.ends[CLIENT], id, b" elsewhere");
    assert_lines(&pair.send(CLIENT, 0), "");
    assert_lines(&pair.send(CLIENT, 1), "C 1 Data stream=1 offset=10 len=10");
    pair.deliver(CLIENT, 0);
    pair.deliver(CLIENT, 1);
    assert_lines(
        &pair.exchange_acks(),
        "S 0 LinkAck offset=1
         S 1 LinkAck stream=1 offset=1
         C 0 LinkRetire
         S 0 LinkRetire",
    );
    for side in [CLIENT, SERVER] {
        assert!(pair.events(side).contains(&Event::LinkFinished(LinkId(0))), "side {side}");
    }
    assert_eq!(read_all(&mut pair.ends[SERVER], 1).0, b"on the way elsewhere");
}

// DWCP-6.6: the driver may close the link only after it has taken the LINK_RETIRE.
#[test]
fn a_retired_link_is_finished_last() {
    let mut pair = Pair::new();
    pair.add_link(1);
    assert!(pair.ends[CLIENT].retire_link(LinkId(0)));
    pair.send(CLIENT, 0);
    pair.deliver(CLIENT, 0);
    let server = &mut pair.ends[SERVER];
    let mut batch = dwcp_proto::conn::TxBatch::default();
    assert!(server.poll_transmit(NOW, LinkId(0), &mut batch));
    assert_eq!(pair.events(SERVER), []);
    batch.clear();
    let server = &mut pair.ends[SERVER];
    assert!(server.wants_transmit_on(LinkId(0)));
    assert!(!server.poll_transmit(NOW, LinkId(0), &mut batch));
    assert!(!server.wants_transmit_on(LinkId(0)));
    assert_eq!(pair.events(SERVER), [Event::LinkFinished(LinkId(0))]);
}

// DWCP-6.6: both sides retire the one that the other keeps. Nothing is left, so the client has to connect again.
#[test]
fn both_sides_retire_at_once() {
    let mut pair = Pair::new();
    pair.add_link(1);
    assert!(pair.ends[CLIENT].retire_link(LinkId(0)));
    assert!(pair.ends[SERVER].retire_link(LinkId(1)));
    pair.exchange();
    for side in [CLIENT, SERVER] {
        assert!(pair.events(side).contains(&Event::AllLinksLost), "side {side}");
        assert!(!pair.ends[side].wants_transmit());
    }
    pair.add_link(2);
    pair.ends[CLIENT].message_send(NOW, Priority::Normal, Bytes::from_static(b"still here")).unwrap();
    pair.exchange();
    assert_eq!(pair.ends[SERVER].message_receive().unwrap().payload, "still here");
}

// DWCP-6.7: silence is probed, and at last the link is given up.
#[test]
fn keepalive() {
    let mut pair = Pair::new();
    let interval = Duration::from_secs(5);
    let client = &mut pair.ends[CLIENT];
    for lost in 1..=3 {
        let at = client.poll_timeout().unwrap();
        assert_eq!(at, NOW + lost * interval);
        client.handle_timeout(at);
        assert!(client.poll_timeout().unwrap() > at);
        let sent = frames(client, 0);
        assert_eq!(sent.len(), usize::from(lost < 3), "a PING, until the link is lost");
    }
    assert_eq!(pair.events(CLIENT), [Event::AllLinksLost, Event::LinkLost(LinkId(0))]);
}

// DWCP-6.7: a part of a large frame is a sign of life, too.
#[test]
fn bytes_are_a_sign_of_life() {
    let mut pair = Pair::new();
    let client = &mut pair.ends[CLIENT];
    let mut now = NOW;
    for _ in 0..10 {
        now += Duration::from_secs(4);
        client.link_heard(now, LinkId(0));
        client.handle_timeout(now);
    }
    assert!(client.active_links().eq([LinkId(0)]));
}

// DWCP-6.8
#[test]
fn resume_and_its_end() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].message_send(NOW, Priority::Normal, Bytes::from_static(b"kept")).unwrap();
    pair.send(CLIENT, 0);
    pair.lose_link(0);
    assert_eq!(pair.events(CLIENT), [Event::AllLinksLost]);
    assert!(!pair.ends[CLIENT].wants_transmit());
    pair.add_link(1);
    pair.exchange();
    assert_eq!(pair.ends[SERVER].message_receive().unwrap().payload, "kept");
    pair.lose_link(1);
    let client = &mut pair.ends[CLIENT];
    assert_eq!(client.poll_timeout(), Some(NOW + Duration::from_secs(30)));
    client.handle_timeout(NOW + Duration::from_secs(30));
    assert_eq!(client.closed(), Some(&Closed::ResumeTimedOut));
    assert!(!client.link_added(NOW, LinkId(2)));
}

// DWCP-6.9: control before lost frames before normal, bulk and streams in turns.
#[test]
fn what_goes_first() {
    let mut pair = Pair::new();
    let client = &mut pair.ends[CLIENT];
    let id = client.open_stream().unwrap();
    write(client, id, &[0; 64 << 10]);
    pair.send(CLIENT, 0);
    pair.lose_link(0);
    pair.add_link(1);
    let client = &mut pair.ends[CLIENT];
    write(client, id, &[0; 10]);
    for priority in [Priority::Bulk, Priority::Normal, Priority::Control] {
        client.message_send(NOW, priority, Bytes::from_static(b"m")).unwrap();
    }
    client.stream_stop(id, 0);
    let lines = pair.send(CLIENT, 1);
    let reliable: Vec<&str> =
        lines.lines().filter(|line| !line.contains("Credit") && !line.contains("Max")).collect();
    assert_eq!(
        reliable,
        [
            "C 1 LinkLost",
            "C 1 Stop stream=1 len=4",
            "C 1 Message len=1",
            "C 1 Data stream=1 len=65536",
            "C 1 Message len=1 priority=1",
            "C 1 Message len=1 priority=2",
            "C 1 Data stream=1 offset=65536 len=10",
        ]
    );
}

// DWCP-6.10: LINKS_WANTED is a state: it is said again when its link is lost.
#[test]
fn links_wanted_is_repeated() {
    let mut pair = Pair::new();
    pair.ends[SERVER].want_links(3);
    assert_lines(&pair.send(SERVER, 0), "S 0 LinksWanted stream=3");
    pair.lose_link(0);
    pair.add_link(1);
    pair.exchange();
    assert!(pair.events(CLIENT).contains(&Event::LinksWanted(3)));
}

// DWCP-8.1: what came before the CLOSE can be read after it.
#[test]
fn close_leaves_what_arrived() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"read me");
    pair.ends[CLIENT].message_send(NOW, Priority::Bulk, Bytes::from_static(b"and me")).unwrap();
    pair.exchange();
    pair.ends[CLIENT].close(CloseCode::NONE, "");
    pair.exchange();
    let server = &mut pair.ends[SERVER];
    assert_eq!(read_all(server, id), (b"read me".to_vec(), Read::Closed));
    assert_eq!(server.message_receive().unwrap().payload, "and me");
    server.stream_stop(id, 0);
    server.stream_reset(id, 0);
    server.assert_invariants();
    assert!(frames(server, 0).is_empty());
}

// DWCP-8.1
#[test]
fn close() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].close(CloseCode(0x1007), "enough");
    assert_lines(&pair.exchange(), "C 0 Close len=10");
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Peer(CloseCode(0x1007), "enough".into())));
    assert_eq!(
        pair.ends[SERVER].message_send(NOW, Priority::Bulk, Bytes::new()),
        Err(MessageSendError::Closed)
    );
    assert!(!pair.ends[CLIENT].wants_transmit() && !pair.ends[SERVER].wants_transmit());
}

// DWCP-8.1: long texts are cut between characters.
#[test]
fn close_text_is_bounded() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].close(CloseCode::INTERNAL, &"ü".repeat(200));
    pair.exchange();
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Peer(CloseCode::INTERNAL, "ü".repeat(128))));
}

// DWCP-8.2: an idle connection drains in two phases.
#[test]
fn drain_when_idle() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].drain();
    let lines = pair.exchange() + &pair.exchange_acks() + &pair.exchange_acks();
    assert_lines(
        &lines,
        "C 0 Drain
         S 0 Drain stream=1
         S 0 LinkAck offset=1
         C 0 Drain stream=1
         C 0 LinkAck offset=1
         S 0 LinkAck offset=2
         C 0 Close len=4",
    );
    assert_eq!(pair.ends[CLIENT].closed(), Some(&Closed::Local(CloseCode::NONE, String::new())));
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Peer(CloseCode::NONE, String::new())));
}

// DWCP-8.2: the peer's messages and the streams of both are waited for.
#[test]
fn drain_waits() {
    let mut pair = Pair::new();
    let id = pair.ends[SERVER].open_stream().unwrap();
    write(&mut pair.ends[SERVER], id, b"last words");
    pair.ends[SERVER].message_send(NOW, Priority::Bulk, Bytes::from_static(b"farewell")).unwrap();
    pair.ends[CLIENT].drain();
    assert_eq!(pair.ends[CLIENT].open_stream(), Err(OpenError::Draining));
    pair.exchange();
    pair.exchange_acks();
    assert_eq!(pair.ends[SERVER].open_stream(), Err(OpenError::Draining));
    assert!(pair.ends[CLIENT].closed().is_none(), "a stream is open");
    for side in [CLIENT, SERVER] {
        pair.ends[side].stream_finish(id).unwrap();
    }
    pair.exchange();
    assert_eq!(read_all(&mut pair.ends[CLIENT], id), (b"last words".to_vec(), Read::End));
    assert_eq!(read_all(&mut pair.ends[SERVER], id), (Vec::new(), Read::End));
    for _ in 0..4 {
        pair.exchange_acks();
    }
    assert_eq!(pair.ends[CLIENT].closed(), Some(&Closed::Local(CloseCode::NONE, String::new())));
    assert_eq!(pair.ends[CLIENT].message_receive().unwrap().payload, "farewell");
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Peer(CloseCode::NONE, String::new())));
}

// DWCP-8.2: a message on a lost link is not forgotten by the drain.
#[test]
fn drain_survives_a_lost_link() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].message_send(NOW, Priority::Normal, Bytes::from_static(b"kept")).unwrap();
    pair.ends[CLIENT].drain();
    pair.send(CLIENT, 0);
    pair.lose_link(0);
    assert!(pair.ends[CLIENT].closed().is_none());
    pair.add_link(1);
    pair.exchange();
    assert_eq!(pair.ends[SERVER].message_receive().unwrap().payload, "kept");
}

// DWCP-8.2: the CLOSE of a finished drain is lost with its link; the other side knows what that means.
#[test]
fn drain_with_a_lost_close() {
    let mut pair = Pair::new();
    pair.ends[CLIENT].drain();
    pair.exchange();
    pair.ends[SERVER].handle_timeout(NOW + Duration::from_millis(20));
    pair.send(SERVER, 0);
    pair.deliver(SERVER, 0);
    assert_lines(&pair.send(CLIENT, 0), "C 0 Close len=4");
    pair.ends[SERVER].link_lost(NOW, LinkId(0));
    pair.ends[SERVER].give_up();
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Peer(CloseCode::NONE, String::new())));
}

// DWCP-8.3
#[test]
fn idle_timeout() {
    let mut config = crate::support::config(dwcp_proto::conn::Role::Client, &crate::support::capabilities());
    config.idle_timeout = Some(Duration::from_secs(2));
    let mut client = dwcp_proto::conn::Connection::new(config, NOW);
    assert!(client.link_added(NOW, LinkId(0)));
    client.message_send(NOW + Duration::from_secs(1), Priority::Bulk, Bytes::new()).unwrap();
    client.handle_timeout(NOW + Duration::from_secs(2));
    assert_eq!(client.closed(), None);
    assert_eq!(client.poll_timeout(), Some(NOW + Duration::from_secs(3)));
    client.handle_timeout(NOW + Duration::from_secs(3));
    assert_eq!(client.closed(), Some(&Closed::Idle));
}

// DWCP-8.2: a stream that the peer opened and reset, and that nobody took, is reset in the other direction by the drain.
#[test]
fn drain_answers_a_reset_stream() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    pair.ends[CLIENT].stream_reset(id, 7);
    pair.exchange();
    pair.ends[SERVER].drain();
    let lines = pair.exchange();
    assert_eq!(pair.ends[CLIENT].stream_read(NOW, id), Read::Reset(7));
    assert_lines(
        &(lines + &pair.exchange_acks() + &pair.exchange_acks()),
        "S 0 StreamsMax stream=101
         S 0 Drain
         S 0 Reset stream=1 len=4
         S 0 LinkAck offset=1
         C 0 LinkAck offset=2
         C 0 Drain stream=1
         S 0 Drain stream=1
         S 0 LinkAck offset=2
         C 0 LinkAck offset=3
         S 0 Close len=4",
    );
    assert_eq!(pair.ends[SERVER].closed(), Some(&Closed::Local(CloseCode::NONE, String::new())));
    assert_eq!(pair.ends[CLIENT].closed(), Some(&Closed::Peer(CloseCode::NONE, String::new())));
}

// DWCP-8.2: a stream that the peer opened and gave up before the application took it does not hold up the end, whether
// it came before the drain or during it, and whoever drains.
#[test]
fn drain_refuses_streams_that_were_given_up() {
    for drains in [CLIENT, SERVER] {
        let mut pair = Pair::new();
        let [early, late] = [0; 2].map(|_| {
            let id = pair.ends[CLIENT].open_stream().unwrap();
            write(&mut pair.ends[CLIENT], id, b"never mind");
            id
        });
        pair.ends[CLIENT].stream_reset(early, 7);
        pair.exchange();
        pair.ends[drains].drain();
        pair.exchange();
        pair.ends[CLIENT].stream_reset(late, 8);
        pair.ends[CLIENT].stream_stop(late, 8);
        pair.exchange();
        assert_eq!(pair.ends[CLIENT].stream_read(NOW, early), Read::Reset(7), "the answer is given up, too");
        for _ in 0..3 {
            pair.exchange_acks();
        }
        assert_eq!(pair.ends[SERVER].accept_stream(), None);
        for end in &pair.ends {
            assert!(
                matches!(
                    end.closed(),
                    Some(Closed::Local(CloseCode::NONE, _) | Closed::Peer(CloseCode::NONE, _))
                ),
                "{:?}",
                end.closed()
            );
        }
    }
}

// DWCP-8.2: what the peer finished is still for the application, and so is a stream that it has taken.
#[test]
fn drain_keeps_streams_that_can_be_read() {
    let mut pair = Pair::new();
    let [finished, taken] = [0; 2].map(|_| pair.ends[CLIENT].open_stream().unwrap());
    write(&mut pair.ends[CLIENT], taken, b"x");
    pair.exchange();
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(finished));
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(taken));
    let finished = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], finished, b"read me");
    pair.ends[CLIENT].stream_finish(finished).unwrap();
    pair.ends[CLIENT].stream_reset(taken, 9);
    pair.ends[SERVER].drain();
    pair.exchange();
    assert_eq!(pair.ends[SERVER].stream_read(NOW, taken), Read::Reset(9));
    assert!(pair.ends[SERVER].stream_is_open(taken));
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(finished));
    assert_eq!(read_all(&mut pair.ends[SERVER], finished).0, b"read me");
    assert!(pair.ends.iter().all(|end| end.closed().is_none()));
}
