//! TCP socket options that the transport sets on each link.

use std::{ffi::c_int, net::Shutdown, os::fd::AsFd, time::Duration};

use socket2::SockRef;

use crate::{SocketError, sockopt};

// Values of include/uapi/asm-generic/socket.h, which `libc` leaves out. The targets with other
// numbers (parisc, sparc) are not ours.
const SO_MAX_PACING_RATE: c_int = 47;
const SO_ZEROCOPY: c_int = 60;

/// Kernel's word for "no limit" in `SO_MAX_PACING_RATE`.
const UNLIMITED: u64 = u64::MAX;

/// Sends small segments at once instead of waiting for more (`TCP_NODELAY`).
pub fn set_nodelay(fd: impl AsFd, on: bool) -> Result<(), SocketError> {
    SockRef::from(&fd).set_tcp_nodelay(on).map_err(SocketError::in_call("setsockopt(TCP_NODELAY)"))
}

/// The socket is writable only while fewer than `bytes` wait unsent in it (`TCP_NOTSENT_LOWAT`):
/// what is queued there cannot be overtaken by something more urgent.
pub fn set_notsent_lowat(fd: impl AsFd, bytes: u32) -> Result<(), SocketError> {
    SockRef::from(&fd)
        .set_tcp_notsent_lowat(bytes)
        .map_err(SocketError::in_call("setsockopt(TCP_NOTSENT_LOWAT)"))
}

/// Limits the pacing rate in bytes per second, `None` for no limit (`SO_MAX_PACING_RATE` in its
/// 64-bit form, Linux 5.0), and returns the limit that the kernel then reports.
pub fn set_max_pacing_rate(fd: impl AsFd, bytes_per_second: Option<u64>) -> Result<Option<u64>, SocketError> {
    let fd = fd.as_fd();
    let wanted = bytes_per_second.unwrap_or(UNLIMITED);
    sockopt::set(fd, libc::SOL_SOCKET, SO_MAX_PACING_RATE, wanted)
        .map_err(SocketError::in_call("setsockopt(SO_MAX_PACING_RATE)"))?;
    max_pacing_rate(fd)
}

/// The limit that [`set_max_pacing_rate`] has set, `None` for no limit.
pub fn max_pacing_rate(fd: impl AsFd) -> Result<Option<u64>, SocketError> {
    let fd = fd.as_fd();
    let mut in_force = 0;
    let len = sockopt::get(fd, libc::SOL_SOCKET, SO_MAX_PACING_RATE, &mut in_force)
        .map_err(SocketError::in_call("getsockopt(SO_MAX_PACING_RATE)"))?;
    // A kernel with the 32-bit form only fills four bytes.
    let unlimited = if len < size_of::<u64>() { u64::from(u32::MAX) } else { UNLIMITED };
    Ok((in_force != unlimited).then_some(in_force))
}

/// Closes the connection when sent data stays unacknowledged this long (`TCP_USER_TIMEOUT`,
/// RFC 5482; milliseconds). Zero restores the system's default.
pub fn set_user_timeout(fd: impl AsFd, timeout: Duration) -> Result<(), SocketError> {
    SockRef::from(&fd)
        .set_tcp_user_timeout(Some(timeout))
        .map_err(SocketError::in_call("setsockopt(TCP_USER_TIMEOUT)"))
}

/// Allows [`zerocopy::send_vectored`](crate::zerocopy::send_vectored) (`SO_ZEROCOPY`).
pub fn set_zerocopy(fd: impl AsFd, on: bool) -> Result<(), SocketError> {
    sockopt::set(fd.as_fd(), libc::SOL_SOCKET, SO_ZEROCOPY, c_int::from(on))
        .map_err(SocketError::in_call("setsockopt(SO_ZEROCOPY)"))
}

/// Sends a FIN after all that was written; reading goes on (`shutdown(SHUT_WR)`).
pub fn shutdown_write(fd: impl AsFd) -> Result<(), SocketError> {
    SockRef::from(&fd).shutdown(Shutdown::Write).map_err(SocketError::in_call("shutdown(SHUT_WR)"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::loopback::connected_pair;

    #[test]
    fn options_are_in_force_after_being_set() {
        let (a, _b) = connected_pair();
        let socket = SockRef::from(&a);
        for on in [true, false] {
            set_nodelay(&a, on).unwrap();
            assert_eq!(socket.tcp_nodelay().unwrap(), on);
            set_zerocopy(&a, on).unwrap();
            let mut value: c_int = -1;
            sockopt::get(a.as_fd(), libc::SOL_SOCKET, SO_ZEROCOPY, &mut value).unwrap();
            assert_eq!(value, c_int::from(on));
        }
        set_notsent_lowat(&a, 131_072).unwrap();
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 131_072);
        set_user_timeout(&a, Duration::from_millis(12_345)).unwrap();
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
    }

    #[test]
    fn pacing_limit_holds_more_than_32_bits_and_can_be_lifted() {
        let (a, _b) = connected_pair();
        assert_eq!(max_pacing_rate(&a).unwrap(), None);
        for rate in [Some(1 << 20), Some(10_000_000_000), None] {
            assert_eq!(set_max_pacing_rate(&a, rate).unwrap(), rate);
        }
    }

    #[test]
    fn shutdown_ends_one_direction_only() {
        use std::io::{Read, Write};
        let (mut a, mut b) = connected_pair();
        a.write_all(b"last").unwrap();
        shutdown_write(&a).unwrap();
        let mut text = String::new();
        b.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
        b.write_all(b"!").unwrap();
        a.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn the_error_names_the_option() {
        let not_a_socket: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let error = set_notsent_lowat(&not_a_socket, 1).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOTSOCK));
        assert!(error.to_string().starts_with("setsockopt(TCP_NOTSENT_LOWAT): "), "{error}");
        let error = set_max_pacing_rate(&not_a_socket, None).unwrap_err();
        assert_eq!(error.call, "setsockopt(SO_MAX_PACING_RATE)");
    }
}
