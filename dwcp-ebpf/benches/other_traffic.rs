//! What the attached guard costs TCP through the same interface: throughput over a veth pair with the guard, with a program
//! that passes everything, and with none, alternating in one run.
//!
//! A veth changes with any program in it: natively, what its peer sends is no longer one large packet (GSO) and takes another
//! way to the receiver; generically, such packets are copied into one piece. That is the cost of XDP on a veth and not the
//! guard's, so the guard stands beside a program that does nothing; none at all is shown as well. A connection is made for
//! each measurement, after the program is in place, and no call waits for ever. Needs root.

#[path = "../tests/support/flood.rs"]
mod flood;
#[path = "../tests/support/place.rs"]
mod place;
#[path = "../tests/support/raw.rs"]
mod raw;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Config, Mode};

use self::{
    flood::{median, with_program},
    place::{ADDRESS, Place, with_place},
};

const ROUNDS: usize = 15;
const TIME: Duration = Duration::from_millis(400);
/// For one call.
const PATIENCE: Duration = Duration::from_secs(5);
const PIECE_BYTES: usize = 128 << 10;
const XDP_PASS: i32 = 2;
const MODES: [Mode; 2] = [Mode::Native, Mode::Generic];

/// Gbit/s, in each round.
#[derive(Default)]
struct Figures {
    none: Vec<f64>,
    /// Programs that pass everything, and guards: native, generic.
    idle: [Vec<f64>; 2],
    guard: [Vec<f64>; 2],
}

fn main() {
    with_place(|place| {
        flood::print_machine(&format!("{ROUNDS} rounds of {TIME:?}"));
        let mut figures = Figures::default();
        for _ in 0..ROUNDS {
            figures.none.push(throughput(place));
            for (at, mode) in MODES.into_iter().enumerate() {
                figures.idle[at].push(with_program(XDP_PASS, mode, || throughput(place)));
                let guard = place.attach(&Config { mode: Some(mode), ..place.config() });
                figures.guard[at].push(throughput(place));
                guard.detach().expect("detached");
            }
        }
        report(&figures);
    });
}

fn report(figures: &Figures) {
    print_rate("no program", &figures.none);
    for ((mode, idle), guard) in MODES.into_iter().zip(&figures.idle).zip(&figures.guard) {
        print_rate(&format!("passes all, {mode}"), idle);
        print_rate(&format!("guard, {mode}"), guard);
        for (name, others) in [("guard / passes all", idle), ("guard / no program", &figures.none)] {
            let ratio = median(guard.iter().zip(others).map(|(guard, other)| guard / other).collect());
            println!("{name:>24}: {ratio:.3}");
        }
    }
}

fn print_rate(name: &str, rates: &[f64]) {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[ROUNDS / 4], sorted[ROUNDS - 1 - ROUNDS / 4]);
    let median = sorted[ROUNDS / 2];
    println!("{name:>24}: {median:5.2} Gbit/s, half of the rounds {low:.2} to {high:.2}");
}

/// Of one TCP connection from the far side, in Gbit/s.
fn throughput(place: &Place<'_>) -> f64 {
    let listener = TcpListener::bind((ADDRESS, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    // It is there before anybody accepts it.
    let sending = place.far.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("a connection");
    let (mut stream, _) = listener.accept().expect("a connection");
    thread::scope(|scope| {
        let sender = scope.spawn(move || send(sending));
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (mut buffer, mut bytes, begin) = (vec![0; PIECE_BYTES], 0, Instant::now());
        loop {
            match stream.read(&mut buffer).expect("it goes on") {
                0 => break,
                count => bytes += count,
            }
        }
        let rate = bytes as f64 * 8.0 / begin.elapsed().as_nanos() as f64;
        sender.join().expect("sent");
        rate
    })
}

fn send(mut stream: TcpStream) {
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let (piece, begin) = (vec![0x5a; PIECE_BYTES], Instant::now());
    while begin.elapsed() < TIME {
        stream.write_all(&piece).expect("it goes on");
    }
}
