//! The driver of one link: whoever has something to send writes it at once, and two tasks wait for the socket.
//!
//! [`Link::pump`] may be called from any task or thread; one caller at a time writes, the others leave a note and
//! go on. A socket that is full belongs to the writer task until it can take bytes again.

use std::{
    io::{self, IoSlice, IoSliceMut},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dwcp_proto::{
    conn::{LinkId, Segment, TxBatch},
    frame::FrameHeader,
    limits::BATCH_BYTES,
};
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::{
    reader::{FrameReader, ReadFrameError},
    security::LinkSocket,
    shared::Shared,
    unsent::UnsentLimit,
    zerocopy::{self, ZeroCopy},
};

/// Pieces of one vectored write.
const SLICES_MAX: usize = 64;
/// Reads in a row before other tasks get their turn.
const READS_MAX: u32 = 4;
/// How long an ended link may wait for completions, and how often it looks.
const LINGER_MAX: Duration = Duration::from_secs(30);
const LINGER_POLL: Duration = Duration::from_millis(50);

/// One link of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) socket: LinkSocket,
    writer: Mutex<Writer>,
    /// Someone wants the current writer to look again.
    again: AtomicBool,
    /// The socket is full; the writer task waits for it.
    blocked: AtomicBool,
    wake_writer: Notify,
    reading: tokio::sync::Mutex<Reading>,
    dead: AtomicBool,
    died: Notify,
    pub(crate) wire_sent: AtomicU64,
    pub(crate) wire_received: AtomicU64,
    /// When bytes last came, in nanoseconds of the connection's time: parts of a frame count as a sign of life.
    heard_at: AtomicU64,
    /// Writings since the last sample that ended with a full socket, and with nothing left to write.
    pub(crate) ended_full: AtomicU32,
    pub(crate) ended_drained: AtomicU32,
    /// Pacing rate in force, bytes per second; 0 if none.
    pub(crate) paced_at: AtomicU64,
    /// Bytes per second, smoothed; and `wire_sent` when that was last measured.
    pub(crate) carried: AtomicU64,
    pub(crate) measured: AtomicU64,
    pub(crate) unsent_limit: UnsentLimit,
    /// Of the last writing: the writer itself may be busy for long.
    zerocopy: Mutex<&'static str>,
}

/// What reading needs; the reader task's, or that of a task which [polls](Link::poll).
#[derive(Debug)]
struct Reading {
    reader: FrameReader,
    frames: Vec<(FrameHeader, Bytes)>,
    /// The peer broke the protocol: what comes from here on has no frames.
    broken: bool,
}

/// What came of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    /// Bytes came, and frames that are complete were handled.
    Handled,
    /// There is nothing to read.
    Drained,
    /// The link is dead.
    Ended,
}

/// A batch on its way into the socket.
#[derive(Debug)]
struct Writer {
    batch: TxBatch,
    segment: usize,
    offset: usize,
    zerocopy: ZeroCopy,
}

impl Writer {
    fn is_done(&self) -> bool {
        self.segment == self.batch.segments.len()
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.segment = 0;
        self.offset = 0;
    }

    /// Writes once; lets go of what was sent by reference before and is complete.
    fn write(&mut self, socket: &LinkSocket) -> io::Result<usize> {
        let measured_from =
            (self.zerocopy.measures() && self.batch.len >= zerocopy::LEN_MIN).then(Instant::now);
        self.zerocopy.reap(socket)?;
        let written = match self.large_payload(self.segment) {
            Some(payload) if self.zerocopy.refers() => {
                let rest = payload.slice(self.offset..);
                self.write_by_reference(socket, rest)?
            }
            _ => self.write_copying(socket)?,
        };
        if let Some(started) = measured_from {
            self.zerocopy.measured(socket, written, started.elapsed());
        }
        self.advance(written);
        Ok(written)
    }

    fn write_by_reference(&mut self, socket: &LinkSocket, payload: Bytes) -> io::Result<usize> {
        match socket.try_write_by_reference(&payload) {
            // No more memory may be pinned now.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                socket.try_write(&[IoSlice::new(&payload)])
            }
            written => {
                let written = written?;
                self.zerocopy.referred(payload);
                Ok(written)
            }
        }
    }

    /// Writes up to the next payload that goes by reference.
    fn write_copying(&self, socket: &LinkSocket) -> io::Result<usize> {
        let end = self.batch.segments.len();
        let until = match self.zerocopy.refers() {
            true => (self.segment + 1..end).find(|&at| self.large_payload(at).is_some()).unwrap_or(end),
            false => end,
        };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, segment) in slices.iter_mut().zip(&self.batch.segments[self.segment..until]) {
            let bytes = match segment {
                Segment::Inline(range) => &self.batch.inline[range.clone()],
                Segment::Payload(payload) => payload,
            };
            *slot = IoSlice::new(if count == 0 { &bytes[self.offset..] } else { bytes });
            count += 1;
        }
        let slices = &slices[..count];
        if until < end { socket.try_write_with_more_to_come(slices) } else { socket.try_write(slices) }
    }

    fn large_payload(&self, segment: usize) -> Option<&Bytes> {
        match &self.batch.segments[segment] {
            Segment::Payload(payload) if payload.len() >= zerocopy::LEN_MIN => Some(payload),
            _ => None,
        }
    }

    fn advance(&mut self, written: usize) {
        let mut left = written;
        while left > 0 {
            let len = match &self.batch.segments[self.segment] {
                Segment::Inline(range) => range.len(),
                Segment::Payload(payload) => payload.len(),
            } - self.offset;
            if left < len {
                self.offset += left;
                return;
            }
            left -= len;
            self.segment += 1;
            self.offset = 0;
        }
    }
}

