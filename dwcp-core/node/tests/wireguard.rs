//! WireGuard between network namespaces, with traffic: in user space, and by the kernel where it has it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use dwcp_lab::namespace::Namespace;
use dwcp_node::wireguard::{
    Config, Error, Implementation, Interface, KeyStore, POLL_INTERVAL, Peer, PeerStatus, PrivateKey,
    PublicKey,
};

mod support;

const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];
const MTU: u32 = 1440;
/// Of half a second each at least. A handshake that failed is tried again after 5 s.
const ATTEMPTS: usize = 60;
/// The same time, for a change of keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

fn key() -> PrivateKey {
    PrivateKey::generate().expect("randomness")
}

fn peer(at: usize, public_keys: &[PublicKey]) -> Peer {
    Peer {
        name: format!("node{at}"),
        public_keys: public_keys.to_vec(),
        preshared_key: None,
        endpoint: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1 + at as u8)), 51820)),
        allowed_ips: vec![format!("{}/32", INSIDE[at]).parse().expect("a network")],
        keepalive_s: Some(5),
    }
}

fn config(at: usize, peers: Vec<Peer>) -> Config {
    Config { addresses: vec![(INSIDE[at].into(), 24)], peers, ..Config::new(MTU) }
}

/// Two nodes, each of which knows the other.
struct Net {
    namespaces: [Namespace; 2],
    keys: [PrivateKey; 2],
    interfaces: [Interface; 2],
}

impl Net {
    fn new(implementation: Implementation) -> Option<Self> {
        Self::with(implementation, [key(), key()], |peers| peers)
    }

    fn with(
        implementation: Implementation,
        keys: [PrivateKey; 2],
        change: impl Fn(Vec<Peer>) -> Vec<Peer>,
    ) -> Option<Self> {
        let namespaces = support::pair(1500)?;
        let mut interfaces = Vec::new();
        for at in 0..2 {
            let other = 1 - at;
            let config = config(at, change(vec![peer(other, &[keys[other].public_key()])]));
            match namespaces[at].enter(|| Interface::open_with(implementation, &config, &keys[at])) {
                Err(error @ Error::KernelWithout) => {
                    eprintln!("SKIP: {error}");
                    return None;
                }
                interface => interfaces.push(interface.expect("an interface")),
            }
        }
        let interfaces = interfaces.try_into().expect("two");
        Some(Self { namespaces, keys, interfaces })
    }

    fn sockets(&self) -> [UdpSocket; 2] {
        [0, 1].map(|at| {
            let socket = self.namespaces[at].enter(|| UdpSocket::bind((INSIDE[at], 0))).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
            socket
        })
    }

    /// A datagram of so many bytes, there and back.
    fn passes(&self, bytes: usize, attempts: usize) -> bool {
        let [one, other] = self.sockets();
        let to = other.local_addr().expect("an address");
        let mut received = vec![0; 70_000];
        (0..attempts).any(|_| {
            one.send_to(&vec![7; bytes], to).is_ok()
                && matches!(other.recv_from(&mut received), Ok((length, from)) if length == bytes
                    && other.send_to(&received[..length], from).is_ok())
                && matches!(one.recv_from(&mut received), Ok((length, _)) if length == bytes)
        })
    }

    fn set_peers(&mut self, at: usize, peers: &[Peer]) {
        let interface = &mut self.interfaces[at];
        self.namespaces[at].enter(|| interface.set_peers(peers)).expect("peers are set");
    }

    /// The other node, as this one sees it.
    fn status(&mut self, at: usize) -> PeerStatus {
        let interface = &mut self.interfaces[at];
        self.namespaces[at].enter(|| interface.peers()).expect("they are told").remove(0)
    }

    /// As a daemon does while keys are changed.
    fn poll_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for (namespace, interface) in self.namespaces.iter().zip(&mut self.interfaces) {
                namespace.enter(|| interface.poll()).expect("polled");
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Until the node sends to the other under this key.
    fn poll_until_sent_under(&mut self, at: usize, key: PublicKey) {
        let end = Instant::now() + HANDSHAKE_MAX;
        while self.status(at).public_key != key {
            assert!(Instant::now() < end, "no handshake under the new key: {:?}", self.status(at));
            self.poll_for(POLL_INTERVAL);
        }
    }
}

/// So many bytes over TCP, verified, with `meanwhile` in the middle of it.
fn stream_passes(namespaces: &[Namespace; 2], bytes: usize, meanwhile: impl FnOnce()) {
    let listener = namespaces[1].enter(|| TcpListener::bind((INSIDE[1], 0))).expect("a socket");
    let to = listener.local_addr().expect("an address");
    let block: Vec<u8> =
        (0..1u32 << 16).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let blocks = bytes / block.len();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listener.accept().expect("accepted").0;
            let mut received = vec![0; block.len()];
            for _ in 0..blocks {
                stream.read_exact(&mut received).expect("read");
                assert!(received == block, "what arrives is what was sent");
            }
            assert_eq!(stream.read(&mut received).expect("the end"), 0);
        });
        scope.spawn(|| {
            let mut stream = namespaces[0].enter(|| TcpStream::connect(to)).expect("connected");
            for _ in 0..blocks {
                stream.write_all(&block).expect("written");
            }
        });
        thread::sleep(Duration::from_millis(200));
        meanwhile();
    });
}

