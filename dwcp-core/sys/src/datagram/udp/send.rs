//! Sending: runs of datagrams to one receiver and of one length become one packet each, all packets one `sendmmsg`.

use std::{
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{
    super::{Outgoing, name::Name},
    UDP_SEGMENT,
};

/// Packets of one call.
pub(super) const PACKETS: usize = 32;
/// Datagrams of one call: parts are prepared for as many.
const DATAGRAMS: usize = 256;
/// Datagrams of a packet: `UDP_MAX_SEGMENTS` of Linux 4.18, which later ones have raised.
const SEGMENTS: usize = 64;
/// Payload of the longest UDP datagram in IPv4, which bounds the packet before the kernel splits it, too.
const PACKET_BYTES: usize = 65_507;

/// A `cmsghdr` and the length of the datagrams that a packet is split into.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: computes a number.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as u32) } as usize;
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// Sends the first datagrams; returns how many.
pub(super) fn batch(
    socket: BorrowedFd<'_>,
    of_ipv6: bool,
    joined: bool,
    datagrams: &[Outgoing<'_>],
) -> io::Result<usize> {
    // Not initialised, as one datagram alone would pay for all.
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; DATAGRAMS];
    let mut names = [const { MaybeUninit::<Name>::uninit() }; PACKETS];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; PACKETS];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; PACKETS];
    let mut runs = [0; PACKETS];

    let datagrams = &datagrams[..datagrams.len().min(DATAGRAMS)];
    if datagrams.is_empty() {
        return Ok(0);
    }
    for (part, datagram) in parts.iter_mut().zip(datagrams) {
        // The kernel only reads it.
        let start = datagram.bytes.as_ptr().cast_mut().cast();
        part.write(libc::iovec { iov_base: start, iov_len: datagram.bytes.len() });
    }
    let parts = parts.as_mut_ptr().cast::<libc::iovec>();
    let (mut packets, mut first) = (0, 0);
    while packets < PACKETS && first < datagrams.len() {
        let run = if joined { run(&datagrams[first..]) } else { 1 };
        let name = names[packets].write(Name::new(datagrams[first].to, of_ipv6));
        // SAFETY: integers and pointers, for which zero is allowed.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        message.msg_hdr.msg_namelen = name.length();
        message.msg_hdr.msg_name = ptr::from_mut(name).cast();
        message.msg_hdr.msg_iov = parts.wrapping_add(first);
        message.msg_hdr.msg_iovlen = run as _;
        if run > 1 {
            let control = controls[packets].write(Control([0; CONTROL_BYTES]));
            message.msg_hdr.msg_control = ptr::from_mut(control).cast();
            message.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            write_segment(&message.msg_hdr, datagrams[first].bytes.len() as u16);
        }
        messages[packets].write(message);
        runs[packets] = run;
        (packets, first) = (packets + 1, first + run);
    }
    // SAFETY: the first `packets` messages are initialised; each names an address, `run` initialised parts and, if it says
    // so, a control message, all of which live on in this function, and the parts name bytes that `datagrams` borrows.
    let count = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            packets as u32,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok(runs[..count].iter().sum())
}

/// How many of these can leave as one packet: all of one length but the last, which may be shorter, and none empty.
fn run(datagrams: &[Outgoing<'_>]) -> usize {
    let (to, length) = (datagrams[0].to, datagrams[0].bytes.len());
    let fitting = PACKET_BYTES.checked_div(length).unwrap_or(1);
    let most = SEGMENTS.min(fitting).min(datagrams.len()).max(1);
    for (at, datagram) in datagrams[..most].iter().enumerate().skip(1) {
        let bytes = datagram.bytes.len();
        if datagram.to != to || bytes > length || bytes == 0 {
            return at;
        }
        if bytes < length {
            return at + 1;
        }
    }
    most
}

/// Has the kernel split a packet.
fn write_segment(message: &libc::msghdr, bytes: u16) {
    // SAFETY: `message` names a control buffer with room for a header and a `u16`, aligned for it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::IPPROTO_UDP;
        (*header).cmsg_type = UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_one_receiver_and_length_with_a_shorter_end() {
        let bytes = [0; 40_000];
        let of = |lengths: &[usize]| {
            let to = "192.0.2.1:1".parse().unwrap();
            lengths.iter().map(|&length| Outgoing { to, bytes: &bytes[..length] }).collect::<Vec<_>>()
        };
        for (lengths, expected) in [
            (&[10][..], 1),
            (&[10, 10, 10], 3),
            (&[10, 10, 9, 9], 3),
            (&[10, 11], 1),
            (&[10, 0, 10], 1),
            (&[0, 0], 1),
            (&[40_000, 40_000], 1),
            (&[30_000, 30_000, 30_000], 2),
            (&[1; 70], SEGMENTS),
        ] {
            assert_eq!(run(&of(lengths)), expected, "{lengths:?}");
        }
        let mut several = of(&[10, 10]);
        several[1].to = "192.0.2.1:2".parse().unwrap();
        assert_eq!(run(&several), 1);
    }
}
