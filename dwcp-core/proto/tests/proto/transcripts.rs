//! The protocol as it is spoken: who sends what, in which order.

use crate::support::{CLIENT, NOW, Pair, SERVER, assert_lines, read_all, write};
use bytes::Bytes;
use dwcp_proto::conn::{Event, Incoming, OpenError, Priority, Read, ResponseStatus, SendError};

// DWCP-5.1, DWCP-5.3, DWCP-5.4, DWCP-6.2
#[test]
fn a_stream_from_open_to_end() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, b"question");
    pair.ends[CLIENT].stream_finish(id).unwrap();
    assert_lines(
        &pair.exchange(),
        "C 0 Data stream=1 len=8
         C 0 Data stream=1 offset=8 FIN",
    );
    assert_eq!(
        pair.events(SERVER),
        [Event::StreamIncoming, Event::StreamReadable(1), Event::StreamReadable(1)]
    );
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(1));
    assert_eq!(read_all(&mut pair.ends[SERVER], 1), (b"question".to_vec(), Read::End));
    write(&mut pair.ends[SERVER], 1, b"answer");
    pair.ends[SERVER].stream_finish(1).unwrap();
    // The acknowledgement travels with what is sent anyway.
    assert_lines(
        &pair.exchange(),
        "S 0 Data stream=1 len=6
         S 0 Data stream=1 offset=6 FIN
         S 0 LinkAck offset=2",
    );
    assert_eq!(read_all(&mut pair.ends[CLIENT], 1), (b"answer".to_vec(), Read::End));
    assert!(pair.events(CLIENT).contains(&Event::StreamAcknowledged(1)));
    assert_eq!(pair.events(SERVER), []);
    assert_lines(
        &pair.exchange_acks(),
        "C 0 LinkAck offset=2
         S 0 StreamsMax stream=101",
    );
    assert_eq!(pair.events(SERVER), [Event::StreamAcknowledged(1)]);
    assert_eq!([pair.ends[CLIENT].queued(), pair.ends[SERVER].queued()], [0, 0]);
}

// DWCP-2.4, DWCP-5.2: the links deliver the second stream first; both are open then.
#[test]
fn a_higher_stream_opens_the_lower_ones() {
    let mut pair = Pair::new();
    pair.add_link(1);
    let [first, second] = [0; 2].map(|_| pair.ends[CLIENT].open_stream().unwrap());
    write(&mut pair.ends[CLIENT], first, b"one");
    assert_lines(&pair.send(CLIENT, 0), "C 0 Data stream=1 len=3");
    write(&mut pair.ends[CLIENT], second, b"two");
    assert_lines(&pair.send(CLIENT, 1), "C 1 Data stream=3 len=3");
    pair.deliver(CLIENT, 1);
    let server = &mut pair.ends[SERVER];
    assert_eq!(
        [server.accept_stream(), server.accept_stream(), server.accept_stream()],
        [Some(1), Some(3), None]
    );
    assert_eq!(server.stream_read(NOW, 1), Read::Blocked);
    assert_eq!(read_all(server, 3).0, b"two");
    pair.deliver(CLIENT, 0);
    assert_eq!(read_all(&mut pair.ends[SERVER], 1).0, b"one");
}

// DWCP-5.3: frames are submitted in any order and sent in order of offset.
#[test]
fn frames_leave_in_order() {
    let mut pair = Pair::new();
    let client = &mut pair.ends[CLIENT];
    let id = client.open_stream().unwrap();
    let rooms: Vec<_> = (0..3).map(|_| client.stream_reserve(id, 4).unwrap()).collect();
    client.stream_finish(id).unwrap();
    let frame = |index: usize| dwcp_proto::conn::StreamFrame {
        offset: rooms[index].offset,
        raw_len: 4,
        codec: Default::default(),
        payload: Bytes::from_static(b"abcd"),
        payload_crc: None,
    };
    for index in [2, 1] {
        client.stream_submit(NOW, id, frame(index));
        assert!(!client.wants_transmit());
        client.assert_invariants();
    }
    client.stream_submit(NOW, id, frame(0));
    assert_lines(
        &pair.exchange(),
        "C 0 Data stream=1 len=4
         C 0 Data stream=1 offset=4 len=4
         C 0 Data stream=1 offset=8 len=4
         C 0 Data stream=1 offset=12 FIN",
    );
}

