//! One connection's datagrams: its flows, the peer's address, what has arrived.
//!
//! Lock order: receiving, then sending, then the prober. Sockets are written, which never waits, under the lock of sending.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dwcp_proto::datagram::{
    DatagramHeader, DatagramType, HEADER_LEN, LEN_MAX, Limits, PathProber, Place, RecvFlow, RecvRefused,
    SendFlow, SendRefused, TAG_LEN,
};
use dwcp_sys::datagram::{DatagramSocket, Outgoing};
use tokio::sync::Notify;

use super::{
    DatagramKind, PathStats,
    keys::{ConnectionKeys, OpeningKeySet, SealingKey},
    queue::Queue,
    service::Service,
    stats::{Counts, DropReason, Drops},
};
use crate::{ConnectionError, DatagramError};

/// Between two moves of a peer to other addresses.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);
/// Datagrams that go to the kernel at once.
pub(super) const SEND_BATCH: usize = 64;
/// Of a PROBE_REPLY: the number that it answers.
pub(super) const ANSWER_LEN: usize = 8;

/// A connection's end of its datagrams. Ends, and forgets its keys, with the connection.
#[derive(Debug)]
pub(crate) struct Channel {
    service: Arc<Service>,
    epoch: Instant,
    pub(super) recv_flow: u64,
    receiving: Mutex<Option<Receiving>>,
    sending: Mutex<Option<Sending>>,
    pub(super) prober: Mutex<PathProber>,
    /// There may be a reason to probe before the time.
    pub(super) probe_due: Notify,
    /// Longest datagram that the first hop takes.
    limit: AtomicU16,
    /// Longest one that the path carries.
    len_max: AtomicU16,
    gossip: Queue,
    messages: Queue,
    counts: Counts,
}

#[derive(Debug)]
struct Receiving {
    flow: RecvFlow<OpeningKeySet>,
    from: SocketAddr,
    via: usize,
    moved_at: Option<Duration>,
}

#[derive(Debug)]
struct Sending {
    flow: SendFlow<SealingKey>,
    to: SocketAddr,
    /// Which socket: that on which the peer's newest datagram has come.
    via: usize,
    /// Datagrams on their way to the socket, and where each ends.
    sealed: Vec<u8>,
    ends: Vec<usize>,
}

/// A probe of the peer's that has to be answered.
pub(super) struct Answer {
    pub(super) channel: Arc<Channel>,
    number: u64,
    to: SocketAddr,
    via: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// `limit`: the longest datagram that the first hop takes.
    pub(super) fn new(
        service: Arc<Service>,
        keys: ConnectionKeys,
        peer: SocketAddr,
        interval: Duration,
        limit: u16,
    ) -> Self {
        let ConnectionKeys { send_flow, sealing, recv_flow, opening } = keys;
        let limits = Limits::default();
        let prober = PathProber::new(Duration::ZERO, interval, limit);
        Self {
            service,
            epoch: Instant::now(),
            recv_flow,
            receiving: Mutex::new(Some(Receiving {
                flow: RecvFlow::new(opening, limits),
                from: peer,
                via: 0,
                moved_at: None,
            })),
            sending: Mutex::new(Some(Sending {
                flow: SendFlow::new(send_flow, sealing, limits),
                to: peer,
                via: 0,
                sealed: Vec::new(),
                ends: Vec::new(),
            })),
            len_max: AtomicU16::new(prober.len_max()),
            prober: Mutex::new(prober),
            probe_due: Notify::new(),
            limit: AtomicU16::new(limit),
            gossip: Queue::default(),
            messages: Queue::default(),
            counts: Counts::default(),
        }
    }

