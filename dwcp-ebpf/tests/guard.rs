//! A guard on a veth pair, with real traffic: floods, restarts, upgrades, and what is in its way. Needs root.

#[path = "support/frame.rs"]
mod frame;
#[path = "support/place.rs"]
mod place;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Error, Guard, Holder, Limit, Mode};
use dwcp_lab::namespace::Namespace;

use self::{
    frame::{PORT, datagram},
    place::{ADDRESS, ADDRESS6, NEAR, Place, drain, join, receiver, to, with_place},
};

const BAD: [u8; 60] = [0x5a; 60];
/// Small enough for any queue on the way.
const SOME: u64 = 100;
const FLOOD_MAX: Duration = Duration::from_secs(20);

fn malformed(guard: &Guard) -> u64 {
    guard.totals().expect("totals").of(Action::Malformed).packets
}

/// Sends until it is told to stop, and not for ever if the test has failed meanwhile. How many were sent.
fn flood(sender: &UdpSocket, payload: &[u8], flooding: &AtomicBool) -> u64 {
    let (begin, mut sent) = (Instant::now(), 0);
    while flooding.load(Ordering::Relaxed) && begin.elapsed() < FLOOD_MAX {
        sender.send_to(payload, to(ADDRESS, PORT)).expect("sent");
        sent += 1;
    }
    sent
}

/// As when a process ends: nothing but descriptors go.
fn leave(_guard: Guard) {}

