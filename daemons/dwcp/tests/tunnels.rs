//! Agents in network namespaces (root) that make tunnels between regions: WireGuard, VXLAN over it, keys that change, an
//! agent that is killed.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use dwcp_lab::namespace::Namespace;
use novacron_control::{
    Method,
    schema::{Node, Tunnels},
};
use support::{Agent, wait_until};

/// Two namespaces with a wire between them: 192.0.2.1 and 192.0.2.2.
fn wire() -> [Namespace; 2] {
    let ends = [(); 2].map(|()| Namespace::create().expect("a namespace"));
    ends[0]
        .ip(&[&format!("link add wire type veth peer name wire netns {}", ends[1].path().display())])
        .expect("a veth pair");
    for (n, end) in ends.iter().enumerate() {
        end.ip(&[&format!("addr add 192.0.2.{}/24 dev wire", n + 1), "link set wire up"])
            .expect("an address");
    }
    ends
}

fn start(folder: &Path, place: &Namespace, n: usize, rotation: &str) -> Agent {
    start_at(folder, place, n, rotation, &format!("10.99.0.{}/24", n + 1))
}

/// `inside`: its address in WireGuard.
fn start_at(folder: &Path, place: &Namespace, n: usize, rotation: &str, inside: &str) -> Agent {
    let name = ["a", "b"][n];
    let listen = [8888, 8889].map(|port| format!("192.0.2.{}:{port}", n + 1));
    let file = |kind: &str| folder.join(format!("{name}.{kind}.json")).to_str().expect("UTF-8").to_owned();
    let settings = [
        ("allow_plaintext", "true"),
        ("region", ["eu", "us"][n]),
        ("listen", &listen[0]),
        ("datagrams.listen", &listen[1]),
        ("peers", "192.0.2.1:8888,192.0.2.2:8888"),
        ("wireguard.address", inside),
        ("wireguard.keys", &file("keys")),
        ("wireguard.rotation", rotation),
        ("tunnels.state", &file("tunnels")),
        ("vxlan.local", "wireguard"),
    ];
    Agent::start_with(folder, name, &settings, |command| place.confine(command))
}

fn tunnels(agent: &Agent) -> Tunnels {
    agent.get("/v1/tunnels")
}

/// What is wrong.
fn reason(tunnels: &Tunnels) -> Option<String> {
    let of_wireguard = tunnels.wireguard.as_ref().and_then(|wireguard| wireguard.error.clone());
    of_wireguard.or_else(|| tunnels.vxlan.as_ref().and_then(|vxlan| vxlan.error.clone()))
}

/// Whether this kernel has what tunnels need; what else is wrong is no reason to pass the test over.
fn can_have_tunnels(agent: &Agent) -> bool {
    wait_until("it tells of its tunnels", || tunnels(agent).wireguard.is_some());
    let Some(reason) = reason(&tunnels(agent)) else { return true };
    let missing = ["open /dev/net/tun", "this kernel has no VXLAN"];
    if missing.iter().any(|missing| reason.contains(missing)) {
        println!("SKIP: {reason}");
        return false;
    }
    true
}

fn mtu(place: &Namespace, interface: &str) -> Option<u32> {
    let mut command = Command::new("ip");
    place.confine(command.args(["link", "show", "dev", interface]));
    let said = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
    said.split_once(" mtu ")?.1.split(' ').next()?.parse().ok()
}

fn greeted(agent: &Agent) -> bool {
    let wireguard = tunnels(agent).wireguard;
    wireguard.is_some_and(|one| one.peers.iter().any(|peer| peer.handshake_age_seconds.is_some()))
}

/// Bytes go from one to the other, at this address.
fn assert_carries(ends: &[Namespace; 2], at: &str) {
    let listener = ends[0].enter(|| TcpListener::bind(format!("{at}:0"))).expect("a listener");
    let place = listener.local_addr().expect("an address");
    let mut client =
        ends[1].enter(|| TcpStream::connect_timeout(&place, Duration::from_secs(30))).expect("a connection");
    let sent: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let (mut server, _) = listener.accept().expect("a connection");
    let sending = sent.clone();
    let sender = thread::spawn(move || client.write_all(&sending).expect("sent"));
    let mut received = Vec::new();
    server.read_to_end(&mut received).expect("received");
    sender.join().expect("no failure");
    assert!(received == sent);
}