fn both(test: fn(Implementation)) {
    for implementation in [Implementation::UserSpace, Implementation::Kernel] {
        println!("{implementation:?}");
        test(implementation);
    }
}

#[test]
fn data_and_packets_of_the_full_mtu_pass() {
    both(|implementation| {
        let Some(mut net) = Net::new(implementation) else { return };
        assert!(net.passes(MTU as usize - 28, ATTEMPTS), "a packet of the whole MTU");
        stream_passes(&net.namespaces, 8 << 20, || ());
        let status = net.status(0);
        assert_eq!((status.name.as_str(), status.public_key), ("node1", net.keys[1].public_key()));
        assert!(
            status.handshake_age.is_some() && status.tx_bytes > 8 << 20 && status.rx_bytes > 0,
            "{status:?}"
        );
        net.set_peers(1, &[]);
        assert!(!net.passes(100, 2), "who is not in the list is not heard");
    });
}

#[test]
fn a_wrong_key_carries_nothing() {
    both(|implementation| {
        let wrong = key().public_key();
        let change =
            |peers: Vec<Peer>| peers.into_iter().map(|p| Peer { public_keys: vec![wrong], ..p }).collect();
        let Some(mut net) = Net::with(implementation, [key(), key()], change) else { return };
        assert!(!net.passes(100, 2));
        assert_eq!((net.status(0).handshake_age, net.status(0).rx_bytes), (None, 0));
        // The right keys, and one side alone with a secret.
        let secret = Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().expect("a key"));
        let [one, other] = [0, 1].map(|at| peer(at, &[net.keys[at].public_key()]));
        net.set_peers(0, &[Peer { preshared_key: secret.clone(), ..other }]);
        net.set_peers(1, std::slice::from_ref(&one));
        assert!(!net.passes(100, 2));
        net.set_peers(1, &[Peer { preshared_key: secret, ..one }]);
        assert!(net.passes(100, ATTEMPTS), "both with it");
    });
}

#[test]
fn packets_from_elsewhere_than_the_allowed_addresses_are_dropped() {
    both(|implementation| {
        let Some(net) = Net::new(implementation) else { return };
        assert!(net.passes(100, ATTEMPTS));
        net.namespaces[0].ip(&["addr add 10.99.0.77/24 dev dwcp-wg0"]).expect("a further address");
        let [_, other] = net.sockets();
        let forger = net.namespaces[0].enter(|| UdpSocket::bind("10.99.0.77:0")).expect("a socket");
        forger.send_to(b"forged", other.local_addr().expect("an address")).expect("sent");
        assert!(other.recv_from(&mut [0; 100]).is_err(), "it is not behind the peer that sent it");
        assert!(net.passes(100, ATTEMPTS), "which goes on");
    });
}

/// All steps of a change of keys of the nodes in `who`, while traffic flows.
fn rotate(net: &mut Net, who: &[usize]) {
    let next = [key(), key()];
    let keys = [0, 1].map(|at| net.keys[at].public_key());
    for &at in who {
        net.set_peers(1 - at, &[peer(at, &[keys[at], next[at].public_key()])]);
    }
    for &at in who {
        let interface = &mut net.interfaces[at];
        net.namespaces[at].enter(|| interface.set_key(&next[at])).expect("the key is set");
        net.keys[at] = next[at].clone();
    }
    for &at in who {
        net.poll_until_sent_under(1 - at, next[at].public_key());
        net.set_peers(1 - at, &[peer(at, &[next[at].public_key()])]);
    }
    net.poll_for(Duration::from_millis(300));
}

