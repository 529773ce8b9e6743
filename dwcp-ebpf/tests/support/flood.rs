//! For benches: one core that floods a veth pair with frames, inside the call that it makes for that.
#![allow(dead_code, reason = "each bench uses some")]

use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use dwcp_ebpf::Mode;
use dwcp_lab::namespace::Namespace;
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::raw;

pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NEAR_MAC: [u8; 6] = [2; 6];
/// Of each measurement.
pub(crate) const TIME: Duration = Duration::from_secs(1);
/// Frames of one call: what they take in the socket's buffer is well below its size.
const AT_ONCE: u32 = 512;
/// Where receivers interrupt: what a call costs by itself is little then.
const AT_ONCE_LONG: u32 = 1 << 17;
const CORE: usize = 1;

/// Runs a bench in a namespace with the pair `near` and `far`, on one core, with a folder for pins.
pub(crate) fn in_place(bench: impl FnOnce(PathBuf) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let near = Namespace::create().expect("a namespace");
    let queues = "numrxqueues 1 numtxqueues 1";
    near.ip(&[
        &format!("link add near {queues} address 02:02:02:02:02:02 type veth peer name far {queues}"),
        &format!("link add spare {queues} type veth peer name other {queues}"),
        &format!("addr add {NEAR}/24 dev near"),
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
        pin(Pid::from_raw(0));
        bench(folder.path().join("guard"));
    });
}

/// Keeps a thread on the one core.
pub(crate) fn pin(thread: Pid) {
    let mut core = CpuSet::new();
    core.set(CORE).expect("a core");
    sched_setaffinity(thread, &core).expect("one core");
}

/// What was measured, and where.
pub(crate) fn print_machine(what: &str) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{what}, medians, Linux {}", kernel.trim());
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// With a program on the receiving side that gives this verdict.
pub(crate) fn with_program<T>(verdict: i32, mode: Mode, work: impl FnOnce() -> T) -> T {
    let program = raw::program(&raw::always(verdict)).expect("a program");
    let index = if_nametoindex("near").expect("the interface");
    let place = match mode {
        Mode::Native => raw::IN_DRIVER,
        Mode::Generic => raw::BEHIND_DRIVER,
    };
    raw::attach(index, place, program.as_fd()).expect("attached");
    let result = work();
    raw::detach(index, place).expect("detached");
    result
}

/// Sends the flood from the far side.
pub(crate) struct Sender {
    program: OwnedFd,
    frame: Vec<u8>,
}

pub(crate) struct Run {
    /// Nanoseconds a datagram.
    pub(crate) cost: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Sender {
    pub(crate) fn new(frame: Vec<u8>) -> Self {
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
        let spare = if_nametoindex("spare").expect("the interface");
        raw::attach(spare, raw::IN_DRIVER, program.as_fd()).expect("attached");
        Self { program, frame }
    }

    /// Sends for a while in long calls; returns how many.
    pub(crate) fn run_long(&self) -> u64 {
        let (begin, mut sent) = (Instant::now(), 0);
        while begin.elapsed() < TIME {
            match raw::send(self.program.as_fd(), &self.frame, AT_ONCE_LONG) {
                Ok(()) => sent += u64::from(AT_ONCE_LONG),
                Err(error) => panic!("sending: {error}"),
            }
        }
        sent
    }

    /// Sends for a while, with `read` in between, which says how many it has read.
    pub(crate) fn run(&self, mut read: impl FnMut() -> u64) -> Run {
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
        Run { cost: begin.elapsed().as_nanos() as f64 / sent as f64, sent, received }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let spare = if_nametoindex("spare").expect("the interface");
        raw::detach(spare, raw::IN_DRIVER).expect("detached");
    }
}
