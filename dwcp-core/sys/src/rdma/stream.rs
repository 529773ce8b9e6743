//! A byte stream over a queue pair, with the interface of a socket that does not block.
//!
//! Up to [`SEND_MAX`] bytes go as a message (SEND) into one of the receiver's slots, what is short enough in the work
//! request itself; more goes as RDMA WRITE WITH IMMEDIATE straight into the receiver's window, which is a ring, so that
//! the receiver reads it in order without being told where. A queue pair delivers in order, and so the receiver's
//! completions are the order of the bytes. A message has a header: its kind, and credit (see `credit`).
//!
//! A peer that dies while nothing is on its way to it is *not* noticed here: verbs have no keepalive. The caller needs
//! another sign of it, such as a TCP connection beside the stream.
//!
//! Owns what is sent how; not waiting: [`arm`](RdmaStream::arm), look once more, then wait for the descriptors.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
};

use super::{
    ConnectionData, Port, RdmaError,
    completion::Completion,
    credit::{SLOTS, SendCredit},
    header::{HEADER_LEN, Header, Kind},
    inbox::{Inbox, Piece, Slot},
    polling::Polling,
    queue_pair::{COMPLETIONS_MAX, INLINE_MAX, QueuePair, RemoteWindow, Sizes},
    send_queue::{REQUESTS, REQUESTS_RESERVED, SendQueue},
};

/// Bytes that the peer may write ahead of our reading.
const WINDOW: u32 = 4 << 20;
/// Registered bytes for what is on its way.
const STAGING: usize = 2 << 20;
/// Most bytes of one message; more are written into the window.
const SEND_MAX: usize = 1024;
/// Most bytes of one RDMA WRITE: a frame of the default size. Copying the next overlaps with sending the last.
const WRITE_MAX: usize = 256 << 10;
/// Of a slot: a message, rounded up to a cache line.
const SLOT_LEN: usize = (HEADER_LEN + SEND_MAX).next_multiple_of(64);
/// One end, ready to receive, that does not know the other yet.
pub struct Prepared {
    pair: QueuePair,
    data: ConnectionData,
}

/// What a stream has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages with data, sent out of registered memory.
    pub sends: u64,
    /// Messages with data, sent inline.
    pub inline_sends: u64,
    /// RDMA WRITEs.
    pub writes: u64,
    /// Messages that only gave credit back, or ended the stream.
    pub controls: u64,
    /// Requests that completed visibly.
    pub send_completions: u64,
}

/// Both ends know each other.
pub struct RdmaStream {
    pub(super) pair: QueuePair,
    remote: RemoteWindow,
    send: SendCredit,
    queue: SendQueue,
    inbox: Inbox,
    shut_down: bool,
    failed: Option<RdmaError>,
    pub(super) polling: Polling,
    counts: Counts,
}

impl Prepared {
    /// Makes a queue pair at `port` and registers its memory. `psn`: random, the number of the first packet; stale packets
    /// of a former queue pair of the same number do not fit then.
    pub fn new(port: &Port, psn: u32) -> Result<Self, RdmaError> {
        let sizes = Sizes {
            send_requests: REQUESTS,
            recv_requests: SLOTS,
            local: STAGING + SLOTS as usize * SLOT_LEN,
            window: WINDOW as usize,
        };
        let pair = QueuePair::new(port, &sizes)?;
        for slot in 0..u64::from(SLOTS) {
            pair.post_recv(slot, slot_at(slot), SLOT_LEN)?;
        }
        let data = ConnectionData {
            gid: port.gid,
            queue_pair: pair.number(),
            psn: psn & 0xff_ffff,
            mtu: port.mtu,
            window: RemoteWindow { address: pair.window.address(), rkey: pair.window.rkey(), len: WINDOW },
        };
        Ok(Self { pair, data })
    }

    /// What the peer has to be told.
    pub fn connection_data(&self) -> &ConnectionData {
        &self.data
    }

    /// Connects to the peer, who does the same. A side may write once it knows that the peer has: a packet that comes
    /// before is lost, and sent again only after a timeout.
    pub fn connect(self, peer: &ConnectionData) -> Result<RdmaStream, RdmaError> {
        self.pair.connect(self.data.psn, &peer.target())?;
        Ok(RdmaStream {
            pair: self.pair,
            remote: peer.window,
            send: SendCredit::new(peer.window.len),
            queue: SendQueue::new(STAGING),
            inbox: Inbox::new(WINDOW),
            shut_down: false,
            failed: None,
            polling: Polling::default(),
            counts: Counts::default(),
        })
    }
}

fn slot_at(request: u64) -> usize {
    STAGING + request as usize * SLOT_LEN
}

