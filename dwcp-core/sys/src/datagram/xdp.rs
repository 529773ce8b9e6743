//! Datagrams through AF_XDP: a socket at one receive queue of one interface, past the kernel's network stack.
//!
//! Receives the frames that an XDP program steers to it (crate `dwcp-ebpf`). Sends by itself to those it has seen frames
//! of: it does not ask the kernel for routes or neighbors. Knows no connections and no keys. The interface must leave VLAN
//! tags in the frames, where there are any (`ethtool -K INTERFACE rxvlan off`): a tag that the device has taken out is
//! seen by nobody here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

pub use self::error::XdpError;
use self::{
    interface::Interface,
    neighbors::{Neighbors, Route},
    ring::{Consumer, Producer},
    socket::{Rings, Sizes, XdpSocket},
    umem::Umem,
};
use super::{
    DatagramSocket, Outgoing,
    packet::{self, LINK_BYTES_MAX},
};

mod error;
mod interface;
mod mapping;
mod neighbors;
mod ring;
mod socket;
mod umem;

/// Chunks for what arrives, and entries of its rings: what may wait until it is fetched.
const RECEIVE_CHUNKS: u32 = 4096;
/// Chunks for what leaves, and entries of its rings.
const SEND_CHUNKS: u32 = 2048;
/// Lengths of a chunk; the first that holds the interface's packets is taken. The kernel knows none above a page.
const CHUNK_BYTES: [u32; 2] = [2048, 4096];
/// What the kernel keeps free at the beginning of a chunk (`XDP_PACKET_HEADROOM`).
const CHUNK_HEADROOM: usize = 256;
/// Datagrams of one call to receive.
const RECEIVE_MAX: u32 = 256;
/// Datagrams of one call to send.
const SEND_MAX: usize = 256;
/// System calls to send what one call has put into the ring. Each takes 32 in copy mode, unless others were left before.
const WAKEUPS_MAX: u32 = SEND_CHUNKS / 32 + 1;

/// Whether this process can have such sockets here; it makes one, of no interface, and closes it.
///
/// # Errors
/// [`XdpError`] says what is missing.
pub fn probe() -> Result<(), XdpError> {
    XdpSocket::new().map(drop)
}

/// How frames get from the device to the memory of the socket, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The device writes and reads that memory itself.
    ZeroCopy,
    /// The kernel copies them.
    Copy,
}

/// What an AF_XDP socket has lost or refused since it was opened. Frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Came while as many waited to be fetched as can, or were too long for the memory.
    pub receive_dropped: u64,
    /// Steered to this socket, and no UDP datagram to its address.
    pub foreign: u64,
    /// Taken to be sent, and dropped by the device or its queue.
    pub send_dropped: u64,
}

/// An AF_XDP socket that sends and receives UDP datagrams.
#[derive(Debug)]
pub struct XdpDatagrams {
    socket: XdpSocket,
    umem: Umem,
    mode: XdpMode,
    local: SocketAddr,
    interface: Interface,
    receive: Mutex<Inbound>,
    send: Mutex<Outbound>,
    neighbors: Mutex<Neighbors>,
    foreign: AtomicU64,
    sent: AtomicU64,
    send_dropped: AtomicU64,
}

#[derive(Debug)]
struct Inbound {
    /// Chunks for the kernel to fill.
    fill: Producer<u64>,
    received: Consumer<libc::xdp_desc>,
}

#[derive(Debug)]
struct Outbound {
    to_send: Producer<libc::xdp_desc>,
    sent: Consumer<u64>,
    /// Chunks that are neither in a ring nor on their way.
    free: Vec<u64>,
}