// DWCP-5.5: RESET settles the credit of what never arrives.
#[test]
fn a_reset_stream() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, &[1; 1000]);
    assert_lines(&pair.send(CLIENT, 0), "C 0 Data stream=1 len=1000");
    write(&mut pair.ends[CLIENT], id, &[2; 500]);
    pair.ends[CLIENT].stream_reset(id, 9);
    assert_lines(&pair.exchange(), "C 0 Reset stream=1 offset=1500 len=4");
    let server = &mut pair.ends[SERVER];
    assert_eq!(server.accept_stream(), Some(1));
    assert_eq!(server.unread_bytes(), 0);
    assert_eq!(server.stream_read(NOW, 1), Read::Reset(9));
    assert_eq!(pair.ends[CLIENT].stream_reserve(id, 1), Err(SendError::Finished));
}

// DWCP-5.6: STOP is answered with RESET.
#[test]
fn a_stopped_stream() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    write(&mut pair.ends[CLIENT], id, &[1; 1000]);
    pair.exchange();
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(1));
    pair.ends[SERVER].stream_stop(1, 5);
    write(&mut pair.ends[CLIENT], id, &[1; 10]);
    assert_lines(
        &pair.exchange(),
        "C 0 Data stream=1 offset=1000 len=10
         S 0 Stop stream=1 len=4
         S 0 LinkAck offset=2
         C 0 Reset stream=1 offset=1010 len=4
         C 0 LinkAck offset=1",
    );
    assert!(pair.events(CLIENT).contains(&Event::StreamStopped(1, 5)));
    assert_eq!(pair.ends[SERVER].stream_read(NOW, 1), Read::Closed);
}

// DWCP-5.6: the application hears of a STOP that came before it had the stream.
#[test]
fn a_stream_stopped_before_it_is_accepted() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].open_stream().unwrap();
    pair.ends[CLIENT].stream_stop(id, 6);
    pair.exchange();
    assert_eq!(pair.events(SERVER), [Event::StreamIncoming, Event::StreamAcknowledged(1)]);
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(1));
    assert_eq!(pair.events(SERVER), [Event::StreamStopped(1, 6)]);
}

// DWCP-5.10: a closed stream makes room for another.
#[test]
fn streams_max() {
    let mut pair =
        Pair::with(&dwcp_proto::hello::Capabilities { streams_max: 1, ..crate::support::capabilities() });
    let client = &mut pair.ends[CLIENT];
    let id = client.open_stream().unwrap();
    assert_eq!(client.open_stream(), Err(OpenError::Blocked));
    client.stream_reset(id, 0);
    client.stream_stop(id, 0);
    pair.exchange();
    assert_eq!(pair.ends[SERVER].accept_stream(), Some(1));
    assert_eq!(pair.ends[SERVER].stream_read(NOW, 1), Read::Reset(0));
    assert_lines(&pair.exchange(), "S 0 StreamsMax stream=2");
    assert!(pair.events(CLIENT).contains(&Event::StreamsAvailable));
    assert_eq!(pair.ends[CLIENT].open_stream(), Ok(3));
}

// DWCP-7.5, DWCP-7.7: request and response; the peer learns the deadline.
#[test]
fn a_request() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].request_send(NOW, Priority::Normal, 250, Bytes::from_static(b"?")).unwrap();
    assert_lines(&pair.exchange(), "C 0 Request stream=250 len=1 priority=1");
    assert_eq!(pair.events(SERVER), [Event::MessagesReadable]);
    let server = &mut pair.ends[SERVER];
    let request = server.message_receive().unwrap();
    let payload = Bytes::from_static(b"?");
    assert_eq!(
        request,
        Incoming { priority: Priority::Normal, request: Some(id), deadline_ms: 250, payload }
    );
    for _ in 0..2 {
        // The second answer is one too many, and stays here.
        server.respond(NOW, id, ResponseStatus::Error, Bytes::from_static(b"!")).unwrap();
    }
    assert_lines(
        &pair.exchange(),
        "S 0 Response stream=1 len=1 priority=1
         S 0 LinkAck offset=1",
    );
    assert_eq!(pair.events(CLIENT), [Event::Response(id, ResponseStatus::Error, Bytes::from_static(b"!"))]);
}

