//! The state of one connection: streams, messages, credit and links.
//!
//! The driver feeds it frames ([`Connection::handle_frame`]), times ([`Connection::handle_timeout`]) and the
//! coming and going of links; it takes out batches of frames for a link ([`Connection::poll_transmit`]), events
//! ([`Connection::poll_event`]) and the next time it wants to be called ([`Connection::poll_timeout`]).
//! Times are durations since any fixed moment that the driver chooses; they must not go back (a step back is
//! treated as no time passed).

mod drain;
mod flight;
mod invariants;
mod link;
mod links;
mod messages;
mod receive;
mod recv;
mod reinject;
mod send;
mod sequence;
mod streams;
mod transmit;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
pub use link::LinkId;
pub use messages::{Incoming, MessageSendError, Priority, RequestId, ResponseStatus};
pub use recv::{Chunk, Read};
pub use send::{Reservation, SendError, StreamFrame};
pub use streams::OpenError;
pub use transmit::{Segment, TxBatch};

use self::{
    drain::Drain,
    flight::Flight,
    link::Link,
    messages::{InQueue, OutQueue},
    recv::RecvHalf,
    send::SendHalf,
};
use crate::{
    close::CloseCode,
    error::ProtocolError,
    frame::FrameHeader,
    hello::Capabilities,
    limits::{CLOSE_TEXT_MAX, KEEPALIVES_LOST_MAX, MESSAGE_LEN_MAX},
};

/// Which side made the first link. Only the client can make more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connects.
    Client,
    /// Accepts.
    Server,
}

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Which side this is.
    pub role: Role,
    /// What this side said in its HELLO.
    pub local: Capabilities,
    /// What the peer said in its HELLO.
    pub peer: Capabilities,
    /// Silence on a link after which it is probed.
    pub keepalive_interval: Duration,
    /// A connection without reliable frames for this long is closed.
    pub idle_timeout: Option<Duration>,
    /// How long to wait for a link when all are lost.
    pub resume_timeout: Duration,
    /// The links protect payloads themselves (TLS): no payload checksums.
    pub links_authenticated: bool,
}

/// Something the driver should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream: [`Connection::accept_stream`].
    StreamIncoming,
    /// A stream can be opened again.
    StreamsAvailable,
    /// Data, the end or a reset is there to read.
    StreamReadable(u32),
    /// There is room to send, or the peer wants no more.
    StreamWritable(u32),
    /// All that was sent on the stream, with its end, was acknowledged; or nothing more will be.
    StreamAcknowledged(u32),
    /// The peer wants no more of the stream, with its code. For a stream of the peer never before it was accepted.
    StreamStopped(u32, u32),
    /// Messages are there: [`Connection::message_receive`].
    MessagesReadable,
    /// There is room for messages again.
    MessagesWritable,
    /// A request was answered.
    Response(RequestId, ResponseStatus, Bytes),
    /// The peer no longer waits for the answer to its request.
    RequestCancelled(RequestId),
    /// The link is retired, and what it had to send was taken: flush and close its socket.
    LinkFinished(LinkId),
    /// The peer, or its silence, says that the link is dead: close its socket.
    LinkLost(LinkId),
    /// No link is left. The client should connect again.
    AllLinksLost,
    /// The peer would like this many links.
    LinksWanted(u32),
    /// The peer drains the connection.
    PeerDraining,
    /// The connection ended.
    Closed,
}

/// Why the connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    Local(CloseCode, String),
    /// The peer closed it.
    Peer(CloseCode, String),
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// No link came back in time, or the peer forgot the connection.
    ResumeTimedOut,
    /// Nothing happened for the idle timeout.
    Idle,
}

/// A frame on its way out, kept until the peer acknowledges it.
#[derive(Clone, Debug)]
pub(crate) struct OutFrame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Bytes,
    /// Its place in [`Flight`], once it was sent.
    pub(crate) serial: Option<u64>,
    /// When it went onto its link.
    pub(crate) sent_at: Duration,
    /// The original is on another link (see `reinject`).
    pub(crate) repetition: bool,
}

impl OutFrame {
    pub(crate) fn new(header: FrameHeader, payload: Bytes) -> Self {
        Self { header, payload, serial: None, sent_at: Duration::ZERO, repetition: false }
    }
}

/// One credit pool in each direction.
#[derive(Debug, Default)]
struct Flow {
    sent: u64,
    send_limit: u64,
    received: u64,
    consumed: u64,
    receive_limit: u64,
    window: u64,
    credit_due: bool,
}

impl Flow {
    fn consume(&mut self, bytes: u64) {
        self.consumed += bytes;
        let limit = self.consumed.saturating_add(self.window);
        if limit - self.receive_limit >= self.window / 8 {
            self.receive_limit = limit;
            self.credit_due = true;
        }
    }
}

