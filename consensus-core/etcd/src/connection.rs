//! What is between a client's connection and HTTP/2.
//!
//! It lets clients in that say `:authority: http://HOST:PORT`, as etcd's client 3.4 does when it asks one member something of
//! maintenance at a URL. That is no authority, and our HTTP/2 refuses the request; Go's does not look at it, and neither do
//! we. Only the first request is looked at, because later ones refer to the headers of the first: letters are written over
//! the scheme whose codes are as long.
//!
//! And it gathers what HTTP/2 writes, so that an answer is one write to the socket. Everything else passes as it is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tonic::transport::server::Connected;

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113, sections 4.1 and 6.2.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// RFC 7541, appendix A.
const AUTHORITY_INDEX: usize = 1;

/// Huffman codes of RFC 7541, appendix B, with their lengths in bits.
const H: (u64, u32) = (0x27, 6);
const T: (u64, u32) = (0x9, 5);
const P: (u64, u32) = (0x2b, 6);
const S: (u64, u32) = (0x8, 5);
const COLON: (u64, u32) = (0x5c, 7);
const SLASH: (u64, u32) = (0x18, 6);
const B: (u64, u32) = (0x5d, 7);
const DASH: (u64, u32) = (0x16, 6);

/// What is looked for, what is put in its place, and how long both are.
const SCHEMES: [(u64, u64, u32); 2] = [
    (bits(&[H, T, T, P, COLON, SLASH, SLASH]), bits(&[H, T, T, P, B, DASH, DASH]), 41),
    (bits(&[H, T, T, P, S, COLON, SLASH, SLASH]), bits(&[H, T, T, P, S, B, DASH, DASH]), 46),
];

/// Codes one after the other, from the highest bit on.
const fn bits(codes: &[(u64, u32)]) -> u64 {
    let (mut all, mut left, mut n) = (0, 64, 0);
    while n < codes.len() {
        left -= codes[n].1;
        all |= codes[n].0 << left;
        n += 1;
    }
    all
}

/// Where in a connection the first request is.
#[derive(Debug)]
enum Place {
    /// So many bytes of the preface came.
    Preface(usize),
    /// So many of a frame's header, which are these.
    Frame(usize, [u8; FRAME_HEADER]),
    /// In a frame before it, with so many bytes left.
    Before(usize),
    /// Behind it, or this is no HTTP/2.
    Done,
}

impl Place {
    /// The next bytes of the connection.
    fn read(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self {
                Self::Preface(seen) => {
                    let here = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..here] != PREFACE[*seen..*seen + here] {
                        *self = Self::Done;
                        return;
                    }
                    *seen += here;
                    if *seen == PREFACE.len() {
                        *self = Self::Frame(0, [0; FRAME_HEADER]);
                    }
                    bytes = &mut bytes[here..];
                }
                Self::Frame(seen, header) => {
                    let here = bytes.len().min(FRAME_HEADER - *seen);
                    header[*seen..*seen + here].copy_from_slice(&bytes[..here]);
                    *seen += here;
                    bytes = &mut bytes[here..];
                    if *seen == FRAME_HEADER {
                        let [a, b, c, kind, flags, ..] = *header;
                        let length = u32::from_be_bytes([0, a, b, c]) as usize;
                        if kind == HEADERS {
                            let here = bytes.len().min(length);
                            // If it does not come in one piece, it is left as it is.
                            let _ = rewrite(&mut bytes[..here], flags);
                            *self = Self::Done;
                            return;
                        }
                        *self = Self::Before(length);
                    }
                }
                Self::Before(0) => *self = Self::Frame(0, [0; FRAME_HEADER]),
                Self::Before(left) => {
                    let here = bytes.len().min(*left);
                    *left -= here;
                    bytes = &mut bytes[here..];
                }
                Self::Done => return,
            }
        }
    }
}

