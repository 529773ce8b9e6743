//! Uplinks that are raised in a real kernel, in network namespaces: what is sent through them meanwhile, and that everything
//! is put back.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use dwcp_lab::namespace::Namespace;
use dwcp_node::{
    mtu::{self, MtuError, Underlay},
    tune::Outcome,
};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

mod support;

fn show(namespace: &Namespace, what: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(what);
    let output = namespace.enter(|| {
        namespace.confine(&mut command);
        command.output().expect("iproute2")
    });
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Everything that raising touches.
fn state_of(namespace: &Namespace) -> [String; 4] {
    let ipv6 = namespace.enter(|| fs::read_to_string("/proc/sys/net/ipv6/conf/u0/mtu").expect("IPv6"));
    let link = show(namespace, &["-o", "link", "show", "dev", "u0"]);
    let link =
        link.split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next()).expect("an MTU").to_owned();
    let routes = show(namespace, &["-d", "route", "show", "table", "all"]);
    [link, ipv6.trim().to_owned(), routes, show(namespace, &["-6", "route", "show", "dev", "u0"])]
}

/// Whether the kernel takes a datagram of so many bytes to be sent unfragmented, as anybody's or as a probe.
fn sends(namespace: &Namespace, to: &str, bytes: usize, is_probe: bool) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    namespace.enter(|| {
        let from: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let socket = UdpSocket::bind(from).expect("a socket");
        match (to.is_ipv4(), is_probe) {
            (true, true) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE),
            (true, false) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO),
            (false, true) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE),
            (false, false) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO),
        }
        .expect("a socket option");
        socket.send_to(&vec![0; bytes], to).is_ok()
    })
}

/// A namespace whose `u0` has routes of many kinds through it.
fn uplink() -> Option<[Namespace; 2]> {
    let [near, far] = support::pair(1500)?;
    near.ip(&[
        "route add default via 10.77.0.2",
        "route add 10.1.0.0/16 via 10.77.0.2 mtu 1300",
        "route add 10.2.0.0/16 via 10.77.0.2 mtu lock 4000 initcwnd 20",
        "route add 10.3.0.0/16 via 10.77.0.2 table 77",
        "route add 10.4.0.0/16 nexthop via 10.77.0.2 nexthop via 10.77.0.3",
        "nexthop add id 9 via 10.77.0.2 dev u0",
        "route add 10.5.0.0/16 nhid 9",
        "route add unreachable 10.6.0.0/16",
        "neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev u0",
        "neigh add fd77::2 lladdr 02:00:00:00:00:02 dev u0",
    ])
    .expect("routes");
    Some([near, far])
}

const TARGETS: [&str; 5] = ["10.77.0.2:9", "10.3.0.1:9", "10.4.0.1:9", "10.5.0.1:9", "[fd77::2]:9"];

#[test]
fn only_probes_are_larger_until_more_is_allowed_and_everything_is_put_back() {
    let Some([near, _far]) = uplink() else { return };
    near.ip(&["rule add to 10.3.0.0/16 table 77", "link add vx0 type vxlan id 7 dstport 4789 dev u0"])
        .expect("a rule and a tunnel");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("mtu.json");
    let before = state_of(&near);
    let all = |bytes, is_probe| TARGETS.map(|to| sends(&near, to, bytes, is_probe));
    near.enter(|| mtu::raise("u0", 9000, &state)).expect("raised");
    assert_eq!(state_of(&near)[..2], ["9000", "1500"]);
    assert_eq!(all(8900, false), [false; 5], "others' packets are held");
    assert_eq!(all(1400, false), [true; 5]);
    assert_eq!(all(8900, true), [true; 5], "probes are not");

    near.ip(&["route add 10.8.0.0/16 via 10.77.0.2"]).expect("a route");
    assert!(sends(&near, "10.8.0.1:9", 8900, false), "nobody has seen it yet");
    near.enter(|| mtu::allow("u0", 1500, &state)).expect("held");
    assert!(!sends(&near, "10.8.0.1:9", 8900, false));

    near.enter(|| mtu::allow("u0", 8000, &state)).expect("allowed");
    assert_eq!((all(7900, false), all(8100, false)), ([true; 5], [false; 5]));
    assert!(!sends(&near, "10.1.0.1:9", 1400, false), "somebody's restriction stays");
    assert!(!sends(&near, "10.2.0.1:9", 4100, false), "and so does a larger one");
    let tunnel = show(&near, &["-o", "link", "show", "dev", "vx0"]);
    assert!(tunnel.contains(&format!(" mtu {} ", mtu::vxlan(1500, Underlay::V4))), "{tunnel}");
    near.enter(|| mtu::allow("u0", 1500, &state)).expect("held again");
    assert_eq!(all(7900, false), [false; 5]);

    near.ip(&["route del 10.8.0.0/16"]).expect("a route less");
    let reports = near.enter(|| mtu::restore(None, &state)).expect("put back");
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].outcome, Outcome::Restored { value: "1500".to_owned() });
    assert_eq!(state_of(&near), before);
    assert!(!state.exists());
}

