//! Agents in network namespaces, guarded in XDP (root): datagrams of known peers go to AF_XDP sockets, and a restart leaves
//! counters and other traffic alone.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dwcp_lab::namespace::Namespace;
use novacron_control::schema::{Guarded, Peer, Row};
use support::{Agent, wait_until};

/// What a guard says where there can be none.
const MISSING: [&str; 2] = ["XDP is not available", "this kernel does not load XDP programs"];

/// Where an agent's metrics are.
const METRICS: &str = "127.0.0.1:9101";

/// A BPF file system; unmounted when dropped.
struct BpfFileSystem(PathBuf);

impl BpfFileSystem {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                assert!(why.contains("unknown filesystem type"), "mount: {why}");
                println!("SKIP: no BPF file system: {}", why.trim());
                None
            }
            Err(error) => panic!("mount: {error}"),
        }
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn start(folder: &Path, name: &str, place: &Namespace, settings: &[(&str, &str)]) -> Agent {
    Agent::start_with(folder, name, settings, |command| place.confine(command))
}

/// Whether this build and this kernel can; that they do not, although they can, is no reason to pass a test over.
fn can_guard(guards: &[Guarded]) -> bool {
    let [guard] = guards else { panic!("{guards:?}") };
    if guard.mode.is_some() {
        return true;
    }
    let reason = guard.reason.as_deref().unwrap_or_default();
    assert!(MISSING.iter().any(|missing| reason.contains(missing)), "it is not guarded: {reason}");
    println!("SKIP: {reason}");
    false
}

/// A veth pair with an address at each end.
fn join(near: &Namespace, far: &Namespace) {
    let queues = "numrxqueues 1 numtxqueues 1";
    near.ip(&[&format!(
        "link add near {queues} type veth peer name far {queues} netns {}",
        far.path().display()
    )])
    .expect("a veth pair");
    near.ip(&["addr add 192.0.2.1/24 dev near", "link set near up"]).expect("an address");
    far.ip(&["addr add 192.0.2.2/24 dev far", "link set far up"]).expect("an address");
}

/// The metrics.
fn metrics(place: &Namespace) -> String {
    let mut text = String::new();
    place.enter(|| {
        let mut stream = TcpStream::connect(METRICS).expect("they are served");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        stream.read_to_string(&mut text).expect("answered");
    });
    text
}

/// Of all series of a metric.
fn counted(place: &Namespace, name: &str) -> u64 {
    let text = metrics(place);
    let of_it = text.lines().filter(|line| line.starts_with(name));
    of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Whether the metrics have this series, as far as its labels are given.
fn is_counted(place: &Namespace, name: &str, labels: &[&str]) -> bool {
    metrics(place).lines().any(|line| {
        line.starts_with(name) && labels.iter().all(|label| line.contains(label)) && !line.ends_with(" 0")
    })
}

fn steered(agent: &Agent) -> u64 {
    let guards: Vec<Guarded> = agent.get("/v1/xdp");
    guards.iter().filter_map(|guard| guard.packets.get("steered")).sum()
}

/// Datagrams that went out by AF_XDP, and all that were sent.
fn sent(agent: &Agent, place: &Namespace) -> (u64, u64) {
    let guards: Vec<Guarded> = agent.get("/v1/xdp");
    (guards.iter().map(|guard| guard.sent).sum(), counted(place, "dwcp_datagrams_sent_total"))
}

/// Numbered datagrams from one namespace to another, one each 200 us, until asked how many of them came.
struct Others {
    stop: Arc<AtomicBool>,
    sending: thread::JoinHandle<u64>,
    received: UdpSocket,
}

impl Others {
    fn start(from: &Namespace, to: &Namespace) -> Self {
        let received = to.enter(|| UdpSocket::bind("192.0.2.1:7777")).expect("a socket");
        nix::sys::socket::setsockopt(&received, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
            .expect("room");
        let sender = from.enter(|| UdpSocket::bind("192.0.2.2:0")).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sending = thread::spawn(move || {
            let mut count = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                sender.send_to(&count.to_le_bytes(), "192.0.2.1:7777").expect("sent");
                count += 1;
                thread::sleep(Duration::from_micros(200));
            }
            count
        });
        Self { stop, sending, received }
    }

    /// How many were sent, and how many of them came.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sending.join().expect("no failure");
        self.received.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
        let mut received = 0;
        while received < sent && self.received.recv(&mut [0; 8]).is_ok() {
            received += 1;
        }
        (sent, received)
    }
}

