//! Socket addresses as the kernel reads and writes them.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

/// A `sockaddr_in6`, or a `sockaddr_in`: the two begin alike, and where the one has its flow label, the other has its
/// address.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Name(libc::sockaddr_in6);

const _: () = assert!(
    mem::offset_of!(libc::sockaddr_in6, sin6_flowinfo) == mem::offset_of!(libc::sockaddr_in, sin_addr)
        && mem::offset_of!(libc::sockaddr_in6, sin6_port) == mem::offset_of!(libc::sockaddr_in, sin_port)
        && mem::size_of::<libc::sockaddr_in6>() >= mem::size_of::<libc::sockaddr_in>()
);

impl Name {
    /// Nobody's, for the kernel to write to.
    pub(super) const UNSPECIFIED: Self = Self(libc::sockaddr_in6 {
        sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    });

    /// For a socket of IPv6, or one of IPv4.
    pub(super) fn new(address: SocketAddr, of_ipv6: bool) -> Self {
        let mut name = Self::UNSPECIFIED;
        name.0.sin6_port = address.port().to_be();
        match address {
            SocketAddr::V4(v4) if !of_ipv6 => {
                name.0.sin6_family = libc::AF_INET as libc::sa_family_t;
                name.0.sin6_flowinfo = u32::from_ne_bytes(v4.ip().octets());
            }
            SocketAddr::V4(v4) => {
                name.0.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.0.sin6_addr.s6_addr = v4.ip().to_ipv6_mapped().octets();
            }
            // A socket of IPv4 refuses it (EAFNOSUPPORT).
            SocketAddr::V6(v6) => {
                name.0.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.0.sin6_addr.s6_addr = v6.ip().octets();
                name.0.sin6_scope_id = v6.scope_id();
            }
        }
        name
    }

    /// How much of it the kernel shall read.
    pub(super) fn length(&self) -> libc::socklen_t {
        if libc::c_int::from(self.0.sin6_family) == libc::AF_INET {
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        } else {
            mem::size_of::<Self>() as libc::socklen_t
        }
    }

    /// `None` for another family.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let port = u16::from_be(self.0.sin6_port);
        match libc::c_int::from(self.0.sin6_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.0.sin6_flowinfo.to_ne_bytes());
                Some(SocketAddr::new(IpAddr::V4(ip), port))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.0.sin6_addr.s6_addr);
                Some(match ip.to_ipv4_mapped() {
                    Some(ip) => SocketAddr::new(IpAddr::V4(ip), port),
                    None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.0.sin6_scope_id)),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_the_kernel_reads_them_alike() {
        for text in ["192.0.2.1:8889", "[2001:db8::1]:1", "[fe80::1%7]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            for of_ipv6 in [address.is_ipv6(), true] {
                let name = Name::new(address, of_ipv6);
                assert_eq!(name.address(), Some(address), "{text}");
                let length = name.length();
                assert_eq!(length == 28, of_ipv6);
                let other = socket2::SockAddr::from(address);
                if other.len() == length {
                    // SAFETY: both have as many bytes that are initialised.
                    let (ours, theirs) = unsafe {
                        let ours =
                            std::slice::from_raw_parts((&raw const name).cast::<u8>(), length as usize);
                        (ours, std::slice::from_raw_parts(other.as_ptr().cast::<u8>(), length as usize))
                    };
                    assert_eq!(ours, theirs, "{text}");
                }
            }
        }
        assert_eq!(Name::UNSPECIFIED.address(), None);
    }
}
