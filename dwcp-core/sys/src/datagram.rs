//! Datagrams in batches: the seam between who sends and receives them and the kernel's ways, UDP sockets and AF_XDP.

use std::{io, net::SocketAddr, os::fd::BorrowedFd};

mod name;
pub mod packet;
mod udp;
mod xdp;

pub use udp::{Features, UdpDatagrams};
pub use xdp::{XdpCounters, XdpDatagrams, XdpError, XdpMode, probe as probe_xdp};

/// A datagram that is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The payload of UDP.
    pub bytes: &'a [u8],
}

/// Sends and receives datagrams, many with one system call where it can. It never waits. An IPv4 address is written as
/// one, even where the socket is of IPv6 and serves both. Threads that receive take turns, and so do those that send.
pub trait DatagramSocket: Send + Sync {
    /// Where datagrams arrive.
    fn local_addr(&self) -> SocketAddr;

    /// Readable when [`recv`](Self::recv) has something, writable when [`send`](Self::send) may go on.
    fn readiness(&self) -> BorrowedFd<'_>;

    /// Gives `take` datagrams that have arrived, with their source, up to a bound of the implementation's; returns how
    /// many. The bytes may be changed in place and are gone afterwards. `take` must not receive from this socket.
    ///
    /// # Errors
    /// `WouldBlock`: none has arrived. Others are the socket's; the next call may succeed.
    fn recv(&self, take: &mut dyn FnMut(SocketAddr, &mut [u8])) -> io::Result<usize>;

    /// Sends the first of these, as many as can go now; returns how many, at least one unless there are none.
    ///
    /// # Errors
    /// `WouldBlock`: none can go now. Others are those of the first datagram, and it was not sent: `EMSGSIZE` if it is
    /// longer than the path is known to carry, since nothing is fragmented (DATAGRAM-3.1); `HostUnreachable` if this way
    /// does not lead to its receiver, whom a UDP socket may reach all the same.
    fn send(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize>;
}