// DWCP-7.1: each priority has a sequence of its own, which requests share; what arrives is delivered at once.
#[test]
fn messages_on_two_links() {
    let mut pair = Pair::new();
    pair.add_link(1);
    let client = &mut pair.ends[CLIENT];
    client.message_send(NOW, Priority::Bulk, Bytes::from_static(b"bulk")).unwrap();
    client.message_send(NOW, Priority::Normal, Bytes::from_static(b"first")).unwrap();
    assert_lines(
        &pair.send(CLIENT, 0),
        "C 0 Message len=5 priority=1
         C 0 Message len=4 priority=2",
    );
    let client = &mut pair.ends[CLIENT];
    client.request_send(NOW, Priority::Normal, 0, Bytes::from_static(b"second")).unwrap();
    client.message_send(NOW, Priority::Normal, Bytes::from_static(b"third")).unwrap();
    assert_lines(
        &pair.send(CLIENT, 1),
        "C 1 Request offset=1 len=6 priority=1
         C 1 Message offset=2 len=5 priority=1",
    );
    let mut received = Vec::new();
    for link in [1, 0] {
        pair.deliver(CLIENT, link);
        let waiting = std::iter::from_fn(|| pair.ends[SERVER].message_receive());
        received.push(waiting.map(|message| message.payload).collect::<Vec<_>>());
    }
    assert_eq!(received, [["second", "third"], ["first", "bulk"]]);
}

// DWCP-7.6: a cancelled request is answered by the protocol.
#[test]
fn a_cancelled_request() {
    let mut pair = Pair::new();
    let id = pair.ends[CLIENT].request_send(NOW, Priority::Control, 0, Bytes::new()).unwrap();
    pair.exchange();
    pair.ends[CLIENT].request_cancel(id);
    assert_lines(
        &pair.exchange(),
        "C 0 Cancel
         S 0 Response stream=2
         S 0 LinkAck offset=2",
    );
    assert_eq!(pair.events(SERVER), [Event::MessagesReadable, Event::RequestCancelled(id)]);
    assert_eq!(pair.events(CLIENT), []);
    let late = pair.ends[SERVER].respond(NOW, id, ResponseStatus::Ok, Bytes::new());
    assert_eq!(late, Ok(()), "nobody waits for it, nothing happens");
    assert_lines(&pair.exchange_acks(), "C 0 LinkAck offset=1");
}

// DWCP-7.6: the cancellation is faster than its request, which the application then never sees.
#[test]
fn a_cancellation_overtakes() {
    let mut pair = Pair::new();
    let client = &mut pair.ends[CLIENT];
    let id = client.request_send(NOW, Priority::Normal, 0, Bytes::from_static(b"?")).unwrap();
    client.request_cancel(id);
    assert_lines(
        &pair.exchange(),
        "C 0 Cancel priority=1
         C 0 Request len=1 priority=1
         S 0 Response stream=2 priority=1
         S 0 LinkAck offset=2",
    );
    assert_eq!(pair.ends[SERVER].message_receive(), None);
    assert_eq!(pair.events(CLIENT), []);
}

// DWCP-7.8: small messages that wait share a frame; a request or a large message ends it.
#[test]
fn batched_messages() {
    let mut pair = Pair::new();
    let client = &mut pair.ends[CLIENT];
    for text in ["a", "bc", ""] {
        client.message_send(NOW, Priority::Normal, Bytes::from_static(text.as_bytes())).unwrap();
    }
    client.request_send(NOW, Priority::Normal, 0, Bytes::from_static(b"?")).unwrap();
    client.message_send(NOW, Priority::Normal, Bytes::from_static(b"d")).unwrap();
    client.message_send(NOW, Priority::Normal, vec![0; 2000].into()).unwrap();
    assert_lines(
        &pair.exchange(),
        "C 0 Message stream=3 len=15 priority=1
         C 0 Request offset=1 len=1 priority=1
         C 0 Message offset=2 len=1 priority=1
         C 0 Message offset=3 len=2000 priority=1",
    );
    let lens: Vec<_> = std::iter::from_fn(|| pair.ends[SERVER].message_receive())
        .map(|message| message.payload.len())
        .collect();
    assert_eq!(lens, [1, 2, 0, 1, 1, 2000]);
}
