//! The emulator against real traffic: does a link have the rate, delay and loss it claims, in both IP versions?
//!
//! Figures here come from counters and medians with margins that follow from the model; nothing depends on how fast
//! the machine is unless it cannot carry the link at all, which is what `a_lossless_tcp_flow_fills_the_link` is for.

use dwcp_lab::machine::IdleMeter;
use dwcp_lab::scenario::{Outage, RateChange};
use dwcp_lab::stats::LinkStats;
use dwcp_lab::{Lab, Scenario, Side, unavailable};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PORT: u16 = 5201;
/// With less of the processors idle than this, a flow that does not fill the link says nothing about the link: the
/// flow, its peer and the emulator together leave half of two processors idle.
const IDLE_MIN: f64 = 0.1;

/// One lab at a time: two that compete for the processors would measure each other.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if let Some(reason) = unavailable() {
        eprintln!("SKIP: {reason}");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn has_iperf3() -> bool {
    let found = std::process::Command::new("iperf3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIP: no iperf3");
    }
    found
}

fn udp_pair(lab: &Lab, ipv6: bool) -> (UdpSocket, UdpSocket) {
    let bind = |side: Side| lab.enter(side, || UdpSocket::bind((side.ip(ipv6), PORT))).unwrap();
    let (a, b) = (bind(Side::A), bind(Side::B));
    a.connect(b.local_addr().unwrap()).unwrap();
    b.connect(a.local_addr().unwrap()).unwrap();
    for socket in [&a, &b] {
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    }
    (a, b)
}

fn tcp_pair(lab: &Lab, ipv6: bool) -> (TcpStream, TcpStream) {
    let listener = lab.enter(Side::B, || TcpListener::bind((Side::B.ip(ipv6), PORT))).unwrap();
    let client = lab.enter(Side::A, || TcpStream::connect((Side::B.ip(ipv6), PORT))).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Waits until `done`, for what is certain to happen unless something is broken.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn no_faults(stats: &LinkStats) {
    assert_eq!((stats.a_to_b.faults, stats.b_to_a.faults), (0, 0), "{:?}", stats.summary());
}

#[test]
fn a_lossless_tcp_flow_fills_the_link() {
    let Some(_turn) = turn() else { return };
    if !has_iperf3() {
        return;
    }
    for scenario in Scenario::standing() {
        let clean = Scenario { loss: 0.0, ..scenario };
        let lab = Lab::new(&clean).unwrap();
        let mut server = lab.command(Side::B, "iperf3");
        server.args(["-s", "-1", "-i", "1", "-J"]).stdout(Stdio::piped());
        let server = lab.spawn(server).unwrap();
        lab.wait_for_listener(Side::B, Some(PORT), Duration::from_secs(10)).unwrap();
        let mut client = lab.command(Side::A, "iperf3");
        // Long enough to be past slow start three seconds before the end.
        let seconds = 4 + (clean.rtt_ms / 50.0) as usize;
        client.args(["-c", "192.0.2.2", "-C", "cubic", "-t", &seconds.to_string()]).stdout(Stdio::null());
        let idle = IdleMeter::start();
        assert!(lab.spawn(client).unwrap().wait().unwrap().success());
        let idle = idle.share();
        let report = server.stdout_within(Duration::from_secs(10)).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        // The receiver's view, second by second.
        let mut rates: Vec<f64> = report["intervals"].as_array().unwrap()[..seconds]
            .iter()
            .map(|interval| interval["sum"]["bits_per_second"].as_f64().unwrap() / 1e6)
            .collect();
        let stats = lab.stats();
        let summary = stats.summary();
        println!("{}: {:.0?} Mbit/s of {}, {summary:?}", clean.name, rates, clean.rate_mbit);
        let last = &mut rates[seconds - 3..];
        last.sort_by(f64::total_cmp);
        if last[1] < 0.97 * clean.rate_mbit && (summary.void || idle < IDLE_MIN) {
            eprintln!("SKIP: {}: the machine is busy with something else ({idle:.2} idle)", clean.name);
            continue;
        }
        assert!(last[1] >= 0.97 * clean.rate_mbit, "{}: {last:?}, {idle:.2} idle", clean.name);
        assert_eq!(stats.a_to_b.lost + stats.b_to_a.lost, 0);
        no_faults(&stats);
    }
}

#[test]
fn round_trips_take_as_long_as_they_should() {
    let Some(_turn) = turn() else { return };
    for scenario in Scenario::standing() {
        let lab = Lab::new(&Scenario { loss: 0.0, ..scenario.clone() }).unwrap();
        for ipv6 in [false, true] {
            let (a, b) = udp_pair(&lab, ipv6);
            let mut times = vec![];
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut buffer = [0; 64];
                    for _ in 0..5 {
                        let len = b.recv(&mut buffer).unwrap();
                        b.send(&buffer[..len]).unwrap();
                    }
                });
                for number in 0..5u8 {
                    let started = Instant::now();
                    a.send(&[number; 56]).unwrap();
                    let mut buffer = [0; 64];
                    assert_eq!(a.recv(&mut buffer).unwrap(), 56);
                    assert_eq!(buffer[0], number);
                    times.push(started.elapsed().as_secs_f64() * 1e3);
                }
            });
            times.sort_by(f64::total_cmp);
            println!("{} ipv6={ipv6}: {:.3?} ms", scenario.name, times);
            // None is faster than the path. How much later a packet comes is the machine's timers and load: only a
            // delay that was counted twice, in all round trips, cannot be theirs.
            assert!(times[0] >= scenario.rtt_ms, "{}: {times:?}", scenario.name);
            assert!(times[0] < 1.5 * scenario.rtt_ms, "{}: {times:?}", scenario.name);
        }
    }
}

