//! Messages to and from the other members, over DWCP.
//!
//! Each member connects to each other one and sends on that connection: entries and their acknowledgements on a stream,
//! length before content; heartbeats, votes and reads as control messages, which overtake whatever the stream carries.
//! Nothing is waited for: what does not go out now, Raft repeats.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use consensus_raft::{Class, MESSAGE_BYTES_MAX, MemberInfo, Membership, Message};
use dwcp_core::{
    CompressionConfig, Connection, Endpoint, EndpointConfig, IncomingMessage, Priority, Responder,
    StreamsConfig,
};
use tokio::sync::mpsc;

use crate::{NodeConfig, StartError, inbox::Input, node::PeerQuestion};

/// Messages that wait for one peer.
const OUTBOX: usize = 1024;
/// Encoded messages that are written to a stream together.
const WRITE_BYTES: usize = 256 << 10;
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
    /// Control messages do not wait behind entries.
    control: mpsc::Sender<Message>,
    entries: mpsc::Sender<Message>,
    task: tokio::task::JoinHandle<()>,
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

    async fn run_peer(
        self: Arc<Self>,
        id: u64,
        info: MemberInfo,
        mut control: mpsc::Receiver<Message>,
        mut entries: mpsc::Receiver<Message>,
    ) {
        let mut pause = RECONNECT;
        loop {
            let Some(connection) = self.connect(id, &info).await else {
                // What waited meanwhile is old.
                while control.try_recv().is_ok() || entries.try_recv().is_ok() {}
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
            let ended = tokio::select! {
                ended = send_control(&connection, &mut control) => ended,
                ended = send_entries(&connection, &mut entries) => ended,
                _ = connection.closed() => Ended::Connection,
            };
            self.connections().remove(&id);
            let more = matches!(ended, Ended::Connection);
            if !more || self.inbox.send(Input::Unreachable(id)).await.is_err() {
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

enum Ended {
    /// Try another one.
    Connection,
    /// Nobody sends any more.
    Sender,
}

async fn send_control(connection: &Connection, messages: &mut mpsc::Receiver<Message>) -> Ended {
    let control = connection.messages();
    while let Some(message) = messages.recv().await {
        let mut payload = BytesMut::with_capacity(128);
        payload.put_u8(RAFT);
        message.encode(&mut payload);
        if control.send(Priority::Control, payload.freeze()).await.is_err() {
            return Ended::Connection;
        }
    }
    Ended::Sender
}

/// Each message behind its length; as many as wait are written together.
async fn send_entries(connection: &Connection, messages: &mut mpsc::Receiver<Message>) -> Ended {
    let Ok((mut stream, _)) = connection.open_stream().await else { return Ended::Connection };
    let mut out = BytesMut::new();
    while let Some(first) = messages.recv().await {
        let mut next = Some(first);
        while let Some(message) = next {
            let start = out.len();
            out.put_u32_le(0);
            message.encode(&mut out);
            let len = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&len.to_le_bytes());
            next = if out.len() < WRITE_BYTES { messages.try_recv().ok() } else { None };
        }
        if stream.write_bytes(out.split().freeze()).await.is_err() {
            return Ended::Connection;
        }
    }
    Ended::Sender
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
                let (control, control_out) = mpsc::channel(OUTBOX);
                let (entries, entries_out) = mpsc::channel(OUTBOX);
                let run = Arc::clone(&self.shared).run_peer(*id, info.clone(), control_out, entries_out);
                Peer { info: info.clone(), control, entries, task: self.shared.runtime.spawn(run) }
            });
        }
    }

    /// Sends what there is room for; whom the rest was for.
    pub(crate) fn send(&mut self, messages: Vec<Message>) -> Vec<u64> {
        let mut lost = Vec::new();
        for message in messages {
            let to = message.to();
            let Some(peer) = self.peers.get(&to) else { continue };
            let queue = if message.class() == Class::Control { &peer.control } else { &peer.entries };
            if queue.try_send(message).is_err() && !lost.contains(&to) {
                lost.push(to);
            }
        }
        lost
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.peers.values().for_each(|peer| peer.task.abort());
    }
}
