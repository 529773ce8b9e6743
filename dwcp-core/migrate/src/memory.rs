//! Memory between QEMU's sockets and a stream (MIGRATE-3, MIGRATE-4).

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dwcp_core::{RecvStream, SendStream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};

use crate::{
    MigrateError,
    error::socket,
    ram::{BATCH_BYTES, Decoder, Encoder, HEAD_BYTES, Head, PAGE_BYTES, Place, Step},
};

/// Sent and not yet taken by the target: at least this much is allowed.
const WINDOW_BYTES_MIN: u64 = 512 << 10;
/// What is allowed is this many times what the path holds, in quarters: QEMU judges by what it can write how long the rest
/// takes, and what waits here prolongs the guest's stop.
const WINDOW_QUARTERS: u64 = 6;
/// How fast a measured rate is forgotten: this part of it with each acknowledgement.
const RATE_DECAY: u64 = 200;
const SOCKET: &str = "QEMU's migration socket";
const PLACE_BYTES: usize = 10;

/// How far the memory has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Of QEMU's stream, bytes.
    pub(crate) plain: AtomicU64,
    /// Of batches, bytes.
    pub(crate) coded: AtomicU64,
}

pub(crate) type SharedEncoder = Arc<Mutex<Encoder>>;

/// Sends what QEMU writes, until it closes its socket; `acked` is what [`read_acks`] hears.
pub(crate) async fn send(
    mut qemu: UnixStream,
    encoder: &SharedEncoder,
    stream: &mut SendStream,
    mut acked: watch::Receiver<u64>,
    progress: &Progress,
) -> Result<(), MigrateError> {
    let mut window = Window::default();
    let mut buffer = Vec::with_capacity(2 * BATCH_BYTES);
    let mut ended = false;
    while !ended {
        ended = read_some(&mut qemu, &mut buffer).await? == 0;
        let mut at = 0;
        loop {
            let (taken, batch) = encode(encoder, &buffer[at..], ended).map_err(socket("compression"))?;
            at += taken;
            let Some(batch) = batch else { break };
            progress.plain.fetch_add(taken as u64, Relaxed);
            progress.coded.fetch_add(batch.len() as u64, Relaxed);
            window.sent(Instant::now(), batch.len() as u64);
            stream.write_bytes(batch.into()).await?;
        }
        buffer.drain(..at);
        while !window.acknowledged(Instant::now(), *acked.borrow_and_update()) {
            if acked.changed().await.is_err() {
                return Err(MigrateError::GivenUp);
            }
        }
    }
    Ok(())
}

/// Says that this was all, and that the guest may run there.
pub(crate) async fn end(stream: &mut SendStream) -> Result<(), MigrateError> {
    stream.write_all(&[0; HEAD_BYTES]).await?;
    Ok(stream.finish()?)
}

/// What there is at once, but not more than a batch needs.
async fn read_some(qemu: &mut UnixStream, buffer: &mut Vec<u8>) -> Result<usize, MigrateError> {
    let read = qemu.read_buf(buffer).await.map_err(socket(SOCKET))?;
    while read > 0 && buffer.len() < BATCH_BYTES {
        match qemu.try_read_buf(buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(socket(SOCKET)(error)),
        }
    }
    Ok(read)
}

/// A batch of as much as there is, and how much that was.
fn encode(encoder: &SharedEncoder, bytes: &[u8], ended: bool) -> std::io::Result<(usize, Option<Vec<u8>>)> {
    let mut encoder = encoder.lock().expect("nobody panics");
    let mut at = 0;
    while let Some(len) = encoder.take(&bytes[at..], ended) {
        at += len;
        if encoder.is_full() {
            break;
        }
    }
    Ok((at, encoder.batch()?))
}

/// Hears what the target has taken, until it says no more. Also when all is sent: nobody is told that they are not heard.
pub(crate) async fn read_acks(mut acks: RecvStream, told: watch::Sender<u64>) -> Result<(), MigrateError> {
    let mut acked = [0; 8];
    while acks.read_exact(&mut acked).await.is_ok() {
        told.send_replace(u64::from_le_bytes(acked));
    }
    Ok(())
}

/// How much may be on its way.
#[derive(Debug, Default)]
struct Window {
    sent: u64,
    acked: u64,
    /// Ends of batches, when they were sent, and what had been acknowledged then.
    flight: VecDeque<(u64, Instant, u64)>,
    round_trip: Option<Duration>,
    /// Bytes a second.
    rate: u64,
}

impl Window {
    fn sent(&mut self, now: Instant, len: u64) {
        self.sent += len;
        self.flight.push_back((self.sent, now, self.acked));
    }

