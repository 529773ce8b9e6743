//! What all handles and tasks of a connection share: the protocol state behind one lock, and who waits for what.
//!
//! Lock order: a link's writer, then the state. Under the state no socket is read, written or waited for; the few system
//! calls that are made under it are listed in `ARCHITECTURE.md`, invariant 10.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use dwcp_proto::{
    ProtocolError,
    conn::{Closed, Connection as Core, Event, LinkId, RequestId, ResponseStatus, Role, TxBatch},
    frame::FrameHeader,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};
use tracing::Span;

use crate::{
    CloseReason, ConnectionError, PeerInfo, Reach, TransportConfig,
    adapt::CongestionControl,
    busy_poll::BusyPoll,
    compress::Common,
    compressor::Compressor,
    datagram::Channel,
    link::{self, Link},
    metrics, monitor,
    pacing::Pacing,
    rdma::{self, Course},
    security,
    stats::LinkStats,
    task::CallGuard,
};

/// Who waits on a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamWaiters {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Everything sent, with the end, was acknowledged.
    pub(crate) acknowledged: bool,
    /// The code with which the peer stopped it.
    pub(crate) stopped: Option<u32>,
    /// How many of the two halves have a handle.
    pub(crate) handles: u8,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) streams: HashMap<u32, StreamWaiters>,
    pub(crate) responses: HashMap<RequestId, oneshot::Sender<(ResponseStatus, Bytes)>>,
    pub(crate) cancellations: HashMap<RequestId, Arc<Notify>>,
    pub(crate) links: Vec<Arc<Link>>,
    /// When the timer task will look next.
    pub(crate) timer_armed: Option<Duration>,
    /// What the link controller asks for, 1..=the configured bound.
    pub(crate) links_wanted: usize,
    /// Of the last sample.
    pub(crate) link_stats: Vec<LinkStats>,
    /// Segments sent again on links that are gone.
    past_retransmits: u64,
    pub(crate) last_decision: String,
    pub(crate) congestion_control_decision: String,
    /// What the controller chose, unless the configuration says it; `None` before the first link.
    pub(crate) congestion_control: Option<CongestionControl>,
    pub(crate) links_wanted_by_peer: u32,
    pub(crate) pacing: Pacing,
    pub(crate) rdma: Course,
    /// The task whose panic ended the connection.
    pub(crate) panicked: Option<&'static str>,
}

/// A connection's shared half. Handles and link tasks hold it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// What happens to the connection, whoever makes it happen.
    pub(crate) span: Span,
    #[cfg(test)]
    pub(crate) panic_in: Mutex<Option<&'static str>>,
    epoch: Instant,
    pub(crate) role: Role,
    /// Frames carry a checksum of their payload.
    pub(crate) payload_crc: bool,
    /// `None`: nothing is compressed.
    pub(crate) compressor: Option<Compressor>,
    /// The dictionaries of both sides, if there are some.
    pub(crate) common: Option<Arc<Common>>,
    pub(crate) peer: PeerInfo,
    pub(crate) config: TransportConfig,
    pub(crate) incoming: Notify,
    pub(crate) streams_available: Notify,
    pub(crate) messages_readable: Notify,
    pub(crate) messages_writable: Notify,
    pub(crate) timer: Notify,
    /// Wakes whoever makes links (the client's dialer).
    pub(crate) links_changed: Notify,
    pub(crate) closed: Notify,
    pub(crate) reach: watch::Sender<Reach>,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) resumes: AtomicU64,
    pub(crate) busy_poll: BusyPoll,
    /// Which link brought frames last.
    heard_last: AtomicU32,
    /// Counters of links that are gone.
    pub(crate) past_wire_sent: AtomicU64,
    pub(crate) past_wire_received: AtomicU64,
    /// If both ends take datagrams.
    pub(crate) datagrams: OnceLock<Arc<Channel>>,
}

/// Wakers to call once the lock is released.
type Wakers = Vec<Waker>;

