//! AF_XDP sockets on a veth pair, steered to by a guard: what UDP sockets do (`dwcp-core/sys/tests`), and what only these
//! do. Needs root.
#![cfg(feature = "xdp")]

#[path = "../../dwcp-core/sys/tests/support/exchange.rs"]
mod exchange;
#[path = "support/place.rs"]
mod place;
#[path = "support/raw.rs"]
mod raw;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Guard, Mode};
use dwcp_sys::datagram::{
    DatagramSocket, Outgoing, UdpDatagrams, XdpCounters, XdpDatagrams, XdpError, XdpMode,
    packet::{self, LinkPath},
};

use nix::poll::{PollFd, PollFlags, poll};

use self::{
    exchange::{End, FLOW, datagram},
    place::{ADDRESS, ADDRESS6, NEAR, Place, with_place},
};

const PORT: u16 = 8889;
const FAR: &str = "192.0.2.1";
const FAR6: &str = "2001:db8::1";
/// Of an MTU of 1500, behind IP and UDP.
const LONGEST: usize = 1500 - 28;
const LONGEST6: usize = 1500 - 48;

/// A guard that steers the flow to a socket, beside a UDP socket of the same address; and a UDP socket on the far side.
struct Exchange {
    guard: Guard,
    near: XdpDatagrams,
    udp: UdpDatagrams,
    far: UdpDatagrams,
}

/// Sends no two datagrams as one packet.
struct OneByOne<'a>(&'a UdpDatagrams);

impl DatagramSocket for OneByOne<'_> {
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.0.readiness()
    }

    fn recv(&self, take: &mut dyn FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        self.0.recv(take)
    }

    fn send(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        self.0.send(&datagrams[..1])
    }
}

impl Exchange {
    fn new(place: &Place<'_>, mode: Mode, near: &str, far: &str) -> Self {
        let guard = place.attach(&Config { mode: Some(mode), ..place.config() });
        assert_eq!(guard.mode(), mode);
        let local = at(near);
        let udp = UdpDatagrams::bind(local).expect("a UDP socket");
        let near = XdpDatagrams::open(NEAR, 0, local).expect("an AF_XDP socket");
        assert_eq!(near.mode(), XdpMode::Copy, "a veth has no zero-copy");
        guard.set_socket(0, near.readiness()).expect("steered to");
        guard.add_flow(FLOW).expect("a flow");
        let far = place.far.enter(|| UdpDatagrams::bind(at(far))).expect("a socket on the far side");
        Self { guard, near, udp, far }
    }

    /// Lets the near side learn where the far side is. Before, it has to refuse.
    fn meet(&self) {
        let bytes = datagram(1, 100);
        let there = [Outgoing { to: self.far.local_addr(), bytes: &bytes }];
        let refused = self.near.send(&there).expect_err("it has heard nothing");
        assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable, "{refused}");
        // As the error says.
        assert_eq!(self.udp.send(&there).expect("by UDP"), 1);
        let (source, got) = receive(&self.far, 1).remove(0);
        assert!(got == bytes);
        self.far.send(&[Outgoing { to: source, bytes: &bytes }]).expect("sent");
        assert_eq!(receive(&self.near, 1)[0], (self.far.local_addr(), bytes));
    }

    /// That nothing went another way.
    fn end(self) {
        let totals = self.guard.totals().expect("totals");
        assert!(totals.of(Action::Steered).packets > 0);
        assert_eq!(totals.of(Action::Malformed).packets, 0);
        assert_eq!(
            self.udp.recv(&mut |_, _| {}).expect_err("all was steered").kind(),
            io::ErrorKind::WouldBlock
        );
        self.guard.detach().expect("detached");
    }
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), PORT)
}

/// Waits for so many.
fn receive(socket: &dyn DatagramSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let (begin, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} of {count} came", all.len());
        match socket.recv(&mut |source, bytes| all.push((source, bytes.to_vec()))) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    all
}

/// In both modes, in places of their own, after the two have met.
fn in_both_modes(near: &str, far: &str, test: impl Fn(&Exchange, End<'_>, End<'_>) + Sync) {
    for mode in [Mode::Native, Mode::Generic] {
        with_place(|place| {
            let ends = Exchange::new(place, mode, near, far);
            ends.meet();
            let one_by_one = OneByOne(&ends.far);
            // Behind the driver, joined datagrams go to UDP, and this is about AF_XDP.
            let far: &dyn DatagramSocket = if mode == Mode::Native { &ends.far } else { &one_by_one };
            let near = End { socket: &ends.near, address: ends.near.local_addr() };
            test(&ends, near, End { socket: far, address: far.local_addr() });
            ends.end();
        });
    }
}

