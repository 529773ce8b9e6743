//! Batches: packets of the TUN device with segmentation offloads, datagrams with GSO and GRO.
//!
//! One system call for many packets is what makes user space fast enough: TCP hands the device up to 64 KiB at once,
//! which are cut to packets here, and packets that came in a batch are put together again for TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tun_rs::{DeviceBuilder, GROTable, IDEAL_BATCH_SIZE, SyncDevice, VIRTIO_NET_HDR_LEN};

use super::tunnels::Sink;

/// An IP packet's length has 16 bits.
const PACKET_BYTES_MAX: usize = 65_535;
/// Datagrams of one send, all of one size and to one peer: what fits a UDP packet before it is cut.
const SEND_BYTES_MAX: usize = 65_000;
/// Receives of one batch, each of up to 64 KiB of datagrams that came together.
const RECEIVES: usize = 4;
/// Buffers of the socket: with the kernel's default, a burst that TCP takes for granted is lost here.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The device.
pub(super) struct Tun(SyncDevice);

impl Tun {
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let device = DeviceBuilder::new().name(name).enable(false).with(|builder| {
            builder.offload(true);
        });
        let device = device.build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Self(device))
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket, for IPv4 and IPv6. Its packets are not fragmented (`quinn-udp` forbids it): what does not fit the path is
/// lost, so the interface's MTU has to be right.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    v6: bool,
}

impl Socket {
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        // A kernel without IPv6 has only the other.
        let (socket, v6) = match Self::open(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port) {
            Ok(socket) => (socket, true),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => (Self::open(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)?, false),
        };
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state, v6 })
    }

    fn open(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
        let address = SocketAddr::new(address, port);
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // As much as the system allows.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    /// An address as this socket takes it.
    fn own(&self, endpoint: SocketAddr) -> SocketAddr {
        match endpoint.ip() {
            IpAddr::V4(address) if self.v6 => {
                SocketAddr::new(address.to_ipv6_mapped().into(), endpoint.port())
            }
            _ => endpoint,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What came in one batch.
pub(super) struct Inbox {
    large: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    count: usize,
    received: Vec<Vec<u8>>,
    metas: [RecvMeta; RECEIVES],
    filled: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            large: vec![0; VIRTIO_NET_HDR_LEN + PACKET_BYTES_MAX],
            packets: vec![vec![0; PACKET_BYTES_MAX]; IDEAL_BATCH_SIZE],
            sizes: vec![0; IDEAL_BATCH_SIZE],
            count: 0,
            received: vec![vec![0; PACKET_BYTES_MAX]; RECEIVES],
            metas: [RecvMeta::default(); RECEIVES],
            filled: 0,
        }
    }

    /// Reads one packet of the device, which may be large and is cut then.
    pub(super) fn read(&mut self, tun: &Tun) -> io::Result<()> {
        self.count = 0;
        match tun.0.recv_multiple(&mut self.large, &mut self.packets, &mut self.sizes, 0) {
            Ok(count) => self.count = count,
            // The device is down, or the packet makes no sense to its reader: both pass.
            Err(error) if error.raw_os_error() == Some(EBADFD) => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    pub(super) fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().zip(&self.sizes).take(self.count).map(|(packet, &size)| &packet[..size])
    }

    /// Receives what is there, as far as one batch goes.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.filled = 0;
        let mut slices = self.received.iter_mut().map(|buffer| io::IoSliceMut::new(buffer));
        let mut slices: [_; RECEIVES] = std::array::from_fn(|_| slices.next().expect("there are so many"));
        match socket.state.recv((&socket.socket).into(), &mut slices, &mut self.metas) {
            Ok(filled) => self.filled = filled,
            Err(error) if passes(error.kind()) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.received.iter().zip(&self.metas).take(self.filled).flat_map(|(buffer, meta)| {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            buffer[..meta.len].chunks(meta.stride.max(1)).map(move |datagram| (from, datagram))
        })
    }
}

/// Nothing is there, or it is what the network said of an earlier datagram.
fn passes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::*;
    matches!(kind, WouldBlock | Interrupted | ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

/// `EBADFD`: the device is gone.
const EBADFD: i32 = rustix::io::Errno::BADFD.raw_os_error();

/// What is to go out, until it makes a batch.
pub(super) struct Outbox<'a> {
    socket: &'a Socket,
    tun: &'a Tun,
    endpoint: Option<SocketAddr>,
    segment: usize,
    datagrams: Vec<u8>,
    /// The last one was shorter than the others: none may follow.
    closed: bool,
    packets: Vec<Vec<u8>>,
    count: usize,
    gro: GROTable,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(socket: &'a Socket, tun: &'a Tun) -> Self {
        Self {
            socket,
            tun,
            endpoint: None,
            segment: 0,
            datagrams: Vec::new(),
            closed: false,
            packets: Vec::new(),
            count: 0,
            gro: GROTable::default(),
        }
    }

    /// Sends and writes all. What the kernel does not take now is lost, as anywhere in a network.
    pub(super) fn flush(&mut self) {
        self.flush_network();
        self.flush_machine();
    }

    fn flush_network(&mut self) {
        if let Some(destination) = self.endpoint.take() {
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: &self.datagrams,
                segment_size: (self.datagrams.len() > self.segment).then_some(self.segment),
                src_ip: None,
            };
            if let Err(error) = self.socket.state.try_send((&self.socket.socket).into(), &transmit) {
                tracing::trace!(%destination, %error, "a datagram of WireGuard was not sent");
            }
        }
        self.datagrams.clear();
        self.closed = false;
    }

    fn flush_machine(&mut self) {
        if self.count > 0 {
            let sent =
                self.tun.0.send_multiple(&mut self.gro, &mut self.packets[..self.count], VIRTIO_NET_HDR_LEN);
            if let Err(error) = sent {
                tracing::trace!(%error, "a packet of WireGuard was not taken");
            }
        }
        self.count = 0;
    }
}

impl Sink for Outbox<'_> {
    fn to_network(&mut self, endpoint: SocketAddr, datagram: &[u8]) {
        let endpoint = self.socket.own(endpoint);
        let fits = self.endpoint == Some(endpoint)
            && !self.closed
            && datagram.len() <= self.segment
            && self.datagrams.len() + datagram.len() <= SEND_BYTES_MAX
            && self.datagrams.len() / self.segment < self.socket.state.max_gso_segments();
        if !fits {
            self.flush_network();
            self.endpoint = Some(endpoint);
            self.segment = datagram.len();
        }
        self.closed = datagram.len() < self.segment;
        self.datagrams.extend_from_slice(datagram);
    }

    fn to_machine(&mut self, packet: &[u8]) {
        if self.count == IDEAL_BATCH_SIZE {
            self.flush_machine();
        }
        if self.count == self.packets.len() {
            self.packets.push(Vec::with_capacity(VIRTIO_NET_HDR_LEN + PACKET_BYTES_MAX));
        }
        // Room for the header that the device wants before each.
        let slot = &mut self.packets[self.count];
        slot.clear();
        slot.resize(VIRTIO_NET_HDR_LEN, 0);
        slot.extend_from_slice(packet);
        self.count += 1;
    }
}
