//! What it costs one core to drop a flood: in XDP by the guard, and in user space by `recvmmsg`, alternating in one run.
//!
//! One thread does everything, so nothing is lost between two: it lets the kernel send frames over a veth pair
//! (`BPF_PROG_TEST_RUN` with live frames; the receiving side runs inside that call), and then reads the socket until it is
//! empty. Sending is part of every figure; that of a program that drops everything is the floor. In user space a program
//! that passes everything is attached, since the pair takes such frames only with one. The flood is well formed and above
//! its source's limit, so that the guard takes its longest way. Needs root.

#[path = "../tests/support/frame.rs"]
mod frame;
#[path = "../tests/support/raw.rs"]
mod raw;

use std::{
    fs, io, mem,
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Guard, Limit, Mode};
use dwcp_lab::namespace::Namespace;
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

const ROUNDS: usize = 7;
const TIME: Duration = Duration::from_secs(1);
/// Frames of one call: what they take in the socket's buffer is well below its size.
const AT_ONCE: u32 = 512;
const BUFFER_BYTES: libc::c_int = 4 << 20;
const READ_AT_ONCE: usize = 64;
const DATAGRAM_BYTES: usize = 128;
const CORE: usize = 1;

/// Nanoseconds of each datagram, in each round.
#[derive(Default)]
struct Figures {
    floor: Vec<f64>,
    guard: Vec<f64>,
    user_space: Vec<f64>,
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let near = Namespace::create().expect("a namespace");
    let queues = "numrxqueues 1 numtxqueues 1";
    near.ip(&[
        &format!("link add near {queues} address 02:02:02:02:02:02 type veth peer name far {queues}"),
        &format!("link add spare {queues} type veth peer name other {queues}"),
        "addr add 192.0.2.2/24 dev near",
        "link set near up",
        "link set far up",
    ])
    .expect("a veth pair");
    let folder = tempfile::tempdir().expect("a folder");
    near.enter(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private");
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("a BPF file system");
        let mut core = CpuSet::new();
        core.set(CORE).expect("a core");
        sched_setaffinity(Pid::from_raw(0), &core).expect("one core");
        measure(&Config {
            root: folder.path().join("guard"),
            mode: Some(Mode::Native),
            limit: Some(Limit { datagrams_per_second: 1, burst: 1 }),
            ..Config::default()
        });
    });
}

fn measure(config: &Config) {
    let sender = Sender::new();
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        figures.floor.push(with_program(1, || sender.run(|| 0)).0);
        let guard = Guard::attach("near", config).expect("a guard");
        let (cost, sent, _) = sender.run(|| 0);
        let dropped = guard.totals().expect("totals").of(Action::Limited).packets;
        // Its bucket gives a datagram a second.
        assert!(dropped + 3 >= sent, "the guard dropped {dropped} of {sent}");
        figures.guard.push(cost);
        guard.detach().expect("detached");
        let socket = socket();
        let mut reader = Reader::new();
        let (cost, sent, read) = with_program(2, || sender.run(|| reader.read_all(&socket)));
        assert!(read * 100 >= sent * 99, "user space read {read} of {sent}: the figure would flatter it");
        figures.user_space.push(cost);
    }
    report(figures);
}

fn report(figures: Figures) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{ROUNDS} rounds of {TIME:?}, medians, one core, Linux {}", kernel.trim());
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// With a program on the receiving side that gives this verdict.
fn with_program<T>(verdict: i32, work: impl FnOnce() -> T) -> T {
    let program = raw::program(&raw::always(verdict)).expect("a program");
    let index = if_nametoindex("near").expect("the interface");
    raw::attach(index, program.as_fd()).expect("attached");
    let result = work();
    raw::detach(index).expect("detached");
    result
}

/// Sends the flood from the far side.
struct Sender {
    program: OwnedFd,
    frame: Vec<u8>,
}

impl Sender {
    fn new() -> Self {
        const BPF_FUNC_REDIRECT: i32 = 23;
        let far = if_nametoindex("far").expect("the interface") as i32;
        // r1 = far; r2 = 0; call redirect; exit
        let program = raw::program(&[
            raw::instruction(0xb7, 1, 0, far),
            raw::instruction(0xb7, 2, 0, 0),
            raw::instruction(0x85, 0, 0, BPF_FUNC_REDIRECT),
            raw::instruction(0x95, 0, 0, 0),
        ]);
        let program = program.expect("a program");
        // A program that no interface has makes the kernel patch its dispatcher in each call, which takes milliseconds.
        raw::attach(if_nametoindex("spare").expect("the interface"), program.as_fd()).expect("attached");
        Self { program, frame: frame::frame(frame::SOURCE, frame::PORT, &frame::datagram(1)) }
    }

    /// Sends for a while, with `read` in between. Nanoseconds a datagram; how many were sent, and read.
    fn run(&self, mut read: impl FnMut() -> u64) -> (f64, u64, u64) {
        let (begin, mut sent, mut received) = (Instant::now(), 0, 0);
        while begin.elapsed() < TIME {
            match raw::send(self.program.as_fd(), &self.frame, AT_ONCE) {
                Ok(()) => sent += u64::from(AT_ONCE),
                // A signal cut it short: nobody says after how many.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("sending: {error}"),
            }
            received += read();
        }
        (begin.elapsed().as_nanos() as f64 / sent as f64, sent, received)
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(("192.0.2.2", frame::PORT)).expect("a socket");
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
