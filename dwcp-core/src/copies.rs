//! Which payload bytes pass between the caller's memory and the kernel without a copy: seen by their addresses at the
//! system calls of plain sockets. For tests only; TLS has no such bytes, its records are made in between.

use std::{
    collections::BTreeMap,
    io::{IoSlice, IoSliceMut},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the sockets of this process did since [`watch`]. Tests beside this one add what is no harm: other addresses.
static SEEN: Mutex<Seen> = Mutex::new(Seen { sent_from: 0..0, sent: 0, read_into: BTreeMap::new() });

struct Seen {
    /// Memory of a caller who sends.
    sent_from: Range<usize>,
    /// Bytes that the kernel took from there.
    sent: usize,
    /// Memory that the kernel has filled and nobody has [claimed](claim), by its begin: the end.
    read_into: BTreeMap<usize, usize>,
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> usize {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

/// The kernel took `count` bytes.
pub(crate) fn sent(bufs: &[IoSlice<'_>], mut count: usize) {
    let mut seen = seen();
    for buf in bufs {
        let taken = &buf[..buf.len().min(count)];
        count -= taken.len();
        seen.sent += overlap(&addresses(taken), &seen.sent_from);
    }
}

/// The kernel filled `count` bytes.
pub(crate) fn read(bufs: &[IoSliceMut<'_>], mut count: usize) {
    let mut seen = seen();
    for buf in bufs {
        let filled = &buf[..buf.len().min(count)];
        count -= filled.len();
        seen.remove(&addresses(filled));
        if !filled.is_empty() {
            let filled = addresses(filled);
            seen.read_into.insert(filled.start, filled.end);
        }
    }
}

impl Seen {
    /// Forgets that this memory was filled; how much of it was.
    fn remove(&mut self, memory: &Range<usize>) -> usize {
        let touched: Vec<_> = self.read_into.range(..memory.end).map(|(&start, &end)| start..end).collect();
        let mut removed = 0;
        for filled in touched.into_iter().rev().take_while(|filled| filled.end > memory.start) {
            removed += overlap(&filled, memory);
            self.read_into.remove(&filled.start);
            if filled.start < memory.start {
                self.read_into.insert(filled.start, memory.start);
            }
            if filled.end > memory.end {
                self.read_into.insert(memory.end, filled.end);
            }
        }
        removed
    }
}

/// Begins anew, with a caller who sends from this memory.
fn watch(memory: &[u8]) {
    *seen() = Seen { sent_from: addresses(memory), sent: 0, read_into: BTreeMap::new() };
}

/// How many of these bytes lie where the kernel has put them. Only once: memory that is used again has to be filled
/// again.
fn claim(received: &[u8]) -> usize {
    seen().remove(&addresses(received))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{CompressionConfig, Endpoint, EndpointConfig, RecvStream, SendStream, reader::SCRATCH_LEN};

    const KIB: usize = 1 << 10;
    const FRAMES: usize = 64;

    #[derive(Clone, Copy, Debug)]
    enum Write {
        Bytes,
        All,
        Async,
    }

    async fn streams() -> (SendStream, RecvStream, impl Sized) {
        let config = || {
            let mut config = EndpointConfig::new("copies");
            config.compression = CompressionConfig::NONE;
            // Nothing is said again on another link.
            config.transport.streams.max = 1;
            config.transport.streams.initial = 1;
            config
        };
        let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config()).await.unwrap();
        let client = Endpoint::client(config()).unwrap();
        let connected = client.connect(server.local_addr().unwrap(), "localhost");
        let (connected, accepted) = tokio::join!(connected, server.accept());
        let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
        let (mut send, answer) = connected.open_stream().await.unwrap();
        send.write_all(b"begin").await.unwrap();
        let (reply, mut recv) = accepted.accept_stream().await.unwrap();
        assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "begin");
        (send, recv, (server, client, connected, accepted, answer, reply))
    }

    /// Sends frames of this length, each when the one before was read, so that none shares a read with another. Returns
    /// the bytes sent from the caller's memory, and those read where the kernel had put them.
    async fn count(write: Write, len: usize) -> (usize, usize) {
        let (mut send, mut recv, _others) = streams().await;
        let payload = Bytes::from(vec![7; len]);
        watch(&payload);
        let mut direct = 0;
        for _ in 0..FRAMES {
            match write {
                Write::Bytes => send.write_bytes(payload.clone()).await.unwrap(),
                Write::All => send.write_all(&payload).await.unwrap(),
                Write::Async => AsyncWriteExt::write_all(&mut send, &payload).await.unwrap(),
            }
            let mut left = len;
            while left > 0 {
                let chunk = recv.read_chunk().await.unwrap().unwrap();
                left -= chunk.len();
                direct += claim(&chunk);
            }
        }
        (seen().sent, direct)
    }

    /// The table of copies in `ARCHITECTURE.md`, its column *plain*. One test: what is seen is seen for the process.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn payload_is_copied_where_the_table_says_and_nowhere_else() {
        for (write, len, by_reference) in [
            (Write::Bytes, 256 * KIB, true),
            (Write::Bytes, 4 * KIB, true),
            (Write::Bytes, KIB + 1, true),
            (Write::Bytes, KIB, false),
            (Write::All, 256 * KIB, false),
            (Write::Async, 256 * KIB, false),
        ] {
            let (sent, _) = count(write, len).await;
            let expected = if by_reference { FRAMES * len } else { 0 };
            assert_eq!(sent, expected, "bytes sent from the caller's memory, {write:?} of {len}");
        }
        // What came together with its header is copied, once: of a frame at most what the scratch buffer has room for.
        for len in [256 * KIB, 200 * KIB, 100 * KIB] {
            let (_, direct) = count(Write::Bytes, len).await;
            println!("{direct} of {} bytes read in place, frames of {len}", FRAMES * len);
            assert!(direct >= FRAMES * (len - SCRATCH_LEN), "{direct} bytes read in place, frames of {len}");
        }
        // Handed out in the buffer they came in, or copied out of it.
        let (_, direct) = count(Write::Bytes, 16 * KIB).await;
        println!("{direct} of {} bytes read in place, frames of 16 KiB", FRAMES * 16 * KIB);
        assert!(direct > FRAMES * 16 * KIB / 2, "{direct} bytes read in place, frames of 16 KiB");
        let (_, direct) = count(Write::Bytes, 6 * KIB).await;
        assert_eq!(direct, 0, "frames of 6 KiB");
    }

    #[test]
    fn a_copy_into_memory_that_was_read_into_before_is_seen() {
        let mut memory = vec![0; 100];
        let within = |range: Range<usize>, memory: &[u8]| claim(&memory[range]);
        read(&[IoSliceMut::new(&mut memory)], 60);
        assert_eq!(within(10..20, &memory), 10);
        assert_eq!(within(0..100, &memory), 50);
        assert_eq!(within(0..100, &memory), 0, "claimed already");
        let (first, second) = memory.split_at_mut(50);
        read(&[IoSliceMut::new(first), IoSliceMut::new(second)], 70);
        assert_eq!(within(40..60, &memory), 20);
        assert_eq!(within(0..100, &memory), 50);
    }
}
