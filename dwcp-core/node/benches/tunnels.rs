//! What TCP carries between two network namespaces of this machine: plain, in VXLAN, and in WireGuard. One after the
//! other, so many rounds; both ends share the processors. Needs root.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use dwcp_lab::namespace::Namespace;
use dwcp_node::{
    mtu::{self, Underlay},
    vxlan,
    wireguard::{Config, Implementation, Interface, Peer, PrivateKey},
};

#[path = "../tests/support/mod.rs"]
mod support;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);

fn end(net: u8, at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, net, 0, 1 + at as u8)
}

fn main() {
    let Some(namespaces) = support::pair(1500) else { return };
    println!("kernel {}", std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim());
    for (at, namespace) in namespaces.iter().enumerate() {
        let config = vxlan::Config {
            peers: vec![end(77, 1 - at).into()],
            ..vxlan::Config::new(IpAddr::V4(end(77, at)), 1500)
        };
        namespace.enter(|| vxlan::reconcile(&config)).expect("VXLAN");
        namespace
            .ip(&[&format!("addr add {}/24 dev {}", end(78, at), vxlan::INTERFACE)])
            .expect("an address");
    }
    let user_space = wireguard(&namespaces, Implementation::UserSpace);
    let mut paths = vec![("veth", 77), ("VXLAN", 78)];
    match user_space {
        Ok(_) => paths.push(("WireGuard in user space", 99)),
        Err(ref error) => println!("SKIP: {error}"),
    }
    for round in 1..=ROUNDS {
        for (name, net) in &paths {
            println!("round {round}: {name}: {:.0} Mbit/s", carried(&namespaces, *net));
        }
    }
}

fn wireguard(namespaces: &[Namespace; 2], implementation: Implementation) -> Result<Vec<Interface>, String> {
    let keys = [0; 2].map(|_| PrivateKey::generate().expect("randomness"));
    let open = |at: usize| {
        let other = 1 - at;
        let peer = Peer {
            name: "other".to_owned(),
            public_keys: vec![keys[other].public_key()],
            preshared_key: None,
            endpoint: Some(SocketAddr::new(end(77, other).into(), 51820)),
            allowed_ips: vec!["10.99.0.0/24".parse().expect("a network")],
            keepalive_s: None,
        };
        let config = Config {
            addresses: vec![(end(99, at).into(), 24)],
            peers: vec![peer],
            ..Config::new(mtu::wireguard(1500, Underlay::V4))
        };
        let opened = namespaces[at].enter(|| Interface::open_with(implementation, &config, &keys[at]));
        opened.map_err(|error| error.to_string())
    };
    (0..2).map(open).collect()
}

/// In Mbit/s.
fn carried(namespaces: &[Namespace; 2], net: u8) -> f64 {
    let listener = namespaces[1].enter(|| TcpListener::bind((end(net, 1), 0))).expect("a socket");
    let to = listener.local_addr().expect("an address");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = namespaces[0].enter(|| TcpStream::connect(to)).expect("connected");
            let (block, start) = (vec![0x5a; 128 << 10], Instant::now());
            while start.elapsed() < TIME {
                stream.write_all(&block).expect("written");
            }
        });
        let mut stream = listener.accept().expect("accepted").0;
        let (mut bytes, mut buffer, start) = (0, vec![0; 256 << 10], Instant::now());
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => return bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6,
                count => bytes += count,
            }
        }
    })
}
