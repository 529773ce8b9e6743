//! A guard beside what else uses the kernel's interfaces: another program, an AF_XDP socket, a user with few capabilities.
//! Needs root to begin with.
#![cfg(feature = "xdp")]

#[path = "support/frame.rs"]
mod frame;
#[path = "support/place.rs"]
mod place;
#[path = "support/raw.rs"]
mod raw;

use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Error, Guard, Holder, Limit, Mode, QUEUES_MAX};
use dwcp_sys::datagram::{DatagramSocket, XdpDatagrams};

use self::{
    frame::{PORT, datagram},
    place::{ADDRESS, NEAR, drain, hide, receiver, to, with_place},
};

const XDP_PASS: i32 = 2;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_IPC_LOCK: u64 = 1 << 14;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

fn index() -> u32 {
    nix::net::if_::if_nametoindex(NEAR).expect("the interface")
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    with_place(|place| {
        let foreign = raw::program(&raw::always(XDP_PASS)).expect("a program");
        raw::attach(index(), raw::IN_DRIVER, foreign.as_fd()).expect("attached");
        for _ in 0..2 {
            match Guard::attach(NEAR, &place.config()).expect_err("the interface is taken") {
                Error::Occupied { interface, present } => {
                    assert_eq!((interface.as_str(), present.name.as_deref()), (NEAR, Some("foreign")));
                    assert_ne!(present.id, 0);
                    assert_eq!(present.holder, Holder::Interface);
                }
                other => panic!("{other}"),
            }
            assert!(!place.root.exists(), "nothing is left behind");
        }
        let off = ["link", "set", "dev", NEAR, "xdpdrv", "off"];
        assert!(std::process::Command::new("ip").args(off).status().expect("ip runs").success());
        place.attach(&place.config()).detach().expect("after what the error says to do it is free");
        let link = raw::attach_link(index(), raw::IN_DRIVER, foreign.as_fd()).expect("attached by a link");
        match Guard::attach(NEAR, &place.config()).expect_err("the interface is taken") {
            Error::Occupied { present, .. } => {
                assert!(matches!(present.holder, Holder::Link(_)), "{present:?}")
            }
            other => panic!("{other}"),
        }
        drop(link);
        place.attach(&place.config()).detach().expect("who held it has ended");
    });
}

// Why native is not tried again: between a generic program and a native one there is a moment without any.
#[test]
fn a_generic_guard_that_is_taken_over_stays_and_says_why() {
    with_place(|place| {
        let generic = Config { mode: Some(Mode::Generic), ..place.config() };
        drop(place.attach(&generic));
        let foreign = raw::program(&raw::always(XDP_PASS)).expect("a program");
        let refused = raw::attach_link(index(), raw::IN_DRIVER, foreign.as_fd()).expect_err("there is one");
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        let guard = place.attach(&place.config());
        assert_eq!(guard.mode(), Mode::Generic);
        let why = guard.native_refused().expect("a reason").to_string();
        assert!(why.contains("earlier process"), "{why}");
        guard.detach().expect("detached");
        let guard = place.attach(&place.config());
        assert_eq!(guard.mode(), Mode::Native, "now it is tried");
        assert!(guard.native_refused().is_none());
        guard.detach().expect("detached");
    });
}

// As on a kernel that was built without its BTF: nor is it anywhere else where libbpf looks.
#[test]
fn without_btf_of_the_kernel_a_guard_does_all_that_it_does() {
    with_place(|place| {
        for folder in ["/sys/kernel/btf", "/boot", "/lib/modules", "/usr/lib/debug"].map(Path::new) {
            if folder.exists() {
                hide(folder);
            }
        }
        assert!(!Path::new("/sys/kernel/btf/vmlinux").exists());
        let limit = Some(Limit { datagrams_per_second: 1, burst: 2 });
        for mode in [Mode::Native, Mode::Generic] {
            let config = Config { mode: Some(mode), limit, sample_every: 1, ..place.config() };
            drop(place.attach(&config));
            let guard = place.attach(&config);
            let (kernel, sender) = (receiver(ADDRESS, PORT), place.sender("192.0.2.1"));
            for _ in 0..3 {
                sender.send_to(&datagram(1), to(ADDRESS, PORT)).expect("sent");
            }
            assert_eq!(drain(&kernel), [datagram(1), datagram(1)], "{mode}");
            let mut events = Vec::new();
            guard.poll_events(Duration::from_secs(10), |event| events.push(event.action)).expect("events");
            assert_eq!(events, [Action::Limited]);
            assert_eq!(guard.totals().expect("totals").of(Action::Limited).packets, 1);
            guard.detach().expect("detached");
        }
    });
}