impl Shared {
    pub(crate) fn new(
        mut core: Core,
        epoch: Instant,
        peer: PeerInfo,
        config: TransportConfig,
        (compressor, common): (Option<Compressor>, Option<Arc<Common>>),
        span: Span,
        rdma: Course,
    ) -> Arc<Self> {
        if core.role() == Role::Server {
            core.want_links(config.streams.initial.into()); // goes out on the first link
        }
        Arc::new(Self {
            payload_crc: core.payload_crc(),
            role: core.role(),
            state: Mutex::new(State {
                core,
                streams: HashMap::new(),
                responses: HashMap::new(),
                cancellations: HashMap::new(),
                links: Vec::new(),
                timer_armed: None,
                links_wanted: config.streams.initial.into(),
                links_wanted_by_peer: 0,
                pacing: Pacing { limit: config.pacing_bytes_per_second, ceiling: None },
                link_stats: Vec::new(),
                past_retransmits: 0,
                last_decision: String::new(),
                congestion_control_decision: String::new(),
                congestion_control: None,
                rdma,
                panicked: None,
            }),
            span,
            #[cfg(test)]
            panic_in: Mutex::default(),
            epoch,
            compressor,
            common,
            peer,
            config,
            incoming: Notify::new(),
            streams_available: Notify::new(),
            messages_readable: Notify::new(),
            messages_writable: Notify::new(),
            timer: Notify::new(),
            links_changed: Notify::new(),
            closed: Notify::new(),
            reach: watch::Sender::new(Reach::Linked),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            resumes: AtomicU64::new(0),
            busy_poll: BusyPoll::default(),
            heard_last: AtomicU32::new(0),
            past_wire_sent: AtomicU64::new(0),
            past_wire_received: AtomicU64::new(0),
            datagrams: OnceLock::new(),
        })
    }

    /// Time since the connection began: what the core takes as time.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on the state, delivers the events that it caused, and sends what became ready.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State, Duration) -> T) -> T {
        let _guard = CallGuard::new(self);
        let now = self.now();
        let mut state = self.lock();
        let result = f(&mut state, now);
        let wakers = self.deliver_events(&mut state);
        let link = state.core.wants_transmit().then(|| state.idle_link()).flatten();
        self.rearm(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if let Some(link) = link {
            link.pump(self);
        }
        result
    }

