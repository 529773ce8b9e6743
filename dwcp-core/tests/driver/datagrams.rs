//! Datagrams of two endpoints over loopback: delivered once or never, whatever the network between does.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dwcp_core::{
    BindError, Connection, DatagramError, DatagramKind, Endpoint, EndpointConfig, PathStats,
    datagram_socket::{DatagramSocket as _, UdpDatagrams},
};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

use crate::{
    hostile::Authority,
    links::DEADLINE,
    relay::{Faults, Relay, RelayedSocket},
    support::{assert_works, config, connect},
};

const LOCALHOST: &str = "127.0.0.1:0";

fn settings(name: &str) -> EndpointConfig {
    let mut config = config(name, 2);
    config.datagrams.probe_interval = Duration::from_millis(20);
    config
}

fn udp() -> Arc<UdpDatagrams> {
    Arc::new(UdpDatagrams::bind(LOCALHOST.parse().unwrap()).unwrap())
}

async fn listen(mut config: EndpointConfig) -> (Endpoint, SocketAddr) {
    config.datagrams.listen = Some(LOCALHOST.parse().unwrap());
    crate::support::listen(config).await
}

/// A connection between two endpoints that take datagrams; the endpoints too, client first.
async fn pair_of(client: EndpointConfig, server: EndpointConfig) -> ([Endpoint; 2], [Connection; 2]) {
    let (server, addr) = listen(server).await;
    let client = Endpoint::client(client).unwrap();
    client.add_datagram_socket(udp()).unwrap();
    let (a, b) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    ([client, server], [a.unwrap(), b.unwrap()])
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

/// Waits until the path is as wanted.
async fn path_becomes(connection: &Connection, wanted: impl Fn(&PathStats) -> bool) -> PathStats {
    let waiting = async {
        loop {
            match connection.path() {
                Some(path) if wanted(&path) => return path,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let result = timeout(DEADLINE, waiting).await;
    result.unwrap_or_else(|_| panic!("never became so: {:?}", connection.path()))
}

async fn assert_datagrams_work(a: &Connection, b: &Connection) {
    for (from, to) in [(a, b), (b, a)] {
        let (send, recv) = (from.datagrams().unwrap(), to.datagrams().unwrap());
        for kind in [DatagramKind::Message, DatagramKind::Gossip] {
            send.send(kind, b"content").unwrap();
            assert_eq!(within(recv.recv(kind)).await.unwrap()[..], *b"content");
            send.send(kind, b"").unwrap();
            assert_eq!(within(recv.recv(kind)).await.unwrap()[..], *b"");
        }
    }
}

// DATAGRAM-4.1, DATAGRAM-4.2, DATAGRAM-7.1, DATAGRAM-7.2
#[tokio::test]
async fn datagrams_go_both_ways_and_the_path_is_measured() {
    let (_endpoints, [a, b]) = pair_of(settings("client"), settings("server")).await;
    assert_datagrams_work(&a, &b).await;
    for end in [&a, &b] {
        let path = path_becomes(end, |path| path.probes_answered > 10 && path.mtu > 8000).await;
        let rtt = path.rtt.unwrap();
        assert!(rtt.min <= rtt.smoothed && rtt.min > Duration::ZERO && rtt.min < Duration::from_secs(1));
        assert_eq!((path.loss_ratio, path.mtu), (0.0, 9000));
        assert!(path.datagrams_sent > 20 && path.datagrams_received > 20, "{path:?}");
        assert_eq!(path.reordered, 0);
    }
    // As long as can be.
    let (send, recv) = (a.datagrams().unwrap(), b.datagrams().unwrap());
    let longest = vec![7; send.max_len()];
    assert_eq!(longest.len(), 8972 - 24 - 16);
    send.send(DatagramKind::Message, &longest).unwrap();
    assert_eq!(within(recv.recv(DatagramKind::Message)).await.unwrap()[..], longest[..]);
    let error = send.send(DatagramKind::Message, &[&longest[..], &[7]].concat()).unwrap_err();
    assert!(matches!(error, DatagramError::TooLarge { len: 8933, max: 8932 }), "{error}");
    // More at once than a batch, and than the receiver is given by GRO in one piece.
    let contents: Vec<_> = (0..100_u32).map(|number| number.to_le_bytes()).collect();
    let contents: Vec<_> = contents.iter().map(|content| &content[..]).collect();
    assert_eq!(send.send_all(DatagramKind::Gossip, &contents).unwrap(), 64);
    assert_eq!(send.send_all(DatagramKind::Gossip, &contents[64..]).unwrap(), 36);
    for content in contents {
        assert_eq!(within(recv.recv(DatagramKind::Gossip)).await.unwrap()[..], *content);
    }
    assert_works(&a, &b).await;
}

// DATAGRAM-6.5
#[tokio::test]
async fn with_tls() {
    let authority = Authority::new("ca");
    let node = |name: &str| {
        let mut config = authority.node(name, &authority);
        config.datagrams.probe_interval = Duration::from_millis(20);
        config
    };
    let (_endpoints, [a, b]) = pair_of(node("client"), node("localhost")).await;
    assert_datagrams_work(&a, &b).await;
    path_becomes(&b, |path| path.probes_answered > 3).await;
}

// DATAGRAM-4.1
#[tokio::test]
async fn a_side_without_datagrams_has_a_connection_as_ever() {
    let (with, addr) = listen(settings("server")).await;
    let (a, b) = connect(&with, addr, settings("client")).await;
    assert!(a.datagrams().is_none() && b.datagrams().is_none() && a.path().is_none());
    assert_works(&a, &b).await;
    let (without, addr) = crate::support::listen(settings("server")).await;
    let client = Endpoint::client(settings("client")).unwrap();
    client.add_datagram_socket(udp()).unwrap();
    let (a, b) = tokio::join!(client.connect(addr, "localhost"), without.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.datagrams().is_none() && b.datagrams().is_none());
    assert_works(&a, &b).await;
}

#[tokio::test]
async fn misuse_is_named() {
    let mut config = settings("client");
    config.datagrams.listen = Some(LOCALHOST.parse().unwrap());
    let error = Endpoint::client(config.clone()).unwrap_err();
    assert!(error.to_string().contains("add_datagram_socket"), "{error}");
    config.datagrams.listen = Some("0.0.0.0:0".parse().unwrap());
    let refused = Endpoint::listen(LOCALHOST.parse().unwrap(), config.clone()).await.unwrap_err();
    assert!(matches!(refused, BindError::PlaintextNotAllowed { .. }), "{refused}");
    let taken = udp();
    config.datagrams.listen = Some(taken.local_addr());
    let refused = Endpoint::listen(LOCALHOST.parse().unwrap(), config.clone()).await.unwrap_err();
    assert!(refused.to_string().starts_with("bind 127.0.0.1:"), "{refused}");
    config.datagrams.probe_interval = Duration::from_millis(9);
    assert_eq!(config.validate().unwrap_err().key, "datagrams.probe_interval");
}

// DATAGRAM-4.5: whoever waits is told, flows are gone, and the endpoint's tasks end.
#[tokio::test]
async fn datagrams_end_with_their_connection() {
    let ([client, server], [a, b]) = pair_of(settings("client"), settings("server")).await;
    let flows = |endpoint: &Endpoint| endpoint.watch_datagram_flows().borrow().clone();
    let (of_client, of_server) = (flows(&client), flows(&server));
    assert_eq!((of_client.len(), of_server.len()), (1, 1));
    assert!(of_client.is_disjoint(&of_server), "each direction has its own");
    let (sender, receiver) = (a.datagrams().unwrap(), b.datagrams().unwrap());
    let waiting = tokio::spawn({
        let receiver = receiver.clone();
        async move { receiver.recv(DatagramKind::Message).await }
    });
    let mut known = server.watch_datagram_flows();
    a.close(0, "");
    within(known.wait_for(HashSet::is_empty)).await.unwrap();
    assert!(within(waiting).await.unwrap().is_err());
    assert!(receiver.recv(DatagramKind::Gossip).await.is_err());
    within(client.watch_datagram_flows().wait_for(HashSet::is_empty)).await.unwrap();
    let error = sender.send(DatagramKind::Message, b"late").unwrap_err();
    assert!(matches!(error, DatagramError::Connection(_)), "{error}");
    assert!(a.path().is_none());
    drop((a, b, sender, receiver));
    let addr = server.datagram_addr().unwrap();
    for endpoint in [client, server] {
        endpoint.shutdown(Duration::from_secs(1)).await;
    }
    // Nothing holds the socket any more: its port is free.
    within(async {
        while UdpDatagrams::bind(addr).is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

// DATAGRAM-4.2: neither keys nor flows nor addresses change with the links.
#[tokio::test]
async fn links_come_and_go_and_datagrams_go_on() {
    let ([client, _server], [a, b]) = pair_of(settings("client"), settings("server")).await;
    crate::links::links_up(&a, 2).await;
    let flows = client.watch_datagram_flows().borrow().clone();
    let before = a.path().unwrap();
    for _ in 0..3 {
        let id = a.stats().links.first().map(|link| link.id);
        id.into_iter().for_each(|id| a.retire_link(id));
        sleep(Duration::from_millis(150)).await;
    }
    assert_datagrams_work(&a, &b).await;
    assert_eq!(*client.watch_datagram_flows().borrow(), flows);
    assert_eq!(a.path().unwrap().peer, before.peer);
}

/// A connection whose datagrams go through a relay, of which both ends are told that it is the peer.
async fn relayed(
    seed: u64,
    client: EndpointConfig,
    server: EndpointConfig,
) -> (Relay, [Endpoint; 2], [Connection; 2]) {
    let [at_client, at_server] = [udp(), udp()];
    let relay = Relay::start(at_client.local_addr(), at_server.local_addr(), seed).await;
    let (server, addr) = crate::support::listen(server).await;
    server.add_datagram_socket(Arc::new(RelayedSocket { inner: at_server, relay: relay.front })).unwrap();
    let client = Endpoint::client(client).unwrap();
    client.add_datagram_socket(Arc::new(RelayedSocket { inner: at_client, relay: relay.back })).unwrap();
    let (a, b) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    (relay, [client, server], [a.unwrap(), b.unwrap()])
}

/// Sends numbers one way until `until` says so; returns how many were sent.
async fn send_numbers(from: &Connection, until: impl Fn(u32) -> bool) -> u32 {
    let datagrams = from.datagrams().unwrap();
    let mut number = 0_u32;
    while !until(number) {
        let content: Vec<u8> = number.to_le_bytes().repeat(1 + number as usize % 40);
        datagrams.send(DatagramKind::Message, &content).unwrap();
        number += 1;
        if number.is_multiple_of(32) {
            sleep(Duration::from_millis(1)).await; // the relay has a buffer only so large
        }
    }
    number
}

/// Receives numbers until none comes for a while: each once, and as it was sent.
async fn receive_numbers(at: Connection, seed: u64) -> HashSet<u32> {
    let datagrams = at.datagrams().unwrap();
    let mut received = HashSet::new();
    while let Ok(datagram) = timeout(Duration::from_millis(300), datagrams.recv(DatagramKind::Message)).await
    {
        let datagram = datagram.unwrap();
        let number = u32::from_le_bytes(*datagram.first_chunk().unwrap());
        assert_eq!(datagram, number.to_le_bytes().repeat(1 + number as usize % 40), "seed {seed}: altered");
        assert!(received.insert(number), "seed {seed}: {number} was delivered twice");
    }
    received
}

fn seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

// DATAGRAM-1.2, DATAGRAM-4.3, DATAGRAM-5.1, DATAGRAM-5.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_each_is_delivered_once_or_never() {
    let seed = seed();
    let (relay, _endpoints, [a, b]) = relayed(seed, settings("client"), settings("server")).await;
    path_becomes(&a, |path| path.probes_answered > 0).await;
    *relay.faults.lock().unwrap() =
        Faults { lose: 5, repeat: 20, reorder: 20, replay: 30, alter: 20, invent: 20 };
    for (from, to) in [(&a, &b), (&b, &a)] {
        let receiving = tokio::spawn(receive_numbers(to.clone(), seed));
        let sent = send_numbers(from, |number| number == 5000).await;
        let received = receiving.await.unwrap();
        assert!(received.iter().all(|number| *number < sent), "seed {seed}: invented");
        let share = received.len() as f64 / f64::from(sent);
        assert!((0.85..0.99).contains(&share), "seed {seed}: {share} of all were delivered");
        assert!(to.path().unwrap().reordered > 100, "seed {seed}: {:?}", to.path());
    }
    *relay.faults.lock().unwrap() = Faults::default();
    assert_datagrams_work(&a, &b).await;
}

// DATAGRAM-6.2, DATAGRAM-6.3: keys change under load, with loss and reordering, and nothing but what the network lost is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load() {
    let seed = seed();
    let (relay, _endpoints, [a, b]) = relayed(seed, settings("client"), settings("server")).await;
    path_becomes(&a, |path| path.probes_answered > 0).await;
    *relay.faults.lock().unwrap() = Faults { reorder: 30, repeat: 10, ..Faults::default() };
    let receiving = tokio::spawn(receive_numbers(b.clone(), seed));
    let datagrams = a.datagrams().unwrap();
    let updates = std::cell::Cell::new(0);
    let sent = send_numbers(&a, |number| {
        updates.set(updates.get() + u32::from(datagrams.update_key()));
        updates.get() >= 20 && number > 2000
    })
    .await;
    let received = receiving.await.unwrap();
    // The relay may hold the last one.
    assert!(received.len() as u32 >= sent - 1, "seed {seed}: {} of {sent}", received.len());
    assert!(!datagrams.update_key() || !datagrams.update_key(), "never twice without an answer");
}

// DATAGRAM-4.2, DATAGRAM-4.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_followed() {
    let seed = seed();
    let (relay, _endpoints, [a, b]) = relayed(seed, settings("client"), settings("server")).await;
    let told = path_becomes(&b, |path| path.probes_answered > 3).await.peer;
    assert_eq!(told, relay.back);
    relay.moves.store(true, Ordering::SeqCst);
    let moved = path_becomes(&b, |path| path.peer != told && path.probes_answered > 6).await.peer;
    assert_eq!(a.path().unwrap().peer, relay.front, "of the other end nothing has changed");
    assert_datagrams_work(&a, &b).await;
    // Replayed and forged ones from elsewhere move nobody.
    let stranger = UdpSocket::bind(LOCALHOST).await.unwrap();
    let passed: Vec<_> = relay.passed.lock().unwrap()[0].iter().rev().take(50).cloned().collect();
    for datagram in passed {
        stranger.send_to(&datagram, relay.server).await.unwrap();
        let mut forged = datagram.clone();
        forged[22] = 1;
        stranger.send_to(&forged, relay.server).await.unwrap();
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(b.path().unwrap().peer, moved);
    let answer = timeout(Duration::from_millis(50), stranger.recv(&mut [0; 100])).await;
    assert!(answer.is_err(), "a stranger gets no answer");
}

// DATAGRAM-7.3, DATAGRAM-7.4, DATAGRAM-7.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_length_of_the_path_are_found() {
    let seed = seed();
    let (relay, _endpoints, [a, _b]) = relayed(seed, settings("client"), settings("server")).await;
    path_becomes(&a, |path| path.mtu == 9000).await;
    *relay.faults.lock().unwrap() = Faults { lose: 30, ..Faults::default() };
    // Probe and answer: 1 - 0.7 * 0.7.
    path_becomes(&a, |path| (0.4..0.6).contains(&path.loss_ratio)).await;
    *relay.faults.lock().unwrap() = Faults::default();
    path_becomes(&a, |path| path.loss_ratio == 0.0).await;
    // One step of the search that is not carried, and so only three probes that are waited for in vain.
    const CARRIED: u32 = 8911;
    relay.len_max.store(CARRIED.into(), Ordering::SeqCst);
    let path = path_becomes(&a, |path| (CARRIED + 28 - 16..=CARRIED + 28).contains(&path.mtu)).await;
    assert_eq!(a.datagrams().unwrap().max_len(), path.mtu as usize - 28 - 40);
}