/// What crosses a veth pair arrives within the call that sends it, or very soon after.
fn wait_for(what: &str, mut until: impl FnMut() -> bool) {
    for _ in 0..500 {
        if until() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not happen");
}

/// Sends the flood while TCP and other UDP cross the same interface.
fn flood_in(place: &Place<'_>, mode: Mode) {
    let guard = place.attach(&Config { mode: Some(mode), ..place.config() });
    assert_eq!(guard.mode(), mode);
    let (guarded, other) = (receiver(ADDRESS, PORT), receiver(ADDRESS, PORT + 1));
    let listener = TcpListener::bind((ADDRESS, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let flooding = AtomicBool::new(true);
    let sent = thread::scope(|scope| {
        let (sender, flooding) = (place.sender("192.0.2.1"), &flooding);
        let flood = scope.spawn(move || flood(&sender, &BAD, flooding));
        // Four megabytes, whole.
        let content: Vec<u8> = (0..4 << 20).map(|at: u32| ((at * 31) >> 3) as u8).collect();
        scope.spawn({
            let (content, place) = (content.clone(), &place);
            move || {
                let mut stream = place.far.enter(|| TcpStream::connect(address)).expect("a connection");
                stream.write_all(&content).expect("sent");
            }
        });
        let mut received = Vec::new();
        listener.accept().expect("a connection").0.read_to_end(&mut received).expect("received");
        assert!(received == content, "TCP is untouched");
        let sender = place.sender("192.0.2.1");
        for at in 0..SOME {
            sender.send_to(&datagram(1 + at), to(ADDRESS, PORT)).expect("sent");
            sender.send_to(&BAD, to(ADDRESS, PORT + 1)).expect("sent");
            if at % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        flooding.store(false, Ordering::Relaxed);
        flood.join().expect("the flood ends")
    });
    let arrived = drain(&guarded);
    assert!(arrived.iter().all(|datagram| datagram != &BAD), "no malformed datagram got through");
    // Queues of the pair may overflow in a flood, and nobody counts them per port.
    assert!(arrived.len() as u64 > SOME / 2, "{} datagrams passed", arrived.len());
    assert_eq!(guard.totals().expect("totals").of(Action::Passed).packets, arrived.len() as u64);
    assert!(drain(&other).len() as u64 > SOME / 2, "the other port got its datagrams");
    let dropped = malformed(&guard);
    assert!(
        sent > 1000 && dropped > sent / 2 && dropped <= sent,
        "{dropped} of {sent} were dropped and counted"
    );
    assert_eq!(guard.totals().expect("totals").of(Action::Malformed).bytes, dropped * (60 + 42));
    guard.detach().expect("detached");
}

#[test]
fn a_flood_is_dropped_natively_and_other_traffic_is_untouched() {
    with_place(|place| flood_in(place, Mode::Native));
}

#[test]
fn a_flood_is_dropped_generically_and_other_traffic_is_untouched() {
    with_place(|place| flood_in(place, Mode::Generic));
}

#[test]
fn where_the_driver_refuses_the_guard_is_generic_and_says_why() {
    with_place(|place| {
        let config = place.config();
        let guard = place.attach(&config);
        assert_eq!(guard.mode(), Mode::Native);
        assert!(guard.native_refused().is_none());
        guard.detach().expect("detached");
        // The bridge has no XDP of its own.
        let bridge = ["link", "add", "bridge", "type", "bridge"];
        let made = std::process::Command::new("ip").args(bridge).status().expect("ip runs");
        assert!(made.success());
        let guard = Guard::attach("bridge", &config).expect("a guard");
        assert_eq!(guard.mode(), Mode::Generic);
        let why = guard.native_refused().expect("a reason").to_string();
        leave(guard);
        let guard = Guard::attach("bridge", &config).expect("a guard");
        assert_eq!(guard.mode(), Mode::Generic);
        let later = guard.native_refused().expect("a reason, though this process has not tried").to_string();
        assert!(later.starts_with(&why) && later.contains("first guarded"), "{later}");
        leave(guard);
        // That it is generic may also be wanted, and is no refusal then.
        let generic = Config { mode: Some(Mode::Generic), ..place.config() };
        let guard = Guard::attach("bridge", &generic).expect("a guard");
        assert!(guard.native_refused().is_none());
        let refused = Guard::attach(NEAR, &Config { ports: vec![], ..place.config() }).expect_err("no ports");
        assert!(matches!(refused, Error::Setting { setting: "ports", .. }), "{refused}");
        guard.detach().expect("detached");
        let native = Config { mode: Some(Mode::Native), ..place.config() };
        let refused = Guard::attach("bridge", &native).expect_err("native is wanted");
        assert!(matches!(refused, Error::Attach { mode: Mode::Native, .. }), "{refused}");
        assert!(!place.root.exists(), "nothing is left behind");
    });
}

#[test]
fn counters_and_guard_go_on_between_two_processes() {
    with_place(|place| {
        let (socket, sender) = (receiver(ADDRESS, PORT), place.sender("192.0.2.1"));
        let send = || {
            for _ in 0..SOME {
                sender.send_to(&BAD, to(ADDRESS, PORT)).expect("sent");
            }
        };
        let guard = place.attach(&place.config());
        send();
        wait_for("the first count", || malformed(&guard) == SOME);
        leave(guard);
        send();
        let guard = place.attach(&place.config());
        wait_for("the count of what came in between", || malformed(&guard) == 2 * SOME);
        send();
        wait_for("the count goes on", || malformed(&guard) == 3 * SOME);
        assert_eq!(drain(&socket).len(), 0);
        let of = |source: &str| guard.peer(source.parse().expect("an address")).expect("a look-up");
        let peer = of("192.0.2.1").expect("it has sent");
        assert_eq!(peer.address.to_string(), "192.0.2.1");
        assert_eq!(peer.of(Action::Malformed), 3 * SOME);
        assert_eq!(of("192.0.2.9"), None);
        guard.detach().expect("detached");
        assert!(!place.root.exists(), "nothing is left behind");
        send();
        assert_eq!(drain(&socket).len() as u64, SOME, "nobody guards any more");
    });
}

#[test]
fn an_upgrade_under_a_flood_lets_nothing_through() {
    with_place(|place| {
        let socket = receiver(ADDRESS, PORT);
        let deny = |text: &str| vec![text.parse().expect("a prefix")];
        let first = Config { deny: deny("192.0.2.0/24"), ..place.config() };
        let second = Config { deny: deny("192.0.2.1/32"), ..place.config() };
        let flooding = AtomicBool::new(true);
        let (guard, sent) = thread::scope(|scope| {
            let mut guard = place.attach(&first);
            let sender = place.sender("192.0.2.1");
            let flooding = &flooding;
            let flood = scope.spawn(move || flood(&sender, &datagram(1), flooding));
            for config in [&second, &first].into_iter().cycle().take(20) {
                leave(guard);
                guard = place.attach(config);
                assert_eq!(guard.mode(), Mode::Native);
            }
            flooding.store(false, Ordering::Relaxed);
            (guard, flood.join().expect("the flood ends"))
        });
        assert_eq!(drain(&socket).len(), 0, "of {sent} datagrams none got through");
        let denied = guard.totals().expect("totals").of(Action::Denied).packets;
        assert!(denied > sent / 2 && denied <= sent, "{denied} of {sent}");
        // The settings are those of the last.
        leave(guard);
        let guard = place.attach(&place.config());
        place.sender("192.0.2.1").send_to(&datagram(1), to(ADDRESS, PORT)).expect("sent");
        assert_eq!(drain(&socket), [datagram(1)]);
        guard.detach().expect("detached");
    });
}

/// In each of the two configurations the flood is dropped by another map: who judged it by maps that are half changed would
/// let it through.
#[test]
fn an_upgrade_that_moves_from_denied_to_allowed_prefixes_lets_nothing_through() {
    with_place(|place| {
        let socket = receiver(ADDRESS, PORT);
        let prefix = |text: &str| vec![text.parse().expect("a prefix")];
        let denying = Config { deny: prefix("192.0.2.0/24"), ..place.config() };
        let allowing = Config { allow: prefix("198.51.100.0/24"), ..place.config() };
        let flooding = AtomicBool::new(true);
        let (guard, sent) = thread::scope(|scope| {
            let mut guard = place.attach(&denying);
            let sender = place.sender("192.0.2.1");
            let flooding = &flooding;
            let flood = scope.spawn(move || flood(&sender, &datagram(1), flooding));
            for config in [&allowing, &denying].into_iter().cycle().take(40) {
                leave(guard);
                guard = place.attach(config);
                assert_eq!(guard.mode(), Mode::Native);
            }
            flooding.store(false, Ordering::Relaxed);
            (guard, flood.join().expect("the flood ends"))
        });
        assert_eq!(drain(&socket).len(), 0, "of {sent} datagrams none got through");
        let totals = guard.totals().expect("totals");
        let [denied, refused] = [Action::Denied, Action::NotAllowed].map(|action| totals.of(action).packets);
        assert!(denied > 0 && refused > 0, "{denied} denied, {refused} not allowed");
        assert!(denied + refused <= sent, "{denied} and {refused} of {sent}");
        guard.detach().expect("detached");
    });
}

#[test]
fn a_second_guard_is_refused() {
    with_place(|place| {
        let guard = place.attach(&place.config());
        let refused = Guard::attach(NEAR, &place.config()).expect_err("it is guarded");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        let elsewhere = Config { root: place.root.with_file_name("another"), ..place.config() };
        match Guard::attach(NEAR, &elsewhere).expect_err("it is guarded") {
            Error::Occupied { interface, present } => {
                assert_eq!((interface.as_str(), present.name.as_deref()), (NEAR, Some("dwcp_guard")));
                assert_eq!(present.holder, Holder::Pin(place.root.join(NEAR)));
            }
            other => panic!("{other}"),
        }
        assert!(!elsewhere.root.exists(), "nothing is left behind");
        assert_eq!(malformed(&guard), 0);
        guard.detach().expect("detached");
        place.attach(&place.config()).detach().expect("it can be guarded again");
    });
}

#[test]
fn what_an_earlier_process_has_left_is_found_and_taken_away() {
    with_place(|place| {
        assert_eq!(dwcp_ebpf::present(NEAR, &place.root).expect("the kernel says"), None);
        let guard = place.attach(&place.config());
        assert_eq!(dwcp_ebpf::pinned(&place.root), [NEAR]);
        let refused = dwcp_ebpf::take_away(&place.root, NEAR).expect_err("it is another's");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        leave(guard);
        let present = dwcp_ebpf::present(NEAR, &place.root).expect("the kernel says").expect("it is there");
        assert_eq!((present.mode, present.holder), (Mode::Native, Holder::Pin(place.root.join(NEAR))));
        let other = Namespace::create().expect("a namespace");
        let refused = other.enter(|| dwcp_ebpf::take_away(&place.root, NEAR)).expect_err("it is not here");
        assert!(matches!(refused, Error::OtherNamespace { .. }), "{refused}");
        dwcp_ebpf::take_away(&place.root, NEAR).expect("taken away");
        assert_eq!(dwcp_ebpf::present(NEAR, &place.root).expect("the kernel says"), None);
        assert_eq!(dwcp_ebpf::pinned(&place.root), [""; 0]);
        // The kernel takes the program with the interface, and the pins stay.
        leave(place.attach(&place.config()));
        place.near.ip(&[&format!("link del {NEAR}")]).expect("removed");
        dwcp_ebpf::take_away(&place.root, NEAR).expect("the pins are removed");
        assert_eq!(dwcp_ebpf::pinned(&place.root), [""; 0]);
    });
}

#[test]
fn another_mode_is_another_attachment() {
    with_place(|place| {
        leave(place.attach(&place.config()));
        let guard = place.attach(&Config { mode: Some(Mode::Generic), ..place.config() });
        assert_eq!(guard.mode(), Mode::Generic);
        guard.detach().expect("detached");
    });
}

#[test]
fn pins_of_another_namespace_are_left_alone() {
    with_place(|place| {
        leave(place.attach(&place.config()));
        let (near, far) =
            (Namespace::create().expect("a namespace"), Namespace::create().expect("a namespace"));
        join(&near, &far);
        let refused = near.enter(|| Guard::attach(NEAR, &place.config())).expect_err("they are not its own");
        assert!(matches!(refused, Error::OtherNamespace { .. }), "{refused}");
        let guard = place.attach(&place.config());
        place.sender("192.0.2.1").send_to(&BAD, to(ADDRESS, PORT)).expect("sent");
        wait_for("the count", || malformed(&guard) == 1);
        guard.detach().expect("detached");
    });
}

#[test]
fn an_interface_that_comes_back_is_guarded_again_and_counters_go_on() {
    with_place(|place| {
        let guard = place.attach(&place.config());
        place.sender("192.0.2.1").send_to(&BAD, to(ADDRESS, PORT)).expect("sent");
        wait_for("the count", || malformed(&guard) == 1);
        leave(guard);
        let removed = std::process::Command::new("ip").args(["link", "del", NEAR]).status().expect("ip runs");
        assert!(removed.success());
        let refused = Guard::attach(NEAR, &place.config()).expect_err("there is none");
        assert!(matches!(refused, Error::NoInterface { .. }), "{refused}");
        join(place.near, &place.far);
        let guard = place.attach(&place.config());
        place.sender("192.0.2.1").send_to(&BAD, to(ADDRESS, PORT)).expect("sent");
        wait_for("the count goes on", || malformed(&guard) == 2);
        guard.detach().expect("detached");
    });
}

#[test]
fn drops_are_sampled_with_source_and_reason() {
    with_place(|place| {
        let limit = Some(Limit { datagrams_per_second: 1, burst: 2 });
        let guard = place.attach(&Config { sample_every: 1, limit, ..place.config() });
        let (sender, sender6) = (place.sender("192.0.2.1"), place.sender("2001:db8::1"));
        sender.send_to(&BAD, to(ADDRESS, PORT)).expect("sent");
        for _ in 0..3 {
            sender6.send_to(&datagram(1), to(ADDRESS6, PORT)).expect("sent");
        }
        let mut events = Vec::new();
        wait_for("events", || {
            guard.poll_events(Duration::from_millis(10), |event| events.push(event)).expect("events");
            events.len() >= 2
        });
        let told: Vec<_> =
            events.iter().map(|event| (event.source.to_string(), event.source_port, event.action)).collect();
        let port = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
        assert_eq!(
            told,
            [
                ("192.0.2.1".to_owned(), port(&sender), Action::Malformed),
                ("2001:db8::1".to_owned(), port(&sender6), Action::Limited)
            ]
        );
        assert_eq!(events[0].bytes, 60 + 42);
        assert!(events[0].time_ns <= events[1].time_ns);
        guard.detach().expect("detached");
    });
}

#[test]
fn without_a_bpf_file_system_it_says_what_to_mount() {
    with_place(|_| {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config { root: folder.path().to_owned(), ..Config::default() };
        let refused = Guard::attach(NEAR, &config).expect_err("no BPF file system");
        assert!(matches!(refused, Error::NoBpfFileSystem { .. }), "{refused}");
    });
}