    /// Handles frames of a link. Returns whether that link has something to send.
    pub(crate) fn handle(&self, link: LinkId, frames: &mut Vec<(FrameHeader, Bytes)>) -> bool {
        if frames.is_empty() {
            return false;
        }
        self.heard_last.store(link.0, Ordering::Relaxed);
        let now = self.now();
        let mut state = self.lock();
        for (header, payload) in frames.drain(..) {
            if let Err(error) = state.core.handle_frame(now, link, &header, payload) {
                tracing::warn!(parent: &self.span, link = link.0, %error, "the peer broke the protocol");
                state.core.fail(error);
                break;
            }
        }
        let wakers = self.deliver_events(&mut state);
        let wants = state.core.wants_transmit_on(link);
        let other = (!wants && state.core.wants_transmit()).then(|| state.idle_link()).flatten();
        self.rearm(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if let Some(other) = other {
            other.kick();
        }
        wants
    }

    /// The link that brought frames last.
    pub(crate) fn heard_last(&self) -> Option<Arc<Link>> {
        let id = LinkId(self.heard_last.load(Ordering::Relaxed));
        self.lock().links.iter().find(|link| link.id == id).cloned()
    }

    /// The next batch for a link.
    pub(crate) fn fill(&self, link: LinkId, batch: &mut TxBatch) -> bool {
        #[cfg(test)]
        self.may_panic("fill");
        let now = self.now();
        let mut state = self.lock();
        let filled = state.core.poll_transmit(now, link, batch);
        let wakers = self.deliver_events(&mut state);
        if !filled {
            self.rearm(&mut state); // nothing new is left: from now on frames can be stuck
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        filled
    }

    #[cfg(test)]
    pub(crate) fn may_panic(&self, place: &'static str) {
        // Once: handles are dropped on the way out, and they call again.
        let asked = self.panic_in.lock().unwrap().take_if(|wanted| *wanted == place);
        assert!(asked.is_none(), "the test wants {place} to panic");
    }

    /// More is waiting than one link takes at once: let the others pull too.
    pub(crate) fn kick_idle_links(&self, except: LinkId) {
        let state = self.lock();
        if state.links.len() > 1 && state.core.unsent_bytes() > 0 {
            state
                .links
                .iter()
                .filter(|link| link.id != except && link.is_idle())
                .for_each(|link| link.kick());
        }
    }

    /// The peer broke the protocol on a link.
    pub(crate) fn protocol_error(&self, link: &Link, error: ProtocolError) {
        tracing::warn!(parent: &self.span, link = link.id.0, %error, "the peer broke the protocol");
        match error {
            ProtocolError::Truncated => return self.link_failed(link, &error),
            ProtocolError::HeaderChecksum { .. } | ProtocolError::PayloadChecksum { .. } => {
                metrics::count_integrity_failure();
            }
            _ => {}
        }
        self.with(|state, _| state.core.fail(error));
    }

    /// A link could not be read. With TLS this is also how altered bytes show.
    pub(crate) fn read_failed(&self, link: &Link, error: &io::Error) {
        if security::is_altered(error) {
            metrics::count_integrity_failure();
        }
        self.socket_failed(link, error);
    }

    /// A link's socket has failed.
    pub(crate) fn socket_failed(&self, link: &Link, error: &io::Error) {
        self.lose_link(link, error, Reach::after(error.kind()));
    }

    /// A link is dead; the connection goes on without it.
    pub(crate) fn link_failed(&self, link: &Link, error: &dyn std::fmt::Display) {
        self.lose_link(link, error, Reach::Silent);
    }

    /// The peer has closed a link without a word.
    pub(crate) fn link_cut(&self, link: &Link) {
        self.lose_link(link, &"the peer closed it", Reach::Reset);
    }

    /// `reach`: what follows if it was the last one.
    fn lose_link(&self, link: &Link, error: &dyn std::fmt::Display, reach: Reach) {
        if link.is_dead() {
            return;
        }
        tracing::debug!(parent: &self.span, link = link.id.0, %error, "link lost");
        self.with(|state, now| {
            if state.core.closed().is_none() {
                self.resumes.fetch_add(1, Ordering::Relaxed);
            }
            if link.socket.rdma().is_some() && state.core.closed().is_none() {
                rdma::count_fallback("lost");
                state.rdma.failed(now);
            }
            state.core.link_lost(now, link.id);
            self.remove_link(state, link.id);
            self.without_links(state, reach);
        });
    }

    /// If no link is left, the peer is out of reach.
    fn without_links(&self, state: &State, reach: Reach) {
        if state.links.is_empty() && state.core.closed().is_none() {
            self.reach.send_replace(reach);
        }
    }

    /// An attempt to make a link has failed.
    pub(crate) fn dial_failed(&self) {
        let _state = self.lock(); // no link comes meanwhile
        self.reach.send_if_modified(|reach| {
            let news = *reach == Reach::Reset;
            if news {
                *reach = Reach::Refused;
            }
            news
        });
    }

    fn remove_link(&self, state: &mut State, id: LinkId) {
        let Some(index) = state.links.iter().position(|link| link.id == id) else { return };
        let link = state.links.swap_remove(index);
        self.stop_link(state, &link);
        state.divide_pacing();
        self.links_changed.notify_one();
        for other in &state.links {
            other.kick();
        }
    }

    /// Stops a link's tasks and keeps what it counted.
    pub(crate) fn stop_link(&self, state: &mut State, link: &Arc<Link>) {
        link.kill();
        link::linger(link);
        let retransmits = monitor::sample(link).map_or(0, |info| info.retransmits_total);
        state.past_retransmits += u64::from(retransmits);
        self.past_wire_sent.fetch_add(link.wire_sent.load(Ordering::Relaxed), Ordering::Relaxed);
        self.past_wire_received.fetch_add(link.wire_received.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Tells the timer task when its next look has become too late.
    fn rearm(&self, state: &mut State) {
        let next = state.core.poll_timeout();
        let earlier = match (next, state.timer_armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            state.timer_armed = next;
            self.timer.notify_one();
        }
    }

    fn deliver_events(&self, state: &mut State) -> Wakers {
        let mut wakers = Wakers::new();
        while let Some(event) = state.core.poll_event() {
            match event {
                Event::StreamReadable(id) => {
                    wakers.extend(state.streams.get_mut(&id).and_then(|s| s.reader.take()));
                }
                Event::StreamWritable(id) => {
                    wakers.extend(state.streams.get_mut(&id).and_then(|s| s.writer.take()));
                }
                Event::StreamAcknowledged(id) => {
                    if let Some(stream) = state.streams.get_mut(&id) {
                        stream.acknowledged = true;
                        wakers.extend(stream.writer.take());
                    }
                }
                Event::StreamStopped(id, code) => {
                    if let Some(stream) = state.streams.get_mut(&id) {
                        stream.stopped = Some(code);
                        wakers.extend(stream.writer.take());
                    }
                }
                Event::StreamIncoming => self.incoming.notify_one(),
                Event::StreamsAvailable => self.streams_available.notify_waiters(),
                Event::MessagesReadable => self.messages_readable.notify_one(),
                Event::MessagesWritable => self.messages_writable.notify_waiters(),
                Event::Response(id, status, payload) => {
                    if let Some(waiter) = state.responses.remove(&id) {
                        let _ = waiter.send((status, payload)); // an error: it no longer waits
                    }
                }
                Event::RequestCancelled(id) => {
                    if let Some(cancelled) = state.cancellations.remove(&id) {
                        cancelled.notify_waiters();
                        cancelled.notify_one();
                    }
                }
                Event::LinkFinished(id) => self.remove_link(state, id),
                Event::LinkLost(id) => {
                    self.resumes.fetch_add(1, Ordering::Relaxed);
                    self.remove_link(state, id);
                    self.without_links(state, Reach::Silent);
                }
                Event::AllLinksLost => self.links_changed.notify_one(),
                Event::LinksWanted(count) => {
                    state.links_wanted_by_peer = count;
                    self.links_changed.notify_one();
                }
                Event::PeerDraining => self.streams_available.notify_waiters(),
                Event::Closed => self.wake_all(state, &mut wakers),
            }
        }
        wakers
    }

    fn wake_all(&self, state: &mut State, wakers: &mut Wakers) {
        for stream in state.streams.values_mut() {
            wakers.extend(stream.reader.take().into_iter().chain(stream.writer.take()));
        }
        state.responses.clear();
        for (_, cancelled) in state.cancellations.drain() {
            cancelled.notify_waiters();
            cancelled.notify_one();
        }
        for notify in [&self.incoming, &self.streams_available, &self.messages_readable] {
            notify.notify_waiters();
            notify.notify_one();
        }
        self.messages_writable.notify_waiters();
        self.links_changed.notify_one();
        self.timer.notify_one();
        self.closed.notify_waiters();
        let by_peer = matches!(state.core.closed(), Some(Closed::Peer(..)));
        self.reach.send_replace(if by_peer { Reach::ClosedByPeer } else { Reach::Ended });
        for link in &state.links {
            link.kick();
        }
    }

    /// Why the connection ended, as the caller sees it.
    pub(crate) fn error(&self, state: &State) -> ConnectionError {
        match state.core.closed() {
            Some(Closed::Peer(code, text)) => {
                ConnectionError::ClosedByPeer(CloseReason { code: *code, text: text.clone() })
            }
            Some(Closed::Protocol(error)) => ConnectionError::Protocol(error.clone()),
            Some(Closed::ResumeTimedOut) => ConnectionError::ResumeTimedOut(self.config.resume_timeout),
            Some(Closed::Idle) => ConnectionError::IdleTimedOut(self.config.idle_timeout.unwrap_or_default()),
            Some(Closed::Local(..)) | None => match state.panicked {
                Some(task) => ConnectionError::Internal { task },
                None => ConnectionError::ClosedLocally,
            },
        }
    }

    /// Calls the core's timers until the connection has ended.
    pub(crate) async fn run_timer(self: Arc<Self>) {
        loop {
            let (deadline, ended) = {
                let mut state = self.lock();
                let deadline = state.core.poll_timeout();
                state.timer_armed = deadline;
                (deadline, state.core.closed().is_some())
            };
            if ended {
                return;
            }
            match deadline {
                Some(deadline) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.instant(deadline)) => {
                            self.with(|state, now| {
                                for link in &state.links {
                                    state.core.link_heard(link.heard_at(), link.id);
                                }
                                state.core.handle_timeout(now);
                                // Acknowledgements and pings of several links may be due at once, each on its own.
                                let State { core, links, .. } = state;
                                let due = links.iter().filter(|link| core.wants_transmit_on(link.id));
                                due.for_each(|link| link.kick());
                            });
                        }
                        () = self.timer.notified() => {}
                    }
                }
                None => self.timer.notified().await,
            }
        }
    }
}

impl State {
    fn idle_link(&self) -> Option<Arc<Link>> {
        self.links.iter().find(|link| link.is_idle() && self.core.wants_transmit_on(link.id)).cloned()
    }

