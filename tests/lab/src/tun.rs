//! A TUN device with segmentation offloads.
//!
//! Owns: making the device in the calling thread's network namespace, reading and writing frames without blocking.
//! The layout of a frame is `gso`'s subject. The device vanishes when this value is dropped.

use crate::gso::VNET_HEADER_LEN;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Checksums and TCP segmentation are left to us: the least that makes super-packets possible.
const OFFLOADS_TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// UDP segmentation too, from Linux 6.2 on: QUIC stacks use it. Both bits have to be given together.
const OFFLOADS_ALL: u32 = OFFLOADS_TCP | libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// One end of the emulated link.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread.
    pub fn create(name: &str) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: an `ifreq` of zeroes is valid: it consists of integers and byte arrays.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        assert!(name.len() < libc::IFNAMSIZ, "interface names have at most 15 bytes");
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call returns.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        let header_len = VNET_HEADER_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one `int`.
        Errno::result(unsafe {
            libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_len)
        })?;
        let offload = |flags: u32| {
            // SAFETY: TUNSETOFFLOAD takes its flags by value.
            Errno::result(unsafe {
                libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags))
            })
        };
        offload(OFFLOADS_ALL).or_else(|_| offload(OFFLOADS_TCP))?;
        Ok(Self { file })
    }

    /// Reads one frame; `None` when there is none now.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one frame. The kernel's receive processing happens within this call.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