    /// What the prober takes as time.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    pub(super) fn queue(&self, kind: DatagramKind) -> &Queue {
        match kind {
            DatagramKind::Gossip => &self.gossip,
            DatagramKind::Message => &self.messages,
        }
    }

    /// Longest content of a datagram.
    pub(super) fn max_len(&self) -> usize {
        usize::from(self.len_max.load(Ordering::Relaxed)) - HEADER_LEN - TAG_LEN
    }

    /// Takes a datagram of this flow; `answers` gets what is to be answered.
    pub(super) fn take(
        self: &Arc<Self>,
        (from, via): (SocketAddr, usize),
        header: &DatagramHeader,
        payload: &mut [u8],
        answers: &mut Vec<Answer>,
        drops: &mut Drops,
    ) {
        let opened = {
            let mut receiving = lock(&self.receiving);
            let Some(receiving) = &mut *receiving else {
                return drops.add(DropReason::UnknownFlow, 1); // just ended
            };
            match receiving.flow.open(header, payload) {
                Ok(opened) => {
                    if opened.place == Place::Newest && (from, via) != (receiving.from, receiving.via) {
                        self.follow(receiving, from, via);
                    }
                    opened
                }
                Err(RecvRefused::Replayed) => return drops.add(DropReason::Replayed, 1),
                Err(_) => return drops.add(DropReason::Forged, 1),
            }
        };
        Counts::add(&self.counts.received, 1);
        Counts::add(&self.counts.reordered, (opened.place == Place::Late).into());
        let content = &payload[..opened.len];
        let queue = match opened.ty {
            DatagramType::Gossip => &self.gossip,
            DatagramType::Message => &self.messages,
            DatagramType::Probe if content.len() >= ANSWER_LEN => {
                let channel = Arc::clone(self);
                return answers.push(Answer { channel, number: opened.number, to: from, via });
            }
            DatagramType::ProbeReply if content.len() == ANSWER_LEN => {
                return self.answered(u64::from_le_bytes(content.try_into().expect("eight bytes")));
            }
            _ => return drops.add(DropReason::Unknown, 1),
        };
        drops.add(DropReason::QueueFull, queue.push(Bytes::copy_from_slice(content)));
    }

    /// The peer's newest datagram came from elsewhere, or over another of our sockets: that is where it is now.
    fn follow(&self, receiving: &mut Receiving, from: SocketAddr, via: usize) {
        let now = self.now();
        let moves = from != receiving.from;
        if moves && receiving.moved_at.is_some_and(|at| now < at + MOVE_INTERVAL) {
            return;
        }
        receiving.via = via;
        let mut sending = lock(&self.sending);
        let Some(sending) = &mut *sending else { return };
        sending.via = via;
        if moves {
            tracing::debug!(%from, before = %receiving.from, "the peer's datagrams come from elsewhere");
            (receiving.from, receiving.moved_at, sending.to) = (from, Some(now), from);
            lock(&self.prober).moved(now, self.limit.load(Ordering::Relaxed));
            self.path_changed();
        }
    }

    /// Where the peer's datagrams come from; `None`: the connection has ended.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        lock(&self.receiving).as_ref().map(|receiving| receiving.from)
    }

    /// Looks for packets of up to this many bytes, however many the first hop took at the beginning.
    pub(crate) fn search(&self, packet_max: u32) {
        let Some(peer) = self.peer() else { return };
        let limit = len_max(peer, packet_max);
        self.limit.store(limit, Ordering::Relaxed);
        lock(&self.prober).search(self.now(), limit);
        self.path_changed();
    }

    /// The peer answers the probe of this number.
    fn answered(&self, number: u64) {
        if let Some(sending) = &mut *lock(&self.sending) {
            sending.flow.on_answer(number);
        }
        lock(&self.prober).answered(self.now(), number);
        self.path_changed();
    }

    /// Something was learned: the length may be another, and the next probe due.
    fn path_changed(&self) {
        self.len_max.store(lock(&self.prober).len_max(), Ordering::Relaxed);
        self.probe_due.notify_one();
    }

    /// Sends these, at most [`SEND_BATCH`]; returns how many the kernel took. Those that it did not take are gone.
    ///
    /// # Errors
    /// Why not even the first was taken.
    pub(super) fn send(&self, kind: DatagramKind, contents: &[&[u8]]) -> Result<usize, DatagramError> {
        let max = self.max_len();
        if let Some(long) = contents.iter().find(|content| content.len() > max) {
            return Err(DatagramError::TooLarge { len: long.len(), max });
        }
        let mut sending = lock(&self.sending);
        let sending = sending.as_mut().ok_or(DatagramError::Connection(ConnectionError::ClosedLocally))?;
        sending.clear();
        for (index, content) in contents.iter().take(SEND_BATCH).enumerate() {
            match sending.seal(kind.to_type(), content) {
                Ok(_) => {}
                Err(_) if index > 0 => break,
                Err(_) => return Err(DatagramError::KeyUsedUp),
            }
        }
        self.flush(sending, None).map_err(|error| match error {
            error if error.kind() == io::ErrorKind::WouldBlock => DatagramError::Full,
            error => {
                if is_too_long(&error) {
                    // The first of them; the path has shrunk right here.
                    self.too_long(sending.ends[0] as u16);
                }
                DatagramError::Io { to: sending.to, source: error }
            }
        })
    }

    /// Sends a probe of `len` bytes, header and tag included; `record` gets its number before it is on its way, or hears that
    /// there is no key for it.
    pub(super) fn probe(&self, len: u16, record: impl FnOnce(Option<u64>)) {
        /// Of every datagram that a path could carry.
        static PADDING: [u8; dwcp_proto::datagram::PAYLOAD_LEN_MAX] = [0; _];
        let content = &PADDING[..usize::from(len) - HEADER_LEN - TAG_LEN];
        let result = {
            let mut sending = lock(&self.sending);
            let Some(sending) = &mut *sending else { return record(None) };
            sending.clear();
            let number = sending.seal(DatagramType::Probe, content).ok();
            record(number);
            if number.is_none() {
                return;
            }
            self.flush(sending, None)
        };
        if result.is_err_and(|error| is_too_long(&error)) {
            self.too_long(len);
        }
    }

    /// The first hop does not take datagrams of this length.
    fn too_long(&self, len: u16) {
        lock(&self.prober).refused(self.now(), len);
        self.path_changed();
    }

    /// Hands what is sealed to the socket.
    fn flush(&self, sending: &mut Sending, other: Option<(SocketAddr, usize)>) -> io::Result<usize> {
        let (to, via) = other.unwrap_or((sending.to, sending.via));
        let (socket, via) = self.service.socket(via);
        let result = send_all(&*socket, to, &sending.sealed, &sending.ends);
        let result = match result {
            // Not every way leads to every peer; the first socket's does.
            Err(error) if via != 0 && error.kind() != io::ErrorKind::WouldBlock && !is_too_long(&error) => {
                // One that does not know the way yet, or no longer, learns it from what the peer sends.
                if error.kind() != io::ErrorKind::HostUnreachable {
                    sending.via = 0;
                }
                send_all(&*self.service.socket(0).0, to, &sending.sealed, &sending.ends)
            }
            result => result,
        };
        let sent = *result.as_ref().unwrap_or(&0);
        Counts::add(&self.counts.sent, sent as u64);
        let mut drops = Drops::default();
        let reason = match &result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => DropReason::SocketError,
            _ => DropReason::SocketFull,
        };
        drops.add(reason, (sending.ends.len() - sent) as u64);
        drops.publish();
        result
    }

    /// Forgets the keys; whoever waits is told.
    pub(super) fn end(&self) {
        *lock(&self.receiving) = None;
        *lock(&self.sending) = None;
        self.gossip.end();
        self.messages.end();
    }

    /// Goes on to the next key, if the peer has confirmed this one.
    pub(super) fn update_key(&self) -> bool {
        lock(&self.sending).as_mut().is_some_and(|sending| sending.flow.update())
    }

    /// Datagrams sent and received so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.counts.sent.load(Ordering::Relaxed), self.counts.received.load(Ordering::Relaxed))
    }

    /// `None` once the connection has ended.
    pub(crate) fn stats(&self) -> Option<PathStats> {
        let peer = lock(&self.receiving).as_ref()?.from;
        let prober = lock(&self.prober);
        let (probes_sent, probes_answered) = prober.counts();
        let (datagrams_sent, datagrams_received) = self.totals();
        Some(PathStats {
            peer,
            rtt: prober.rtt(),
            loss_ratio: prober.loss_ratio(),
            probes_sent,
            probes_answered,
            mtu: u32::from(prober.len_max()) + u32::from(overhead(peer)),
            is_searching: prober.is_searching(),
            datagrams_sent,
            datagrams_received,
            reordered: self.counts.reordered.load(Ordering::Relaxed),
        })
    }
}