    /// Whether a link goes over RDMA.
    pub(crate) fn has_rdma(&self) -> bool {
        self.rdma_count() > 0
    }

    fn rdma_count(&self) -> usize {
        self.links.iter().filter(|link| link.socket.rdma().is_some()).count()
    }

    /// A link over RDMA takes all there is: beside it the others would only hold frames back. The client retires them.
    pub(crate) fn rely_on(&mut self, rdma: LinkId, role: Role, links_min: u16) {
        self.links_wanted = links_min.into();
        match role {
            Role::Server => self.core.want_links(links_min.into()),
            Role::Client => {
                let others: Vec<_> = self.core.active_links().filter(|&id| id != rdma).collect();
                for id in others {
                    self.core.retire_link(id);
                }
            }
        }
    }

    /// Segments sent again so far: on links that are gone, and on the others as of the last sample. Never falls.
    pub(crate) fn retransmits(&self) -> u64 {
        let is_live = |stats: &&LinkStats| self.links.iter().any(|link| link.id.0 == stats.id);
        let live: u64 = self.link_stats.iter().filter(is_live).map(|stats| stats.retransmits).sum();
        self.past_retransmits + live
    }
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().core.closed().is_some()
    }

    /// Whether a link that joins may be over RDMA: both sides offered it when the connection was made.
    pub(crate) fn takes_rdma(&self) -> bool {
        let state = self.lock();
        state.rdma.agreed && state.rdma_count() < crate::rdma::LINKS_MAX
    }

