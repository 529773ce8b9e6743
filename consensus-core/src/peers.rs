//! Messages to and from the other members, over DWCP.
//!
//! Each member connects to each other one and sends on that connection: entries and their acknowledgements on a stream,
//! length before content; heartbeats, votes and reads as control messages, which overtake whatever the stream carries.
//! Nothing is waited for: what does not go out now, Raft repeats.
//!
//! A member that lags may be led by one of which its log does not know yet. It cannot connect to that one, so it answers on the
//! connection that the other has made.
//!
//! Snapshots go over connections of their own, so that they are in nobody's way; who connects says by its name what it wants.

use std::{
    collections::HashMap,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use consensus_raft::{Class, MESSAGE_BYTES_MAX, MemberInfo, Membership, Message};
use dwcp_core::{
    CompressionConfig, ConfigError, Connection, Endpoint, EndpointConfig, IncomingMessage, Messages,
    Priority, Responder, SendStream, StreamsConfig,
};
use tokio::{
    io::AsyncWrite as _,
    sync::{Notify, mpsc, watch},
};

use crate::{
    NodeConfig, StartError,
    host::Outbox,
    inbox::Input,
    links::{Dials, Links},
    node::PeerQuestion,
    snapshot::Outgoing,
};

/// Encoded entries that wait for one peer; with more, messages to it are lost.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection without any link for this long is given up: Raft has better to do than to wait for what was in it.
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);
/// For a stranger to ask, and a member to answer.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// What a control message is: first byte.
const RAFT: u8 = 0;
const QUESTION: u8 = 1;
/// Members whose connections are kept to answer on.
const CALLERS_MAX: usize = 64;
/// Links of a connection for a snapshot, at most. Messages need one.
const SNAPSHOT_LINKS: u16 = 16;

/// Who connects, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// A member, with messages.
    Member(u64, u64),
    /// A member that fetches a snapshot.
    Fetcher(u64, u64),
    /// Somebody who wants to know who the members are.
    Stranger,
}