#[test]
fn the_measured_loss_is_the_configured_one_each_way() {
    let Some(_turn) = turn() else { return };
    for (ipv6, loss) in [(false, 0.05), (true, 0.01)] {
        let lab = Lab::new(&Scenario { loss, ..Scenario::clean("loss", 400.0, 4.0) }).unwrap();
        let (a, b) = udp_pair(&lab, ipv6);
        const PACKETS: u32 = 30_000;
        for (from, to) in [(&a, &b), (&b, &a)] {
            // Few enough at a time that the receiver's socket buffer holds them all: what is missing, the link lost.
            let mut arrived = BTreeSet::new();
            to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            for chunk in 0..PACKETS / 100 {
                for number in chunk * 100..(chunk + 1) * 100 {
                    from.send(&number.to_le_bytes()).unwrap();
                }
                let mut number = [0; 4];
                // All of a chunk arrive within microseconds of each other unless the last was lost.
                while to.recv(&mut number).is_ok() {
                    arrived.insert(u32::from_le_bytes(number));
                    if u32::from_le_bytes(number) % 100 == 99 {
                        break;
                    }
                }
            }
            let stats = lab.stats();
            let way = if std::ptr::eq(from, &a) { &stats.a_to_b } else { &stats.b_to_a };
            let lost = u64::from(PACKETS) - arrived.len() as u64;
            println!("ipv6={ipv6} loss={loss}: {lost} of {PACKETS}, the link says {}", way.lost);
            // The kernel's own packets (IPv6 housekeeping) may be among the link's losses.
            assert!(way.lost >= lost && way.lost <= lost + 3, "{lost} {}", way.lost);
            let (mean, deviation) = binomial(PACKETS, loss);
            assert!((lost as f64 - mean).abs() < 5.0 * deviation, "{lost}, expected {mean} +- {deviation}");
            no_faults(&stats);
        }
    }
}

fn binomial(count: u32, p: f64) -> (f64, f64) {
    let count = f64::from(count);
    (count * p, (count * p * (1.0 - p)).sqrt())
}