impl Answer {
    pub(super) fn send(self) {
        let mut sending = lock(&self.channel.sending);
        let Some(sending) = &mut *sending else { return };
        sending.clear();
        if sending.seal(DatagramType::ProbeReply, &self.number.to_le_bytes()).is_ok() {
            // An error is counted, and is a loss to the peer.
            let _ = self.channel.flush(sending, Some((self.to, self.via)));
        }
    }
}

impl Sending {
    fn clear(&mut self) {
        self.sealed.clear();
        self.ends.clear();
    }

    fn seal(&mut self, ty: DatagramType, content: &[u8]) -> Result<u64, SendRefused> {
        let number = self.flow.seal(ty, content, &mut self.sealed)?;
        self.ends.push(self.sealed.len());
        Ok(number)
    }
}

/// Sends until the socket takes no more.
fn send_all(socket: &dyn DatagramSocket, to: SocketAddr, sealed: &[u8], ends: &[usize]) -> io::Result<usize> {
    let mut start = 0;
    let outgoing: Vec<_> = ends
        .iter()
        .map(|&end| Outgoing { to, bytes: &sealed[std::mem::replace(&mut start, end)..end] })
        .collect();
    let mut sent = 0;
    while sent < outgoing.len() {
        match socket.send(&outgoing[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if sent == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sent)
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Bytes of IP and UDP headers around a datagram to this address.
pub(super) fn overhead(peer: SocketAddr) -> u16 {
    if peer.is_ipv4() { 28 } else { 48 }
}

/// The longest datagram to this address in an IP packet of so many bytes.
pub(super) fn len_max(peer: SocketAddr, packet_max: u32) -> u16 {
    packet_max.saturating_sub(overhead(peer).into()).min(LEN_MAX.into()) as u16
}
