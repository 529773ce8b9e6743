//! Congestion control of one socket, which may be changed while data flows.

use std::{fs, os::fd::AsFd};

use socket2::SockRef;

use crate::SocketError;

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Sets the congestion control and returns what the kernel then says is in force.
///
/// # Errors
/// `setsockopt(TCP_CONGESTION)`: `ENOENT` if the kernel does not know `name`, `EPERM` if it is not
/// among the allowed ones and the process lacks `CAP_NET_ADMIN`.
pub fn set(fd: impl AsFd, name: &str) -> Result<String, SocketError> {
    let fd = fd.as_fd();
    SockRef::from(&fd)
        .set_tcp_congestion(name.as_bytes())
        .map_err(SocketError::in_call("setsockopt(TCP_CONGESTION)"))?;
    get(fd)
}

/// The congestion control in force.
pub fn get(fd: impl AsFd) -> Result<String, SocketError> {
    let mut name =
        SockRef::from(&fd).tcp_congestion().map_err(SocketError::in_call("getsockopt(TCP_CONGESTION)"))?;
    // The kernel pads with NUL to the full field.
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// What this kernel offers in this network namespace, without what it could still load as a module.
/// Empty if the list cannot be read, which does not mean that `set` will fail.
pub fn available() -> Vec<String> {
    let list = fs::read_to_string(AVAILABLE).unwrap_or_default();
    list.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::loopback::connected_pair;

    #[test]
    fn every_available_one_can_be_set_on_a_live_socket_and_is_read_back() {
        let (mut a, mut b) = connected_pair();
        let names = available();
        if names.is_empty() {
            println!("SKIP: {AVAILABLE} cannot be read here");
            return;
        }
        for name in names {
            a.write_all(b"before ").unwrap();
            match set(&a, &name) {
                Err(error) if error.source.raw_os_error() == Some(libc::EPERM) => {
                    println!("SKIP {name}: restricted, and there is no CAP_NET_ADMIN");
                    assert_ne!(get(&a).unwrap(), name);
                }
                // Without ECN, dctcp becomes dctcp-reno.
                set => {
                    assert!(set.unwrap().starts_with(&name) && get(&a).unwrap().starts_with(&name), "{name}")
                }
            }
            a.write_all(b"after").unwrap();
            let mut text = [0; 12];
            b.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"before after");
        }
    }

    #[test]
    fn an_unknown_one_is_an_error_with_the_option_in_it() {
        let (a, _b) = connected_pair();
        let before = get(&a).unwrap();
        let error = set(&a, "no-such-cc").unwrap_err();
        assert_eq!(error.call, "setsockopt(TCP_CONGESTION)");
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(get(&a).unwrap(), before);
    }
}