#[test]
fn datagrams_of_peers_are_steered_and_a_restart_is_not_noticed_by_others() {
    steered_and_restarted("generic");
}

#[test]
fn and_so_they_are_in_the_driver() {
    steered_and_restarted("native");
}

fn steered_and_restarted(mode: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pins) = BpfFileSystem::mount(folder.path().join("bpf")) else { return };
    let (near, far) = (Namespace::create().expect("a namespace"), Namespace::create().expect("a namespace"));
    join(&near, &far);
    near.ip(&["link set lo up"]).expect("loopback");
    let root = pins.0.join("guard");
    let root = root.to_str().expect("UTF-8");
    let open = [("allow_plaintext", "true"), ("datagrams.probe_interval", "50ms")];
    let of_near = [
        open[0],
        open[1],
        ("listen", "192.0.2.1:8888"),
        ("datagrams.listen", "192.0.2.1:8889"),
        ("peers", "192.0.2.2:8888"),
        ("metrics.listen", METRICS),
        ("xdp.interfaces", "near"),
        ("xdp.mode", mode),
        ("xdp.pins", root),
    ];
    let a = start(folder.path(), "a", &near, &of_near);
    let guards: Vec<Guarded> = a.get("/v1/xdp");
    if !can_guard(&guards) {
        return;
    }
    let _b = start(
        folder.path(),
        "b",
        &far,
        &[open[0], open[1], ("listen", "192.0.2.2:8888"), ("datagrams.listen", "192.0.2.2:8889")],
    );
    wait_until("datagrams come by AF_XDP", || steered(&a) > 10);
    wait_until("probes are answered", || {
        let rows: Vec<Row> = a.get("/v1/paths");
        rows[0].paths.iter().any(|path| path.jitter_ms.is_some() && path.loss_ratio < 0.5)
    });

    let labels = ["peer=\"b\"", "region=\"\"", "action=\"steered\""];
    wait_until("they are counted by who sends them", || {
        is_counted(&near, "dwcp_xdp_peer_packets_total{", &labels)
    });
    assert!(is_counted(&near, "dwcp_xdp_packets_total{", &labels[2..]));

    // The way to a peer is learned from what it sends; then they go out by AF_XDP, too, but for a few.
    let mut last = sent(&a, &near);
    wait_until("datagrams are sent by AF_XDP", || {
        thread::sleep(Duration::from_millis(500));
        let now = sent(&a, &near);
        let (by_xdp, all) = (now.0 - last.0, now.1 - last.1);
        last = now;
        all > 10 && by_xdp * 10 >= all * 9
    });

    // Others send all the while that the agent is killed and comes back.
    let others = Others::start(&far, &near);
    let before = steered(&a);
    a.kill();
    let a = start(folder.path(), "a", &near, &of_near);
    wait_until("it is guarded again", || {
        a.get::<Vec<Guarded>>("/v1/xdp").iter().any(|guard| guard.mode.is_some())
    });
    assert!(steered(&a) >= before, "counters go on");
    wait_until("they are connected again", || {
        a.get::<Vec<Peer>>("/v1/peers").iter().any(|peer| peer.connected_seconds.is_some())
    });
    let now = steered(&a);
    wait_until("datagrams come by AF_XDP again", || steered(&a) > now + 10);
    let (sent, received) = others.end();
    assert!(sent > 1000 && received == sent, "{received} of {sent} have come");

    // The kernel takes the program and the sockets with the interface.
    near.ip(&["link del near"]).expect("removed");
    wait_until("that is told", || a.get::<Vec<Guarded>>("/v1/xdp").iter().all(|guard| guard.mode.is_none()));
    join(&near, &far);
    wait_until("it is guarded once more", || {
        let guards: Vec<Guarded> = a.get("/v1/xdp");
        guards.iter().any(|guard| guard.mode.is_some() && guard.reason.is_none())
    });
    let now = steered(&a);
    wait_until("datagrams come by new AF_XDP sockets", || steered(&a) > now + 10);
    wait_until("and are answered", || {
        let rows: Vec<Row> = a.get("/v1/paths");
        rows[0].paths.iter().any(|path| path.jitter_ms.is_some() && path.loss_ratio < 0.5)
    });

    a.ask(novacron_control::Method::POST, "/v1/xdp/detach", None).expect("accepted");
    wait_until("the guard is off", || {
        a.get::<Vec<Guarded>>("/v1/xdp").iter().all(|guard| guard.mode.is_none())
    });
}

