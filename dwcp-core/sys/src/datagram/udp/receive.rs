//! Receiving: `recvmmsg`, and datagrams that arrived joined taken apart again.

use std::{
    fmt, io, mem,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use libc::c_int;

use super::{super::name::Name, UDP_GRO};

/// Packets of one call, each of which may be many datagrams.
const PACKETS: usize = 32;
/// No packet is longer, joined or not.
const PACKET_BYTES: usize = 1 << 16;
/// Between the beginnings of two buffers. A power of two would have all of them share the same few cache lines.
const STRIDE: usize = PACKET_BYTES + 256;

/// A `cmsghdr` and the length of the joined datagrams.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: computes a number.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<c_int>() as u32) } as usize;
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// Buffers that are used again and again.
pub(super) struct Receiver {
    bytes: Box<[u8]>,
    names: [Name; PACKETS],
    controls: [Control; PACKETS],
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            // Zeroed pages cost no memory until a packet is written to them.
            bytes: vec![0; PACKETS * STRIDE].into(),
            names: [Name::UNSPECIFIED; PACKETS],
            controls: [Control([0; CONTROL_BYTES]); PACKETS],
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl Receiver {
    /// Gives away what there is now, as far as the buffers go. How many datagrams.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        take: &mut dyn FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut parts: [libc::iovec; PACKETS] = {
            let mut buffers = self.bytes.chunks_exact_mut(STRIDE);
            std::array::from_fn(|_| {
                let buffer = buffers.next().expect("a buffer for each packet");
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: PACKET_BYTES }
            })
        };
        let mut messages: [libc::mmsghdr; PACKETS] = std::array::from_fn(|at| {
            // SAFETY: integers and pointers, for which zero is allowed.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
            message.msg_hdr.msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut parts[at];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = (&raw mut self.controls[at]).cast();
            message.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            message
        });
        // SAFETY: each message names an address, a buffer and a control buffer of its own, of the lengths that it says,
        // which live on in `self` and on this stack; `messages` is as long as it says. There is no timeout.
        let count = unsafe {
            let (at, length) = (messages.as_mut_ptr(), PACKETS as u32);
            libc::recvmmsg(socket.as_raw_fd(), at, length, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut taken = 0;
        let packets = messages[..count].iter().zip(&self.names).zip(self.bytes.chunks_exact_mut(STRIDE));
        for ((message, name), buffer) in packets {
            // Other families do not arrive at this socket.
            let Some(source) = name.address() else { continue };
            let packet = &mut buffer[..message.msg_len as usize];
            let segment = segment_bytes(&message.msg_hdr).unwrap_or(packet.len());
            if packet.len() <= segment {
                take(source, packet);
                taken += 1;
                continue;
            }
            for datagram in packet.chunks_mut(segment) {
                take(source, datagram);
                taken += 1;
            }
        }
        Ok(taken)
    }
}

/// Of a packet of several datagrams: how long each is but the last, which may be shorter.
fn segment_bytes(message: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has written control messages to the buffer that `message` names, which is aligned for them, and
    // has put their length into it. One of this kind carries a `c_int`.
    let segment = unsafe {
        let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
        if header.cmsg_level != libc::IPPROTO_UDP || header.cmsg_type != UDP_GRO {
            return None;
        }
        libc::CMSG_DATA(header).cast::<c_int>().read_unaligned()
    };
    usize::try_from(segment).ok().filter(|&bytes| bytes > 0)
}