#[test]
fn every_length_arrives_whole() {
    in_both_modes(ADDRESS, FAR, |ends, near, far| {
        exchange::every_length(near, far, LONGEST);
        assert_eq!(ends.near.counters().expect("counters"), XdpCounters::default());
    });
}

#[test]
fn every_length_arrives_whole_over_ipv6() {
    in_both_modes(ADDRESS6, FAR6, |ends, near, far| {
        exchange::every_length(near, far, LONGEST6);
        assert_eq!(ends.near.counters().expect("counters"), XdpCounters::default());
    });
}

#[test]
fn bursts_arrive_once_and_in_order() {
    in_both_modes(ADDRESS, FAR, |ends, near, far| {
        exchange::bursts(near, far, LONGEST);
        assert_eq!(ends.near.counters().expect("counters"), XdpCounters::default());
    });
}

#[test]
fn what_nobody_fetches_is_dropped_whole_and_counted() {
    in_both_modes(ADDRESS, FAR, |ends, near, far| {
        // As many as its rings have entries.
        let (got, sent) = exchange::overflow(far, near, LONGEST, 4096);
        assert_eq!(got, 4096);
        let counters = ends.near.counters().expect("counters");
        assert_eq!(counters, XdpCounters { receive_dropped: sent - got, ..XdpCounters::default() });
        exchange::overflow(near, far, LONGEST, 200);
        assert_eq!(ends.near.counters().expect("counters").send_dropped, 0);
    });
}

#[test]
fn a_socket_of_any_address_answers_from_the_one_that_was_asked() {
    in_both_modes("0.0.0.0", FAR, |_, near, far| {
        let near = End { address: at(ADDRESS), ..near };
        exchange::every_length(near, far, LONGEST);
    });
    in_both_modes("::", FAR6, |_, near, far| {
        let near = End { address: at(ADDRESS6), ..near };
        exchange::every_length(near, far, LONGEST6);
    });
}

#[test]
fn datagrams_that_the_kernel_has_joined_reach_its_udp() {
    with_place(|place| {
        let ends = Exchange::new(place, Mode::Generic, ADDRESS, FAR);
        ends.meet();
        assert!(ends.far.features().gso, "this machine joins");
        let all: Vec<_> = (0..30).map(|number| datagram(number, 500)).collect();
        let outgoing: Vec<_> =
            all.iter().map(|bytes| Outgoing { to: ends.near.local_addr(), bytes }).collect();
        assert_eq!(ends.far.send(&outgoing).expect("sent"), all.len());
        let got = receive(&ends.udp, all.len());
        assert!(got.iter().map(|(_, bytes)| bytes).eq(&all));
        assert!(got.iter().all(|(source, _)| *source == ends.far.local_addr()));
        ends.end();
    });
}

#[test]
fn unknown_flows_reach_the_udp_socket_and_what_is_not_its_own_is_counted() {
    with_place(|place| {
        let ends = Exchange::new(place, Mode::Native, ADDRESS, FAR);
        ends.meet();
        let known = datagram(1, 200);
        let mut unknown = known.clone();
        unknown[8] ^= 1;
        let of = |bytes, ip| [Outgoing { to: at(ip), bytes }];
        ends.far.send(&of(&unknown, ADDRESS)).expect("sent");
        assert_eq!(receive(&ends.udp, 1)[0].1, unknown);
        // Of another address of the interface, which the program is told of: it does not know which is the socket's.
        place.near.ip(&[&format!("addr add 192.0.2.3/24 dev {NEAR}")]).expect("another address");
        let both = [ADDRESS, "192.0.2.3"].map(|address| at(address).ip());
        ends.guard.set_addresses(&both).expect("set");
        ends.far.send(&of(&known, "192.0.2.3")).expect("sent");
        ends.far.send(&of(&known, ADDRESS)).expect("sent");
        assert_eq!(receive(&ends.near, 1).len(), 1);
        assert_eq!(ends.near.counters().expect("counters").foreign, 1);
        ends.end();
    });
}

