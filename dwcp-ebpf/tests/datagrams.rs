//! AF_XDP sockets on a veth pair, steered to by a guard: what UDP sockets do (`dwcp-core/sys/tests`), and what only these
//! do. Needs root.
#![cfg(feature = "xdp")]

#[path = "../../dwcp-core/sys/tests/support/exchange.rs"]
mod exchange;
#[path = "support/place.rs"]
mod place;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Guard, Mode};
use dwcp_sys::datagram::{
    DatagramSocket, Outgoing, UdpDatagrams, XdpCounters, XdpDatagrams, XdpError, XdpMode,
    packet::{self, LinkPath},
};

use self::{
    exchange::{End, FLOW, datagram},
    place::{ADDRESS, ADDRESS6, NEAR, Place, with_place},
};

const PORT: u16 = 8889;
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

    fn near(&self) -> End<'_> {
        End { socket: &self.near, address: self.near.local_addr() }
    }

    fn far(&self) -> End<'_> {
        End { socket: &self.far, address: self.far.local_addr() }
    }

    /// Lets the near side learn where the far side is. Before, it has to refuse.
    fn meet(&self) {
        let bytes = datagram(1, 100);
        let there = [Outgoing { to: self.far.local_addr(), bytes: &bytes }];
        let refused = self.near.send(&there).expect_err("it has heard nothing");
        assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable, "{refused}");
        // As the error says.
        assert_eq!(self.udp.send(&there).expect("by UDP"), 1);
        assert_eq!(receive(&self.far, 1)[0], (self.udp.local_addr(), bytes.clone()));
        self.far.send(&[Outgoing { to: self.near.local_addr(), bytes: &bytes }]).expect("sent");
        assert_eq!(receive(&self.near, 1)[0], (self.far.local_addr(), bytes));
    }

    /// That nothing was lost that was not to be, and all went the way that is tested.
    fn end(self, counters: XdpCounters) {
        assert_eq!(self.near.counters().expect("counters"), counters);
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

/// In both modes, in places of their own.
fn in_both_modes(test: impl Fn(&Place<'_>, Mode) + Sync) {
    for mode in [Mode::Native, Mode::Generic] {
        with_place(|place| test(place, mode));
    }
}

#[test]
fn every_length_arrives_whole() {
    in_both_modes(|place, mode| {
        let ends = Exchange::new(place, mode, ADDRESS, "192.0.2.1");
        ends.meet();
        exchange::every_length(ends.near(), ends.far(), LONGEST);
        ends.end(XdpCounters::default());
    });
}

#[test]
fn every_length_arrives_whole_over_ipv6() {
    in_both_modes(|place, mode| {
        let ends = Exchange::new(place, mode, ADDRESS6, "2001:db8::1");
        ends.meet();
        exchange::every_length(ends.near(), ends.far(), LONGEST6);
        ends.end(XdpCounters::default());
    });
}

#[test]
fn bursts_arrive_once_and_in_order() {
    in_both_modes(|place, mode| {
        let ends = Exchange::new(place, mode, ADDRESS, "192.0.2.1");
        ends.meet();
        exchange::bursts(ends.near(), ends.far(), LONGEST);
        ends.end(XdpCounters::default());
    });
}
