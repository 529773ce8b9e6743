//! Messages to and from the other members, over DWCP.
//!
//! Each member connects to each other one and sends on that connection: entries and their acknowledgements on a stream,
//! length before content; heartbeats, votes and reads as control messages, which overtake whatever the stream carries.
//! Nothing is waited for: what does not go out now, Raft repeats.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use consensus_raft::{Class, MESSAGE_BYTES_MAX, MemberInfo, Membership, Message};
use dwcp_core::{
    CompressionConfig, Connection, Endpoint, EndpointConfig, IncomingMessage, Messages, Priority, Responder,
    SendStream, StreamsConfig,
};
use tokio::{
    io::AsyncWrite as _,
    sync::{Notify, mpsc},
};

use crate::{NodeConfig, StartError, inbox::Input, node::PeerQuestion};

/// Encoded entries that wait for one peer; with more, messages to it are lost.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection without any link for this long is given up: Raft has better to do than to wait for what was in it.
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);
/// What a control message is: first byte.
const RAFT: u8 = 0;
const QUESTION: u8 = 1;

fn node_id(cluster: u64, id: u64) -> String {
    format!("consensus/{cluster:016x}/{id:016x}")
}

/// Cluster and member of a peer.
fn parse_node_id(text: &str) -> Option<(u64, u64)> {
    let (cluster, id) = text.strip_prefix("consensus/")?.split_once('/')?;
    Some((u64::from_str_radix(cluster, 16).ok()?, u64::from_str_radix(id, 16).ok()?))
}

fn endpoint_config(config: &NodeConfig) -> EndpointConfig {
    let mut endpoint = EndpointConfig::new(node_id(config.cluster, config.id));
    endpoint.transport.streams = StreamsConfig { min: 1, max: 1, initial: 1 };
    endpoint.transport.resume_timeout = RESUME_TIMEOUT;
    endpoint.compression = CompressionConfig::NONE;
    endpoint.tls = config.tls.clone();
    endpoint.allow_plaintext = config.allow_plaintext;
    endpoint
}

/// Where messages of the raft thread go.
pub(crate) struct Outbox {
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
    endpoint: Endpoint,
    inbox: mpsc::Sender<Input>,
    questions: mpsc::Sender<PeerQuestion>,
    runtime: tokio::runtime::Handle,
    /// Connections to peers, for questions.
    connections: std::sync::Mutex<HashMap<u64, Connection>>,
}

impl Network {
    pub(crate) async fn listen(
        config: &NodeConfig,
        inbox: mpsc::Sender<Input>,
        questions: mpsc::Sender<PeerQuestion>,
    ) -> Result<Arc<Self>, StartError> {
        let endpoint = Endpoint::listen(config.listen, endpoint_config(config)).await?;
        let network = Arc::new(Self {
            cluster: config.cluster,
            id: config.id,
            endpoint,
            inbox,
            questions,
            runtime: tokio::runtime::Handle::current(),
            connections: std::sync::Mutex::default(),
        });
        tokio::spawn(Arc::clone(&network).accept());
        Ok(network)
    }

    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.endpoint.local_addr()
    }

    pub(crate) async fn shutdown(&self, timeout: Duration) {
        self.endpoint.shutdown(timeout).await;
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
            match parse_node_id(&connection.peer().node_id) {
                Some((cluster, from)) if cluster == self.cluster => {
                    tokio::spawn(Arc::clone(&self).receive_messages(connection.clone(), from));
                    tokio::spawn(Arc::clone(&self).receive_streams(connection, from));
                }
                _ => {
                    let peer = connection.peer();
                    tracing::warn!(peer = peer.node_id, addr = %peer.addr, "not a member of this cluster: refused");
                    connection.close(1, &format!("this is cluster {:016x}", self.cluster));
                }
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

    async fn connect(&self, id: u64, info: &MemberInfo) -> Option<Connection> {
        for url in &info.peer_urls {
            let authority =
                url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/');
            let host =
                authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
            let addresses = match tokio::net::lookup_host(authority).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    tracing::debug!(url, %error, "name of a peer");
                    continue;
                }
            };
            for addr in addresses {
                match self.endpoint.connect(addr, host).await {
                    Ok(connection) => match parse_node_id(&connection.peer().node_id) {
                        Some(found) if found == (self.cluster, id) => return Some(connection),
                        _ => {
                            let found = &connection.peer().node_id;
                            tracing::warn!(url, found, "another node than the member that should be there");
                            connection.close(1, "another member was expected");
                        }
                    },
                    Err(error) => tracing::debug!(url, %addr, %error, "connecting to a peer"),
                }
            }
        }
        None
    }

    async fn run_peer(self: Arc<Self>, id: u64, info: MemberInfo, line: Arc<Line>) {
        let mut pause = RECONNECT;
        loop {
            let Some(connection) = self.connect(id, &info).await else {
                if self.inbox.send(Input::Unreachable(id)).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_MAX);
                continue;
            };
            let connected = tokio::time::Instant::now();
            self.connections().insert(id, connection.clone());
            tracing::debug!(peer = format!("{id:x}"), "connected");
            if let Ok((stream, _)) = connection.open_stream().await {
                let open = OpenLine { messages: connection.messages(), stream, backlog: BytesMut::new() };
                *line.lock() = Some(open);
                tokio::select! {
                    () = line.send_backlogs() => {}
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
                Class::Control => open.send_control(&message, &mut context),
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

impl OpenLine {
    /// Small, and urgent: it goes out now or never.
    fn send_control(&self, message: &Message, context: &mut Context<'_>) -> bool {
        let mut payload = BytesMut::with_capacity(128);
        payload.put_u8(RAFT);
        message.encode(&mut payload);
        let sending = pin!(self.messages.send(Priority::Control, payload.freeze()));
        matches!(sending.poll(context), Poll::Ready(Ok(())))
    }

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

impl Outbox {
    pub(crate) fn new(shared: Arc<Network>, membership: &Membership) -> Self {
        let mut outbox = Self { shared, peers: HashMap::new() };
        outbox.set_members(membership);
        outbox
    }

    /// Starts and ends tasks so that there is one for each other member.
    pub(crate) fn set_members(&mut self, membership: &Membership) {
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

    /// Sends what there is room for; whom something was for that did not go out.
    pub(crate) fn send(&mut self, messages: Vec<Message>) -> Vec<u64> {
        let mut by_peer: HashMap<u64, Vec<Message>> = HashMap::new();
        for message in messages {
            by_peer.entry(message.to()).or_default().push(message);
        }
        by_peer.retain(|to, messages| {
            self.peers.get(to).is_some_and(|peer| !peer.line.send(messages.drain(..)))
        });
        by_peer.into_keys().collect()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.peers.values().for_each(|peer| peer.task.abort());
    }
}