    /// Whether more may be sent.
    fn acknowledged(&mut self, now: Instant, acked: u64) -> bool {
        self.acked = acked.clamp(self.acked, self.sent);
        while let Some(&(end, at, acked_then)) = self.flight.front().filter(|(end, ..)| *end <= self.acked) {
            self.flight.pop_front();
            let took = now - at;
            self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
            let rate = ((end - acked_then) as f64 / took.as_secs_f64().max(1e-6)) as u64;
            self.rate = rate.max(self.rate - self.rate / RATE_DECAY);
        }
        self.sent - self.acked <= self.allowed()
    }

    fn allowed(&self) -> u64 {
        let round_trip = self.round_trip.unwrap_or_default();
        let path = (self.rate as f64 * round_trip.as_secs_f64()) as u64;
        WINDOW_BYTES_MIN.max(path / 4 * WINDOW_QUARTERS)
    }
}

/// Gives pages in full to a target that asks for them, until it asks no more.
pub(crate) async fn repair(
    encoder: SharedEncoder,
    mut stream: SendStream,
    mut asked: RecvStream,
) -> Result<(), MigrateError> {
    let mut place = [0; PLACE_BYTES];
    while asked.read_exact(&mut place).await.is_ok() {
        let (block, page) = place.split_first_chunk().expect("a place has both");
        let page = u64::from_le_bytes(*page.first_chunk().expect("a place has both"));
        let place = Place { block: u16::from_le_bytes(*block), page };
        tracing::warn!(?place, "the target has another page than the difference is from");
        let contents = encoder.lock().expect("nobody panics").page_sent(place).copied();
        // Who asks for what was never sent gets an end.
        let Some(contents) = contents else { break };
        stream.write_all(&contents).await?;
    }
    Ok(())
}

/// The streams of a target's memory.
pub(crate) struct Incoming {
    pub(crate) batches: RecvStream,
    pub(crate) acks: SendStream,
    pub(crate) repair: (SendStream, RecvStream),
}

/// Gives QEMU what comes. What came last is held back until the source says that it was all, and `disks_done`: a guest whose
/// source may yet go on never gets what it needs to run.
pub(crate) async fn receive(
    mut incoming: Incoming,
    pages_bytes: u64,
    qemu: &mut UnixStream,
    disks_done: impl Future<Output = Result<(), MigrateError>>,
) -> Result<(), MigrateError> {
    let mut decoder = Decoder::new(pages_bytes).map_err(socket("decompression"))?;
    let (mut taken, mut held, mut body) = (0u64, Vec::new(), Vec::new());
    let cut_off = |_| MigrateError::CutOff;
    loop {
        let mut head = [0; HEAD_BYTES];
        incoming.batches.read_exact(&mut head).await.map_err(cut_off)?;
        if head == [0; HEAD_BYTES] {
            disks_done.await?;
            return qemu.write_all(&held).await.map_err(socket(SOCKET));
        }
        let head = Head::decode(&head)?;
        body.resize(head.len, 0);
        incoming.batches.read_exact(&mut body).await.map_err(cut_off)?;
        decoder.begin(&head, &body)?;
        while let Step::Needs(place) = decoder.step()? {
            decoder.provide(&fetch(&mut incoming.repair, place).await?);
        }
        qemu.write_all(&held).await.map_err(socket(SOCKET))?;
        held.clear();
        held.extend_from_slice(decoder.plain());
        taken += (HEAD_BYTES + body.len()) as u64;
        incoming.acks.write_all(&taken.to_le_bytes()).await?;
    }
}

async fn fetch(
    (ask, answer): &mut (SendStream, RecvStream),
    place: Place,
) -> Result<[u8; PAGE_BYTES], MigrateError> {
    let mut asked = [0; PLACE_BYTES];
    asked[..2].copy_from_slice(&place.block.to_le_bytes());
    asked[2..].copy_from_slice(&place.page.to_le_bytes());
    ask.write_all(&asked).await?;
    let mut contents = [0; PAGE_BYTES];
    let missing = |_| MigrateError::CutOff;
    answer.read_exact(&mut contents).await.map_err(missing)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MIGRATE-3.3
    #[test]
    fn what_may_be_on_its_way_follows_the_path() {
        let (mut window, start) = (Window::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        window.sent(start, WINDOW_BYTES_MIN + 1);
        assert!(!window.acknowledged(start, 0));
        assert!(window.acknowledged(at(100), WINDOW_BYTES_MIN + 1));
        // 10 MB/s for 100 ms: the path holds 1 MB.
        for tenth in 1..20 {
            window.sent(at(100 * tenth), 1_000_000);
            let all = window.sent;
            assert!(window.acknowledged(at(100 * tenth + 100), all));
        }
        assert!((1_400_000..1_600_000).contains(&window.allowed()), "{}", window.allowed());
        window.sent(at(3000), 10_000_000);
        assert!(!window.acknowledged(at(3000), u64::MAX - 1) || window.flight.is_empty());
    }
}
