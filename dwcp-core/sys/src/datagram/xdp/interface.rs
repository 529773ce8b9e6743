//! What an AF_XDP socket has to know of its interface.

use std::{
    io, mem,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

use super::XdpError;
use crate::SocketError;

/// An interface of this network namespace.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// Bytes of the longest IP packet, when it was asked for.
    pub(super) mtu: usize,
}

impl Interface {
    pub(super) fn find(name: &str) -> Result<Self, XdpError> {
        let missing = |source| XdpError::NoInterface { interface: name.to_owned(), source };
        let index = nix::net::if_::if_nametoindex(name).map_err(|errno| missing(errno.into()))?;
        // SAFETY: a name and integers, for which zero is allowed.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        // A zero stays behind it: the kernel knows no name without room for one.
        let room = request.ifr_name.len() - 1;
        for (to, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
            *to = byte as libc::c_char;
        }
        // AF_XDP sockets have no such request; any other has.
        let any = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(SocketError::in_call("socket(UDP)"))?;
        // SAFETY: the request is an exclusive `ifreq` with a name that ends, which the kernel reads and writes.
        if unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) } < 0 {
            return Err(missing(io::Error::last_os_error()));
        }
        // SAFETY: this request fills that field.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(Self { name: name.to_owned(), index, mtu: usize::try_from(mtu).unwrap_or(0) })
    }
}
