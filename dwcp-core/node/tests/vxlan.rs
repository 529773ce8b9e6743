//! VXLAN between network namespaces, with traffic.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use dwcp_lab::namespace::Namespace;
use dwcp_node::vxlan::{self, Config, Error};

mod support;

const ENDS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2))];
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];

fn config(at: usize) -> Config {
    Config { peers: ENDS.to_vec(), ..Config::new(ENDS[at], 1500) }
}

/// An interface at both ends, with addresses inside.
fn both(namespaces: &[Namespace; 2], config: impl Fn(usize) -> Config + Sync) {
    for (at, namespace) in namespaces.iter().enumerate() {
        let changes = namespace.enter(|| vxlan::reconcile(&config(at))).expect("made");
        assert!(changes.made);
        namespace.ip(&[&format!("addr add {}/24 dev dwcp-vx100", INSIDE[at])]).expect("addresses");
    }
}

/// Datagrams of `bytes` there and back, neither cut nor fragmented.
fn datagram_passes(namespaces: &[Namespace; 2], bytes: usize) -> bool {
    let bind = |at: usize| {
        let socket = namespaces[at].enter(|| UdpSocket::bind((INSIDE[at], 0))).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        socket
    };
    let (one, other) = (bind(0), bind(1));
    let to = other.local_addr().expect("an address");
    let mut received = vec![0; 70_000];
    // The first packet waits for ARP.
    (0..5).any(|_| {
        one.send_to(&vec![7; bytes], to).is_ok()
            && matches!(other.recv_from(&mut received), Ok((length, from)) if length == bytes
                && other.send_to(&received[..length], from).is_ok())
            && matches!(one.recv_from(&mut received), Ok((length, _)) if length == bytes)
    })
}

/// A megabyte over TCP, verified.
fn stream_passes(namespaces: &[Namespace; 2]) {
    let listener = namespaces[1].enter(|| TcpListener::bind((INSIDE[1], 0))).expect("a socket");
    let to: SocketAddr = listener.local_addr().expect("an address");
    let sent: Vec<u8> =
        (0..1u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut received = Vec::new();
            listener.accept().expect("accepted").0.read_to_end(&mut received).expect("read");
            received
        });
        let mut stream = namespaces[0].enter(|| TcpStream::connect(to)).expect("connected");
        stream.write_all(&sent).expect("written");
        drop(stream);
        assert!(reading.join().expect("no panic") == sent, "what arrives is what was sent");
    });
}

#[test]
fn packets_of_the_full_mtu_pass_and_peers_come_and_go() {
    let Some(namespaces) = support::pair(1500) else { return };
    both(&namespaces, config);
    let mtu = namespaces[0].enter(|| vxlan::reconcile(&config(0))).expect("as it should be already");
    assert_eq!(mtu, vxlan::Changes { mtu: 1450, ..Default::default() }, "and nothing changes");
    assert!(datagram_passes(&namespaces, 1450 - 28), "a packet of the whole MTU");
    stream_passes(&namespaces);

    let alone = Config { peers: Vec::new(), ..config(0) };
    let changes = namespaces[0].enter(|| vxlan::reconcile(&alone)).expect("reconciled");
    assert_eq!((changes.made, changes.removed), (false, vec![ENDS[1]]));
    assert!(!datagram_passes(&namespaces, 100), "nobody is there any more");

    let third: IpAddr = "10.77.0.3".parse().expect("an address");
    let three = Config { peers: vec![ENDS[1], third, ENDS[0]], ..config(0) };
    let changes = namespaces[0].enter(|| vxlan::reconcile(&three)).expect("reconciled");
    assert_eq!((changes.made, changes.added), (false, vec![ENDS[1], third]), "without being made anew");
    assert!(datagram_passes(&namespaces, 1450 - 28));
}

#[test]
fn what_goes_to_one_peer_is_not_sent_to_the_others() {
    let Some(namespaces) = support::pair(1500) else { return };
    both(&namespaces, config);
    // An end that would be sent a copy of everything, if the kernel did not know who is where.
    let third: IpAddr = "10.77.0.2".parse().expect("an address");
    assert!(datagram_passes(&namespaces, 1000));
    namespaces[1].ip(&["addr add 10.77.0.3/24 dev u0"]).expect("a further address");
    let three = Config { peers: vec![third, "10.77.0.3".parse().expect("an address")], ..config(0) };
    namespaces[0].enter(|| vxlan::reconcile(&three)).expect("reconciled");
    let sent_before = counter(&namespaces[0], "u0", "tx_packets");
    let (from, to) = (INSIDE[0], INSIDE[1]);
    let socket = namespaces[0].enter(|| UdpSocket::bind((from, 0))).expect("a socket");
    for _ in 0..100 {
        socket.send_to(&[0; 100], (to, 9)).expect("sent");
    }
    let sent = counter(&namespaces[0], "u0", "tx_packets") - sent_before;
    assert!((100..150).contains(&sent), "{sent} packets for 100");
}

fn counter(namespace: &Namespace, interface: &str, name: &str) -> u64 {
    assert_eq!(name, "tx_packets");
    let link = link(namespace, interface).expect("it is there");
    link["stats64"]["tx"]["packets"].as_u64().expect("a number")
}

/// The MTU of the interface of VXLAN, if it is there.
fn inside_mtu(namespace: &Namespace) -> Option<u64> {
    link(namespace, vxlan::INTERFACE).map(|link| link["mtu"].as_u64().expect("a number"))
}