#[test]
fn datagrams_of_a_known_flow_go_to_the_socket_and_others_to_the_kernel() {
    with_place(|place| {
        let guard = place.attach(&place.config());
        let (kernel, sender) = (receiver(ADDRESS, PORT), place.sender("192.0.2.1"));
        let send = |flow| sender.send_to(&datagram(flow), to(ADDRESS, PORT)).expect("sent");
        guard.add_flow(7).expect("a flow");
        send(7);
        assert_eq!(drain(&kernel), [datagram(7)], "without a socket it passes");

        let socket = XdpDatagrams::open(NEAR, 0, to(ADDRESS, PORT)).expect("an AF_XDP socket");
        guard.set_socket(0, socket.readiness()).expect("a socket");
        send(7);
        send(8);
        assert_eq!(drain(&kernel), [datagram(8)]);
        let mut received = Vec::new();
        socket.recv(&mut |_, bytes| received.push(bytes.to_vec())).expect("it was steered");
        assert_eq!(received, [datagram(7)]);
        let totals = guard.totals().expect("totals");
        assert_eq!((totals.of(Action::Steered).packets, totals.of(Action::Passed).packets), (1, 2));

        guard.remove_flow(7).expect("no flow");
        guard.remove_flow(7).expect("nor a second time");
        send(7);
        assert_eq!(drain(&kernel), [datagram(7)]);

        guard.add_flow(7).expect("a flow");
        guard.add_flow(9).expect("another flow");
        guard.clear_flows().expect("no flows");
        for flow in [7, 9] {
            send(flow);
        }
        assert_eq!(drain(&kernel), [datagram(7), datagram(9)]);

        // A socket that is closed takes nothing.
        guard.add_flow(7).expect("a flow");
        drop(socket);
        let begin = Instant::now();
        while drain(&kernel).is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the kernel has forgotten the socket");
            send(7);
        }
        let refused = guard.set_socket(QUEUES_MAX, kernel.as_fd()).expect_err("too high a queue");
        assert!(matches!(refused, Error::Setting { .. }), "{refused}");
        let refused = guard.set_socket(0, kernel.as_fd()).expect_err("not an AF_XDP socket");
        assert!(matches!(refused, Error::Map { map: "sockets", .. }), "{refused}");
        guard.detach().expect("detached");
    });
}

/// What a user with these capabilities gets who may write where the pins are.
fn as_user(capabilities: u64, root: &std::path::Path, config: &Config) -> Result<(), Error> {
    fs::create_dir_all(root).expect("a folder");
    nix::unistd::chown(root, Some(65534.into()), None).expect("the user's");
    let attempt = || {
        raw::become_user(capabilities).expect("a user");
        let guard = Guard::attach(NEAR, config)?;
        guard.totals()?;
        guard.peer(std::net::Ipv4Addr::LOCALHOST.into())?;
        guard.detach()
    };
    // A thread that is a user is not root again.
    thread::scope(|scope| scope.spawn(attempt).join().expect("no panic"))
}

#[test]
fn the_capabilities_of_the_contract_are_enough_and_fewer_are_named() {
    with_place(|place| {
        let config = place.config();
        let contract = CAP_BPF | CAP_PERFMON | CAP_NET_ADMIN | CAP_NET_RAW | CAP_IPC_LOCK;
        as_user(contract, &place.root, &config).expect("what the contract gives is enough");
        let needed = CAP_BPF | CAP_PERFMON | CAP_NET_ADMIN;
        as_user(needed, &place.root, &config).expect("what the error asks for is enough");
        for (capabilities, named) in [
            (needed & !CAP_BPF, "CAP_BPF"),
            (needed & !CAP_PERFMON, "CAP_PERFMON"),
            (needed & !CAP_NET_ADMIN, "CAP_NET_ADMIN"),
            (0, "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF"),
        ] {
            match as_user(capabilities, &place.root, &config) {
                Err(Error::NotPermitted { missing }) => assert_eq!(missing, named),
                other => panic!("{other:?}"),
            }
        }
    });
}
