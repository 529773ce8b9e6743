//! Agents that raise the MTU of their uplinks together, in network namespaces at a bridge (root).

mod support;

use std::{fs, path::Path, process::Command};

use dwcp_lab::namespace::Namespace;
use nix::sys::signal::Signal;
use novacron_control::schema::{Capability, Guarded, Tuned};
use support::{Agent, wait_until};

/// Namespaces whose `u0` are at one bridge: 10.77.0.1, 10.77.0.2 and so on, of this MTU each at the bridge.
struct Network {
    nodes: Vec<Namespace>,
    _bridge: Namespace,
}

impl Network {
    fn create(ports: &[u32]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: needs root");
            return None;
        }
        let bridge = Namespace::create().expect("a namespace");
        bridge.ip(&["link add br0 type bridge", "link set br0 up"]).expect("a bridge");
        let node = |(n, mtu): (usize, &u32)| {
            let node = Namespace::create().expect("a namespace");
            let wire =
                format!("link add u0 type veth peer name p{n} mtu {mtu} netns {}", bridge.path().display());
            let address = format!("addr add 10.77.0.{}/24 dev u0", n + 1);
            node.ip(&[&wire, &address, "link set u0 up"]).expect("a wire");
            bridge.ip(&[&format!("link set p{n} master br0 up")]).expect("a port");
            node
        };
        Some(Self { nodes: ports.iter().enumerate().map(node).collect(), _bridge: bridge })
    }

    fn start(&self, folder: &Path, n: usize, peers: &str, set_mtu: &str) -> Agent {
        self.start_with(folder, n, peers, set_mtu, &[])
    }

    fn start_with(
        &self,
        folder: &Path,
        n: usize,
        peers: &str,
        set_mtu: &str,
        more: &[(&str, &str)],
    ) -> Agent {
        let listen = format!("10.77.0.{}:8888", n + 1);
        let datagrams = format!("10.77.0.{}:8889", n + 1);
        let (state, none) = (folder.join(format!("mtu{n}.json")), folder.join(format!("tune{n}.json")));
        let settings = [
            ("allow_plaintext", "true"),
            ("datagrams.probe_interval", "50ms"),
            ("listen", listen.as_str()),
            ("datagrams.listen", datagrams.as_str()),
            ("peers", peers),
            ("node.set_mtu", set_mtu),
            ("node.mtu_state", state.to_str().expect("UTF-8")),
            ("node.tune_state", none.to_str().expect("UTF-8")),
        ];
        let settings = [&settings, more].concat();
        Agent::start_with(folder, &format!("n{n}"), &settings, |command| self.nodes[n].confine(command))
    }

    /// The MTU of the uplink, what IPv6 sends, and the routes.
    fn state_of(&self, n: usize) -> (String, String, String) {
        let node = &self.nodes[n];
        let ipv6 = node.enter(|| fs::read_to_string("/proc/sys/net/ipv6/conf/u0/mtu").expect("IPv6"));
        let link = show(node, &["-o", "link", "show", "dev", "u0"]);
        let link = link.split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next()).expect("an MTU");
        (link.to_owned(), ipv6.trim().to_owned(), show(node, &["route", "show"]))
    }

    /// Whether packets of this size are sent through an interface of this MTU.
    fn is(&self, n: usize, device: u32, sent: u32) -> bool {
        let (link, ipv6, routes) = self.state_of(n);
        let is_held = routes.contains(&format!("mtu {sent}"));
        let is_free = device == sent && !routes.contains("mtu ");
        link == device.to_string() && ipv6 == sent.to_string() && (is_held || is_free)
    }
}