impl Caller {
    fn name(self) -> String {
        match self {
            Self::Member(cluster, id) => format!("consensus/{cluster:016x}/{id:016x}"),
            Self::Fetcher(cluster, id) => format!("consensus/{cluster:016x}/{id:016x}/snapshot"),
            Self::Stranger => "consensus".to_owned(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        if parts.next() != Some("consensus") {
            return None;
        }
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let Some(cluster) = number() else { return (name == "consensus").then_some(Self::Stranger) };
        let id = number()?;
        match parts.next() {
            None => Some(Self::Member(cluster, id)),
            Some("snapshot") => Some(Self::Fetcher(cluster, id)),
            Some(_) => None,
        }
    }

    /// An endpoint in this name.
    fn config(self, tls: Option<&Arc<dwcp_core::TlsConfig>>, allow_plaintext: bool) -> EndpointConfig {
        let mut endpoint = EndpointConfig::new(self.name());
        endpoint.transport.streams = match self {
            Self::Fetcher(..) => StreamsConfig { min: 1, max: SNAPSHOT_LINKS, initial: 1 },
            _ => StreamsConfig { min: 1, max: 1, initial: 1 },
        };
        endpoint.transport.resume_timeout = RESUME_TIMEOUT;
        endpoint.compression = CompressionConfig::NONE;
        endpoint.tls = tls.cloned();
        endpoint.allow_plaintext = allow_plaintext;
        endpoint
    }
}

/// Where messages of the raft thread go.
pub(crate) struct PeerLines {
    shared: Arc<Network>,
    peers: HashMap<u64, Peer>,
}

struct Peer {
    info: MemberInfo,
    line: Arc<Line>,
    task: tokio::task::JoinHandle<()>,
}

/// The way to one peer. The raft thread writes to the sockets itself: a task in between would cost it a wake-up for each
/// message.
#[derive(Debug, Default)]
struct Line {
    open: Mutex<Option<OpenLine>>,
    /// Told when entries wait for credit.
    backlog: Notify,
}

#[derive(Debug)]
struct OpenLine {
    messages: Messages,
    stream: SendStream,
    /// Encoded entries that the stream has not taken.
    backlog: BytesMut,
}

/// What all tasks know.
#[derive(Debug)]
pub(crate) struct Network {
    cluster: u64,
    id: u64,
    /// For messages, and for whoever connects.
    endpoint: Endpoint,
    /// For snapshots that are fetched.
    bulk: Endpoint,
    outgoing: Arc<Outgoing>,
    membership: watch::Receiver<Membership>,
    inbox: mpsc::Sender<Input>,
    questions: mpsc::Sender<PeerQuestion>,
    runtime: tokio::runtime::Handle,
    /// Connections to peers, for questions.
    connections: std::sync::Mutex<HashMap<u64, Connection>>,
    links: Arc<Links>,
    /// Connections that members have made, to answer those that are not known here.
    callers: Mutex<HashMap<u64, Connection>>,
}

impl Network {
    pub(crate) async fn listen(
        config: &NodeConfig,
        inbox: mpsc::Sender<Input>,
        questions: mpsc::Sender<PeerQuestion>,
        membership: watch::Receiver<Membership>,
    ) -> Result<Arc<Self>, StartError> {
        let (tls, allow_plaintext) = (config.tls.as_ref(), config.allow_plaintext);
        let mut listening = Caller::Member(config.cluster, config.id).config(tls, allow_plaintext);
        // Of those who connect, only fetchers ask for more than one.
        listening.transport.streams.max = SNAPSHOT_LINKS;
        let fetching = Caller::Fetcher(config.cluster, config.id).config(tls, allow_plaintext);
        let endpoint = Endpoint::listen(config.listen, listening).await?;
        let bulk = Endpoint::client(fetching)?;
        let rate = config.snapshots.bytes_per_second;
        let links = Links::new(inbox.clone(), config.timing.heartbeat);
        let network = Arc::new(Self {
            bulk,
            outgoing: Arc::new(Outgoing::new(&config.snapshot_dir, inbox.clone(), rate)),
            membership,
            cluster: config.cluster,
            id: config.id,
            endpoint,
            inbox,
            questions,
            runtime: tokio::runtime::Handle::current(),
            connections: std::sync::Mutex::default(),
            links: Arc::new(links),
            callers: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&network).accept());
        Ok(network)
    }

    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.endpoint.local_addr()
    }

    pub(crate) fn reload_tls(&self, tls: Arc<dwcp_core::TlsConfig>) {
        self.endpoint.reload_tls(tls);
    }

    pub(crate) async fn shutdown(&self, timeout: Duration) {
        tokio::join!(self.endpoint.shutdown(timeout), self.bulk.shutdown(timeout));
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks a member something that is not Raft's.
    pub(crate) async fn ask(&self, member: u64, question: &[u8], deadline: Duration) -> Option<Bytes> {
        let connection = self.connections().get(&member).cloned()?;
        let mut payload = BytesMut::with_capacity(question.len() + 1);
        payload.put_u8(QUESTION);
        payload.put_slice(question);
        connection.messages().request(Priority::Control, payload.freeze(), deadline).await.ok()
    }

    async fn accept(self: Arc<Self>) {
        while let Some(connection) = self.endpoint.accept().await {
            match Caller::parse(&connection.peer().node_id) {
                Some(Caller::Member(cluster, from)) if cluster == self.cluster => {
                    self.remember_caller(from, connection.clone());
                    if self.membership.borrow().members.contains_key(&from) {
                        let reach = connection.watch_reach();
                        tokio::spawn(Arc::clone(&self.links).follow(from, reach, Dials::Peer));
                    }
                    tokio::spawn(Arc::clone(&self).receive_messages(connection.clone(), from));
                    tokio::spawn(Arc::clone(&self).receive_streams(connection, from));
                }
                Some(Caller::Fetcher(cluster, _)) if cluster == self.cluster => {
                    tokio::spawn(Arc::clone(&self.outgoing).serve(connection));
                }
                Some(Caller::Stranger) => {
                    tokio::spawn(Arc::clone(&self).introduce(connection));
                }
                _ => {
                    let peer = connection.peer();
                    tracing::warn!(peer = peer.node_id, addr = %peer.addr, "not a member of this cluster: refused");
                    connection.close(1, &format!("this is cluster {:016x}", self.cluster));
                }
            }
        }
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the newest connection of each member until that closes.
    fn remember_caller(self: &Arc<Self>, from: u64, connection: Connection) {
        let mut callers = self.callers();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&from) {
            return;
        }
        callers.insert(from, connection.clone());
        let network = Arc::clone(self);
        tokio::spawn(async move {
            connection.closed().await;
            let mut callers = network.callers();
            if callers.get(&from).is_some_and(|kept| kept.peer().addr == connection.peer().addr) {
                callers.remove(&from);
            }
        });
    }

    /// Answers a member that is not known here. What does not go out is lost, and Raft repeats it.
    fn answer_caller(&self, to: u64, messages: Vec<Message>) {
        let Some(connection) = self.callers().get(&to).cloned() else { return };
        let mut context = Context::from_waker(Waker::noop());
        for message in messages {
            send_control(&connection.messages(), &message, &mut context);
        }
    }

    /// Tells somebody who wants to join who the members are.
    async fn introduce(self: Arc<Self>, connection: Connection) {
        let asked = tokio::time::timeout(INTRODUCTION, connection.messages().recv()).await;
        if let Ok(Ok(IncomingMessage { responder: Some(responder), .. })) = asked {
            let mut answer = BytesMut::new();
            answer.put_u64_le(self.cluster);
            answer.put_slice(&self.membership.borrow().encode());
            if responder.respond(answer.freeze()).is_ok() {
                let _ = tokio::time::timeout(INTRODUCTION, connection.closed()).await;
            }
        }
    }

    async fn receive_messages(self: Arc<Self>, connection: Connection, from: u64) {
        let messages = connection.messages();
        while let Ok(IncomingMessage { mut payload, responder, .. }) = messages.recv().await {
            if payload.is_empty() {
                continue;
            }
            let goes_on = match (payload.get_u8(), responder) {
                (RAFT, None) => self.deliver(payload, from).await,
                (QUESTION, Some(responder)) => {
                    self.question(payload, responder);
                    true
                }
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
    }

    fn question(&self, question: Bytes, responder: Responder) {
        // Full: whoever asks is told that nobody answered, and asks again.
        let _ = self.questions.try_send(PeerQuestion { question, responder });
    }

    async fn receive_streams(self: Arc<Self>, connection: Connection, from: u64) {
        while let Ok((_, mut stream)) = connection.accept_stream().await {
            let network = Arc::clone(&self);
            let peer = connection.peer().node_id.clone();
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while let Ok(Some(chunk)) = stream.read_chunk().await {
                    buffer.extend_from_slice(&chunk);
                    while let Some(len) = buffer.first_chunk::<4>() {
                        let len = u32::from_le_bytes(*len) as usize;
                        if len > MESSAGE_BYTES_MAX {
                            tracing::warn!(peer, len, max = MESSAGE_BYTES_MAX, "a peer message is too long");
                            stream.stop(1);
                            return;
                        }
                        if buffer.len() < 4 + len {
                            break;
                        }
                        buffer.advance(4);
                        let message = buffer.split_to(len).freeze();
                        if !network.deliver(message, from).await {
                            return;
                        }
                    }
                }
            });
        }
    }

    /// Whether the raft thread is still there.
    async fn deliver(&self, message: Bytes, from: u64) -> bool {
        match Message::decode(message) {
            Ok(message) if message.from() != from => {
                tracing::warn!(
                    peer = format!("{from:x}"),
                    "a message in the name of another member: dropped"
                );
                true
            }
            Ok(message) => self.inbox.send(Input::Message(message)).await.is_ok(),
            Err(error) => {
                tracing::warn!(%error, "a peer message cannot be read");
                true
            }
        }
    }

    /// A connection to fetch a snapshot over.
    pub(crate) async fn connect_for_snapshot(&self, id: u64, info: &MemberInfo) -> Option<Connection> {
        self.connect(&self.bulk, id, info).await
    }

    /// How far away a member is that is connected.
    pub(crate) fn round_trip(&self, id: u64) -> Option<Duration> {
        let connection = self.connections().get(&id).cloned()?;
        connection.stats().links.iter().map(|link| link.rtt).min()
    }

    async fn connect(&self, endpoint: &Endpoint, id: u64, info: &MemberInfo) -> Option<Connection> {
        for url in &info.peer_urls {
            if let Some(connection) = connect_to(endpoint, url).await {
                let found = &connection.peer().node_id;
                if Caller::parse(found) == Some(Caller::Member(self.cluster, id)) {
                    return Some(connection);
                }
                tracing::warn!(url, found, "another node than the member that should be there");
                connection.close(1, "another member was expected");
            }
        }
        None
    }

    async fn run_peer(self: Arc<Self>, id: u64, info: MemberInfo, line: Arc<Line>) {
        let mut pause = RECONNECT;
        loop {
            let Some(connection) = self.connect(&self.endpoint, id, &info).await else {
                self.links.refused(id).await;
                if self.inbox.send(Input::Unreachable(id)).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_MAX);
                continue;
            };
            let connected = tokio::time::Instant::now();
            self.connections().insert(id, connection.clone());
            tokio::spawn(Arc::clone(&self.links).follow(id, connection.watch_reach(), Dials::Own));
            tracing::debug!(peer = format!("{id:x}"), "connected");
            if let Ok((stream, _)) = connection.open_stream().await {
                let open = OpenLine { messages: connection.messages(), stream, backlog: BytesMut::new() };
                *line.lock() = Some(open);
                tokio::select! {
                    () = line.send_backlogs() => {}
                    // What comes back is of a member that does not know this one.
                    () = Arc::clone(&self).receive_messages(connection.clone(), id) => {}
                    _ = connection.closed() => {}
                }
                *line.lock() = None;
            }
            self.connections().remove(&id);
            if self.inbox.send(Input::Unreachable(id)).await.is_err() {
                return;
            }
            if connected.elapsed() > RECONNECT_MAX {
                pause = RECONNECT;
            }
            // One that ends at once again is not tried without a rest.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }
}

/// A connection to the first address of a URL that answers.
async fn connect_to(endpoint: &Endpoint, url: &str) -> Option<Connection> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    let addresses = match tokio::net::lookup_host(authority).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::debug!(url, %error, "name of a peer");
            return None;
        }
    };
    for addr in addresses {
        match endpoint.connect(addr, host).await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::debug!(url, %addr, %error, "connecting to a peer"),
        }
    }
    None
}

