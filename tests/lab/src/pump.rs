//! The thread that carries packets between the two TUN devices when the link model says so.
//!
//! Owns: reading frames, asking `link` about each segment, keeping what is in flight, writing it out at its moment,
//! and measuring how late that was. One thread serves both directions: it sleeps in `ppoll` until a packet arrives or
//! is due, and never spins. It runs in real time (`SCHED_FIFO`) where that is permitted, because a packet that waits
//! for a processor looks like a slower link.

use crate::Nanos;
use crate::gso::{FRAME_LEN_MAX, Frame};
use crate::link::{Fate, Link};
use crate::stats::{DirectionStats, LinkStats};
use crate::tun::Tun;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames read from one device before due packets are looked at again.
const READ_BATCH: usize = 128;
/// Frames in flight in one direction; more are dropped as by a full queue. Bytes are bounded by the queue and the
/// delay, but a flood of tiny packets is many frames.
const IN_FLIGHT_MAX: usize = 1 << 18;
/// While packets flow the pump looks at them this often instead of waking for each, as network cards do: a wake-up
/// costs more than a packet. Packets due within this time are delivered with the round, up to this much early, and
/// have been read up to this much late: over the whole path the two cancel out, and none is off by more than this.
/// When packets are further apart than that it wakes for each, exactly.
const ROUND: Nanos = 200_000;
/// The longest sleep, after which a request to stop is seen.
const SLEEP_MAX: Nanos = 50_000_000;
/// Real-time priority: anything above ordinary processes will do.
const FIFO_PRIORITY: libc::c_int = 10;
/// Room in a buffer for the headers that are not IP payload: virtio-net and IP.
const HEADERS_LEN_MAX: usize = 128;
/// Buffer size classes: powers of two up to the first that holds `FRAME_LEN_MAX`.
const SIZE_CLASSES: usize = FRAME_LEN_MAX.next_power_of_two().ilog2() as usize + 1;
/// Free buffers kept per size class.
const FREE_BUFFERS_MAX: usize = 1024;

/// The running thread. Dropping it stops the link.
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    up: AtomicBool,
    stats: Mutex<LinkStats>,
}

impl Pump {
    /// Starts carrying packets: `a_to_b` for those that leave through `tun_a`. The model's time 0 is now.
    pub fn start(tun_a: Tun, tun_b: Tun, a_to_b: Link, b_to_a: Link) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            up: AtomicBool::new(true),
            stats: Mutex::new(LinkStats::default()),
        });
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lab-pump".into())
            .spawn(move || run(&inside, [tun_a, tun_b], [Direction::new(a_to_b), Direction::new(b_to_a)]))
            .expect("spawn the pump thread");
        Self { shared, thread: Some(thread) }
    }

    /// Takes the link down or up, both ways at once.
    pub fn set_up(&self, up: bool) {
        self.shared.up.store(up, Ordering::Relaxed);
    }

    /// The counters as they are now.
    pub fn stats(&self) -> LinkStats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the pump thread panicked");
        }
    }
}

/// A frame on its way. Ordered by delivery, then by arrival, so that equal moments keep their order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Nanos,
    number: u64,
    /// How long it may have waited before it was read.
    waited: Nanos,
    segments: u64,
    /// IP payload bytes, as the link counts them.
    payload_bytes: u64,
    frame: Vec<u8>,
}

struct Direction {
    link: Link,
    flight: BinaryHeap<Reverse<InFlight>>,
    frames: u64,
    buffers: BufferPool,
}

fn run(shared: &Shared, tuns: [Tun; 2], mut directions: [Direction; 2]) {
    go_real_time();
    let started = Instant::now();
    let now = || started.elapsed().as_nanos() as Nanos;
    let mut scratch = vec![0; FRAME_LEN_MAX];
    let mut readable = [true; 2];
    let mut slept_from = None;
    let mut last_found = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut stats = shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let LinkStats { a_to_b, b_to_a, pump_cpu_ns } = &mut *stats;
        let mut found = false;
        for (i, stats) in [a_to_b, b_to_a].into_iter().enumerate() {
            let (direction, from, to) = (&mut directions[i], &tuns[i], &tuns[1 - i]);
            direction.link.set_up(shared.up.load(Ordering::Relaxed));
            if readable[i] {
                found |= direction.take_in(from, &mut scratch, slept_from, &now, stats);
            }
            direction.deliver_due(to, &now, stats);
        }
        *pump_cpu_ns = thread_cpu_ns();
        drop(stats);
        let time = now();
        let flowing = found && time - last_found < 2 * ROUND;
        if found {
            last_found = time;
        }
        if flowing {
            // Everything due within the round has been delivered: nothing can be missed by not looking.
            slept_from = Some(time);
            std::thread::sleep(Duration::from_nanos(ROUND));
            readable = [true; 2];
        } else {
            let due = directions.iter().filter_map(Direction::next_due).min().unwrap_or(Nanos::MAX);
            slept_from = None;
            readable = sleep_until_readable(&tuns, due.saturating_sub(time).min(SLEEP_MAX));
        }
    }
}