impl XdpDatagrams {
    /// A socket at a queue of an interface, for datagrams to `local`: to any address of this machine if that is
    /// unspecified. The UDP socket with the same address should be there, too, for what comes another way. What is steered
    /// to it is up to the interface's program. The interface's MTU is read here and not again. Blocks for up to a second
    /// while another socket has the queue.
    ///
    /// # Errors
    /// [`XdpError`] says what is missing or in the way.
    pub fn open(interface: &str, queue: u32, local: SocketAddr) -> Result<Self, XdpError> {
        let interface = Interface::find(interface)?;
        let chunk_bytes = chunk_bytes(&interface)?;
        let socket = XdpSocket::new()?;
        let umem = Umem::new(RECEIVE_CHUNKS + SEND_CHUNKS, chunk_bytes)?;
        let rings = socket.set_up(&umem, Sizes { receive: RECEIVE_CHUNKS, send: SEND_CHUNKS })?;
        let Rings { mut fill, received, send: to_send, sent } = rings;
        for number in 0..RECEIVE_CHUNKS {
            fill.push(umem.chunk(number));
        }
        fill.submit();
        let free = (RECEIVE_CHUNKS..RECEIVE_CHUNKS + SEND_CHUNKS).map(|number| umem.chunk(number)).collect();
        let mode = socket.bind(&interface, queue)?;
        Ok(Self {
            socket,
            umem,
            mode,
            local,
            interface,
            receive: Mutex::new(Inbound { fill, received }),
            send: Mutex::new(Outbound { to_send, sent, free }),
            neighbors: Mutex::new(Neighbors::new(Instant::now())),
            foreign: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            send_dropped: AtomicU64::new(0),
        })
    }

    /// Whether the device uses the socket's memory itself.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Datagrams that it took to be sent, also those that were dropped then.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What was lost or refused.
    ///
    /// # Errors
    /// What the kernel says (`getsockopt(XDP_STATISTICS)`).
    pub fn counters(&self) -> io::Result<XdpCounters> {
        let kernel = self.socket.statistics()?;
        Ok(XdpCounters {
            // A frame that finds no chunk is among the first; that the kernel has looked for one in vain is no frame.
            receive_dropped: kernel.rx_dropped + kernel.rx_ring_full,
            foreign: self.foreign.load(Ordering::Relaxed),
            send_dropped: self.send_dropped.load(Ordering::Relaxed) + kernel.tx_invalid_descs,
        })
    }

    /// Whether a datagram to this address is this socket's.
    fn is_local(&self, destination: SocketAddr) -> bool {
        let of_family = destination.is_ipv4() == self.local.is_ipv4() || self.local.is_ipv6();
        destination.port() == self.local.port()
            && (destination.ip() == self.local.ip() || (self.local.ip().is_unspecified() && of_family))
    }

    /// Names the interface where an address has a meaning only there, as the kernel's UDP does.
    fn scoped(&self, mut source: SocketAddr) -> SocketAddr {
        if let SocketAddr::V6(source) = &mut source
            && source.ip().is_unicast_link_local()
        {
            source.set_scope_id(self.interface.index);
        }
        source
    }