#[test]
fn an_interface_that_went_and_came_back_is_guarded_again() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pins) = BpfFileSystem::mount(folder.path().join("bpf")) else { return };
    let place = Namespace::create().expect("a namespace");
    let wire =
        ["link add near type veth peer name far", "link set near up", "link set far up", "link set lo up"];
    place.ip(&wire).expect("a veth pair");
    let root = pins.0.join("guard");
    let settings = [
        ("allow_plaintext", "true"),
        ("listen", "127.0.0.1:8888"),
        ("datagrams.listen", "127.0.0.1:8889"),
        ("xdp.interfaces", "near"),
        ("xdp.mode", "generic"),
        ("xdp.sockets", "false"),
        ("xdp.pins", root.to_str().expect("UTF-8")),
    ];
    let agent = start(folder.path(), "a", &place, &settings);
    let guards = || agent.get::<Vec<Guarded>>("/v1/xdp");
    wait_until("it tells of its guard", || !guards().is_empty());
    if !can_guard(&guards()) {
        return;
    }
    let has_program = || {
        let mut command = Command::new("ip");
        place.confine(command.args(["link", "show", "dev", "near"]));
        String::from_utf8_lossy(&command.output().expect("it runs").stdout).contains("xdpgeneric")
    };
    assert!(has_program());
    place.ip(&["link del near"]).expect("removed");
    wait_until("that is told", || guards().iter().all(|guard| guard.mode.is_none()));
    place.ip(&wire[..3]).expect("a veth pair");
    wait_until("it has a program again", has_program);
    wait_until("and that is told", || guards().iter().all(|guard| guard.mode.is_some()));
}

#[test]
fn a_socket_that_could_not_be_opened_is_when_it_can_be() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pins) = BpfFileSystem::mount(folder.path().join("bpf")) else { return };
    let place = Namespace::create().expect("a namespace");
    let queues = "numrxqueues 1 numtxqueues 1";
    place
        .ip(&[
            &format!("link add near mtu 9000 {queues} type veth peer name far mtu 9000 {queues}"),
            "link set near up",
            "link set far up",
        ])
        .expect("a veth pair");
    let root = pins.0.join("guard");
    let settings = [
        ("listen", "127.0.0.1:8888"),
        ("datagrams.listen", "127.0.0.1:8889"),
        ("metrics.listen", METRICS),
        ("xdp.interfaces", "near"),
        ("xdp.mode", "generic"),
        ("xdp.pins", root.to_str().expect("UTF-8")),
    ];
    let agent = start(folder.path(), "a", &place, &settings);
    let guards = || agent.get::<Vec<Guarded>>("/v1/xdp");
    wait_until("it tells of its guard", || !guards().is_empty());
    if !can_guard(&guards()) {
        return;
    }
    let reason = guards().remove(0).reason.expect("there is no socket");
    assert!(reason.contains("no AF_XDP socket at queue 0: near has an MTU of 9000"), "{reason}");
    place.ip(&["link set near mtu 1500", "link set far mtu 1500"]).expect("set");
    wait_until("nothing is in the way", || guards().iter().all(|guard| guard.reason.is_none()));
    wait_until("what it loses is counted", || {
        metrics(&place).contains("dwcp_xdp_socket_dropped_total{reason=\"receive\"}")
    });
}