/// A number of RFC 7541, section 5.1, in the lower bits of the first byte and in those that follow; and how long it is.
fn number(bytes: &[u8], prefix: u32) -> Option<(usize, usize)> {
    let max = (1_usize << prefix) - 1;
    let first = usize::from(*bytes.first()?) & max;
    if first < max {
        return Some((first, 1));
    }
    let (mut value, mut shift) = (max, 0);
    for (n, byte) in bytes.iter().enumerate().skip(1).take(3) {
        value += usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

/// Where a string of RFC 7541, section 5.2, is, and whether it has Huffman codes.
fn string(bytes: &[u8], at: usize) -> Option<(std::ops::Range<usize>, bool)> {
    let rest = bytes.get(at..)?;
    let (length, head) = number(rest, 7)?;
    let range = at + head..at + head + length;
    (range.end <= bytes.len()).then_some((range, rest[0] & 0x80 != 0))
}

/// Writes over the scheme in the authority of a HEADERS frame. `None`: it has no authority, or makes no sense.
fn rewrite(payload: &mut [u8], flags: u8) -> Option<()> {
    let mut at = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    loop {
        let rest = payload.get(at..)?;
        let first = *rest.first()?;
        // RFC 7541, section 6: indexed, literal that is indexed, size of the table, other literals.
        let (prefix, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, head) = number(rest, prefix)?;
        at += head;
        if !has_value {
            continue;
        }
        if index == 0 {
            at = string(payload, at)?.0.end;
        }
        let (value, huffman) = string(payload, at)?;
        at = value.end;
        if index == AUTHORITY_INDEX {
            if huffman {
                rewrite_scheme(&mut payload[value]);
            }
            return Some(());
        }
    }
}

fn rewrite_scheme(value: &mut [u8]) {
    let Some(first) = value.first_chunk_mut::<8>() else { return };
    let found = u64::from_be_bytes(*first);
    for (scheme, instead, length) in SCHEMES {
        if (found ^ scheme) >> (64 - length) == 0 {
            *first = (found ^ scheme ^ instead).to_be_bytes();
        }
    }
}

/// Two frames of the size that clients take by default.
const WRITE_BYTES: usize = 32 << 10;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    inner: BufWriter<I>,
    place: Place,
}

impl<I: AsyncWrite> Connection<I> {
    pub(crate) fn new(inner: I) -> Self {
        Self { inner: BufWriter::with_capacity(WRITE_BYTES, inner), place: Place::Preface(0) }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buf);
        if !matches!(self.place, Place::Done) {
            self.place.read(&mut buf.filled_mut()[before..]);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Connection<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    /// Of a writer that takes several pieces at once, h2 flushes each message of 256 bytes and more before it goes on: the
    /// trailers of an answer become a write of their own, which is a quarter of what a small read costs.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<I: Connected + AsyncWrite> Connected for Connection<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.get_ref().connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    /// `:method POST`, `:scheme http`, `:path /x`, and `:authority` with this value.
    fn request(value: &[u8]) -> Vec<u8> {
        let mut payload = vec![0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41, 0x80 | value.len() as u8];
        payload.extend_from_slice(value);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers = [0, 0, payload.len() as u8, HEADERS, 4, 0, 0, 0, 1];
        [PREFACE, &settings, &headers, &payload].concat()
    }

    /// Bits of codes, filled up with ones.
    fn huffman(codes: &[(u64, u32)]) -> Vec<u8> {
        let mut text: String =
            codes.iter().map(|(code, length)| format!("{code:0width$b}", width = *length as usize)).collect();
        text.extend(std::iter::repeat_n('1', (8 - text.len() % 8) % 8));
        text.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    fn read(stream: &[u8], pieces: usize) -> Vec<u8> {
        let mut stream = stream.to_vec();
        let mut place = Place::Preface(0);
        stream.chunks_mut(pieces).for_each(|piece| place.read(piece));
        stream
    }

    #[tokio::test]
    async fn what_is_written_before_a_flush_is_one_write() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::new(near);
        for piece in [&b"headers"[..], &[b'd'; 16 << 10], b"trailers"] {
            connection.write_all(piece).await.unwrap();
        }
        let mut received = vec![0; 1 << 20];
        let nothing = timeout(Duration::from_millis(10), far.read(&mut received));
        assert!(nothing.await.is_err());
        connection.flush().await.unwrap();
        assert_eq!(far.read(&mut received).await.unwrap(), 7 + (16 << 10) + 8);
        assert!(!connection.is_write_vectored());
    }

    #[test]
    fn a_scheme_becomes_part_of_a_name() {
        for (url, name) in [
            (
                &[H, T, T, P, COLON, SLASH, SLASH, H, H, H, H][..],
                &[H, T, T, P, B, DASH, DASH, H, H, H, H][..],
            ),
            (&[H, T, T, P, S, COLON, SLASH, SLASH, H, H, H], &[H, T, T, P, S, B, DASH, DASH, H, H, H]),
        ] {
            let (url, name) = (request(&huffman(url)), request(&huffman(name)));
            assert_eq!(read(&url, 1000), name);
            // Whatever of it comes in pieces, nothing else is touched.
            for pieces in 1..url.len() {
                let found = read(&url, pieces);
                assert!(found == url || found == name, "in pieces of {pieces}");
            }
        }
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        let name = request(&huffman(&[H, T, T, P, COLON, H, H, H, H, H, H, H]));
        let http1 = b"GET /health HTTP/1.1\r\nHost: http://x\r\n\r\n".to_vec();
        for stream in [name, http1, request(b""), PREFACE.to_vec()] {
            assert_eq!(read(&stream, 1000), stream);
        }
    }

    #[test]
    fn nothing_makes_it_panic() {
        let url = request(&huffman(&[H, T, T, P, COLON, SLASH, SLASH, H, H, H, H]));
        for at in PREFACE.len()..url.len() {
            for byte in 0..=255 {
                let mut stream = url.clone();
                stream[at] = byte;
                read(&stream, 1000);
            }
        }
    }
}
