//! Sends that hand pages instead of copies to the kernel (`MSG_ZEROCOPY`, Linux 4.14; the kernel's
//! `Documentation/networking/msg_zerocopy.rst`).
//!
//! **Contract.** After [`send_vectored`] the kernel reads the buffers until their completion is
//! reported. Memory safety does not depend on it (the kernel holds the pages), the data does: what
//! is written into the buffers before completion, by the owner or by a later user of freed memory,
//! goes out on the wire. Keep each buffer alive and unmodified until [`next_completion`] has
//! returned a range that includes its number.
//!
//! Each successful send with at least one byte gets the next number of a 32-bit counter of the
//! socket that starts at 0 and wraps. Keeping that count is the caller's part.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use socket2::SockRef;

// Values of include/uapi/linux/errqueue.h.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// Entries of other kinds skipped in one call of [`next_completion`].
const OTHER_ENTRIES_MAX: usize = 64;

/// Sends with these numbers are complete; their buffers are the caller's again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletionRange {
    /// First number of the range.
    pub first: u32,
    /// Last number, included. Smaller than `first` if the counter wrapped in between.
    pub last: u32,
    /// The kernel had to copy after all, as it does on loopback: zero-copy does not pay here.
    pub copied: bool,
}

/// Sends without copying and without blocking, from a socket with
/// [`set_zerocopy`](crate::options::set_zerocopy); returns the number of bytes taken.
///
/// # Errors
/// `WouldBlock` if the socket is full; `ENOBUFS` if the limit of pinned memory
/// (`net.core.optmem_max`, `RLIMIT_MEMLOCK`) is reached: send this one with a copy.
pub fn send_vectored(fd: impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    SockRef::from(&fd).send_vectored_with_flags(bufs, flags)
}

/// Takes the next completion from the socket's error queue; `None` if there is none now. A socket
/// with completions polls as error-ready.
pub fn next_completion(fd: impl AsFd) -> io::Result<Option<CompletionRange>> {
    let mut space = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    for _ in 0..OTHER_ENTRIES_MAX {
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<()>(fd.as_fd().as_raw_fd(), &mut [], Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for control in message.cmsgs()? {
            let (ControlMessageOwned::Ipv4RecvErr(entry, _) | ControlMessageOwned::Ipv6RecvErr(entry, _)) =
                control
            else {
                continue;
            };
            if entry.ee_errno == 0 && entry.ee_origin == SO_EE_ORIGIN_ZEROCOPY {
                return Ok(Some(CompletionRange {
                    first: entry.ee_info,
                    last: entry.ee_data,
                    copied: entry.ee_code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
                }));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::options;

    /// Sends `count` buffers, reads them back on the other side and returns all completions.
    fn complete(listen: &str, count: u32) -> Vec<CompletionRange> {
        const BYTES: usize = 100_000;
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        options::set_zerocopy(&client, true).unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            all
        });
        let mut taken = 0;
        let pattern: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
        let mut expected = Vec::new();
        while taken < count {
            let (head, tail) = pattern.split_at(BYTES / 3);
            match send_vectored(&client, &[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(sent) => {
                    taken += 1;
                    expected.extend_from_slice(&pattern[..sent]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap(), expected);

        let mut ranges: Vec<CompletionRange> = Vec::new();
        while ranges.last().is_none_or(|range| range.last + 1 < count) {
            match next_completion(&client).unwrap() {
                Some(range) => ranges.push(range),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        assert_eq!(next_completion(&client).unwrap(), None);
        ranges
    }

    #[test]
    fn completions_cover_every_send_once_and_loopback_says_that_it_copied() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            if TcpListener::bind(listen).is_err() {
                println!("SKIP: no {listen} here");
                continue;
            }
            let ranges = complete(listen, 20);
            let mut next = 0;
            for range in ranges {
                assert_eq!(range.first, next);
                assert!(range.last >= range.first && range.copied, "{range:?}");
                next = range.last + 1;
            }
            assert_eq!(next, 20);
        }
    }

    #[test]
    fn a_full_socket_says_would_block() {
        let (client, _server) = crate::loopback::connected_pair();
        options::set_zerocopy(&client, true).unwrap();
        let data = vec![0; 1 << 16];
        // A bound far above any socket buffer: the test fails instead of running forever.
        let error = (0..100_000).find_map(|_| send_vectored(&client, &[IoSlice::new(&data)]).err()).unwrap();
        let full = [libc::EAGAIN, libc::ENOBUFS];
        assert!(error.raw_os_error().is_some_and(|code| full.contains(&code)), "{error}");
    }

    #[test]
    fn an_ordinary_write_has_no_completion() {
        let (mut client, _server) = crate::loopback::connected_pair();
        client.write_all(b"copied").unwrap();
        assert_eq!(next_completion(&client).unwrap(), None);
    }
}