#[test]
fn nodes_of_two_regions_have_tunnels_that_outlive_keys_and_agents() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ends = wire();
    let mut agents = [0, 1].map(|n| start(folder.path(), &ends[n], n, "10s"));
    if !can_have_tunnels(&agents[0]) {
        return;
    }
    wait_until("there was a handshake", || agents.iter().all(greeted));
    assert_eq!(tunnels(&agents[0]).refused, []);
    for (n, end) in ends.iter().enumerate() {
        wait_until("VXLAN has its peer", || {
            tunnels(&agents[n]).vxlan.is_some_and(|vxlan| vxlan.peers.len() == 1)
        });
        end.ip(&[&format!("addr add 10.100.0.{}/24 dev dwcp-vx100", n + 1)]).expect("an address");
    }
    assert_carries(&ends, "10.99.0.1");
    assert_carries(&ends, "10.100.0.1");

    // They go by what carries them, there and then.
    ends[0].ip(&["route add default via 192.0.2.2 dev wire", "link set wire mtu 1450"]).expect("set");
    wait_until("tunnels go by the uplink", || {
        mtu(&ends[0], "dwcp-wg0") == Some(1450 - 80) && mtu(&ends[0], "dwcp-vx100") == Some(1450 - 80 - 50)
    });
    assert_carries(&ends, "10.100.0.1");

    let key = |agent: &Agent| tunnels(agent).wireguard.expect("it is on").end.public_keys[0].clone();
    let first = key(&agents[0]);
    wait_until("its key has changed", || key(&agents[0]) != first);
    let next = key(&agents[0]);
    wait_until("the other sends under the next key", || {
        tunnels(&agents[1]).wireguard.is_some_and(|one| one.peers.iter().any(|peer| peer.public_key == next))
    });
    assert_carries(&ends, "10.100.0.1");

    // One comes back after a crash, and knows who the other was before it hears of it. Its keys are those of before.
    let [a, b] = agents;
    a.kill();
    agents = [start(folder.path(), &ends[0], 0, "off"), b];
    wait_until("it has its tunnels", || greeted(&agents[0]));
    // WireGuard in user space has ended with the agent, and VXLAN with it: its address is who set it's to set again.
    wait_until("VXLAN is there", || mtu(&ends[0], "dwcp-vx100").is_some());
    let _ = ends[0].ip(&["addr add 10.100.0.1/24 dev dwcp-vx100"]);
    assert_carries(&ends, "10.100.0.1");

    agents[0].ask(Method::POST, "/v1/tunnels/remove", None).expect("accepted");
    wait_until("they are removed", || reason(&tunnels(&agents[0])).is_some());
    let greeting = agents[0].get::<Node>("/v1/node").greeting;
    assert!(
        greeting.tunnels.wireguard.is_none() && greeting.tunnels.vxlan.is_none(),
        "nobody is told of them"
    );
    wait_until("the other has none to it", || {
        tunnels(&agents[1]).vxlan.is_some_and(|one| one.peers.is_empty())
    });
    assert!(ends[0].ip(&["link show dev dwcp-vx100"]).is_err());
    assert!(ends[0].ip(&["link show dev dwcp-wg0"]).is_err());
}

#[test]
fn an_interface_that_is_not_ours_is_left_alone_and_told_of() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ends = wire();
    ends[0].ip(&["link add dwcp-vx100 type veth peer name other"]).expect("an interface");
    let agent = start(folder.path(), &ends[0], 0, "off");
    wait_until("it tells why", || {
        tunnels(&agent).vxlan.and_then(|vxlan| vxlan.error).is_some_and(|why| why.contains("not ours"))
    });
    ends[0].ip(&["link show dev other"]).expect("it is still there");
}

#[test]
fn what_somebody_removed_is_there_again_and_a_port_that_was_busy_is_taken_when_it_is_free() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ends = wire();
    let other = ends[0].enter(|| UdpSocket::bind("0.0.0.0:51820")).expect("a port");
    let agents = [0, 1].map(|n| start(folder.path(), &ends[n], n, "off"));
    if !can_have_tunnels(&agents[0]) {
        return;
    }
    let why = reason(&tunnels(&agents[0])).expect("its port is busy");
    assert!(why.contains("another WireGuard has the port"), "{why}");
    let vxlan = tunnels(&agents[0]).vxlan.expect("it is on");
    assert!(vxlan.error.as_ref().is_some_and(|why| why.contains("WireGuard is not up")), "{vxlan:?}");
    assert_eq!(mtu(&ends[0], "dwcp-vx100"), None, "it goes nowhere else");
    drop(other);
    wait_until("there was a handshake", || agents.iter().all(greeted));
    assert_eq!(reason(&tunnels(&agents[0])), None);

    ends[0].ip(&["link del dwcp-vx100", "link del dwcp-wg0"]).expect("removed");
    wait_until("they are there again", || {
        ["dwcp-vx100", "dwcp-wg0"].iter().all(|name| mtu(&ends[0], name).is_some())
    });
    assert_carries(&ends, "10.99.0.1");
    wait_until("and that is told", || reason(&tunnels(&agents[0])).is_none());
}

