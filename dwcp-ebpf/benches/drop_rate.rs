//! What it costs one core to drop a flood: in XDP by the guard, and in user space by `recvmmsg`, alternating in one run.
//!
//! All is on one core: a thread that sends frames over a veth pair (`BPF_PROG_TEST_RUN` with live frames), the kernel's that
//! receives them (threaded NAPI), and one that reads. A figure is the time that the last two ran, of each datagram that was
//! dropped; the sender's is not counted. They interrupt it after each batch, so that nothing is lost for want of room: what
//! is lost costs time and counts for nothing. In user space there is no program: the pair takes such frames, and has such a
//! thread, because it joins packets (GRO), of which there are none here that can be joined. The guard is measured natively and
//! generically. The flood is well formed and above its source's limit, so that the guard takes its longest way. Needs root.

#[path = "../tests/support/flood.rs"]
mod flood;
#[path = "../tests/support/frame.rs"]
mod frame;
#[path = "../tests/support/raw.rs"]
mod raw;

use std::{
    fs, io, mem,
    net::UdpSocket,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use dwcp_ebpf::{Action, Config, Guard, Limit, Mode};
use nix::{
    mount::{MsFlags, mount},
    unistd::{Pid, gettid},
};

use self::flood::{NEAR, Sender, TIME, median, print_machine};

const ROUNDS: usize = 7;
const MODES: [Mode; 2] = [Mode::Native, Mode::Generic];
const BUFFER_BYTES: libc::c_int = 4 << 20;
const READ_AT_ONCE: usize = 64;
const DATAGRAM_BYTES: usize = 128;
/// For what was sent last to be read.
const PATIENCE: Duration = Duration::from_millis(10);
/// Of threads that interrupt the sender: the kernel's first.
const RECEIVING: libc::c_int = 2;
const READING: libc::c_int = 1;

/// Nanoseconds of each datagram, in each round.
#[derive(Default)]
struct Figures {
    /// Native, generic.
    guard: [Vec<f64>; 2],
    user_space: Vec<f64>,
}

fn main() {
    flood::in_place(|root| {
        // The one here shows another network namespace.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).expect("sysfs");
        raw::enable_gro("near").expect("GRO");
        if let Err(error) = receive_in_a_thread() {
            println!("SKIP: no threaded NAPI in this kernel: {error}");
            return;
        }
        measure(&Config {
            root,
            addresses: vec![frame::DESTINATION.into()],
            limit: Some(Limit { datagrams_per_second: 1, burst: 1 }),
            ..Config::default()
        });
    });
}

fn measure(config: &Config) {
    let sender = Sender::new(frame::frame(frame::SOURCE, frame::PORT, &frame::datagram(1)));
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        for (mode, costs) in MODES.into_iter().zip(&mut figures.guard) {
            costs.push(in_xdp(&Config { mode: Some(mode), ..config.clone() }, &sender));
        }
        figures.user_space.push(in_user_space(&sender));
    }
    report(figures);
}

fn in_xdp(config: &Config, sender: &Sender) -> f64 {
    let guard = Guard::attach("near", config).expect("a guard");
    let kernel = KernelThread::of_near();
    let begin = kernel.ran_for();
    sender.run_long();
    let totals = guard.totals().expect("totals");
    let (ran, dropped) = (kernel.ran_for() - begin, totals.of(Action::Limited).packets);
    // Its bucket gives a datagram a second.
    assert!(dropped + 3 >= totals.packets(), "the guard dropped {dropped} of {}", totals.packets());
    guard.detach().expect("detached");
    ran as f64 / dropped as f64
}

fn in_user_space(sender: &Sender) -> f64 {
    let kernel = KernelThread::of_near();
    let begin = kernel.ran_for();
    let socket = socket();
    let (read, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (reader_ran, sent) = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            precede(gettid(), READING);
            let mut reader = Reader::new();
            while !stop.load(Relaxed) {
                wait_for(&socket);
                read.fetch_add(reader.read_all(&socket), Relaxed);
            }
            ran_for(&format!("/proc/self/task/{}/schedstat", gettid()))
        });
        let sent = sender.run_long();
        thread::sleep(PATIENCE);
        stop.store(true, Relaxed);
        (reading.join().expect("it does not panic"), sent)
    });
    let read = read.into_inner();
    assert!(read * 100 >= sent * 99, "user space read {read} of {sent}: the figure would flatter it");
    (kernel.ran_for() - begin + reader_ran) as f64 / read as f64
}

fn report(figures: Figures) {
    print_machine(&format!("{ROUNDS} rounds of {TIME:?}, time of the receiving core"));
    print_cost("user space", figures.user_space.clone());
    for (mode, guard) in MODES.into_iter().zip(figures.guard) {
        let ratios = figures.user_space.iter().zip(&guard).map(|(user, guard)| user / guard).collect();
        print_cost(&format!("guard, {mode}"), guard);
        println!("{:>18}: {:.1}", "user space / guard", median(ratios));
    }
}

fn print_cost(name: &str, rounds: Vec<f64>) {
    let cost = median(rounds);
    println!("{name:>18}: {cost:6.0} ns, {:5.2} million datagrams/s", 1e3 / cost);
}

/// Programs that come and go take the thread along.
fn receive_in_a_thread() -> io::Result<()> {
    fs::write("/sys/class/net/near/threaded", "1")
}

/// The kernel's thread that receives for the interface.
struct KernelThread(u32);

impl KernelThread {
    fn of_near() -> Self {
        receive_in_a_thread().expect("it was possible before");
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        let named = |number: &u32| {
            fs::read_to_string(format!("/proc/{number}/comm"))
                .is_ok_and(|name| name.starts_with("napi/near-"))
        };
        let thread = Self(numbers.into_iter().find(named).expect("a thread of the kernel"));
        let id = Pid::from_raw(thread.0 as i32);
        flood::pin(id);
        precede(id, RECEIVING);
        thread
    }

    /// In nanoseconds.
    fn ran_for(&self) -> u64 {
        ran_for(&format!("/proc/{}/schedstat", self.0))
    }
}

/// Of a thread, in nanoseconds.
fn ran_for(schedstat: &str) -> u64 {
    let read = fs::read_to_string(schedstat).expect("schedstat");
    read.split(' ').next().and_then(|time| time.parse().ok()).expect("nanoseconds")
}

/// Makes a thread run as soon as it can, before all with a lower priority.
fn precede(thread: Pid, priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live through the call, which takes numbers otherwise.
    let result =
        unsafe { libc::sched_setscheduler(thread.as_raw(), libc::SCHED_FIFO, &raw const parameters) };
    assert_eq!(result, 0, "sched_setscheduler: {}", io::Error::last_os_error());
}

fn wait_for(socket: &UdpSocket) {
    let mut waiting =
        [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(socket), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut waiting, 10_u8).expect("poll");
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