#[test]
fn tcp_loses_segments_at_the_configured_rate_and_no_bytes() {
    let Some(_turn) = turn() else { return };
    for ipv6 in [false, true] {
        let lab = Lab::new(&Scenario { loss: 0.01, ..Scenario::clean("tcp", 200.0, 4.0) }).unwrap();
        let (mut client, mut server) = tcp_pair(&lab, ipv6);
        let data: Vec<u8> = (0..20_000_000u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
        let mut received = vec![];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.write_all(&data).unwrap();
                drop(client);
            });
            server.read_to_end(&mut received).unwrap();
        });
        assert!(received == data, "what arrives is what was sent");
        let stats = lab.stats();
        let way = &stats.a_to_b;
        let (mean, deviation) = binomial(way.segments as u32, 0.01);
        println!("ipv6={ipv6}: {} segments, {} lost", way.segments, way.lost);
        assert!(way.segments >= 20_000_000 / 1448, "loss is drawn per wire segment, not per super-packet");
        assert!((way.lost as f64 - mean).abs() < 5.0 * deviation, "{} of {}", way.lost, way.segments);
        no_faults(&stats);
    }
}

#[test]
fn udp_super_packets_cross_and_are_cut() {
    let Some(_turn) = turn() else { return };
    for ipv6 in [false, true] {
        let lab = Lab::new(&Scenario { loss: 0.05, ..Scenario::clean("gso", 200.0, 4.0) }).unwrap();
        let (a, b) = udp_pair(&lab, ipv6);
        nix::sys::socket::setsockopt(&a, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
        b.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut arrived = 0u32;
        let mut buffer = [0; 2000];
        for batch in 0..50u8 {
            // 20 datagrams of 1000 bytes and one of 500, in one call.
            let data: Vec<u8> = (0..20_500).map(|i| (i / 1000) as u8 ^ batch).collect();
            assert_eq!(a.send(&data).unwrap(), data.len());
            while let Ok(len) = b.recv(&mut buffer) {
                let number = buffer[0] ^ batch;
                assert!(number <= 20 && buffer[..len].iter().all(|byte| *byte == buffer[0]));
                assert_eq!(len, if number == 20 { 500 } else { 1000 });
                arrived += 1;
                if number == 20 {
                    break;
                }
            }
        }
        let stats = lab.stats();
        println!("ipv6={ipv6}: {arrived} of 1050 datagrams, {} segments", stats.a_to_b.segments);
        assert!(stats.a_to_b.segments >= 1050, "every datagram of a super-packet counts");
        assert!(stats.a_to_b.lost > 0 && u64::from(arrived) + stats.a_to_b.lost >= 1050);
        no_faults(&stats);
    }
}

#[test]
fn a_full_queue_drops_its_tail() {
    let Some(_turn) = turn() else { return };
    let scenario = Scenario { queue_bytes: Some(50_000), ..Scenario::clean("tail", 8.0, 10.0) };
    let lab = Lab::new(&scenario).unwrap();
    let (a, b) = udp_pair(&lab, false);
    (0..200u32).for_each(|number| {
        let mut datagram = [0; 992]; // 1000 bytes of IP payload
        datagram[..4].copy_from_slice(&number.to_le_bytes());
        a.send(&datagram).unwrap();
    });
    let mut numbers = vec![];
    b.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut datagram = [0; 1500];
    while b.recv(&mut datagram).is_ok() {
        numbers.push(u32::from_le_bytes(datagram[..4].try_into().unwrap()));
    }
    let stats = lab.stats();
    println!("{} arrived, {} dropped", numbers.len(), stats.a_to_b.queue_drops);
    assert_eq!(numbers[..49], (0..49).collect::<Vec<_>>(), "what fits comes through in order");
    // A millisecond each on the wire: sending all of them takes far less than the hundred that never fit.
    assert!(stats.a_to_b.queue_drops >= 50, "{}", stats.a_to_b.queue_drops);
    assert_eq!(numbers.len() as u64 + stats.a_to_b.queue_drops, 200);
}

#[test]
fn held_back_packets_are_overtaken_for_real() {
    let Some(_turn) = turn() else { return };
    let scenario =
        Scenario { reorder: 0.05, reorder_delay_ms: 3.0, ..Scenario::clean("reorder", 100.0, 4.0) };
    let lab = Lab::new(&scenario).unwrap();
    let (a, b) = udp_pair(&lab, false);
    let mut overtaken = 0;
    let mut highest = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..1000u32 {
                a.send(&number.to_le_bytes()).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for _ in 0..1000 {
            let mut number = [0; 4];
            b.recv(&mut number).unwrap();
            let number = u32::from_le_bytes(number);
            overtaken += u32::from(number < highest);
            highest = highest.max(number);
        }
    });
    let held_back = lab.stats().a_to_b.held_back;
    println!("{overtaken} overtaken, {held_back} held back");
    assert!(overtaken >= 20 && u64::from(overtaken) <= held_back);
}