    /// When a link over RDMA should be tried; `None`: there is one, or never.
    pub(crate) fn rdma_due(&self) -> Option<Duration> {
        let state = self.lock();
        state.rdma.due_at().filter(|_| !state.has_rdma())
    }

    /// RDMA is not tried again soon.
    pub(crate) fn rdma_rests(&self) {
        let now = self.now();
        self.lock().rdma.failed(now);
    }

    pub(crate) fn link_count(&self) -> usize {
        self.lock().core.active_links().count()
    }

    /// How many links the client should have open.
    pub(crate) fn links_wanted(&self) -> usize {
        let state = self.lock();
        let streams = self.config.streams;
        let wanted = state.links_wanted.max(state.links_wanted_by_peer.min(streams.max.into()) as usize);
        wanted.min(state.core.peer().links_max.into()).max(1)
    }

    /// How many of them are not there.
    pub(crate) fn links_missing(&self) -> usize {
        self.links_wanted().saturating_sub(self.link_count())
    }

    /// Sets how many links this side would like to have.
    pub(crate) fn want_links(&self, target: u16) {
        let changed = {
            let mut state = self.lock();
            std::mem::replace(&mut state.links_wanted, target.into()) != usize::from(target)
        };
        if changed && self.role == Role::Server {
            self.with(|state, _| state.core.want_links(target.into()));
        }
        if changed {
            self.links_changed.notify_one();
        }
    }

    /// Retires a link, unless the peer wants it.
    pub(crate) fn retire_link(&self, id: u32) {
        self.with(|state, _| {
            if state.core.active_links().count() > state.links_wanted_by_peer as usize {
                state.core.retire_link(LinkId(id));
            }
        });
    }

    /// Frame bytes handed to and read from all sockets so far.
    pub(crate) fn wire_bytes(&self) -> (u64, u64) {
        let state = self.lock();
        let sum = |past: &AtomicU64, of: fn(&Link) -> &AtomicU64| {
            let live: u64 = state.links.iter().map(|link| of(link).load(Ordering::Relaxed)).sum();
            live + past.load(Ordering::Relaxed)
        };
        let sent = sum(&self.past_wire_sent, |link| &link.wire_sent);
        (sent, sum(&self.past_wire_received, |link| &link.wire_received))
    }

    /// The peer does not know the connection any more.
    pub(crate) fn peer_forgot(&self) {
        self.with(|state, _| {
            if state.links.is_empty() {
                state.core.give_up();
            }
        });
    }
}
