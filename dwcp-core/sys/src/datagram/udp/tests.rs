use std::time::{Duration, Instant};

use super::*;

const LOOPBACK: &str = "127.0.0.1:0";

fn bind(address: &str) -> UdpDatagrams {
    UdpDatagrams::bind(address.parse().unwrap()).unwrap()
}

/// Waits until so many datagrams have come.
fn receive(socket: &UdpDatagrams, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let (begin, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} of {count} came", all.len());
        let (before, mut given) = (all.len(), 0);
        match socket.recv(&mut |source, bytes| all.push((source, bytes.to_vec()))) {
            Ok(count) => given = count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert_eq!(all.len() - before, given);
    }
    all
}

#[test]
fn the_kernels_joining_is_in_use_here_and_nothing_depends_on_it() {
    let (with, receiver) = (bind(LOOPBACK), bind(LOOPBACK));
    assert_eq!(with.features(), Features { gro: true, gso: true });
    let without = bind(LOOPBACK);
    without.gso.store(false, Ordering::Relaxed);
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let datagrams = vec![Outgoing { to: receiver.local_addr(), bytes: &bytes }; 100];
    for (sender, at_once) in [(&with, 100), (&without, send::PACKETS)] {
        assert_eq!(sender.send(&datagrams).unwrap(), at_once);
        // The hundred are two packets, more than one call receives otherwise.
        let received = receiver.recv(&mut |source, got| {
            assert_eq!((source, got == bytes), (sender.local_addr(), true));
        });
        assert_eq!(received.unwrap(), at_once);
    }
}

#[test]
fn a_socket_of_both_families_speaks_of_ipv4_as_ipv4() {
    let Ok(both) = UdpDatagrams::bind("[::]:0".parse().unwrap()) else {
        println!("SKIP: no IPv6 here");
        return;
    };
    let port = both.local_addr().port();
    for ip in ["127.0.0.1", "::1"] {
        let other = UdpDatagrams::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        other.send(&[Outgoing { to: SocketAddr::new(ip.parse().unwrap(), port), bytes: b"there" }]).unwrap();
        assert_eq!(receive(&both, 1), [(other.local_addr(), b"there".to_vec())]);
        both.send(&[Outgoing { to: other.local_addr(), bytes: b"back" }]).unwrap();
        assert_eq!(receive(&other, 1), [(SocketAddr::new(ip.parse().unwrap(), port), b"back".to_vec())]);
    }
    let only = UdpDatagrams::bind("[::1]:0".parse().unwrap()).unwrap();
    let v4 = UdpDatagrams::bind(SocketAddr::new("127.0.0.1".parse().unwrap(), only.local_addr().port()));
    v4.expect("the same port of IPv4 is free");
}

#[test]
fn what_cannot_be_sent_is_the_first_ones_error_and_those_before_it_go() {
    let (sender, receiver) = (bind(LOOPBACK), bind(LOOPBACK));
    let (good, long) = (vec![1; 100], vec![2; 65_508]);
    let to = receiver.local_addr();
    let both = [Outgoing { to, bytes: &good }, Outgoing { to, bytes: &long }];
    assert_eq!(sender.send(&both).unwrap(), 1);
    assert_eq!(sender.send(&both[1..]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(sender.send(&[]).unwrap(), 0);
    let v6 = Outgoing { to: "[::1]:1".parse().unwrap(), bytes: &good };
    assert_eq!(sender.send(&[v6, both[0]]).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
    assert_eq!(receive(&receiver, 1).len(), 1);
    assert!(sender.features().gso, "an error of a datagram is none of GSO");
}

#[test]
fn empty_datagrams_and_the_longest_arrive() {
    let (sender, receiver) = (bind(LOOPBACK), bind(LOOPBACK));
    let longest = vec![3; 65_507];
    let lengths = [0, 1, 0, 65_507, 2, 1, 1, 0];
    let datagrams = lengths.map(|length| Outgoing { to: receiver.local_addr(), bytes: &longest[..length] });
    assert_eq!(sender.send(&datagrams).unwrap(), datagrams.len());
    let got: Vec<_> = receive(&receiver, datagrams.len()).iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(got, lengths);
}

#[test]
fn what_is_dropped_is_counted() {
    let (sender, receiver) = (bind(LOOPBACK), bind(LOOPBACK));
    let bytes = vec![0; 60_000];
    let mut sent = 0;
    while receiver.dropped().unwrap() == 0 {
        sent += sender.send(&[Outgoing { to: receiver.local_addr(), bytes: &bytes }]).unwrap();
        assert!(sent < 10_000, "a buffer of {RECEIVE_BUFFER_BYTES} bytes is full at some time");
    }
    assert_eq!(receive(&receiver, sent - 1).len(), sent - 1);
}

#[test]
fn the_error_of_an_address_in_use_says_which_call_failed() {
    let taken = bind(LOOPBACK);
    let error = UdpDatagrams::bind(taken.local_addr()).unwrap_err();
    assert_eq!((error.call, error.source.kind()), ("bind", io::ErrorKind::AddrInUse));
}