#[test]
fn a_link_that_is_down_passes_nothing_and_tcp_goes_on_afterwards() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::new(&Scenario::clean("down", 100.0, 4.0)).unwrap();
    let (mut client, mut server) = tcp_pair(&lab, false);
    let mut byte = [0];
    client.write_all(&[1]).unwrap();
    server.read_exact(&mut byte).unwrap();
    lab.set_link_up(false);
    client.write_all(&[2]).unwrap();
    eventually("the byte is dropped, and sent again, and dropped", || lab.stats().a_to_b.down_drops >= 2);
    server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(server.read(&mut byte).is_err(), "nothing arrives");
    lab.set_link_up(true);
    server.set_read_timeout(None).unwrap();
    server.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [2]);
}

#[test]
fn rates_change_and_outages_happen_when_they_should() {
    let Some(_turn) = turn() else { return };
    let scenario = Scenario {
        rate_changes: vec![RateChange { at_s: 1.0, rate_mbit: 10.0 }],
        outages: vec![Outage { from_s: 2.0, to_s: 600.0 }],
        queue_bytes: Some(100_000),
        ..Scenario::clean("changes", 80.0, 2.0)
    };
    let lab = Lab::new(&scenario).unwrap();
    let (a, b) = udp_pair(&lab, false);
    b.set_nonblocking(true).unwrap();
    // More than the link takes, until the outage; UDP does not slow down.
    while lab.stats().a_to_b.down_drops == 0 {
        for _ in 0..16 {
            a.send(&[0; 992]).unwrap(); // 1000 bytes of IP payload
        }
        std::thread::sleep(Duration::from_micros(200));
        while b.recv(&mut [0; 1000]).is_ok() {}
    }
    let stats = lab.stats();
    let (offered, delivered) = (1000 * stats.a_to_b.segments, stats.a_to_b.delivered_bytes);
    // One second at 80 and one at 10 Mbit/s is 11.25 MB.
    println!("{offered} bytes offered, {delivered} of 11250000 delivered");
    assert!(delivered <= 11_250_000, "faster than the link");
    no_faults(&stats);
    if offered < 20_000_000 || stats.summary().void {
        eprintln!("SKIP: the machine is too busy to keep an 80 Mbit/s link full");
        return;
    }
    // A sender that is held up now and then leaves gaps; the exact rate is another test's subject.
    assert!(delivered > 5_000_000, "slower than the first rate");
}

#[test]
fn a_seed_gives_the_same_losses_again() {
    let Some(_turn) = turn() else { return };
    let arrivals = |seed| {
        let scenario = Scenario { loss: 0.2, seed, ..Scenario::clean("seed", 100.0, 4.0) };
        let lab = Lab::new(&scenario).unwrap();
        let (a, b) = udp_pair(&lab, false);
        for number in 0..200u8 {
            a.send(&[number]).unwrap();
        }
        b.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut numbers = vec![];
        let mut byte = [0];
        while b.recv(&mut byte).is_ok() {
            numbers.push(byte[0]);
        }
        (numbers, lab.stats().a_to_b.segments)
    };
    let (first, second, other) = (arrivals(5), arrivals(5), arrivals(6));
    // Packets of the kernel's own (IPv6 housekeeping) would take draws from the sequence.
    if (first.1, second.1) == (200, 200) {
        assert_eq!(first, second);
    } else {
        eprintln!("SKIP: the kernel sent packets of its own: {} and {}", first.1, second.1);
    }
    assert_ne!(first.0, other.0);
}
