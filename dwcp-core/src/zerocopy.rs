//! Large payloads by reference (`MSG_ZEROCOPY`): whether that pays on a link, and what must stay untouched meanwhile.
//!
//! A link over TLS has its own copy of the bytes already, and on a path within this machine the kernel copies anyway:
//! both send by copying. Any other link measures both ways over some megabytes and keeps the cheaper one. The kernel
//! says with each completion whether it had to copy after all; then that is the end of it.
//!
//! Owns the decision and the buffers; deliberately not the writing (see `link`).

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use dwcp_sys::zerocopy;
use tokio::net::TcpStream;

use crate::{config::Zerocopy, security::LinkSocket};

/// Shorter payloads are copied: pinning pages pays from about 10 KiB on (the kernel's `msg_zerocopy.rst`).
pub(crate) const LEN_MIN: usize = 16 << 10;
/// Sends by reference whose completion is outstanding; beyond it payloads are copied.
const HELD_MAX: usize = 1024;
/// Bytes that each way is measured over.
const TRIAL_BYTES: u64 = 16 << 20;
/// Sending by reference stays if it takes at most this share of the time that copying takes.
const GAIN: f64 = 0.95;

/// What a link does, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off(&'static str),
    /// Copies, and takes the time.
    MeasuresCopying,
    /// Sends by reference, and takes the time.
    MeasuresReferring,
    On,
}

/// How a link sends large payloads.
#[derive(Debug)]
pub(crate) struct ZeroCopy {
    state: State,
    /// Set by configuration: stays on where the kernel copies.
    always: bool,
    copying: Cost,
    referring: Cost,
    /// The kernel's number of the next send by reference.
    next: u32,
    /// What was sent by reference and is not complete, the newest last. A gap is complete.
    held: VecDeque<Option<Bytes>>,
}

/// Bytes written and the time that took.
#[derive(Debug, Default)]
struct Cost {
    bytes: u64,
    time: Duration,
}

impl Cost {
    fn per_byte(&self) -> f64 {
        self.time.as_secs_f64() / self.bytes.max(1) as f64
    }
}

impl ZeroCopy {
    /// For a link that has just been made.
    pub(crate) fn new(setting: Zerocopy, socket: &LinkSocket) -> Self {
        let state = match setting {
            _ if socket.rdma().is_some() => State::Off("off: over RDMA"),
            _ if socket.is_tls() => State::Off("off: encrypted bytes are a copy already"),
            Zerocopy::Off => State::Off("off: set"),
            Zerocopy::On => State::On,
            Zerocopy::Auto if is_within_this_machine(socket.tcp()) => {
                State::Off("off: within one machine the kernel copies")
            }
            Zerocopy::Auto => State::MeasuresCopying,
        };
        let mut this = Self::in_state(state, setting == Zerocopy::On);
        if this.state == State::On {
            this.enable(socket);
        }
        this
    }

    fn in_state(state: State, always: bool) -> Self {
        Self {
            state,
            always,
            copying: Cost::default(),
            referring: Cost::default(),
            next: 0,
            held: VecDeque::new(),
        }
    }

    fn enable(&mut self, socket: &LinkSocket) {
        if let Err(error) = socket.enable_zerocopy() {
            tracing::debug!(%error, "payloads are copied");
            self.state = State::Off("off: the kernel does not offer it");
        }
    }

    /// For people.
    pub(crate) fn description(&self) -> &'static str {
        match self.state {
            State::Off(why) => why,
            State::MeasuresCopying | State::MeasuresReferring => "off: measuring whether it pays",
            State::On if self.always => "on: set",
            State::On => "on: cheaper than copying here",
        }
    }

    /// Whether the next large payload should go by reference.
    pub(crate) fn refers(&self) -> bool {
        matches!(self.state, State::On | State::MeasuresReferring) && self.held.len() < HELD_MAX
    }

    /// Whether [`measured`](Self::measured) wants to know.
    pub(crate) fn measures(&self) -> bool {
        matches!(self.state, State::MeasuresCopying | State::MeasuresReferring)
    }

    /// Whether the kernel may still read what was sent by reference.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The kernel took bytes of `payload` by reference: keeps it until their completion.
    pub(crate) fn referred(&mut self, payload: Bytes) {
        self.held.push_back(Some(payload));
        self.next = self.next.wrapping_add(1);
    }

    /// A write of large payloads took this long.
    pub(crate) fn measured(&mut self, socket: &LinkSocket, bytes: usize, time: Duration) {
        let cost = match self.state {
            State::MeasuresCopying => &mut self.copying,
            State::MeasuresReferring => &mut self.referring,
            State::Off(_) | State::On => return,
        };
        cost.bytes += bytes as u64;
        cost.time += time;
        if cost.bytes < TRIAL_BYTES {
            return;
        }
        self.state = match self.state {
            State::MeasuresCopying => State::MeasuresReferring,
            _ if self.referring.per_byte() <= GAIN * self.copying.per_byte() => State::On,
            _ => State::Off("off: not cheaper than copying here"),
        };
        if self.state == State::MeasuresReferring {
            self.enable(socket);
        }
    }

    /// Lets go of what the kernel has no more use for.
    pub(crate) fn reap(&mut self, socket: &LinkSocket) -> io::Result<()> {
        while self.holds() {
            let Some(done) = zerocopy::next_completion(socket.tcp())? else { break };
            if !self.completed(done) {
                return Err(io::Error::other(format!("the kernel reports {done:?}, which was not sent")));
            }
        }
        if matches!(self.state, State::Off(_)) && !self.holds() && socket.has_completions() {
            socket.end_zerocopy();
        }
        Ok(())
    }

    /// `false`: there is no such send.
    fn completed(&mut self, done: zerocopy::CompletionRange) -> bool {
        let oldest = self.next.wrapping_sub(self.held.len() as u32);
        let (first, last) =
            (done.first.wrapping_sub(oldest) as usize, done.last.wrapping_sub(oldest) as usize);
        if first > last || last >= self.held.len() {
            return false;
        }
        self.held.range_mut(first..=last).for_each(|payload| *payload = None);
        while self.held.front().is_some_and(Option::is_none) {
            self.held.pop_front();
        }
        if done.copied && !self.always {
            self.state = State::Off("off: the kernel copies on this path");
        }
        true
    }
}