impl Direction {
    fn new(link: Link) -> Self {
        Self { link, flight: BinaryHeap::new(), frames: 0, buffers: BufferPool::default() }
    }

    fn next_due(&self) -> Option<Nanos> {
        self.flight.peek().map(|Reverse(next)| next.at)
    }

    /// Reads what the device has; tells whether that was anything. `slept_from` is when the pump last stopped looking:
    /// what is found now may have waited since then.
    fn take_in(
        &mut self,
        from: &Tun,
        scratch: &mut [u8],
        slept_from: Option<Nanos>,
        now: &impl Fn() -> Nanos,
        stats: &mut DirectionStats,
    ) -> bool {
        let waited = slept_from.map_or(0, |from| now() - from);
        for count in 0..READ_BATCH {
            let len = match from.read(scratch) {
                Ok(Some(len)) => len,
                Ok(None) => return count > 0,
                Err(_) => {
                    stats.faults += 1;
                    return count > 0;
                }
            };
            match Frame::parse(&scratch[..len]) {
                Ok(frame) => self.offer(&frame, now(), waited, stats),
                Err(_) => stats.faults += 1,
            }
        }
        true
    }

    /// Asks the link about every segment; neighbours with an ordinary fate stay one frame, due when its last is.
    fn offer(&mut self, frame: &Frame<'_>, now: Nanos, waited: Nanos, stats: &mut DirectionStats) {
        let mut run_start = 0;
        let mut run_at = None;
        for i in 0..frame.segments() {
            let fate = if self.flight.len() < IN_FLIGHT_MAX {
                self.link.send(now, frame.segment_bytes(i))
            } else {
                Fate::QueueFull
            };
            stats.count_fate(fate);
            if let Fate::Deliver(at) = fate {
                run_at = Some(at);
                continue;
            }
            if let Some(at) = run_at.take() {
                self.launch(frame, run_start..i, at, waited);
            }
            if let Fate::HeldBack(at) = fate {
                self.launch(frame, i..i + 1, at, waited);
            }
            run_start = i + 1;
        }
        if let Some(at) = run_at {
            self.launch(frame, run_start..frame.segments(), at, waited);
        }
    }

    fn launch(&mut self, frame: &Frame<'_>, segments: std::ops::Range<usize>, at: Nanos, waited: Nanos) {
        let payload_bytes = segments.clone().map(|i| frame.segment_bytes(i)).sum();
        let count = segments.len() as u64;
        let mut buffer = self.buffers.take((payload_bytes as usize + HEADERS_LEN_MAX).min(FRAME_LEN_MAX));
        frame.write_piece(segments, &mut buffer);
        self.frames += 1;
        let number = self.frames;
        self.flight.push(Reverse(InFlight {
            at,
            number,
            waited,
            segments: count,
            payload_bytes,
            frame: buffer,
        }));
    }

    fn deliver_due(&mut self, to: &Tun, now: &impl Fn() -> Nanos, stats: &mut DirectionStats) {
        loop {
            let time = now();
            if self.next_due().is_none_or(|at| at > time + ROUND) {
                return;
            }
            let Some(Reverse(packet)) = self.flight.pop() else { return };
            if !self.link.is_up(time) {
                stats.down_drops += packet.segments;
            } else if to.write(&packet.frame).is_err() {
                stats.faults += 1;
            } else {
                stats.delivered_segments += packet.segments;
                stats.delivered_bytes += packet.payload_bytes;
                stats.lateness.record((time + packet.waited).saturating_sub(packet.at));
            }
            self.buffers.give_back(packet.frame);
        }
    }
}

/// Free buffers by size class (powers of two), so that a stream of packets allocates only until the link is full.
#[derive(Default)]
struct BufferPool {
    classes: [Vec<Vec<u8>>; SIZE_CLASSES],
}

impl BufferPool {
    fn take(&mut self, len: usize) -> Vec<u8> {
        let class = len.next_power_of_two().ilog2() as usize;
        self.classes[class].pop().unwrap_or_else(|| Vec::with_capacity(1 << class))
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        if let Some(class) = self.classes.get_mut(buffer.capacity().ilog2() as usize)
            && class.len() < FREE_BUFFERS_MAX
        {
            class.push(buffer);
        }
    }
}

/// Sleeps until a device has a frame or the time is over; tells which devices have one.
fn sleep_until_readable(tuns: &[Tun; 2], timeout: Nanos) -> [bool; 2] {
    let mut fds = tuns.each_ref().map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN));
    match ppoll(&mut fds, Some(TimeSpec::from_duration(Duration::from_nanos(timeout))), None) {
        Ok(_) => fds.map(|fd| fd.any().unwrap_or(true)),
        Err(_) => [true; 2],
    }
}

/// Real-time scheduling if permitted; exact timers in any case. Without it the lateness figures tell the difference.
fn go_real_time() {
    let parameters = libc::sched_param { sched_priority: FIFO_PRIORITY };
    // SAFETY: `sched_setscheduler` reads one `sched_param`; 0 is the calling thread. Reset-on-fork keeps commands that
    // might be spawned from here ordinary.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters);
    }
    // SAFETY: takes an integer and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}

fn thread_cpu_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