#[test]
fn what_is_to_go_through_wireguard_never_goes_beside_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ends = wire();
    for (n, end) in ends.iter().enumerate() {
        end.ip(&[&format!("addr add fd77::{}/64 dev wire nodad", n + 1)]).expect("an address");
    }
    ends[0].ip(&["route add default via fd77::2 dev wire"]).expect("a way out");
    let agents = [0, 1].map(|n| start_at(folder.path(), &ends[n], n, "off", &format!("fd99::{}/64", n + 1)));
    if !can_have_tunnels(&agents[0]) {
        return;
    }
    wait_until("there was a handshake", || agents.iter().all(greeted));
    wait_until("VXLAN has its peer", || tunnels(&agents[0]).vxlan.is_some_and(|one| one.peers.len() == 1));
    ends[0].ip(&["addr add fd64::1/64 dev dwcp-vx100 nodad"]).expect("an address");
    let [a, b] = agents;
    let in_kernel =
        tunnels(&a).wireguard.is_some_and(|wireguard| wireguard.implementation.as_deref() == Some("kernel"));
    a.kill();
    b.kill();
    if in_kernel {
        ends.iter().for_each(|end| end.ip(&["link del dwcp-wg0"]).expect("removed"));
    }
    // Whoever is at the other end of the wire takes what comes out.
    let _ = ends[1].ip(&["link del dwcp-vx100"]);
    ends[1].ip(&["addr add fd99::2/128 dev lo"]).expect("an address");
    let sniffer = ends[1].enter(|| UdpSocket::bind("[fd99::2]:4789")).expect("a port");
    sniffer.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let sender = ends[0].enter(|| UdpSocket::bind("[::]:0")).expect("a socket");
    for _ in 0..5 {
        // Asks all peers who has this address.
        let _ = sender.send_to(b"a secret", "[fd64::2]:9");
        thread::sleep(Duration::from_millis(100));
    }
    sender.send_to(b"the end", "[fd99::2]:4789").expect("there is a way out");
    let mut seen = [0; 2048];
    let length = sniffer.recv(&mut seen).expect("the end is seen");
    assert_eq!(&seen[..length], b"the end", "and nothing else");
    assert_eq!(mtu(&ends[0], "dwcp-vx100"), None, "it went with WireGuard");
}

#[test]
fn wireguard_comes_when_its_keys_can_be_read() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ends = wire();
    let keys = folder.path().join("a.keys.json");
    std::fs::write(&keys, "half a ke").expect("written");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("set");
    let agents = [0, 1].map(|n| start(folder.path(), &ends[n], n, "off"));
    if !can_have_tunnels(&agents[1]) {
        return;
    }
    let wireguard = || tunnels(&agents[0]).wireguard;
    wait_until("it tells why", || {
        wireguard().and_then(|one| one.error).is_some_and(|why| why.contains("damaged"))
    });
    assert_eq!(wireguard().map(|one| one.end.public_keys), Some(vec![]));
    assert!(agents[0].get::<Node>("/v1/node").greeting.tunnels.wireguard.is_none(), "nobody is told of it");
    std::fs::remove_file(&keys).expect("removed");
    wait_until("there was a handshake", || agents.iter().all(greeted));
    assert_eq!(reason(&tunnels(&agents[0])), None);
}

/// Between the two ends of a wire there is a router, behind which packets of 1400 bytes fit.
fn routed() -> [Namespace; 3] {
    let [a, b, router] = [(); 3].map(|()| Namespace::create().expect("a namespace"));
    for (n, end) in [&a, &b].into_iter().enumerate() {
        end.ip(&[&format!("link add wire type veth peer name to{n} netns {}", router.path().display())])
            .expect("a veth pair");
        end.ip(&[&format!("addr add 192.0.{}.2/24 dev wire", 2 + n), "link set wire up"])
            .expect("an address");
        end.ip(&[&format!("route add default via 192.0.{}.1", 2 + n)]).expect("a route");
        router
            .ip(&[&format!("addr add 192.0.{}.1/24 dev to{n}", 2 + n), &format!("link set to{n} up")])
            .expect("an address");
    }
    router.ip(&["link set to1 mtu 1400"]).expect("an MTU");
    router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("it forwards");
    [a, b, router]
}

#[test]
fn tunnels_go_by_what_the_path_has_proved_to_carry() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [a, b, _router] = routed();
    let ends = [a, b];
    let agents = [0, 1].map(|n| {
        let place = |port: u16| format!("192.0.{}.2:{port}", 2 + n);
        let name = ["a", "b"][n];
        let file = |kind: &str| folder.path().join(format!("{name}.{kind}")).display().to_string();
        let settings = [
            ("allow_plaintext", "true"),
            ("region", ["eu", "us"][n]),
            ("listen", &place(8888)),
            ("datagrams.listen", &place(8889)),
            ("datagrams.probe_interval", "50ms"),
            ("peers", "192.0.2.2:8888,192.0.3.2:8888"),
            ("wireguard.address", &format!("10.99.0.{}/24", n + 1)),
            ("wireguard.keys", &file("keys")),
            ("tunnels.state", &file("tunnels")),
            ("vxlan.local", "wireguard"),
        ];
        Agent::start_with(folder.path(), name, &settings, |command| ends[n].confine(command))
    });
    if !can_have_tunnels(&agents[0]) {
        return;
    }
    wait_until("there was a handshake", || agents.iter().all(greeted));
    let fits = |end| mtu(end, "dwcp-wg0").is_some_and(|mtu| (1280..=1400 - 60).contains(&mtu));
    wait_until("both fit the path", || ends.iter().all(fits));
    assert_carries(&ends, "10.99.0.1");
    assert_eq!(reason(&tunnels(&agents[0])), None, "there is room for VXLAN, too");
}