#[test]
fn what_somebody_else_sets_meanwhile_is_left() {
    let Some([near, _far]) = uplink() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("mtu.json");
    near.enter(|| mtu::raise("u0", 9000, &state)).expect("raised");
    near.ip(&["link set u0 mtu 4000", "route replace default via 10.77.0.2 mtu 1400"]).expect("changed");
    let changed = near.enter(|| mtu::allow("u0", 9000, &state)).expect_err("not ours any more");
    assert!(matches!(changed, MtuError::Changed { mtu: 4000, .. }), "{changed}");
    let reports = near.enter(|| mtu::restore(Some("u0"), &state)).expect("given up");
    assert!(matches!(reports[0].outcome, Outcome::Left { .. }), "{}", reports[0]);
    let [link, _, routes, _] = state_of(&near);
    assert_eq!(link, "4000");
    assert!(!routes.contains("mtu 1500") && routes.contains("mtu 1400"), "{routes}");
    assert!(!state.exists());
}

#[test]
fn what_cannot_be_raised_is_as_before() {
    let Some([near, _far]) = uplink() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("mtu.json");
    let before = state_of(&near);
    let refused =
        near.enter(|| mtu::raise("u0", 100_000, &state)).expect_err("a veth takes no more than 65535");
    assert!(matches!(refused, MtuError::Netlink(_)), "{refused}");
    assert_eq!(state_of(&near), before);
    near.ip(&["route append 10.1.0.0/16 dev u0"]).expect("one that is alike");
    near.ip(&["route append 10.9.0.0/16 dev u0", "route append 10.9.0.0/16 via 10.77.0.2"])
        .expect("two more");
    let before = state_of(&near);
    let refused = near.enter(|| mtu::raise("u0", 9000, &state)).expect_err("two are alike");
    assert!(matches!(refused, MtuError::Alike { .. }), "{refused}");
    assert_eq!(state_of(&near), before);
    assert!(!state.exists());
}

#[test]
fn the_interface_that_leads_to_a_peer_is_found() {
    let Some([near, _far]) = uplink() else { return };
    near.ip(&[
        "link add vx0 type vxlan id 7 dstport 4789 dev u0",
        "addr add 10.99.0.1/24 dev vx0",
        "link set vx0 up",
    ])
    .expect("a tunnel");
    let peers =
        ["10.77.0.2:1", "[fd77::2]:1", "[::ffff:10.3.4.5]:1", "10.99.0.2:1", "127.0.0.1:1", "10.6.0.1:1"];
    let peers: [SocketAddr; 6] = peers.map(|peer| peer.parse().expect("an address"));
    let (names, interfaces) = near.enter(|| mtu::interfaces_to(&peers)).expect("found");
    let names: Vec<_> = names.iter().map(Option::as_deref).collect();
    assert_eq!(names, [Some("u0"), Some("u0"), Some("u0"), Some("vx0"), None, None]);
    assert_eq!((interfaces["u0"].mtu, interfaces["u0"].obstacle.as_deref()), (1500, None));
    assert!(
        interfaces["vx0"].obstacle.as_deref().is_some_and(|why| why.contains("tunnel")),
        "{interfaces:?}"
    );
}
