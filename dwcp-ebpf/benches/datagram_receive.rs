//! What it costs one core to receive datagrams: through AF_XDP, and by `recvmmsg` with GRO, alternating in one run.
//!
//! One thread does everything, so nothing is lost between two: it lets the kernel send frames of a known flow over a veth
//! pair (`BPF_PROG_TEST_RUN` with live frames; the receiving side, up to the socket, runs inside that call), and then
//! receives until there is nothing. The guard is attached natively both times and takes the same way; only that its queue
//! has an AF_XDP socket, or has none and lets the kernel's UDP have them. GRO is on, as with a network card, and all frames
//! are of one flow, carry right checksums and are no fragments, so that it joins as many as it ever can. Sending is part of
//! every figure; that of a program that drops everything is the floor. AF_XDP copies here, as a veth has no zero-copy.
//! Needs root.

#[path = "../tests/support/flood.rs"]
mod flood;
#[path = "../tests/support/frame.rs"]
mod frame;
#[path = "../tests/support/raw.rs"]
mod raw;

use std::{hint::black_box, io, net::SocketAddr};

use dwcp_ebpf::{Action, Config, Guard, Mode};
use dwcp_proto::datagram::{DatagramHeader, DatagramType};
use dwcp_sys::datagram::{
    DatagramSocket, UdpDatagrams, XdpDatagrams,
    packet::{self, LinkPath},
};

use self::flood::{FAR, NEAR, NEAR_MAC, Sender, TIME, median, print_machine, with_program};

const ROUNDS: usize = 7;
const FLOW: u64 = 7;
const XDP_DROP: i32 = 1;
/// A call that receives more datagrams than packets has had some joined.
const PACKETS_AT_ONCE: f64 = 32.0;
/// Of UDP's payload: a probe, and what fills an MTU of 1500.
const LENGTHS: [usize; 2] = [100, 1472];
/// Of one measurement: where the machine was taken away for a moment, the sender has overrun the socket.
const TRIES_MAX: u32 = 5;

/// Nanoseconds of each datagram, in each round.
#[derive(Default)]
struct Figures {
    floor: Vec<f64>,
    xdp: Vec<f64>,
    udp: Vec<f64>,
    /// Datagrams of one call.
    udp_at_once: f64,
    xdp_at_once: f64,
}

fn main() {
    flood::in_place(|root| {
        let config = Config { root, addresses: vec![NEAR.into()], limit: None, ..Config::default() };
        raw::enable_gro("near").expect("GRO");
        print_machine(&format!("{ROUNDS} rounds of {TIME:?}, one core"));
        for length in LENGTHS {
            println!("{length} bytes:");
            report(measure(&config, length));
        }
    });
}

fn measure(config: &Config, length: usize) -> Figures {
    let local = SocketAddr::new(NEAR.into(), frame::PORT);
    let sender = Sender::new(frame_of(length, local));
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        figures.floor.push(with_program(XDP_DROP, Mode::Native, || sender.run(|| 0)).cost);
        let guard = Guard::attach("near", config).expect("a guard");
        guard.add_flow(FLOW).expect("a flow");
        {
            let socket = XdpDatagrams::open("near", 0, local).expect("an AF_XDP socket");
            guard.set_socket(0, socket.readiness()).expect("steered to");
            let (cost, at_once) = receive(&sender, &socket, length);
            figures.xdp.push(cost);
            figures.xdp_at_once = at_once;
            assert!(guard.totals().expect("totals").of(Action::Steered).packets > 0);
        }
        {
            let socket = UdpDatagrams::bind(local).expect("a UDP socket");
            assert!(socket.features().gro, "this kernel joins what arrives");
            let (cost, at_once) = receive(&sender, &socket, length);
            assert!(
                at_once > PACKETS_AT_ONCE,
                "GRO has joined nothing: the figure would not be what it says"
            );
            figures.udp.push(cost);
            figures.udp_at_once = at_once;
        }
        guard.detach().expect("detached");
    }
    figures
}

/// Nanoseconds a datagram, and how many one call received. What is lost costs less than what is received: a measurement
/// that has lost more than a hundredth would flatter, and is made again.
fn receive(sender: &Sender, socket: &dyn DatagramSocket, length: usize) -> (f64, f64) {
    (0..TRIES_MAX)
        .find_map(|_| receive_all(sender, socket, length))
        .expect("a measurement that loses next to nothing")
}

fn receive_all(sender: &Sender, socket: &dyn DatagramSocket, length: usize) -> Option<(f64, f64)> {
    let mut calls = 0u64;
    let run = sender.run(|| {
        let mut received = 0;
        loop {
            let result = socket.recv(&mut |_, bytes| {
                assert_eq!(bytes.len(), length);
                black_box(bytes[0]);
            });
            match result {
                Ok(count) => (received, calls) = (received + count as u64, calls + 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return received,
                Err(error) => panic!("receiving: {error}"),
            }
        }
    });
    (run.received * 100 >= run.sent * 99).then(|| (run.cost, run.received as f64 / calls as f64))
}

fn report(figures: Figures) {
    let rounds = || figures.udp.iter().zip(&figures.xdp).zip(&figures.floor);
    let ratio = median(rounds().map(|((udp, xdp), _)| udp / xdp).collect());
    let net = median(rounds().map(|((udp, xdp), floor)| (udp - floor) / (xdp - floor).max(1.0)).collect());
    for (name, costs, at_once) in [
        ("floor", figures.floor, None),
        ("AF_XDP", figures.xdp, Some(figures.xdp_at_once)),
        ("recvmmsg and GRO", figures.udp, Some(figures.udp_at_once)),
    ] {
        let cost = median(costs);
        let at_once = at_once.map(|at_once| format!(", {at_once:.0} a call")).unwrap_or_default();
        println!("{name:>18}: {cost:6.0} ns, {:5.2} million datagrams/s{at_once}", 1e3 / cost);
    }
    println!("  recvmmsg / AF_XDP: {ratio:.2}; without what sending costs: {net:.2}");
}

/// A frame of the known flow with so many bytes behind the UDP header.
fn frame_of(length: usize, to: SocketAddr) -> Vec<u8> {
    let payload_len = (length - 24) as u16;
    let header =
        DatagramHeader { ty: DatagramType::Message, key_phase: false, payload_len, flow: FLOW, number: 1 };
    let path = LinkPath::new([2; 6], NEAR_MAC, &[]).expect("no tags");
    let mut bytes = vec![0; packet::HEADER_BYTES_MAX + length];
    let payload = frame::datagram_of(&header);
    let from = SocketAddr::new(FAR.into(), 4000);
    let built = packet::build(&mut bytes, &path, from, to, &payload).expect("a frame");
    bytes.truncate(built);
    bytes
}
