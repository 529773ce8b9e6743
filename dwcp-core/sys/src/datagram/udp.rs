//! Datagrams over a UDP socket: batches by `recvmmsg` and `sendmmsg`, in which the kernel joins and splits datagrams of
//! one length by itself (UDP GRO and GSO) where it can.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use self::receive::Receiver;
use super::{DatagramSocket, Outgoing};
use crate::{SocketError, sockopt};

mod receive;
mod send;

/// What the kernel is asked to hold until it is fetched; it gives less where `net.core.rmem_max` is lower.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Of linux/udp.h.
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;

/// Which of the kernel's ways to move several datagrams as one packet are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Datagrams of one sender and length arrive joined (`UDP_GRO`, Linux 5.0).
    pub gro: bool,
    /// Datagrams to one receiver and of one length leave joined (`UDP_SEGMENT`, Linux 4.18). It ends where a device does
    /// not take them.
    pub gso: bool,
}

/// A UDP socket that sends and receives in batches.
#[derive(Debug)]
pub struct UdpDatagrams {
    socket: UdpSocket,
    local: SocketAddr,
    gro: bool,
    gso: AtomicBool,
    receiver: Mutex<Receiver>,
}

impl UdpDatagrams {
    /// A socket with this address; port 0 for one that the kernel chooses. The unspecified address of IPv6 is that of
    /// IPv4, too. Does not let datagrams be fragmented.
    ///
    /// # Errors
    /// The call that failed: with the address in use, for instance.
    pub fn bind(address: SocketAddr) -> Result<Self, SocketError> {
        let socket =
            Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
                .map_err(SocketError::in_call("socket(UDP)"))?;
        let serves_both = address.is_ipv6() && address.ip().is_unspecified();
        if address.is_ipv6() {
            socket.set_only_v6(!serves_both).map_err(SocketError::in_call("setsockopt(IPV6_V6ONLY)"))?;
            sockopt::set(
                socket.as_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            )
            .map_err(SocketError::in_call("setsockopt(IPV6_MTU_DISCOVER)"))?;
        }
        if address.is_ipv4() || serves_both {
            sockopt::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
                .map_err(SocketError::in_call("setsockopt(IP_MTU_DISCOVER)"))?;
        }
        socket
            .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
            .map_err(SocketError::in_call("setsockopt(SO_RCVBUF)"))?;
        socket.bind(&address.into()).map_err(SocketError::in_call("bind"))?;
        // An older kernel does not know them, and everything works without.
        let gro = sockopt::set(socket.as_fd(), libc::IPPROTO_UDP, UDP_GRO, 1).is_ok();
        let gso = sockopt::set(socket.as_fd(), libc::IPPROTO_UDP, UDP_SEGMENT, 0).is_ok();
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr().map_err(SocketError::in_call("getsockname"))?;
        Ok(Self { socket, local, gro, gso: AtomicBool::new(gso), receiver: Mutex::default() })
    }

    /// What is in use now.
    pub fn features(&self) -> Features {
        Features { gro: self.gro, gso: self.gso.load(Ordering::Relaxed) }
    }

    /// Datagrams that the kernel has dropped since they were not fetched in time. Modulo 2^32.
    ///
    /// # Errors
    /// What the kernel says (`getsockopt(SO_MEMINFO)`, Linux 4.12).
    pub fn dropped(&self) -> io::Result<u32> {
        let mut info = [0; MEMINFO_WORDS];
        sockopt::get(self.socket.as_fd(), libc::SOL_SOCKET, SO_MEMINFO, &mut info)?;
        Ok(info[MEMINFO_DROPS])
    }

    fn send_plainly(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        send::batch(self.socket.as_fd(), self.local.is_ipv6(), false, datagrams)
    }
}

// Of asm-generic/socket.h and linux/sock_diag.h.
const SO_MEMINFO: c_int = 55;
const MEMINFO_WORDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

impl DatagramSocket for UdpDatagrams {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn recv(&self, take: &mut dyn FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        // A panic of `take` leaves nothing half done.
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.receive(self.socket.as_fd(), take)
    }

    fn send(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        if !self.gso.load(Ordering::Relaxed) {
            return self.send_plainly(datagrams);
        }
        let sent = send::batch(self.socket.as_fd(), self.local.is_ipv6(), true, datagrams);
        match sent.as_ref().err().and_then(io::Error::raw_os_error) {
            // The device cannot complete checksums, and the kernel does not split for it.
            Some(libc::EIO) => {
                self.gso.store(false, Ordering::Relaxed);
                self.send_plainly(datagrams)
            }
            // Segments longer than the MTU. One datagram alone has an error of its own.
            Some(libc::EINVAL | libc::EMSGSIZE) => self.send_plainly(&datagrams[..1]),
            _ => sent,
        }
    }
}

#[cfg(test)]
mod tests;