fn show(namespace: &Namespace, what: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(what);
    namespace.confine(&mut command);
    let output = command.output().expect("iproute2");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn told(agent: &Agent) -> String {
    let told: Vec<Tuned> = agent.get("/v1/tune");
    let uplink = told.into_iter().find(|told| told.item == "MTU of u0");
    uplink.map(|told| told.detail).unwrap_or_default()
}

#[test]
fn two_agents_raise_together_and_put_back_at_the_end_and_after_a_crash() {
    let Some(network) = Network::create(&[9000, 9000]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    network.nodes[0].ip(&["route add 10.55.0.0/16 via 10.77.0.2 mtu 1300"]).expect("a route");
    network.nodes[0]
        .ip(&["link add vx0 type vxlan id 100 dstport 4789 local 10.77.0.1 dev u0", "link set vx0 up"])
        .expect("a tunnel");
    let before = [0, 1].map(|n| network.state_of(n));
    let a = network.start(folder.path(), 0, "10.77.0.2:8888", "true");
    let mut b = network.start(folder.path(), 1, "", "true");
    wait_until("a sends larger packets", || network.is(0, 9000, 9000));
    wait_until("b sends larger packets", || network.is(1, 9000, 9000));
    let detail = told(&a);
    assert!(
        detail.contains("the path to the only peer carries it") && detail.contains("VXLAN has room for 8950"),
        "{detail}"
    );
    let found: Vec<Capability> = a.get("/v1/capabilities");
    assert!(
        found.iter().any(|found| found.name == "larger MTU on u0" && found.detail == detail),
        "{found:?}"
    );
    assert!(network.state_of(0).2.contains("mtu 1300"), "somebody's restriction stays");
    let tunnel = show(&network.nodes[0], &["-o", "link", "show", "dev", "vx0"]);
    assert!(tunnel.contains(" mtu 1450 "), "{tunnel}");

    a.kill();
    assert_eq!(network.state_of(0).0, "9000", "nobody was there to put it back");
    let a = network.start(folder.path(), 0, "10.77.0.2:8888", "false");
    assert_eq!(network.state_of(0), before[0]);
    wait_until("b puts back what a does not agree with", || network.state_of(1) == before[1]);
    assert!(told(&b).contains("n0 does not raise its MTU"), "{}", told(&b));
    a.kill();
    let mut a = network.start(folder.path(), 0, "10.77.0.2:8888", "true");
    wait_until("a is ready again", || told(&a).contains("n1"));
    for agent in [&mut a, &mut b] {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
    }
    assert_eq!([0, 1].map(|n| network.state_of(n)), before);
}

#[test]
fn at_the_end_of_an_agent_its_uplink_is_as_before() {
    let Some(network) = Network::create(&[9000, 9000]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let before = [0, 1].map(|n| network.state_of(n));
    let mut a = network.start(folder.path(), 0, "10.77.0.2:8888", "true");
    let b = network.start(folder.path(), 1, "", "true");
    wait_until("both send larger packets", || [0, 1].iter().all(|n| network.is(*n, 9000, 9000)));
    a.signal(Signal::SIGTERM);
    assert!(a.wait().success());
    assert_eq!(network.state_of(0), before[0]);
    wait_until("the other follows, alone", || network.state_of(1) == before[1]);
    wait_until("it is not told of any more", || {
        b.get::<Vec<Tuned>>("/v1/tune").iter().all(|told| told.item != "MTU of u0")
    });
}

#[test]
fn a_third_agent_whose_wire_carries_less_keeps_all_as_they_were() {
    let Some(network) = Network::create(&[9000, 9000, 1500]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let before = [0, 1, 2].map(|n| network.state_of(n));
    let a = network.start(folder.path(), 0, "10.77.0.2:8888", "true");
    let b = network.start(folder.path(), 1, "", "true");
    wait_until("both send larger packets", || [0, 1].iter().all(|n| network.is(*n, 9000, 9000)));
    let c = network.start(folder.path(), 2, "10.77.0.1:8888,10.77.0.2:8888", "true");
    wait_until("both are held", || [0, 1].iter().all(|n| network.is(*n, 9000, 1500)));
    // It takes some probes to find out what that wire carries.
    wait_until("some have found out", || [0, 1, 2].iter().any(|n| network.state_of(*n) == before[*n]));
    wait_until("all are as before", || [0, 1, 2].iter().all(|n| network.state_of(*n) == before[*n]));
    for agent in [&a, &b, &c] {
        let detail = told(agent);
        assert!(detail.starts_with("1500: "), "{detail}");
    }
}

#[test]
fn whoever_does_not_wait_for_the_drain_finds_the_node_as_before() {
    let Some(network) = Network::create(&[9000, 9000]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let sysctls = || {
        ["ip_forward", "tcp_rmem"].map(|name| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            network.nodes[0].enter(|| fs::read_to_string(path).expect("IPv4"))
        })
    };
    let (before, set_before) = (network.state_of(0), sysctls());
    let mut a = network.start_with(folder.path(), 0, "10.77.0.2:8888", "true", &[("node.tune", "true")]);
    let _b = network.start(folder.path(), 1, "", "true");
    assert_ne!(sysctls(), set_before, "the node is tuned");
    wait_until("both send larger packets", || [0, 1].iter().all(|n| network.is(*n, 9000, 9000)));
    // While the first lets peers know, the second comes.
    a.signal(Signal::SIGTERM);
    wait_until("a drains", || network.is(0, 9000, 1500));
    a.signal(Signal::SIGTERM);
    match a.wait().code() {
        Some(0) => println!("SKIP: the drain was over before the second signal came"),
        code => assert_eq!(code, Some(3), "it was cut short"),
    }
    assert_eq!((network.state_of(0), sysctls()), (before, set_before));
}

#[test]
fn tunnels_that_stay_at_the_end_of_an_agent_fit_the_uplink_that_was_put_back() {
    let Some(network) = Network::create(&[9000, 9000]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let start = |n: usize, peers| {
        let (local, state) = (format!("10.77.0.{}", n + 1), folder.path().join(format!("tunnels{n}")));
        let tunnels = [
            ("region", ["eu", "us"][n]),
            ("vxlan.local", &*local),
            ("tunnels.state", state.to_str().expect("UTF-8")),
        ];
        network.start_with(folder.path(), n, peers, "true", &tunnels)
    };
    let mut a = start(0, "10.77.0.2:8888");
    let _b = start(1, "");
    let has = |mtu: u32| {
        show(&network.nodes[0], &["-o", "link", "show", "dev", "dwcp-vx100"])
            .contains(&format!(" mtu {mtu} "))
    };
    wait_until("VXLAN has room for larger packets", || has(9000 - 50));
    a.signal(Signal::SIGTERM);
    assert!(a.wait().success());
    assert_eq!(network.state_of(0).0, "1500");
    assert!(has(1500 - 50), "{}", show(&network.nodes[0], &["-o", "link", "show", "dev", "dwcp-vx100"]));
}

#[test]
fn guards_go_by_what_an_uplink_is_after_a_crash_and_not_by_what_it_was() {
    let Some(network) = Network::create(&[9000, 9000]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let a = network.start(folder.path(), 0, "10.77.0.2:8888", "true");
    let b = network.start(folder.path(), 1, "", "true");
    wait_until("both send larger packets", || [0, 1].iter().all(|n| network.is(*n, 9000, 9000)));
    a.kill();
    b.kill();
    let bpf = folder.path().join("bpf");
    fs::create_dir(&bpf).expect("a folder");
    if !Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf).status().expect("mount runs").success() {
        println!("SKIP: no BPF file system");
        return;
    }
    let pins = bpf.join("guard");
    let xdp =
        [("xdp.interfaces", "u0"), ("xdp.mode", "generic"), ("xdp.pins", pins.to_str().expect("UTF-8"))];
    let a = network.start_with(folder.path(), 0, "", "false", &xdp);
    let mut guards = Vec::<Guarded>::new();
    wait_until("it tells of its guard", || {
        guards = a.get("/v1/xdp");
        !guards.is_empty()
    });
    let _ = Command::new("umount").arg("--lazy").arg(&bpf).status();
    assert_eq!(network.state_of(0).0, "1500");
    match &guards[..] {
        [Guarded { mode: None, reason, .. }] => println!("SKIP: {reason:?}"),
        guards => assert!(guards.iter().all(|guard| guard.reason.is_none()), "{guards:?}"),
    }
}
