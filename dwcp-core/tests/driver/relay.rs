//! A UDP relay between two endpoints that loses, repeats, reorders, replays, alters and invents datagrams.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dwcp_core::datagram_socket::{DatagramSocket, Outgoing, UdpDatagrams};
use tokio::{net::UdpSocket, task::JoinHandle};

/// A socket whose peers are told to send to a relay.
pub(crate) struct RelayedSocket {
    pub(crate) inner: Arc<UdpDatagrams>,
    pub(crate) relay: SocketAddr,
}

impl DatagramSocket for RelayedSocket {
    fn local_addr(&self) -> SocketAddr {
        self.relay
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.inner.readiness()
    }

    fn recv(&self, take: &mut dyn FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        self.inner.recv(take)
    }

    fn send(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        self.inner.send(datagrams)
    }
}

/// Percentages of datagrams with a fate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lose: u64,
    pub(crate) repeat: u64,
    pub(crate) reorder: u64,
    pub(crate) replay: u64,
    pub(crate) alter: u64,
    pub(crate) invent: u64,
}

/// splitmix64
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Takes datagrams of a client at one address and passes them to the server from another, and the other way round.
pub(crate) struct Relay {
    /// Where the client is to send to.
    pub(crate) front: SocketAddr,
    /// Where the server is to send to, until the relay moves.
    pub(crate) back: SocketAddr,
    pub(crate) faults: Arc<Mutex<Faults>>,
    /// Longer ones are lost.
    pub(crate) len_max: Arc<AtomicU64>,
    /// Passes on from a new address from now on.
    pub(crate) moves: Arc<AtomicBool>,
    /// What has passed of late, in each direction.
    pub(crate) passed: Arc<Mutex<[VecDeque<Vec<u8>>; 2]>>,
    pub(crate) server: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    random: Random,
    faults: Arc<Mutex<Faults>>,
    len_max: Arc<AtomicU64>,
    /// Of each direction: one that waits for the next.
    held: [Option<Vec<u8>>; 2],
    passed: Arc<Mutex<[VecDeque<Vec<u8>>; 2]>>,
}

const PASSED_MAX: usize = 5000;
const DATAGRAM_MAX: usize = 10_000;

impl Relay {
    pub(crate) async fn start(client: SocketAddr, server: SocketAddr, seed: u64) -> Self {
        let front_socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut back_socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (front, back) = (front_socket.local_addr().unwrap(), back_socket.local_addr().unwrap());
        let faults = Arc::new(Mutex::new(Faults::default()));
        let (len_max, moves) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let passed: Arc<Mutex<[VecDeque<_>; 2]>> = Arc::default();
        let mut state = State {
            random: Random(seed),
            faults: Arc::clone(&faults),
            len_max: Arc::clone(&len_max),
            held: Default::default(),
            passed: Arc::clone(&passed),
        };
        let move_asked = Arc::clone(&moves);
        let task = tokio::spawn(async move {
            let (mut of_client, mut of_server) = (vec![0; DATAGRAM_MAX], vec![0; DATAGRAM_MAX]);
            loop {
                if move_asked.swap(false, Ordering::SeqCst) {
                    back_socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                }
                tokio::select! {
                    got = front_socket.recv(&mut of_client) => {
                        for datagram in state.pass(0, &of_client[..got.unwrap_or(0)]) {
                            let _ = back_socket.send_to(&datagram, server).await;
                        }
                    }
                    got = back_socket.recv(&mut of_server) => {
                        for datagram in state.pass(1, &of_server[..got.unwrap_or(0)]) {
                            let _ = front_socket.send_to(&datagram, client).await;
                        }
                    }
                }
            }
        });
        Self { front, back, faults, len_max, moves, passed, server, task }
    }
}

impl State {
    /// What goes out in the place of a datagram.
    fn pass(&mut self, direction: usize, datagram: &[u8]) -> Vec<Vec<u8>> {
        let faults = *self.faults.lock().unwrap();
        let random = &mut self.random;
        let mut out = Vec::new();
        if datagram.len() as u64 > self.len_max.load(Ordering::SeqCst) || random.percent(faults.lose) {
            return out;
        }
        let passed = &mut self.passed.lock().unwrap()[direction];
        passed.push_back(datagram.to_vec());
        if passed.len() > PASSED_MAX {
            passed.pop_front();
        }
        if random.percent(faults.alter) {
            let mut altered = datagram.to_vec();
            let bit = random.below(altered.len() as u64 * 8);
            altered[bit as usize / 8] ^= 1 << (bit % 8);
            out.push(altered);
        }
        if random.percent(faults.invent) {
            // A header as an honest one's, with a number to come, and nonsense in it.
            let mut invented = datagram.to_vec();
            invented[16..24].copy_from_slice(&random.below(1 << 20).to_le_bytes());
            invented[3] ^= random.below(2) as u8;
            invented[24..].fill(random.below(256) as u8);
            out.push(invented);
        }
        if random.percent(faults.replay) {
            out.push(passed[random.below(passed.len() as u64) as usize].clone());
        }
        match self.held[direction].take() {
            None if random.percent(faults.reorder) => self.held[direction] = Some(datagram.to_vec()),
            held => {
                out.push(datagram.to_vec());
                out.extend(held);
            }
        }
        if random.percent(faults.repeat) {
            out.push(datagram.to_vec());
        }
        out
    }
}
