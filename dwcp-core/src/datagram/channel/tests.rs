//! A channel whose peer is made here.

use std::sync::mpsc;

use dwcp_proto::{
    conn::Role,
    hello::{ConnectionId, JoinToken},
};
use dwcp_sys::datagram::UdpDatagrams;

use super::*;
use crate::datagram::probing::send_due;

const DEADLINE: Duration = Duration::from_secs(60);
const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const FROM_ANY: SocketAddr = SocketAddr::new(FROM.ip(), 0);

// DATAGRAM-7.2, DATAGRAM-7.6: ignored, and what follows is taken as ever.
#[tokio::test]
async fn authentic_datagrams_without_a_meaning_are_ignored() {
    let keys = |role| ConnectionKeys::new(role, None, ConnectionId([1; 16]), JoinToken([2; 16]));
    let client = keys(Role::Client);
    let interval = Duration::from_secs(1);
    let service = Service::new(interval);
    let channel = Arc::new(Channel::new(service, keys(Role::Server), FROM, interval, 1472));
    let mut send = SendFlow::new(client.send_flow, client.sealing, Limits::default());
    let (mut answers, mut drops) = (Vec::new(), Drops::default());
    let mut arrives = |ty, content: &[u8]| {
        let mut datagram = Vec::new();
        send.seal(ty, content, &mut datagram).unwrap();
        let (header, _) = DatagramHeader::decode(&datagram).unwrap();
        channel.take((FROM, 0), &header, &mut datagram[HEADER_LEN..], &mut answers, &mut drops);
        (answers.len(), drops.count(DropReason::Unknown))
    };
    assert_eq!(arrives(DatagramType::Optional(0x81), b"of the future"), (0, 1));
    assert_eq!(arrives(DatagramType::Probe, &[0; ANSWER_LEN - 1]), (0, 2));
    assert_eq!(arrives(DatagramType::ProbeReply, &[0; ANSWER_LEN + 1]), (0, 3));
    assert_eq!(arrives(DatagramType::Probe, &[0; ANSWER_LEN]), (1, 3));
    assert_eq!(arrives(DatagramType::ProbeReply, &[7; ANSWER_LEN]), (1, 3), "to what was never sent");
    assert_eq!(arrives(DatagramType::Message, b"as ever"), (1, 3));
    assert_eq!(channel.queue(DatagramKind::Message).pop().await.unwrap()[..], *b"as ever");
    assert_eq!(channel.totals().1, 6);
}

// A peer that has us answer many probes, and answers none of ours, uses our key up.
#[tokio::test]
async fn without_a_key_probing_goes_on_at_its_pace() {
    let interval = Duration::from_secs(3600);
    let service = Service::new(interval);
    service.add(Arc::new(UdpDatagrams::bind(FROM_ANY).unwrap())).unwrap();
    let keys = || ConnectionKeys::new(Role::Client, None, ConnectionId([1; 16]), JoinToken([2; 16]));
    let channel = Arc::new(Channel::new(service, keys(), FROM, interval, 1472));
    let limits = Limits { per_key_max: 1, reserved: 0, ..Limits::default() };
    lock(&channel.sending).as_mut().unwrap().flow = SendFlow::new(1, keys().sealing, limits);
    let (done, is_done) = mpsc::sync_channel(1);
    let probing = Arc::clone(&channel);
    // Not of the runtime, which would wait for it if it did not end.
    std::thread::spawn(move || {
        send_due(&probing);
        probing.answered(0); // so there is a round trip, and the MTU is looked for
        send_due(&probing);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(DEADLINE).expect("the task lets others run");
    let prober = lock(&channel.prober);
    assert_eq!(prober.counts(), (1, 1), "only what was sent is counted");
    assert!(prober.poll_timeout() >= interval / 2, "{:?}", prober.poll_timeout());
}
