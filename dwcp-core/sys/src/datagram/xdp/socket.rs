//! An AF_XDP socket: its system calls, and nothing of what is in its rings.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use libc::c_int;

use super::{
    XdpError, XdpMode,
    interface::Interface,
    ring::{Consumer, Producer},
    umem::Umem,
};
use crate::{
    SocketError,
    sockopt::{self, Plain},
};

// SAFETY: of the structures of linux/if_xdp.h, these have integers only, without padding between or behind them.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}
const _: () = assert!(mem::size_of::<libc::xdp_umem_reg>() == 32);
const _: () = assert!(mem::size_of::<libc::xdp_mmap_offsets>() == 16 * 8);
const _: () = assert!(mem::size_of::<libc::xdp_statistics>() == 6 * 8);

/// For a queue whose last socket was closed to be free, and how often it is tried.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);
const RELEASE_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Entries of each ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) receive: u32,
    pub(super) send: u32,
}

/// The rings of a socket.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) fill: Producer<u64>,
    pub(super) received: Consumer<libc::xdp_desc>,
    pub(super) send: Producer<libc::xdp_desc>,
    pub(super) sent: Consumer<u64>,
}

/// The descriptor. What it shares with the kernel stays mapped as long as it is open.
#[derive(Debug)]
pub(super) struct XdpSocket(OwnedFd);

impl XdpSocket {
    pub(super) fn new() -> Result<Self, XdpError> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EPERM) => XdpError::NotPermitted,
                Some(libc::EAFNOSUPPORT) => XdpError::KernelWithoutXdp,
                _ => SocketError { call: "socket(AF_XDP)", source }.into(),
            });
        }
        // SAFETY: the descriptor was just made, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers the memory, and makes the rings.
    pub(super) fn set_up(&self, umem: &Umem, sizes: Sizes) -> Result<Rings, XdpError> {
        let registration = umem.registration();
        if let Err(source) = self.set(libc::XDP_UMEM_REG, registration) {
            return Err(match source.raw_os_error() {
                Some(libc::ENOBUFS) => XdpError::Memory { bytes: registration.len as usize },
                _ => SocketError { call: "setsockopt(XDP_UMEM_REG)", source }.into(),
            });
        }
        for (ring, entries, call) in [
            (libc::XDP_UMEM_FILL_RING, sizes.receive, "setsockopt(XDP_UMEM_FILL_RING)"),
            (libc::XDP_UMEM_COMPLETION_RING, sizes.send, "setsockopt(XDP_UMEM_COMPLETION_RING)"),
            (libc::XDP_RX_RING, sizes.receive, "setsockopt(XDP_RX_RING)"),
            (libc::XDP_TX_RING, sizes.send, "setsockopt(XDP_TX_RING)"),
        ] {
            self.set(ring, entries as c_int).map_err(SocketError::in_call(call))?;
        }
        let none = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
        let mut offsets = libc::xdp_mmap_offsets { rx: none, tx: none, fr: none, cr: none };
        let length = sockopt::get(self.as_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)
            .map_err(SocketError::in_call("getsockopt(XDP_MMAP_OFFSETS)"))?;
        // The form without flags is that of kernels before 5.4.
        if length < mem::size_of_val(&offsets) {
            return Err(XdpError::KernelWithoutXdp);
        }
        let fd = self.as_fd();
        let (fill_at, sent_at) = (libc::XDP_UMEM_PGOFF_FILL_RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING);
        // SAFETY: linux/if_xdp.h says what is in which ring; each is mapped once, here.
        unsafe {
            Ok(Rings {
                fill: Producer::new(fd, fill_at as libc::off_t, offsets.fr, sizes.receive)?,
                received: Consumer::new(fd, libc::XDP_PGOFF_RX_RING, offsets.rx, sizes.receive)?,
                send: Producer::new(fd, libc::XDP_PGOFF_TX_RING, offsets.tx, sizes.send)?,
                sent: Consumer::new(fd, sent_at as libc::off_t, offsets.cr, sizes.send)?,
            })
        }
    }

    /// Binds it to a queue. The kernel tries the driver's zero-copy first, and copies where there is none. It lets go of a
    /// queue some time after the last socket there was closed (net/xdp/xsk_buff_pool.c, `xp_put_pool`), a restarted process'
    /// too: a queue that is in use is tried again for a while.
    pub(super) fn bind(&self, interface: &Interface, queue: u32) -> Result<XdpMode, XdpError> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface.index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let length = mem::size_of_val(&address) as libc::socklen_t;
        let deadline = Instant::now() + RELEASE_TIME_MAX;
        // SAFETY: `address` is `length` bytes that the kernel reads.
        while unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
            let (source, interface) = (io::Error::last_os_error(), interface.name.clone());
            match source.raw_os_error() {
                Some(libc::EBUSY) if Instant::now() < deadline => thread::sleep(RELEASE_LOOK_INTERVAL),
                Some(libc::EBUSY) => return Err(XdpError::InUse { interface, queue }),
                _ => return Err(XdpError::Bind { interface, queue, source }),
            }
        }
        let mut options: c_int = 0;
        sockopt::get(self.as_fd(), libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)
            .map_err(SocketError::in_call("getsockopt(XDP_OPTIONS)"))?;
        let is_zero_copy = options as u32 & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(if is_zero_copy { XdpMode::ZeroCopy } else { XdpMode::Copy })
    }

    pub(super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        let mut statistics = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        sockopt::get(self.as_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
        Ok(statistics)
    }

    /// Makes the kernel take from the ring of what is to be sent.
    pub(super) fn wake_to_send(&self) -> io::Result<()> {
        // SAFETY: no bytes, and no address.
        let sent =
            unsafe { libc::sendto(self.0.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the kernel take from the ring of chunks to fill.
    pub(super) fn wake_to_receive(&self) -> io::Result<()> {
        let (none, no_address) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: no bytes, and no address.
        let received = unsafe {
            libc::recvfrom(self.0.as_raw_fd(), none, 0, libc::MSG_DONTWAIT, no_address, ptr::null_mut())
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set<T: Plain>(&self, option: c_int, value: T) -> io::Result<()> {
        sockopt::set(self.as_fd(), libc::SOL_XDP, option, value)
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