/// What the kernel may still read must not be used again before it has forgotten it.
impl Drop for Link {
    fn drop(&mut self) {
        let zerocopy = &mut self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).zerocopy;
        if zerocopy.reap(&self.socket).is_err() || zerocopy.holds() {
            self.socket.abort_on_drop();
        }
    }
}

/// Keeps a link that has ended until the kernel has let go of what was sent by reference, for a time. Without that its
/// socket would end with a reset, and what is under way in it, the reason of the end too, would be lost.
pub(crate) fn linger(link: &Arc<Link>) {
    if !link.socket.has_completions() {
        return;
    }
    // Without a runtime nothing can wait.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let link = Arc::clone(link);
    runtime.spawn(async move {
        let until = Instant::now() + LINGER_MAX;
        while link.reap() && Instant::now() < until {
            tokio::time::sleep(LINGER_POLL).await;
        }
    });
}

impl Link {
    pub(crate) fn new(id: LinkId, socket: LinkSocket, reader: FrameReader, zerocopy: ZeroCopy) -> Arc<Self> {
        let described = Mutex::new(zerocopy.description());
        let writer = Writer { batch: TxBatch::default(), segment: 0, offset: 0, zerocopy };
        Arc::new(Self {
            id,
            socket,
            writer: Mutex::new(writer),
            again: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            wake_writer: Notify::new(),
            reading: tokio::sync::Mutex::new(Reading { reader, frames: Vec::new(), broken: false }),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            wire_sent: AtomicU64::new(0),
            wire_received: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            ended_full: AtomicU32::new(0),
            ended_drained: AtomicU32::new(0),
            paced_at: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            unsent_limit: UnsentLimit::default(),
            zerocopy: described,
        })
    }

    /// Whether a call of [`pump`](Self::pump) would write now.
    pub(crate) fn is_idle(&self) -> bool {
        !self.blocked.load(Ordering::Acquire) && !self.again.load(Ordering::Acquire)
    }

    /// Whether the socket is full, and its writer task waits for it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Whether the kernel has all that was taken from the connection.
    pub(crate) fn is_flushed(&self) -> bool {
        let is_done = self.writer.try_lock().is_ok_and(|writer| writer.is_done());
        self.look_again();
        is_done && !self.socket.has_unflushed()
    }

    /// How large payloads are sent, for people.
    pub(crate) fn zerocopy(&self) -> &'static str {
        *self.zerocopy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what was sent by reference and is complete, unless someone is writing, who does it anyway. Returns
    /// whether anything is left.
    pub(crate) fn reap(&self) -> bool {
        if !self.socket.has_completions() {
            return false;
        }
        let holds = self.writer.try_lock().map(|mut writer| {
            // An error of the socket: the next write has it too.
            let _ = writer.zerocopy.reap(&self.socket);
            writer.zerocopy.holds()
        });
        self.look_again();
        holds.unwrap_or(true)
    }

    /// For whoever has held the writer without writing: someone else may have found it held and left a note.
    fn look_again(&self) {
        if self.again.load(Ordering::SeqCst) {
            self.kick();
        }
    }

    /// Lets the writer task do the next writing.
    pub(crate) fn kick(&self) {
        self.wake_writer.notify_one();
    }