/// The state of one connection. See the module documentation.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    frame_bytes_max: u32,
    /// What streams make of it now.
    frame_len: u32,
    payload_crc: bool,
    rtt: Duration,
    links: BTreeMap<LinkId, Link>,
    highest_link: Option<LinkId>,
    /// Frames of lost links, to go out on others.
    retransmit: VecDeque<OutFrame>,
    /// Reliable control frames.
    control: VecDeque<OutFrame>,
    /// Links of which the peer should hear that they are lost.
    lost_links: VecDeque<LinkId>,
    links_wanted: Option<u32>,
    links_wanted_due: bool,
    flight: Flight,
    /// Frames sent before this are stuck; found at `reinject_looked`.
    reinject_before: Option<Duration>,
    reinject_looked: Duration,
    acknowledged_bytes: u64,
    flow: Flow,
    send: BTreeMap<u32, SendHalf>,
    recv: BTreeMap<u32, RecvHalf>,
    /// Streams with frames to send, round robin.
    scheduled: VecDeque<u32>,
    /// Streams whose writers wait for room.
    blocked: VecDeque<u32>,
    /// Streams for which a credit frame is due.
    credits_due: VecDeque<u32>,
    unsent_bytes: usize,
    out_of_order_frames: usize,
    next_stream: u32,
    streams_max: u32,
    open_blocked: bool,
    peer_next_stream: u32,
    peer_streams_limit: u32,
    peer_streams_closed: u32,
    streams_max_due: bool,
    incoming: VecDeque<u32>,
    /// Streams that the peer stopped before they were accepted, with its code.
    stopped_early: BTreeMap<u32, u32>,
    out_messages: [OutQueue; 3],
    in_messages: [InQueue; 3],
    /// Requests without an answer, and whether they were cancelled.
    requests_made: BTreeMap<RequestId, bool>,
    /// Requests of the peer that this side has to answer.
    requests_taken: BTreeSet<RequestId>,
    /// Requests of the peer that were cancelled before they arrived.
    requests_cancelled: BTreeSet<RequestId>,
    requests_blocked: bool,
    messages_signalled: bool,
    bulk_messages_turn: bool,
    last_activity: Duration,
    resume_deadline: Option<Duration>,
    drain: Drain,
    closed: Option<Closed>,
    events: VecDeque<Event>,
}

impl Connection {
    /// A connection without links; both HELLOs are known.
    pub fn new(config: ConnectionConfig, now: Duration) -> Self {
        let (local, peer) = (&config.local, &config.peer);
        let frame_bytes_max = local.frame_bytes_max.min(peer.frame_bytes_max);
        let flow = Flow {
            send_limit: peer.connection_window,
            receive_limit: local.connection_window,
            window: local.connection_window,
            ..Flow::default()
        };
        let (message_window, message_limit) = (local.message_window, peer.message_window);
        let (first_own, first_peer) = match config.role {
            Role::Client => (1, 2),
            Role::Server => (2, 1),
        };
        Self {
            frame_bytes_max,
            frame_len: frame_bytes_max,
            payload_crc: !config.links_authenticated && (local.payload_crc || peer.payload_crc),
            rtt: Duration::from_millis(100),
            links: BTreeMap::new(),
            highest_link: None,
            retransmit: VecDeque::new(),
            control: VecDeque::new(),
            lost_links: VecDeque::new(),
            links_wanted: None,
            links_wanted_due: false,
            flight: Flight::default(),
            reinject_before: None,
            reinject_looked: Duration::ZERO,
            acknowledged_bytes: 0,
            flow,
            send: BTreeMap::new(),
            recv: BTreeMap::new(),
            scheduled: VecDeque::new(),
            blocked: VecDeque::new(),
            credits_due: VecDeque::new(),
            unsent_bytes: 0,
            out_of_order_frames: 0,
            next_stream: first_own,
            streams_max: peer.streams_max,
            open_blocked: false,
            peer_next_stream: first_peer,
            peer_streams_limit: local.streams_max,
            peer_streams_closed: 0,
            streams_max_due: false,
            incoming: VecDeque::new(),
            stopped_early: BTreeMap::new(),
            out_messages: std::array::from_fn(|_| OutQueue::new(message_limit, frame_bytes_max)),
            in_messages: std::array::from_fn(|_| InQueue::new(message_window)),
            requests_made: BTreeMap::new(),
            requests_taken: BTreeSet::new(),
            requests_cancelled: BTreeSet::new(),
            requests_blocked: false,
            messages_signalled: false,
            bulk_messages_turn: false,
            last_activity: now,
            resume_deadline: None,
            drain: Drain::default(),
            closed: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.config.role
    }

    /// Whether writers wait for the peer's credit.
    pub fn is_credit_limited(&self) -> bool {
        let connection = self.flow.sent >= self.flow.send_limit;
        let stream = |id: &u32| self.send.get(id).is_some_and(|half| half.next_offset >= half.limit);
        !self.blocked.is_empty() && (connection || self.blocked.iter().any(stream))
    }

    /// Largest frame payload in either direction, bytes.
    pub fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }

    /// Largest message payload in either direction, bytes.
    pub fn message_len_max(&self) -> usize {
        MESSAGE_LEN_MAX.min(self.frame_bytes_max as usize)
    }

    /// Whether frames carry a checksum of their payload.
    pub fn payload_crc(&self) -> bool {
        self.payload_crc
    }

    /// What the peer said in its HELLO.
    pub fn peer(&self) -> &Capabilities {
        &self.config.peer
    }

    /// Tells the round-trip time that the driver measured; it sizes stream windows.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// How long new frames of streams get at most, raw. It cannot exceed [`frame_bytes_max`](Self::frame_bytes_max).
    pub fn set_frame_len(&mut self, len: u32) {
        self.frame_len = len.clamp(1, self.frame_bytes_max);
    }

    /// Payload bytes that the peer's transport has acknowledged.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged_bytes
    }

    /// Bytes of stream data that wait for a link.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Why the connection ended, if it did.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Ends the connection at once; what is not acknowledged is lost.
    pub fn close(&mut self, code: CloseCode, text: &str) {
        let end = (0..=CLOSE_TEXT_MAX.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
        self.end(Closed::Local(code, text[..end.unwrap_or(0)].to_owned()));
    }

    /// Ends the connection because the peer broke the protocol.
    pub fn fail(&mut self, error: ProtocolError) {
        self.end(Closed::Protocol(error));
    }

    fn end(&mut self, closed: Closed) {
        if self.closed.is_some() {
            return;
        }
        // What the peer delivered before it closed can still be read.
        if !matches!(closed, Closed::Peer(..)) {
            self.recv.clear();
            self.out_of_order_frames = 0;
        }
        self.closed = Some(closed);
        self.send.clear();
        self.scheduled.clear();
        self.blocked.clear();
        self.credits_due.clear();
        self.recv.values_mut().for_each(|half| half.credit_due = false);
        self.retransmit.clear();
        self.control.clear();
        self.lost_links.clear();
        self.incoming.clear();
        self.stopped_early.clear();
        self.requests_made.clear();
        self.requests_taken.clear();
        self.requests_cancelled.clear();
        self.out_messages.iter_mut().for_each(OutQueue::clear);
        self.flight.clear();
        self.unsent_bytes = 0;
        for link in self.links.values_mut() {
            link.unacked.clear();
        }
        self.events.push_back(Event::Closed);
    }

    fn push_control(&mut self, mut header: FrameHeader, payload: Bytes) {
        if self.closed.is_some() {
            return;
        }
        header.wire_len = payload.len() as u32;
        header.raw_len = header.wire_len;
        if self.payload_crc && !payload.is_empty() {
            header.flags = header.flags.with_payload_crc(true);
            header.payload_crc = crc32fast::hash(&payload);
        }
        self.control.push_back(OutFrame::new(header, payload));
    }

    fn code_payload(code: u32) -> Bytes {
        Bytes::copy_from_slice(&code.to_le_bytes())
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closed.is_some() {
            return None;
        }
        let interval = self.config.keepalive_interval;
        let links = self.links.values().flat_map(|link| {
            let keepalive = link.last_heard.max(link.last_ping).saturating_add(interval);
            [link.ack_deadline(), Some(keepalive)].into_iter().flatten()
        });
        let idle = self.config.idle_timeout.map(|timeout| self.last_activity.saturating_add(timeout));
        links.chain(idle).chain(self.resume_deadline).chain(self.reinject_deadline()).min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.closed.is_some() {
            return;
        }
        let interval = self.config.keepalive_interval;
        let silence_max = interval.saturating_mul(KEEPALIVES_LOST_MAX);
        let mut silent = Vec::new();
        for (&id, link) in &mut self.links {
            link.expire_ack(now);
            if now.saturating_sub(link.last_heard) >= silence_max {
                silent.push(id);
            } else if now.saturating_sub(link.last_heard.max(link.last_ping)) >= interval {
                link.ping_due = true;
                link.last_ping = now;
            }
        }
        for id in silent {
            self.link_lost(now, id);
            self.events.push_back(Event::LinkLost(id));
        }
        self.look_for_stuck_frames(now);
        if self.resume_deadline.is_some_and(|deadline| deadline <= now) {
            return self.give_up();
        }
        let idle = self.config.idle_timeout;
        if idle.is_some_and(|timeout| now.saturating_sub(self.last_activity) >= timeout) {
            self.end(Closed::Idle);
        }
    }
}