/// A cluster, as one of its members describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCluster {
    /// Its id.
    pub cluster: u64,
    /// Its members, as that member knows them.
    pub membership: Membership,
}

/// Asks those who may be members of a cluster, one after the other, who its members are. `None`: none of them answers.
pub async fn find_cluster(
    peer_urls: &[String],
    tls: Option<&Arc<dwcp_core::TlsConfig>>,
    allow_plaintext: bool,
) -> Result<Option<FoundCluster>, ConfigError> {
    let endpoint = Endpoint::client(Caller::Stranger.config(tls, allow_plaintext))?;
    for url in peer_urls {
        let Some(connection) = connect_to(&endpoint, url).await else { continue };
        let asked = Bytes::from_static(b"members");
        let answer = connection.messages().request(Priority::Control, asked, INTRODUCTION).await;
        let found = answer.ok().and_then(|mut answer| {
            let cluster = answer.try_get_u64_le().ok()?;
            Some(FoundCluster { cluster, membership: Membership::decode(answer).ok()? })
        });
        connection.close(0, "");
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Option<OpenLine>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the raft thread could not; returns when the stream has ended.
    async fn send_backlogs(&self) {
        loop {
            self.backlog.notified().await;
            let sent = poll_fn(|context| match &mut *self.lock() {
                Some(open) => open.flush(context),
                None => Poll::Ready(Err(())),
            });
            if sent.await.is_err() {
                return;
            }
        }
    }

    /// Sends messages as far as there is room at once; whether all were.
    fn send(&self, messages: impl Iterator<Item = Message>) -> bool {
        let mut line = self.lock();
        let Some(open) = &mut *line else { return false };
        let mut context = Context::from_waker(Waker::noop());
        let mut all = true;
        for message in messages {
            all &= match message.class() {
                Class::Control => send_control(&open.messages, &message, &mut context),
                _ => open.add(&message),
            };
        }
        match open.flush(&mut context) {
            Poll::Ready(result) => all && result.is_ok(),
            Poll::Pending => {
                self.backlog.notify_one();
                all
            }
        }
    }
}

/// Small, and urgent: it goes out now or never.
fn send_control(messages: &Messages, message: &Message, context: &mut Context<'_>) -> bool {
    let mut payload = BytesMut::with_capacity(128);
    payload.put_u8(RAFT);
    message.encode(&mut payload);
    let sending = pin!(messages.send(Priority::Control, payload.freeze()));
    matches!(sending.poll(context), Poll::Ready(Ok(())))
}

impl OpenLine {
    /// Puts a message behind its length at the end of what is to be sent.
    fn add(&mut self, message: &Message) -> bool {
        let start = self.backlog.len();
        if start > BACKLOG_BYTES_MAX {
            return false;
        }
        self.backlog.put_u32_le(0);
        message.encode(&mut self.backlog);
        let len = (self.backlog.len() - start - 4) as u32;
        self.backlog[start..start + 4].copy_from_slice(&len.to_le_bytes());
        true
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while !self.backlog.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.backlog)) {
                Ok(len) if len > 0 => self.backlog.advance(len),
                _ => return Poll::Ready(Err(())),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl PeerLines {
    pub(crate) fn new(shared: Arc<Network>, membership: &Membership) -> Self {
        let mut lines = Self { shared, peers: HashMap::new() };
        lines.set_members(membership);
        lines
    }
}

impl Outbox for PeerLines {
    /// Starts and ends tasks so that there is one for each other member.
    fn set_members(&mut self, membership: &Membership) {
        let own = self.shared.id;
        self.peers.retain(|id, peer| {
            let stays = membership.members.get(id).is_some_and(|info| info.peer_urls == peer.info.peer_urls);
            if !stays {
                peer.task.abort();
                self.shared.connections().remove(id);
            }
            stays
        });
        for (id, info) in membership.members.iter().filter(|(id, _)| **id != own) {
            self.peers.entry(*id).or_insert_with(|| {
                let line = Arc::<Line>::default();
                let run = Arc::clone(&self.shared).run_peer(*id, info.clone(), Arc::clone(&line));
                Peer { info: info.clone(), line, task: self.shared.runtime.spawn(run) }
            });
        }
    }

    fn send(&mut self, messages: Vec<Message>) -> Vec<u64> {
        let mut by_peer: HashMap<u64, Vec<Message>> = HashMap::new();
        for message in messages {
            by_peer.entry(message.to()).or_default().push(message);
        }
        by_peer.retain(|to, messages| match self.peers.get(to) {
            Some(peer) => !peer.line.send(messages.drain(..)),
            None => {
                self.shared.answer_caller(*to, mem::take(messages));
                false
            }
        });
        by_peer.into_keys().collect()
    }
}

impl Drop for PeerLines {
    fn drop(&mut self) {
        self.peers.values().for_each(|peer| peer.task.abort());
    }
}
