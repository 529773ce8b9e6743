//! What it costs one core to drop a flood: in XDP by the guard, and in user space by `recvmmsg`, alternating in one run.
//!
//! One thread does everything, so nothing is lost between two: it lets the kernel send frames over a veth pair
//! (`BPF_PROG_TEST_RUN` with live frames; the receiving side runs inside that call), and then reads the socket until it is
//! empty. Sending is part of every figure; that of a program that drops everything is the floor. In user space a program
//! that passes everything is attached, since the pair takes such frames only with one. The flood is well formed and above
//! its source's limit, so that the guard takes its longest way. Needs root.

#[path = "../tests/support/flood.rs"]
mod flood;
#[path = "../tests/support/frame.rs"]
mod frame;
#[path = "../tests/support/raw.rs"]
mod raw;

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd, ptr};

use dwcp_ebpf::{Action, Config, Guard, Limit, Mode};

use self::flood::{NEAR, Sender, TIME, median, print_machine, with_program};

const ROUNDS: usize = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const BUFFER_BYTES: libc::c_int = 4 << 20;
const READ_AT_ONCE: usize = 64;
const DATAGRAM_BYTES: usize = 128;

/// Nanoseconds of each datagram, in each round.
#[derive(Default)]
struct Figures {
    floor: Vec<f64>,
    guard: Vec<f64>,
    user_space: Vec<f64>,
}

fn main() {
    flood::in_place(|root| {
        measure(&Config {
            root,
            mode: Some(Mode::Native),
            limit: Some(Limit { datagrams_per_second: 1, burst: 1 }),
            ..Config::default()
        });
    });
}

fn measure(config: &Config) {
    let sender = Sender::new(frame::frame(frame::SOURCE, frame::PORT, &frame::datagram(1)));
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        figures.floor.push(with_program(XDP_DROP, Mode::Native, || sender.run(|| 0)).cost);
        let guard = Guard::attach("near", config).expect("a guard");
        let run = sender.run(|| 0);
        let (sent, dropped) = (run.sent, guard.totals().expect("totals").of(Action::Limited).packets);
        // Its bucket gives a datagram a second.
        assert!(dropped + 3 >= sent, "the guard dropped {dropped} of {sent}");
        figures.guard.push(run.cost);
        guard.detach().expect("detached");
        let socket = socket();
        let mut reader = Reader::new();
        let run = with_program(XDP_PASS, Mode::Native, || sender.run(|| reader.read_all(&socket)));
        let (sent, read) = (run.sent, run.received);
        assert!(read * 100 >= sent * 99, "user space read {read} of {sent}: the figure would flatter it");
        figures.user_space.push(run.cost);
    }
    report(figures);
}

fn report(figures: Figures) {
    print_machine(&format!("{ROUNDS} rounds of {TIME:?}, one core"));
    let ratios = figures.user_space.iter().zip(&figures.guard).map(|(user, guard)| user / guard).collect();
    let net = figures.user_space.iter().zip(&figures.guard).zip(&figures.floor);
    let net = net.map(|((user, guard), floor)| (user - floor) / (guard - floor).max(1.0)).collect();
    for (name, rounds) in
        [("floor", figures.floor), ("guard", figures.guard), ("user space", figures.user_space)]
    {
        let cost = median(rounds);
        println!("{name:>10}: {cost:6.0} ns, {:5.2} million datagrams/s", 1e3 / cost);
    }
    println!("user space / guard: {:.1}; without what sending costs: {:.1}", median(ratios), median(net));
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((NEAR, frame::PORT)).expect("a socket");
    socket.set_nonblocking(true).expect("not blocking");
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &(BUFFER_BYTES as usize))
        .expect("a buffer");
    socket
}

/// What `recvmmsg` fills.
struct Reader {
    buffers: Box<[[u8; DATAGRAM_BYTES]; READ_AT_ONCE]>,
}

impl Reader {
    fn new() -> Self {
        Self { buffers: Box::new([[0; DATAGRAM_BYTES]; READ_AT_ONCE]) }
    }

    /// Reads and forgets until there is nothing, as a program would that finds its limit exceeded.
    fn read_all(&mut self, socket: &UdpSocket) -> u64 {
        let mut parts: Vec<_> = self
            .buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES })
            .collect();
        let mut messages: Vec<_> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: integers and pointers, for which zero is allowed.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = ptr::from_mut(part);
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut read = 0;
        loop {
            // SAFETY: each message names one buffer of `self`, of the length that it says; both vectors live on.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    READ_AT_ONCE as u32,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            match count {
                1.. => read += count as u64,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => return read,
                _ => panic!("recvmmsg: {}", io::Error::last_os_error()),
            }
        }
    }
}