#[test]
fn vlan_tags_are_taken_off_and_put_on_again() {
    for (near, far) in [(ADDRESS, FAR), (ADDRESS6, FAR6)] {
        with_place(|place| {
            let ends = Exchange::new(place, Mode::Native, near, far);
            let (far_guard, far_xdp) = place.far.enter(|| {
                let config = Config { addresses: vec![at(far).ip()], ..place.config() };
                let guard = Guard::attach("far", &config).expect("a guard of the far side");
                let socket = XdpDatagrams::open("far", 0, at(far)).expect("an AF_XDP socket");
                guard.set_socket(0, socket.readiness()).expect("steered to");
                guard.add_flow(FLOW).expect("a flow");
                (guard, socket)
            });
            let bytes = datagram(7, 300);
            let (to_near, to_far) =
                ([Outgoing { to: at(near), bytes: &bytes }], [Outgoing { to: at(far), bytes: &bytes }]);
            ends.near.send(&to_far).expect_err("unknown");
            far_xdp.send(&to_near).expect_err("unknown");
            // A first frame with a tag. That of a device of the kernel's might travel beside it.
            let macs = [("far", &place.far), (NEAR, place.near)];
            let macs = macs.map(|(name, namespace)| raw::mac(namespace, name));
            let path = LinkPath::new(macs[0], macs[1], &[[0x81, 0, 0, 100]]).expect("one tag");
            let mut frame = [0; 1518];
            let length = packet::build(&mut frame, &path, at(far), at(near), &bytes).expect("a frame");
            raw::send_frame(&place.far, "far", &frame[..length]).expect("sent");
            // Both learn from what they receive, and answer each other.
            assert_eq!(receive(&ends.near, 1)[0], (at(far), bytes.clone()));
            ends.near.send(&to_far).expect("learned");
            assert_eq!(receive(&far_xdp, 1)[0], (at(near), bytes.clone()));
            far_xdp.send(&to_near).expect("learned");
            assert_eq!(receive(&ends.near, 1)[0], (at(far), bytes.clone()));
            // The tag was there: the kernel, which has no such VLAN, takes nothing of it.
            far_guard.remove_flow(FLOW).expect("no flow");
            ends.near.send(&to_far).expect("sent");
            wait_for_passed(&far_guard);
            assert_eq!(ends.far.recv(&mut |_, _| {}).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
            far_guard.detach().expect("detached");
            ends.end();
        });
    }
}

/// Until the guard has let a datagram pass.
fn wait_for_passed(guard: &Guard) {
    let begin = Instant::now();
    while guard.totals().expect("totals").of(Action::Passed).packets == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "nothing passed");
    }
}

#[test]
fn a_full_ring_refuses_more_and_nothing_in_it_is_lost() {
    with_place(|place| {
        let ends = Exchange::new(place, Mode::Native, ADDRESS, FAR);
        ends.meet();
        let all: Vec<_> = (0..5000).map(|number| datagram(number, LONGEST)).collect();
        let outgoing: Vec<_> = all.iter().map(|bytes| Outgoing { to: at(FAR), bytes }).collect();
        place.near.ip(&[&format!("link set {NEAR} down")]).expect("down");
        let mut sent = 0;
        let refused = loop {
            match ends.near.send(&outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.raw_os_error(), Some(libc::ENETDOWN), "{refused}");
        assert_eq!(sent, 2048, "as many as the ring has entries");
        place.near.ip(&[&format!("link set {NEAR} up")]).expect("up");
        let (mut got, begin) = (Vec::new(), Instant::now());
        while got.len() < sent {
            assert!(begin.elapsed() < Duration::from_secs(20), "{} of {sent} arrived", got.len());
            // Who waits for the socket has the kernel go on with what is in the ring.
            poll(&mut [PollFd::new(ends.near.readiness(), PollFlags::POLLOUT)], 10u8).expect("a poll");
            let _ = ends.far.recv(&mut |_, bytes| got.push(bytes.to_vec()));
        }
        assert!(got.iter().eq(&all[..sent]), "each once and in order");
        ends.near.send(&outgoing[sent..]).expect("there is room again");
        assert_eq!(receive(&ends.far, 1)[0].1, all[sent]);
        assert_eq!(ends.near.counters().expect("counters"), XdpCounters::default());
        ends.end();
    });
}

#[test]
fn what_is_in_the_way_of_a_socket_is_named() {
    with_place(|place| {
        let open = |queue| XdpDatagrams::open(NEAR, queue, at(ADDRESS));
        let first = open(0).expect("the queue is free");
        assert!(matches!(open(0), Err(XdpError::InUse { queue: 0, .. })));
        assert!(matches!(open(1), Err(XdpError::Bind { queue: 1, .. })), "the interface has one");
        drop(first);
        place.near.ip(&[&format!("link set {NEAR} mtu 9000")]).expect("another MTU");
        assert!(matches!(open(0), Err(XdpError::Mtu { mtu: 9000, .. })));
        place.near.ip(&[&format!("link set {NEAR} mtu 3818")]).expect("another MTU");
        open(0).expect("it fits");
    });
}