    /// Puts a datagram into the ring, which the kernel is not told of yet.
    fn enqueue(
        &self,
        send: &mut Outbound,
        datagram: &Outgoing<'_>,
        known: &mut Option<(IpAddr, Route)>,
    ) -> io::Result<()> {
        let peer = datagram.to.ip();
        let route = match *known {
            Some((of, route)) if of == peer => route,
            _ => {
                let route = lock(&self.neighbors).route(peer, Instant::now());
                let route = route.ok_or_else(|| io::Error::from_raw_os_error(libc::EHOSTUNREACH))?;
                *known = Some((peer, route));
                route
            }
        };
        if packet::packet_bytes(peer.is_ipv6(), datagram.bytes.len()) > self.interface.mtu {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let chunk = send.free.pop().ok_or(io::ErrorKind::WouldBlock)?;
        // SAFETY: a free chunk is this side's, and out of the list it is nobody else's.
        let frame = unsafe { self.umem.bytes(chunk, self.umem.chunk_bytes()) };
        let length = packet::build(frame, &route.path, route.from, datagram.to, datagram.bytes);
        let length = length.expect("the MTU fits into a chunk, and a route is of one family");
        send.to_send.push(libc::xdp_desc { addr: chunk, len: length as u32, options: 0 });
        Ok(())
    }

    /// Has the kernel send what is in the ring. What it does not take now, it takes with the next call or `poll`.
    fn wake(&self, send: &mut Outbound) -> io::Result<()> {
        let mut pending = send.to_send.pending();
        for _ in 0..WAKEUPS_MAX {
            if pending == 0 || !send.to_send.needs_wakeup() {
                return Ok(());
            }
            let before = pending;
            let result = self.socket.wake_to_send();
            pending = send.to_send.pending();
            match result.as_ref().err().and_then(io::Error::raw_os_error) {
                None => {}
                // One was taken and dropped, as a queue was full.
                Some(libc::EBUSY) => {
                    self.send_dropped.fetch_add(1, Ordering::Relaxed);
                }
                // It has sent as many as it does at once, or there is no memory for more.
                Some(libc::EAGAIN | libc::ENOBUFS) => {}
                Some(_) => return result,
            }
            if pending == before {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Outbound {
    /// Takes back the chunks of what has left.
    fn reclaim(&mut self, umem: &Umem) {
        for _ in 0..self.sent.available() {
            self.free.push(umem.chunk_of(self.sent.pop()));
        }
        self.sent.release();
    }
}

impl DatagramSocket for XdpDatagrams {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn recv(&self, take: &mut dyn FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        let mut receive = lock(&self.receive);
        let available = receive.received.available().min(RECEIVE_MAX);
        if available == 0 {
            if receive.fill.needs_wakeup() {
                self.socket.wake_to_receive()?;
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let now = Instant::now();
        let (mut taken, mut learned) = (0, None);
        for _ in 0..available {
            let descriptor = receive.received.pop();
            // Not submitted yet, so that the chunk stays this side's; and if `take` panics, the next call does it.
            receive.fill.push(self.umem.chunk_of(descriptor.addr));
            // SAFETY: the chunk came out of the ring, so it is this side's, and the ring has each chunk once.
            let frame = unsafe { self.umem.bytes(descriptor.addr, descriptor.len) };
            let Some(parsed) = packet::parse(frame).filter(|parsed| self.is_local(parsed.destination)) else {
                self.foreign.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let peer = parsed.source.ip();
            let route = Route { path: parsed.path.reversed(), from: parsed.destination };
            if learned != Some((peer, route)) {
                lock(&self.neighbors).learn(peer, route, now);
                learned = Some((peer, route));
            }
            take(self.scoped(parsed.source), &mut frame[parsed.payload]);
            taken += 1;
        }
        receive.received.release();
        receive.fill.submit();
        if receive.fill.needs_wakeup() {
            // The frames are there; what is wrong, the next call says.
            let _ = self.socket.wake_to_receive();
        }
        Ok(taken)
    }

    fn send(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let mut send = lock(&self.send);
        send.reclaim(&self.umem);
        if send.free.is_empty() {
            self.wake(&mut send)?;
            send.reclaim(&self.umem);
        }
        let (mut taken, mut known) = (0, None);
        for datagram in datagrams.iter().take(SEND_MAX) {
            match self.enqueue(&mut send, datagram, &mut known) {
                Ok(()) => taken += 1,
                Err(error) if taken == 0 => return Err(error),
                // The next call says it.
                Err(_) => break,
            }
        }
        send.to_send.submit();
        self.sent.fetch_add(taken as u64, Ordering::Relaxed);
        // They are in the ring: an error is that of the call that finds it full.
        let _ = self.wake(&mut send);
        Ok(taken)
    }
}

/// The first length of a chunk that holds the interface's packets with what is before them.
fn chunk_bytes(interface: &Interface) -> Result<u32, XdpError> {
    let room = |chunk: u32| chunk as usize - CHUNK_HEADROOM - LINK_BYTES_MAX;
    CHUNK_BYTES.into_iter().find(|&chunk| interface.mtu <= room(chunk)).ok_or_else(|| XdpError::Mtu {
        interface: interface.name.clone(),
        mtu: interface.mtu,
        most: room(CHUNK_BYTES[CHUNK_BYTES.len() - 1]),
    })
}

/// Nothing is half done where a caller's function may panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