fn is_within_this_machine(tcp: &TcpStream) -> bool {
    let (Ok(local), Ok(peer)) = (tcp.local_addr(), tcp.peer_addr()) else { return false };
    let (local, peer) = (local.ip().to_canonical(), peer.ip().to_canonical());
    peer.is_loopback() || peer == local
}

#[cfg(test)]
mod tests {
    use dwcp_sys::zerocopy::CompletionRange;
    use tokio::net::TcpListener;

    use super::*;

    async fn socket() -> (LinkSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (LinkSocket::plain(a.unwrap()), b.unwrap().0)
    }

    fn range(first: u32, last: u32, copied: bool) -> CompletionRange {
        CompletionRange { first, last, copied }
    }

    /// Both ways over the bytes of a trial, at these nanoseconds a byte.
    fn trial(socket: &LinkSocket, copying: u64, referring: u64) -> ZeroCopy {
        const WRITE: usize = 1 << 20;
        let mut it = ZeroCopy::in_state(State::MeasuresCopying, false);
        for cost in [copying, referring] {
            assert_eq!(it.refers(), cost == referring && it.copying.bytes > 0);
            for _ in 0..TRIAL_BYTES as usize / WRITE {
                assert!(it.measures());
                it.measured(socket, WRITE, Duration::from_nanos(cost * WRITE as u64));
            }
        }
        assert!(!it.measures());
        it
    }

    #[tokio::test]
    async fn the_cheaper_way_stays() {
        let (socket, _peer) = socket().await;
        assert_eq!(trial(&socket, 10, 5).state, State::On);
        assert!(trial(&socket, 10, 5).refers());
        for referring in [10, 11, 100] {
            assert_eq!(trial(&socket, 10, referring).description(), "off: not cheaper than copying here");
        }
    }

    #[tokio::test]
    async fn a_path_on_which_the_kernel_copies_is_not_tried_again() {
        let (socket, _peer) = socket().await;
        let mut it = trial(&socket, 10, 5);
        it.referred(Bytes::from_static(b"a"));
        assert!(it.completed(range(0, 0, true)));
        assert_eq!(it.description(), "off: the kernel copies on this path");
        assert!(!it.refers() && !it.holds());
        let mut set = ZeroCopy::new(Zerocopy::On, &socket);
        set.referred(Bytes::from_static(b"a"));
        assert!(set.completed(range(0, 0, true)));
        assert_eq!(set.description(), "on: set");
    }

    #[tokio::test]
    async fn where_nothing_can_be_gained_nothing_is_tried() {
        let (socket, _peer) = socket().await;
        for (setting, expected) in
            [(Zerocopy::Auto, "off: within one machine the kernel copies"), (Zerocopy::Off, "off: set")]
        {
            let it = ZeroCopy::new(setting, &socket);
            assert_eq!(it.description(), expected);
            assert!(!it.refers() && !it.measures());
        }
    }

    /// Completions may come in any order, many at once, and the number wraps.
    #[test]
    fn buffers_are_held_until_their_completion() {
        let mut it = ZeroCopy::in_state(State::On, false);
        it.next = u32::MAX - 2;
        let buffers: Vec<Bytes> = (0..6u8).map(|i| Bytes::from(vec![i; 100])).collect();
        buffers.iter().for_each(|buffer| it.referred(buffer.clone()));
        let held = || buffers.iter().map(|buffer| !buffer.is_unique()).collect::<Vec<_>>();
        assert_eq!(held(), [true; 6]);
        assert!(it.completed(range(u32::MAX - 1, u32::MAX, false)));
        assert_eq!(held(), [true, false, false, true, true, true]);
        assert!(it.completed(range(2, 2, false)));
        assert_eq!(held(), [true, false, false, true, true, false]);
        assert!(it.completed(range(u32::MAX - 2, u32::MAX - 2, false)));
        assert_eq!((held(), it.held.len()), (vec![false, false, false, true, true, false], 3));
        for unknown in [range(0, 3, false), range(u32::MAX, 0, false), range(1, 0, false)] {
            assert!(!it.completed(unknown), "{unknown:?}");
        }
        assert!(it.completed(range(0, 1, false)));
        assert_eq!((held(), it.holds()), (vec![false; 6], false));
        assert!(!it.completed(range(3, 3, false)), "nothing is on its way");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut it = ZeroCopy::in_state(State::On, false);
        for _ in 0..HELD_MAX {
            assert!(it.refers());
            it.referred(Bytes::from_static(b"a"));
        }
        assert!(!it.refers());
        assert!(it.completed(range(0, 0, false)));
        assert!(it.refers());
    }
}