    /// Stops both tasks.
    pub(crate) fn kill(&self) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            self.died.notify_waiters();
            self.died.notify_one();
            self.wake_writer.notify_one();
        }
    }

    /// When bytes last came that did not complete a frame.
    pub(crate) fn heard_at(&self) -> Duration {
        Duration::from_nanos(self.heard_at.load(Ordering::Relaxed))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Writes until nothing is left, the socket is full, or someone else is writing.
    ///
    /// No work is ever left behind: whoever holds the writer looks at `again` once more after letting go of it, and
    /// whoever finds the writer held has set `again` before.
    pub(crate) fn pump(&self, shared: &Shared) {
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) && !self.blocked.load(Ordering::SeqCst) {
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::WouldBlock) => return,
                // A batch may be half out: nothing can follow it.
                Err(TryLockError::Poisoned(_)) => return shared.link_failed(self, &"a write of it panicked"),
            };
            self.again.store(false, Ordering::SeqCst);
            if self.is_dead() {
                return;
            }
            if self.blocked.load(Ordering::SeqCst) {
                continue;
            }
            let result = self.write_all(shared, &mut writer);
            *self.zerocopy.lock().unwrap_or_else(PoisonError::into_inner) = writer.zerocopy.description();
            match result {
                Ok(()) => {
                    self.ended_drained.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ended_full.fetch_add(1, Ordering::Relaxed);
                    self.blocked.store(true, Ordering::SeqCst);
                    drop(writer);
                    self.wake_writer.notify_one();
                }
                Err(error) => {
                    drop(writer);
                    return shared.socket_failed(self, &error);
                }
            }
        }
    }

    fn write_all(&self, shared: &Shared, writer: &mut Writer) -> io::Result<()> {
        loop {
            if writer.is_done() {
                writer.clear();
                if !shared.fill(self.id, &mut writer.batch) {
                    return if self.socket.has_unflushed() { self.socket.try_flush() } else { Ok(()) };
                }
            }
            #[cfg(test)]
            shared.may_panic("write");
            while !writer.is_done() {
                let written = writer.write(&self.socket)?;
                self.wire_sent.fetch_add(written as u64, Ordering::Relaxed);
            }
            if writer.batch.len >= BATCH_BYTES {
                shared.kick_idle_links(self.id);
            }
        }
    }

    /// Waits for the socket to take bytes again.
    pub(crate) async fn run_writer(&self, shared: &Shared) {
        while !self.is_dead() {
            self.wake_writer.notified().await;
            if self.blocked.load(Ordering::Acquire) && !self.is_dead() {
                tokio::select! {
                    ready = self.socket.writable() => {
                        if let Err(error) = ready {
                            return shared.socket_failed(self, &error);
                        }
                    }
                    () = self.died.notified() => return,
                }
                self.blocked.store(false, Ordering::SeqCst);
            }
            self.pump(shared);
        }
    }

    /// Reads and handles frames until the link ends.
    pub(crate) async fn run_reader(&self, shared: &Shared) {
        while !self.is_dead() {
            tokio::select! {
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        return shared.socket_failed(self, &error);
                    }
                }
                () = self.died.notified() => return,
            }
            // Whoever polls lets go of it within microseconds.
            let mut reading = self.reading.lock().await;
            let mut reads = 0;
            while self.read_once(shared, &mut reading, |parts| self.socket.try_read(parts))
                == ReadOutcome::Handled
            {
                reads += 1;
                if reads == READS_MAX {
                    reads = 0;
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    /// Reads and handles frames on the caller's thread until `arrived`, at most for `time`. Returns whether it did.
    pub(crate) fn poll(&self, shared: &Shared, time: Duration, mut arrived: impl FnMut() -> bool) -> bool {
        let Ok(mut reading) = self.reading.try_lock() else { return false };
        let started = Instant::now();
        loop {
            match self.read_once(shared, &mut reading, |parts| self.socket.try_read_directly(parts)) {
                // The reader task, which waits for the kernel, would not see what is decrypted already.
                ReadOutcome::Handled if self.socket.has_decrypted() => {}
                ReadOutcome::Handled if arrived() => return true,
                ReadOutcome::Handled | ReadOutcome::Drained if started.elapsed() < time => {
                    std::hint::spin_loop()
                }
                _ => return false,
            }
        }
    }

    fn read_once(
        &self,
        shared: &Shared,
        reading: &mut Reading,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> ReadOutcome {
        if self.is_dead() {
            return ReadOutcome::Ended;
        }
        let Reading { reader, frames, broken } = reading;
        let result = if *broken { reader.discard(read) } else { reader.read(read, frames) };
        match result {
            Ok(0) => shared.link_cut(self),
            Ok(count) => {
                self.wire_received.fetch_add(count as u64, Ordering::Relaxed);
                if frames.is_empty() {
                    self.heard_at.store(shared.now().as_nanos() as u64, Ordering::Relaxed);
                }
                if shared.handle(self.id, frames) {
                    self.pump(shared);
                }
                // The peer has acknowledged something: so has the kernel.
                self.reap();
                return ReadOutcome::Handled;
            }
            Err(ReadFrameError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return ReadOutcome::Drained;
            }
            Err(ReadFrameError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {
                return ReadOutcome::Handled;
            }
            Err(ReadFrameError::Io(error)) => shared.read_failed(self, &error),
            Err(ReadFrameError::Protocol(error)) => {
                // What came before the bad frame still counts.
                shared.handle(self.id, frames);
                shared.protocol_error(self, error);
                // What follows is thrown away until the peer has read why and closes.
                *broken = true;
                return ReadOutcome::Handled;
            }
        }
        ReadOutcome::Ended
    }
}