impl RdmaStream {
    /// Takes bytes from the front of `bufs` and returns how many: they are copied, and the device sends them.
    ///
    /// # Errors
    /// `WouldBlock`: wait until [`is_writable`](Self::is_writable). Others have an [`RdmaError`] inside and are final;
    /// what of the bytes taken before has arrived is unknown then. `BrokenPipe` after [`shutdown_write`](Self::shutdown_write).
    pub fn try_write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.shut_down {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // With room a look at what has come can wait: most who write have just read.
        if self.failed.is_some() || !self.has_room() {
            self.progress()?;
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Ok(0);
        }
        if !self.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = if total <= SEND_MAX {
            self.message(Kind::Data, bufs, total).map(|()| total)
        } else {
            self.write_bulk(bufs, total)
        };
        sent.map_err(|error| self.fail(error).into())
    }

    /// Fills `bufs` with what has come; 0 at the peer's orderly end, or if all of `bufs` are empty.
    ///
    /// # Errors
    /// As for [`try_write`](Self::try_write). What came before a failure is read first.
    pub fn try_read(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let progress = self.progress();
        let mut copied = 0;
        let mut freed = Ok(());
        for buf in bufs.iter_mut() {
            let mut at = 0;
            while at < buf.len() && freed.is_ok() {
                let Some(piece) = self.inbox.take(buf.len() - at) else { break };
                let (len, is_free) = self.copy_out(piece, &mut buf[at..]);
                at += len;
                freed = is_free;
            }
            copied += at;
        }
        // After a failure no credit can be given back, and none is needed.
        if let Err(error) = freed.and_then(|()| self.give_credit()) {
            self.fail(error);
        }
        match (copied, progress) {
            (0, _) if bufs.iter().all(|buf| buf.is_empty()) => Ok(0),
            (0, _) if self.inbox.is_ended() => Ok(0),
            (0, Ok(_)) => Err(io::ErrorKind::WouldBlock.into()),
            (0, Err(error)) => Err(error.into()),
            (copied, _) => Ok(copied),
        }
    }

    /// Copies bytes that have come, and frees their slot after the last.
    fn copy_out(&mut self, piece: Piece, to: &mut [u8]) -> (usize, Result<(), RdmaError>) {
        match piece {
            Piece::Slot { request, at, len, is_last } => {
                self.pair.local.read(slot_at(request) + at, &mut to[..len]);
                (len, if is_last { self.free_slot(request) } else { Ok(()) })
            }
            Piece::Window { at, len } => {
                self.pair.window.read(at, &mut to[..len]);
                (len, Ok(()))
            }
        }
    }

