use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::datagram::packet::LinkPath;

fn interface(mtu: usize) -> Interface {
    Interface { name: "eth0".into(), index: 2, mtu }
}

#[test]
fn chunks_hold_the_interfaces_packets_or_the_error_says_what_would_fit() {
    assert_eq!(chunk_bytes(&interface(1500)).unwrap(), 2048);
    assert_eq!(chunk_bytes(&interface(1770)).unwrap(), 2048);
    assert_eq!(chunk_bytes(&interface(1771)).unwrap(), 4096);
    assert_eq!(chunk_bytes(&interface(3818)).unwrap(), 4096);
    let error = chunk_bytes(&interface(9000)).unwrap_err();
    assert!(matches!(error, XdpError::Mtu { mtu: 9000, most: 3818, .. }));
    assert!(error.to_string().contains("ip link set dev eth0 mtu 3818"), "{error}");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let local = "192.0.2.2:8889".parse().unwrap();
    let error = XdpDatagrams::open("there-is-no-such-interface", 0, local).unwrap_err();
    assert!(error.to_string().contains("there-is-no-such-interface"), "{error}");
}

/// Runs a test with a socket at one end of a veth pair, in a network namespace of its own.
fn with_socket(local: &str, test: impl FnOnce(&XdpDatagrams) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: namespaces need root");
        return;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for command in ["link add near type veth peer name far", "link set near up", "link set far up"] {
                assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "{command}");
            }
            match XdpDatagrams::open("near", 0, local.parse().unwrap()) {
                Err(why @ (XdpError::KernelWithoutXdp | XdpError::NotPermitted)) => println!("SKIP: {why}"),
                socket => test(&socket.unwrap()),
            }
        });
    });
}

#[test]
fn without_a_free_chunk_sending_would_block_and_goes_on_when_there_is_one() {
    with_socket("192.0.2.2:8889", |socket| {
        let to: SocketAddr = "192.0.2.1:8889".parse().unwrap();
        let outgoing = [Outgoing { to, bytes: &[0x5a; 100] }; 10];
        assert_eq!(socket.send(&outgoing).unwrap_err().kind(), io::ErrorKind::HostUnreachable);
        let path = LinkPath::new([2; 6], [4; 6], &[]).unwrap();
        let learn = || {
            let route = Route { path, from: socket.local_addr() };
            lock(&socket.neighbors).learn(to.ip(), route, Instant::now());
        };
        learn();
        let chunks = std::mem::take(&mut lock(&socket.send).free);
        assert_eq!(chunks.len(), SEND_CHUNKS as usize);
        assert_eq!(socket.send(&outgoing).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        lock(&socket.send).free = chunks[..3].to_vec();
        assert_eq!(socket.send(&outgoing).unwrap(), 3, "as many as there is room for");
        // Nobody fetches them, so they come back, and the ring goes round with three chunks.
        let (begin, mut sent) = (Instant::now(), 0);
        while sent < 3 * SEND_CHUNKS {
            assert!(begin.elapsed() < Duration::from_secs(10), "{sent} went");
            sent += socket.send(&outgoing).map_or(0, |count| count as u32);
        }
        assert_eq!(socket.counters().unwrap(), XdpCounters::default());
    });
}

#[test]
fn an_address_of_the_link_names_the_interface() {
    with_socket("[::]:8889", |socket| {
        let index = socket.interface.index;
        assert_eq!(socket.scoped("[fe80::1]:1".parse().unwrap()).to_string(), format!("[fe80::1%{index}]:1"));
        for other in ["[2001:db8::1]:1", "192.0.2.1:1"] {
            assert_eq!(socket.scoped(other.parse().unwrap()).to_string(), other);
        }
    });
}