#[test]
fn a_connection_outlives_changes_of_keys() {
    both(|implementation| {
        let Some(mut net) = Net::new(implementation) else { return };
        assert!(net.passes(100, ATTEMPTS));
        thread::scope(|scope| {
            let listener = net.namespaces[1].enter(|| TcpListener::bind((INSIDE[1], 0))).expect("a socket");
            let to = listener.local_addr().expect("an address");
            let mut writer = net.namespaces[0].enter(|| TcpStream::connect(to)).expect("connected");
            let mut reader = listener.accept().expect("accepted").0;
            let writing = scope.spawn(move || {
                let mut sent = 0u64;
                let stop = Instant::now() + Duration::from_secs(6);
                let block: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
                while Instant::now() < stop {
                    writer.write_all(&block).expect("written");
                    sent += block.len() as u64;
                }
                sent
            });
            let reading = scope.spawn(move || {
                let mut received = 0u64;
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let count = reader.read(&mut buffer).expect("read");
                    if count == 0 {
                        return received;
                    }
                    for byte in &buffer[..count] {
                        assert_eq!(*byte, received as u8, "what arrives is what was sent");
                        received += 1;
                    }
                }
            });
            for who in [&[0][..], &[1], &[0, 1]] {
                rotate(&mut net, who);
            }
            assert_eq!(writing.join().expect("no panic"), reading.join().expect("no panic"));
        });
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn in_user_space_a_change_of_keys_loses_no_packet() {
    let Some(mut net) = Net::new(Implementation::UserSpace) else { return };
    assert!(net.passes(100, ATTEMPTS));
    let [one, other] = net.sockets();
    let [to_one, to_other] = [&one, &other].map(|socket| socket.local_addr().expect("an address"));
    let stop = AtomicBool::new(false);
    let send = |socket: &UdpSocket, to: SocketAddr| {
        let mut number = 0u32;
        while !stop.load(Ordering::Acquire) {
            socket.send_to(&number.to_le_bytes(), to).expect("sent");
            number += 1;
            // A receiver that is not run for a third of a second has them all in its buffer.
            thread::sleep(Duration::from_millis(1));
        }
        number
    };
    // Until nothing comes for half a second, after the last.
    let receive = |socket: &UdpSocket| {
        let (mut count, mut buffer) = (0u32, [0; 4]);
        loop {
            let last = stop.load(Ordering::Acquire);
            match socket.recv_from(&mut buffer) {
                Ok(_) => count += 1,
                Err(_) if last => return count,
                Err(_) => {}
            }
        }
    };
    thread::scope(|scope| {
        // Set also when a rotation fails: otherwise the test would wait for its threads, and say nothing.
        let stop = SetOnDrop(&stop);
        let sending = [scope.spawn(|| send(&one, to_other)), scope.spawn(|| send(&other, to_one))];
        let receiving = [scope.spawn(|| receive(&other)), scope.spawn(|| receive(&one))];
        for who in [&[0][..], &[1], &[0, 1]] {
            rotate(&mut net, who);
        }
        drop(stop);
        let sent = sending.map(|thread| thread.join().expect("no panic"));
        let received = receiving.map(|thread| thread.join().expect("no panic"));
        assert_eq!(sent, received);
        assert!(sent.iter().all(|&count| count > 100), "{sent:?}");
    });
}

#[test]
fn keys_on_disk_lead_through_a_rotation_and_a_restart_at_each_step() {
    both(|implementation| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wireguard.json");
        let mut store = KeyStore::open(&path).expect("made");
        let Some(mut net) = Net::with(implementation, [store.private_key().clone(), key()], |peers| peers)
        else {
            return;
        };
        assert!(net.passes(100, ATTEMPTS));
        let other = peer(1, &[net.keys[1].public_key()]);
        for step in 0..3 {
            match step {
                0 => drop(store.announce(SystemTime::now()).expect("announced")),
                1 => assert!(store.switch(SystemTime::now()).expect("it is time")),
                _ => {}
            }
            // Killed after the step: the interface is opened anew with what is on disk.
            store = KeyStore::open(&path).expect("opened");
            net.set_peers(1, &[peer(0, &store.public_keys())]);
            let Net { namespaces, mut interfaces, keys } = net;
            let kept = interfaces[1].implementation();
            let [one, two] = interfaces;
            drop(one);
            let config = config(0, vec![other.clone()]);
            let one = namespaces[0].enter(|| Interface::open_with(kept, &config, store.private_key()));
            interfaces = [one.expect("opened"), two];
            net = Net { namespaces, interfaces, keys };
            let mut passes = || {
                net.poll_for(Duration::from_millis(300));
                net.passes(100, 1)
            };
            assert!((0..ATTEMPTS).any(|_| passes()), "after step {step}");
        }
        let Net { namespaces, interfaces: [one, two], .. } = net;
        namespaces[0].enter(|| one.remove()).expect("removed");
        assert!(namespaces[0].ip(&["link show dwcp-wg0"]).is_err(), "it is gone");
        drop(two);
    });
}

#[test]
fn a_device_that_somebody_removes_is_reported() {
    let Some(mut net) = Net::new(Implementation::UserSpace) else { return };
    assert!(net.passes(100, ATTEMPTS));
    net.namespaces[0].ip(&["link del dwcp-wg0"]).expect("removed");
    let mut gone = || net.namespaces[0].enter(|| net.interfaces[0].poll()).is_err();
    let end = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < end, "it is told");
        thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn an_interface_that_is_not_ours_and_a_port_in_use_are_refused() {
    let Some(namespace) = support::namespace() else { return };
    namespace.ip(&["link add dwcp-wg0 type bridge"]).expect("made");
    let config = config(0, Vec::new());
    let result = namespace.enter(|| Interface::open_with(Implementation::UserSpace, &config, &key()));
    assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
    namespace.ip(&["link del dwcp-wg0"]).expect("it was left");
    let taken = namespace.enter(|| UdpSocket::bind("[::]:51820")).expect("a socket");
    let result = namespace.enter(|| Interface::open(&config, &key()));
    let error = result.expect_err("the port is taken").to_string();
    assert!(error.contains("another WireGuard has the port"), "{error}");
    assert!(namespace.ip(&["link show dwcp-wg0"]).is_err(), "nothing is left");
    drop(taken);
    namespace.enter(|| Interface::open(&config, &key())).expect("now it is free");
}