fn link(namespace: &Namespace, interface: &str) -> Option<serde_json::Value> {
    let mut command = std::process::Command::new("ip");
    command.args(["-s", "-j", "link", "show", interface]);
    namespace.confine(&mut command);
    let output = command.output().expect("ip runs");
    let links: Option<Vec<serde_json::Value>> = serde_json::from_slice(&output.stdout).ok();
    links?.into_iter().next()
}

#[test]
fn over_ipv6_the_overhead_is_larger() {
    let Some(namespaces) = support::pair(1500) else { return };
    let ends: [IpAddr; 2] = ["fd77::1", "fd77::2"].map(|text| text.parse().expect("an address"));
    let config = |at: usize| Config { peers: ends.to_vec(), ..Config::new(ends[at], 1500) };
    both(&namespaces, config);
    assert!(datagram_passes(&namespaces, 1430 - 28), "a packet of the whole MTU");
    assert_eq!(namespaces[1].enter(|| vxlan::reconcile(&config(1))).expect("kept").mtu, 1430);
    stream_passes(&namespaces);
}

#[test]
fn an_interface_that_differs_is_made_anew_and_a_half_made_one_is_finished() {
    let Some(namespace) = support::namespace() else { return };
    namespace
        .ip(&["link add u0 type bridge", "addr add 10.77.0.1/24 dev u0", "link set u0 up"])
        .expect("an uplink");
    let run = |config: &Config| namespace.enter(|| vxlan::reconcile(config));
    assert!(run(&config(0)).expect("made").made);
    assert!(run(&Config { vni: 101, ..config(0) }).expect("made anew").made);
    let changes = run(&Config { vni: 101, underlay_mtu: 9000, ..config(0) }).expect("changed");
    assert_eq!((changes.made, changes.mtu), (false, 8950));
    // Less than every link has to carry: what is there becomes as small as it may be, and what is not is not made.
    let too_small = || match run(&Config { vni: 101, underlay_mtu: 1300, ..config(0) }) {
        Err(Error::Config { setting: "underlay_mtu", detail }) => {
            assert!(detail.contains("1250"), "{detail}")
        }
        other => panic!("{other:?}"),
    };
    too_small();
    assert_eq!(inside_mtu(&namespace), Some(1280));
    too_small();
    assert_eq!(inside_mtu(&namespace), Some(1280));
    assert_eq!(run(&Config { vni: 101, ..config(0) }).expect("grown again").mtu, 1450);
    assert!(namespace.enter(|| vxlan::remove(vxlan::INTERFACE)).expect("removed"));
    too_small();
    assert_eq!(inside_mtu(&namespace), None);
    assert!(!namespace.enter(|| vxlan::remove(vxlan::INTERFACE)).expect("is gone already"));

    // As a crash leaves it after the first request: made, unmarked, down.
    namespace
        .ip(&["link add dwcp-vx100 address 02:64:0a:4d:00:01 type vxlan id 100 dstport 4789 local 10.77.0.1 nolearning"])
        .expect("made");
    assert!(!run(&config(0)).expect("finished").made);
    assert!(namespace.enter(|| vxlan::remove(vxlan::INTERFACE)).expect("it is ours now"));
}

#[test]
fn what_goes_through_one_interface_goes_with_it() {
    let Some([one, _other]) = support::pair(1500) else { return };
    let index = link(&one, "u0").expect("it is there")["ifindex"].as_u64().expect("a number") as u32;
    let through = Config { through: Some(index), ..config(0) };
    let run = |config: &Config| one.enter(|| vxlan::reconcile(config));
    assert!(run(&config(0)).expect("made").made);
    assert!(run(&through).expect("made anew").made, "one that goes as routes say");
    assert_eq!(run(&through).expect("kept"), vxlan::Changes { mtu: 1450, ..Default::default() });
    one.ip(&["link del u0"]).expect("removed");
    assert_eq!(inside_mtu(&one), None, "the kernel has taken it away");
    assert!(matches!(run(&through), Err(Error::NothingBelow { .. })));
}

#[test]
fn what_is_not_ours_is_left() {
    let Some(namespace) = support::namespace() else { return };
    namespace
        .ip(&["link add dwcp-vx100 type bridge", "link add vxother type vxlan id 7 dstport 4789"])
        .expect("made");
    let run = |config: &Config| namespace.enter(|| vxlan::reconcile(config));
    let result = run(&config(0));
    assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
    let result = namespace.enter(|| vxlan::remove(vxlan::INTERFACE));
    assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
    namespace.ip(&["link del dwcp-vx100"]).expect("it was left");
    let result = run(&Config { vni: 7, ..config(0) });
    assert!(matches!(result, Err(Error::Taken { vni: 7, port: 4789 })), "{result:?}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let [local, peer] = ENDS;
    let good = || Config { peers: vec![peer], ..Config::new(local, 1500) };
    let v6 = "fd77::1".parse().expect("an address");
    for (config, setting) in [
        (Config { vni: 0, ..good() }, "VNI"),
        (Config { vni: 1 << 24, ..good() }, "VNI"),
        (Config { interface: "sixteen-bytes-xx".into(), ..good() }, "interface"),
        (Config { interface: "a/b".into(), ..good() }, "interface"),
        (Config { port: 0, ..good() }, "port"),
        (Config { local: "0.0.0.0".parse().expect("an address"), ..good() }, "local"),
        (Config { peers: vec![v6], ..good() }, "peer"),
        (Config { underlay_mtu: 1300, ..good() }, "underlay_mtu"),
        (Config { underlay_mtu: 0, ..good() }, "underlay_mtu"),
    ] {
        match vxlan::reconcile(&config) {
            Err(Error::Config { setting: named, .. }) => assert_eq!(named, setting),
            other => panic!("{config:?}: {other:?}"),
        }
    }
}
