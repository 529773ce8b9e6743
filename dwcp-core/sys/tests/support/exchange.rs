//! What every way of datagrams has to do, between two ends: the same bodies for UDP here, and for AF_XDP beside the program
//! that steers to it (`dwcp-ebpf/tests`).

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use dwcp_proto::datagram::{DatagramHeader, DatagramType};
use dwcp_sys::datagram::{DatagramSocket, Outgoing};

/// Of all datagrams here.
pub(crate) const FLOW: u64 = 0x0123_4567_89ab_cdef;
/// A header and the tag of an empty payload.
pub(crate) const SHORTEST: usize = 24 + 16;
/// That are tried, about.
const LENGTHS: usize = 300;
/// Several times what any ring holds.
const BURST: u64 = 20_000;
/// Of one call, and of what is on the way at one time: fewer than the shortest queue between the ends holds.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// One end, and how the other one reaches it.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) socket: &'a dyn DatagramSocket,
    pub(crate) address: SocketAddr,
}

/// A datagram that says which it is, of this length.
pub(crate) fn datagram(number: u64, length: usize) -> Vec<u8> {
    let payload_len = (length - 24) as u16;
    let header =
        DatagramHeader { ty: DatagramType::Message, key_phase: false, payload_len, flow: FLOW, number };
    let mut bytes = header.encode().to_vec();
    bytes.extend((0..payload_len).map(|at| content(number, at)));
    bytes
}

fn content(number: u64, at: u16) -> u8 {
    ((number.wrapping_mul(31) + u64::from(at) * 7) >> 2) as u8
}

/// Which it is. Fails if a byte of it is not as it was made.
fn check(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    assert!(bytes == datagram(number, bytes.len()), "datagram {number} of {} bytes was changed", bytes.len());
    number
}

/// Gives `take` the numbers and lengths of all that is there now.
fn receive_some(end: End<'_>, from: SocketAddr, mut take: impl FnMut(u64, usize)) {
    let mut count = 0;
    let result = end.socket.recv(&mut |source, bytes| {
        assert_eq!(source, from);
        take(check(bytes), bytes.len());
        // They may be changed in place.
        bytes.fill(0);
        count += 1;
    });
    match result {
        Ok(received) => assert_eq!(received, count),
        Err(error) => assert_eq!((error.kind(), count), (io::ErrorKind::WouldBlock, 0), "{error}"),
    }
}

/// Waits for so many, in order and without a gap.
fn receive_in_order(end: End<'_>, from: SocketAddr, first: u64, count: u64) {
    let (begin, mut next) = (Instant::now(), first);
    while next < first + count {
        assert!(begin.elapsed() < PATIENCE, "{} of {count} came", next - first);
        receive_some(end, from, |number, _| {
            assert_eq!(number, next);
            next += 1;
        });
    }
}

fn send_all(from: End<'_>, to: SocketAddr, datagrams: &[Vec<u8>]) {
    let outgoing: Vec<_> = datagrams.iter().map(|bytes| Outgoing { to, bytes }).collect();
    let (begin, mut sent) = (Instant::now(), 0);
    while sent < outgoing.len() {
        assert!(begin.elapsed() < PATIENCE, "{sent} of {} went", outgoing.len());
        match from.socket.send(&outgoing[sent..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// Every length arrives whole, with the address of its sender, both ways; what is too long is refused and nothing else.
pub(crate) fn every_length(near: End<'_>, far: End<'_>, longest: usize) {
    for (from, to) in [(far, near), (near, far)] {
        let some = (SHORTEST..=longest).step_by((longest / LENGTHS) | 1);
        for (number, length) in some.chain([SHORTEST, longest]).enumerate() {
            send_all(from, to.address, &[datagram(number as u64, length)]);
            let (begin, mut got) = (Instant::now(), Vec::new());
            while got.is_empty() {
                assert!(begin.elapsed() < PATIENCE, "{length} bytes did not arrive");
                receive_some(to, from.address, |number, length| got.push((number, length)));
            }
            assert_eq!(got, [(number as u64, length)]);
        }
        let (long, short) = (datagram(1, longest + 1), datagram(2, longest));
        let [long, short] = [&long, &short].map(|bytes| Outgoing { to: to.address, bytes });
        let refused = from.socket.send(&[long, short]).expect_err("too long");
        assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE), "{refused}");
        // Several of them could be joined: the error is the same.
        assert_eq!(
            from.socket.send(&[long, long]).expect_err("too long").raw_os_error(),
            Some(libc::EMSGSIZE)
        );
        assert_eq!(from.socket.send(&[short, long]).expect("the first goes"), 1);
        receive_in_order(to, from.address, 2, 1);
    }
}

/// Thousands arrive, each once and in order, whether they are of one length or not, so that rings wrap and joining begins
/// and ends anywhere.
pub(crate) fn bursts(near: End<'_>, far: End<'_>, longest: usize) {
    for (from, to) in [(far, near), (near, far)] {
        let mut number = 0;
        while number < BURST {
            let at_once = 1 + number % AT_ONCE as u64;
            let datagrams: Vec<_> = (number..number + at_once)
                .map(|number| match number % 256 {
                    0..128 => datagram(number, longest),
                    128..160 => datagram(number, SHORTEST + (number * 13 % 100) as usize),
                    _ => datagram(number, 200),
                })
                .collect();
            send_all(from, to.address, &datagrams);
            receive_in_order(to, from.address, number, at_once);
            number += at_once;
        }
    }
}

/// Nobody fetches what `from` sends. Then what is there is whole and in order, at least `held` of it, and what comes after
/// arrives. Returns how many came of how many.
pub(crate) fn overflow(from: End<'_>, to: End<'_>, length: usize, held: u64) -> (u64, u64) {
    for first in (0..BURST).step_by(AT_ONCE) {
        let datagrams: Vec<_> =
            (first..BURST.min(first + AT_ONCE as u64)).map(|number| datagram(number, length)).collect();
        send_all(from, to.address, &datagrams);
    }
    let (mut begin, mut got, mut next) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_millis(200) {
        receive_some(to, from.address, |number, _| {
            assert!(number >= next, "{number} after {next}");
            (got, next, begin) = (got + 1, number + 1, Instant::now());
        });
    }
    assert!(got >= held && got < BURST, "{got} of {BURST} were held, and at least {held} should be");
    send_all(from, to.address, &[datagram(BURST, length)]);
    receive_in_order(to, from.address, BURST, 1);
    (got, BURST)
}