    /// Tells the peer that no more comes. On `WouldBlock` call again when writable.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if self.shut_down {
            return Ok(());
        }
        self.progress()?;
        if self.send.slots() == 0 || self.queue.requests() == 0 || self.queue.free() < 2 * SLOT_LEN {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.message(Kind::End, &[], 0).map_err(|error| self.fail(error))?;
        self.shut_down = true;
        Ok(())
    }

    /// Everything written is acknowledged by the peer's device. To be asked after
    /// [`shutdown_write`](Self::shutdown_write): before, the last requests may complete invisibly.
    pub fn is_flushed(&self) -> bool {
        self.queue.is_done()
    }

    /// [`try_read`](Self::try_read) has something to say, as of the last call of anything.
    pub fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.inbox.is_ended() || self.failed.is_some()
    }

    /// [`try_write`](Self::try_write) has something to say, as of the last call of anything.
    pub fn is_writable(&self) -> bool {
        self.failed.is_some() || self.has_room()
    }

    fn has_room(&self) -> bool {
        self.send.slots_for_data() > 0
            && self.send.window().1 > 0
            && self.queue.requests() > REQUESTS_RESERVED
            // Wherever the ring's end is, one message fits.
            && self.queue.free() >= 2 * SLOT_LEN
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Breaks the queue pair, on this side at once, on the other when it next sends. For tests of what follows.
    pub fn abort(&mut self) -> Result<(), RdmaError> {
        self.pair.abort()
    }

    /// Handles all completions that are there, and gives back credit. Returns whether there were any.
    pub fn progress(&mut self) -> Result<bool, RdmaError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.take_completions().map_err(|error| self.fail(error))
    }

    fn take_completions(&mut self) -> Result<bool, RdmaError> {
        let mut any = false;
        loop {
            let count = self.pair.poll()?;
            for index in 0..count {
                self.completed(self.pair.polled(index))?;
            }
            any |= count > 0;
            // It ends: without credit, which is given afterwards, the peer cannot cause more than its slots.
            if count < COMPLETIONS_MAX {
                break;
            }
        }
        self.give_credit()?;
        Ok(any)
    }

    fn completed(&mut self, completion: Completion) -> Result<(), RdmaError> {
        match completion {
            Completion::Sent(request) => {
                self.counts.send_completions += 1;
                assert!(self.queue.completed(request), "the device completed what was not posted");
                Ok(())
            }
            Completion::Received { request, len } => self.received(request, len),
            Completion::Written { request, len } => {
                self.inbox.written(len)?;
                self.free_slot(request)
            }
            Completion::Failed(status) => Err(RdmaError::Completion(status)),
        }
    }

    fn received(&mut self, request: u64, len: usize) -> Result<(), RdmaError> {
        let mut header = [0; HEADER_LEN];
        self.pair.local.read(slot_at(request), &mut header);
        // Of a message that is too short this is what was in the slot before; its length is refused.
        let header = Header::decode(&header)?;
        let slot = self.inbox.message(request, len, &header)?;
        self.send.returned(header.slots, header.bytes)?;
        match slot {
            Slot::Holds => Ok(()),
            Slot::Free => self.free_slot(request),
        }
    }

    fn free_slot(&mut self, request: u64) -> Result<(), RdmaError> {
        self.pair.post_recv(request, slot_at(request), SLOT_LEN)?;
        self.inbox.credit.free_slot();
        Ok(())
    }

    fn give_credit(&mut self) -> Result<(), RdmaError> {
        let can = self.send.slots() > 0 && self.queue.requests() > 0 && self.queue.free() >= 2 * SLOT_LEN;
        if self.failed.is_none() && self.inbox.credit.owes() && can {
            self.message(Kind::Data, &[], 0)?;
        }
        Ok(())
    }

    /// Sends a message; there is room.
    fn message(&mut self, kind: Kind, bufs: &[IoSlice<'_>], data: usize) -> Result<(), RdmaError> {
        let (slots, bytes) = self.inbox.credit.tell();
        let header = Header { kind, slots, bytes }.encode();
        self.send.use_slot();
        let len = HEADER_LEN + data;
        if len <= self.pair.inline_max() {
            let mut message = [0; INLINE_MAX];
            message[..HEADER_LEN].copy_from_slice(&header);
            gather(bufs, data, |at, part| message[HEADER_LEN + at..][..part.len()].copy_from_slice(part));
            let (request, signalled) = self.queue.post(kind == Kind::End);
            self.pair.post_inline(request, &message[..len], signalled)?;
            *if data > 0 { &mut self.counts.inline_sends } else { &mut self.counts.controls } += 1;
        } else {
            let at = self.queue.stage(len).expect("there is room for a message");
            self.pair.local.write(at, &header);
            gather(bufs, data, |offset, part| self.pair.local.write(at + HEADER_LEN + offset, part));
            let (request, signalled) = self.queue.post(kind == Kind::End);
            self.pair.post_send(request, at, len, signalled)?;
            *if data > 0 { &mut self.counts.sends } else { &mut self.counts.controls } += 1;
        }
        Ok(())
    }

    /// Writes as much as fits in one piece into the peer's window; there is room for a byte at least.
    fn write_bulk(&mut self, bufs: &[IoSlice<'_>], total: usize) -> Result<usize, RdmaError> {
        let (to, window) = self.send.window();
        let len = total.min(WRITE_MAX).min(window).min(self.queue.room().1);
        let at = self.queue.stage(len).expect("there is room for so much");
        gather(bufs, len, |offset, part| self.pair.local.write(at + offset, part));
        self.send.use_slot();
        self.send.use_window(len);
        let (request, signalled) = self.queue.post(false);
        self.pair.post_write(request, at, len, (self.remote, to), signalled)?;
        self.counts.writes += 1;
        Ok(len)
    }

    pub(super) fn fail(&mut self, error: RdmaError) -> RdmaError {
        self.failed.get_or_insert(error).clone()
    }
}

/// Calls `put` with the first `len` bytes of `bufs`, part by part, and how far each is from the beginning.
fn gather(bufs: &[IoSlice<'_>], len: usize, mut put: impl FnMut(usize, &[u8])) {
    let mut at = 0;
    for buf in bufs {
        let part = &buf[..buf.len().min(len - at)];
        put(at, part);
        at += part.len();
    }
    assert_eq!(at, len, "the buffers are shorter than said");
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("gid", &self.data.gid).finish_non_exhaustive()
    }
}

impl fmt::Debug for RdmaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RdmaStream");
        out.field("counts", &self.counts).field("failed", &self.failed).finish_non_exhaustive()
    }
}
