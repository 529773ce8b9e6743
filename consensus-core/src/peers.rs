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

mod caller;
mod find;
mod incoming;
mod line;

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use consensus_raft::{MemberInfo, Membership, Message};
use dwcp_core::{Connection, Endpoint, Priority};
use tokio::sync::{mpsc, watch};

pub(crate) use self::find::connect_to;
pub use self::find::{FoundCluster, find_cluster};
use self::{
    caller::{Caller, SNAPSHOT_LINKS},
    line::Line,
};
use crate::{
    NodeConfig, StartError,
    host::Outbox,
    inbox::Input,
    links::{Dials, Links},
    node::PeerQuestion,
    snapshot::Outgoing,
};

/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// For a stranger to ask, and a member to answer.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// For what was said last to a member that is removed to get there: that its removal is committed, or an answer that it waits for.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a control message is: first byte.
const RAFT: u8 = 0;
const QUESTION: u8 = 1;

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
    connections: Mutex<HashMap<u64, Connection>>,
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
            connections: Mutex::default(),
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

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a member something that is not Raft's.
    pub(crate) async fn ask(&self, member: u64, question: &[u8], deadline: Duration) -> Option<Bytes> {
        let connection = self.connections().get(&member).cloned()?;
        let mut payload = BytesMut::with_capacity(question.len() + 1);
        payload.put_u8(QUESTION);
        payload.put_slice(question);
        connection.messages().request(Priority::Control, payload.freeze(), deadline).await.ok()
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

    /// Ends the task of a member that is elsewhere now, or, not at once, of one that is none any more.
    fn end(&self, task: &tokio::task::JoinHandle<()>, moved: bool) {
        if moved {
            return task.abort();
        }
        let task = task.abort_handle();
        self.runtime.spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            task.abort();
        });
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
                line.open(connection.messages(), stream);
                tokio::select! {
                    () = line.send_backlogs() => {}
                    // What comes back is of a member that does not know this one.
                    () = Arc::clone(&self).receive_messages(connection.clone(), id) => {}
                    _ = connection.closed() => {}
                }
                line.close();
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
                self.shared.connections().remove(id);
                self.shared.end(&peer.task, membership.members.contains_key(id));
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
            None => !self.shared.answer_caller(*to, mem::take(messages)),
        });
        by_peer.into_keys().collect()
    }
}

impl Drop for PeerLines {
    fn drop(&mut self) {
        self.peers.values().for_each(|peer| peer.task.abort());
    }
}
