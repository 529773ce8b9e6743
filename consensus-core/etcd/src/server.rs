//! A member that serves etcd's clients.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use consensus_core::{MemberChange, Node, NodeConfig, ProposeError, StartError};
use consensus_disk::DiskError;
use consensus_proto::{
    etcdserverpb::{
        ResponseHeader, auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
    internal::{InternalRequest, RequestHeader, internal_request},
    regions::regions_server::RegionsServer,
    v3electionpb::election_server::ElectionServer,
    v3lockpb::lock_server::LockServer,
};
use consensus_rocks::{Home, RocksDisk};
use consensus_store::{Caller, Reader, Response, Store, StoreError};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Status,
    service::{InterceptorLayer, Routes},
    transport::server::{Connected, TcpIncoming},
};

use crate::{
    AutoCompaction, Jwt, MetricsText, TokenOptionError, auth, compactor,
    connection::Connection,
    lease,
    machine::{Machine, News},
    reads,
    regions::{self, MemberClock, Regions, RegionsConfig},
    room::{self, Room},
    snapshot, status,
    turns::Turns,
};

/// Bytes that a request may have beside its keys and values, as in etcd.
const REQUEST_OVERHEAD: usize = 512 << 10;
/// As etcd's clients ask in the metadata of a call for an error rather than to wait for a leader.
const HAS_LEADER: &str = "hasleader";
/// Which trace a request belongs to.
const TRACEPARENT: &str = "traceparent";
/// For the ends of connections with other regions.
const GOODBYE: Duration = Duration::from_millis(200);
/// While a member has not said its name to the others, it tries this often.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);

/// What clients get for a right password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenKind {
    /// A random text that all members know, as long as it is used.
    Simple,
    /// A signed one that nobody has to know.
    Jwt(Arc<Jwt>),
}

impl TokenKind {
    /// Reads `simple` or `jwt,OPTIONS` as etcd's `--auth-token` has it; `read` gives the content of a file.
    pub fn parse(
        text: &str,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, TokenOptionError> {
        match text.split_once(',').unwrap_or((text, "")) {
            ("simple", "") => Ok(Self::Simple),
            ("jwt", options) => Jwt::parse(options, read).map(|jwt| Self::Jwt(Arc::new(jwt))),
            _ => Err(TokenOptionError::Kind { kind: text.to_owned() }),
        }
    }
}

/// How clients are recognized, once authentication is enabled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuthConfig {
    /// What clients get for a right password.
    pub token: TokenKind,
    /// How long a simple token lives after its last use.
    pub token_ttl: Duration,
    /// bcrypt's cost of new passwords, 4..=31: one more takes twice as long.
    pub bcrypt_cost: u32,
    /// Whether the common name of a client's certificate is a user's name. Only sensible where TLS verifies certificates.
    pub client_cert_auth: bool,
}

impl Default for AuthConfig {
    /// As in etcd.
    fn default() -> Self {
        Self {
            token: TokenKind::Simple,
            token_ttl: Duration::from_secs(300),
            bcrypt_cost: 10,
            client_cert_auth: false,
        }
    }
}

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The member.
    pub node: NodeConfig,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// Largest request in bytes.
    pub request_bytes_max: usize,
    /// Most operations in one list of a transaction.
    pub txn_ops_max: usize,
    /// Bytes of data with which nothing that needs room is taken any more.
    pub quota_bytes: u64,
    /// Bytes that the file system must have left, or nothing that needs room is taken.
    pub reserve_bytes: u64,
    /// What is kept when the leader compacts by itself; `None`: it does not.
    pub auto_compaction: Option<AutoCompaction>,
    /// How clients are recognized.
    pub auth: AuthConfig,
    /// Silence of a client after which it is asked whether it is there.
    pub keepalive_interval: Duration,
    /// For its answer.
    pub keepalive_timeout: Duration,
    /// What `/metrics` on the port of clients says; `None`: it is not there.
    pub metrics: Option<MetricsText>,
    /// The regions of which this store is one; `None`: it is alone.
    pub regions: Option<RegionsConfig>,
    /// Makes the span that a client's request is answered in; `None`: it has none, and costs nothing.
    pub request_span: Option<RequestSpan>,
}

/// Of a method, `/etcdserverpb.KV/Put`, and the request's `traceparent` (W3C Trace Context), which nobody has looked at.
pub type RequestSpan = fn(&str, Option<&str>) -> tracing::Span;

impl ServerConfig {
    /// A server over a member, with etcd's bounds.
    pub fn new(node: NodeConfig, data_dir: PathBuf, name: impl Into<String>) -> Self {
        Self {
            node,
            data_dir,
            name: name.into(),
            client_urls: Vec::new(),
            request_bytes_max: 1536 << 10,
            txn_ops_max: 128,
            quota_bytes: 2 << 30,
            reserve_bytes: 128 << 20,
            auto_compaction: None,
            auth: AuthConfig::default(),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            metrics: None,
            regions: None,
            request_span: None,
        }
    }
}

/// A server that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its data cannot be opened.
    #[error("opening the data in {folder}: {source}")]
    Data {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        source: DiskError,
    },
    /// Its data cannot be used.
    #[error("the data in {folder}: {source}")]
    Store {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The member cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its log has lost something, or its data what is not in the log any more.
    #[error("the log in {folder} is damaged, or the data is behind it: {source}")]
    Damaged {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        source: StartError,
    },
    /// No thread can be started.
    #[error("starting a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// gRPC cannot be served.
    #[error("serving clients: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// gRPC reflection cannot be served.
    #[error("serving reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl ServerError {
    /// Whether this member's data is lost, so that it can only come back as a new member.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Data { source, .. } => source.is_damage(),
            Self::Store { source, .. } => source.is_damage(),
            Self::Damaged { .. } => true,
            _ => false,
        }
    }
}

/// A member that serves etcd's clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) node: Node<Result<Response, StoreError>>,
    pub(crate) reader: Reader<RocksDisk>,
    pub(crate) news: Arc<News>,
    pub(crate) room: Room,
    pub(crate) regions: Option<Regions>,
    /// The time of changes that other regions are told of.
    pub(crate) clock: MemberClock,
    /// Places for snapshots that are taken.
    pub(crate) snapshots: Arc<Semaphore>,
    pub(crate) request_timeout: Duration,
    /// Turns to hash or compare a password.
    pub(crate) hashes: Turns,
    /// Turns to read what takes long.
    pub(crate) long_reads: Turns,
    /// True once the server stops: whoever works for it ends.
    pub(crate) closing: watch::Sender<bool>,
    /// No new writes are taken.
    pub(crate) draining: AtomicBool,
    /// The others know this member's name and where clients find it.
    published: watch::Sender<bool>,
}

/// What starts or serves. Compiled here, once: an `async fn` is compiled again in each crate that awaits it, with all that
/// it awaits in turn, which is the whole member.
type Task<T> = Pin<Box<dyn Future<Output = Result<T, ServerError>> + Send>>;

impl Server {
    /// Starts the member, on a tokio runtime.
    pub fn start(config: ServerConfig) -> Task<Self> {
        Box::pin(Self::started(config))
    }

    async fn started(config: ServerConfig) -> Result<Self, ServerError> {
        let folder = config.data_dir.display().to_string();
        let (home, disk) = Home::open(&config.data_dir, consensus_store::SPACES)
            .map_err(|source| ServerError::Data { folder: folder.clone(), source })?;
        let disk = Arc::new(disk);
        let store = Store::open(Arc::clone(&disk)).map_err(|source| ServerError::Store { folder, source })?;
        let news = Arc::new(News::new(&store, config.auth.token_ttl));
        let reader = store.reader();
        let regions = match &config.regions {
            Some(config) => Some(Regions::listen(config.clone()).await?),
            None => None,
        };
        let machine = Machine::new(home, disk, store, Arc::clone(&news)).map_err(ServerError::Thread)?;
        let folder = config.node.log_dir.display().to_string();
        let started = Node::start(config.node.clone(), machine).await;
        let (node, questions) = started.map_err(|source| match source.is_damage() {
            true => ServerError::Damaged { folder, source },
            false => ServerError::Start(source),
        })?;
        // As etcd: time for an election on top of what a request takes.
        let request_timeout = Duration::from_secs(5) + 2 * config.node.timing.election_timeout;
        let closing = watch::Sender::new(false);
        let room = Room::open(&config.data_dir);
        let shared = Shared {
            config,
            node,
            reader,
            news,
            room,
            regions,
            clock: MemberClock::default(),
            snapshots: Arc::new(Semaphore::new(snapshot::AT_ONCE)),
            request_timeout,
            hashes: Turns::new(auth::HASHES_AT_ONCE),
            long_reads: Turns::new(reads::LONG_READS_AT_ONCE),
            closing,
            draining: AtomicBool::new(false),
            published: watch::Sender::new(false),
        };
        let server = Self { shared: Arc::new(shared) };
        tokio::spawn(close_with_node(server.clone()));
        tokio::spawn(lease::expire(server.clone()));
        tokio::spawn(lease::answer_peers(server.clone(), questions));
        tokio::spawn(publish(server.clone()));
        tokio::spawn(room::watch(server.clone()));
        if server.shared.regions.is_some() || server.shared.reader.is_region() {
            tokio::spawn(regions::run(server.clone()));
            tokio::spawn(regions::compare_clocks(server.clone()));
        }
        if let Some(keeps) = server.shared.config.auto_compaction {
            tokio::spawn(compactor::run(server.clone(), keeps));
        }
        Ok(server)
    }

    /// The member.
    pub fn node(&self) -> &Node<Result<Response, StoreError>> {
        &self.shared.node
    }

    /// Reads of this member alone, which may be old.
    pub fn reader(&self) -> &Reader<RocksDisk> {
        &self.shared.reader
    }

    /// New connections with other regions use these certificates from now on.
    pub fn reload_region_tls(&self, tls: Arc<consensus_core::TlsConfig>) {
        if let Some(regions) = &self.shared.regions {
            regions.network.reload_tls(tls);
        }
    }

    /// Waits until the members know this one's name and where clients find it.
    pub async fn published(&self) {
        // The sender is in here: it cannot be gone.
        let _ = self.shared.published.subscribe().wait_for(|published| *published).await;
    }

    /// The newest revision that this member has.
    pub fn revision(&self) -> i64 {
        self.shared.reader.revision()
    }

    /// Answers clients that connect to an address, in plaintext, until `shutdown` is done.
    pub fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Task<()> {
        self.serve_tcp(listener, Box::pin(shutdown))
    }

    fn serve_tcp(
        &self,
        listener: TcpListener,
        shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Task<()> {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = self.clone();
        Box::pin(async move { server.serve_incoming(incoming, shutdown).await })
    }

    /// Answers clients on connections that someone else made, with TLS for instance, until `shutdown` is done. HTTP/2 for
    /// gRPC, and HTTP/1.1 as well for `/health` and its like.
    pub async fn serve_incoming<I, E>(
        &self,
        incoming: impl Stream<Item = Result<I, E>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServerError>
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut routes = self.clone().boxed_routes().await?;
        let router = std::mem::take(routes.axum_router_mut());
        *routes.axum_router_mut() = self.add_http(router);
        let config = &self.shared.config;
        let server = self.clone();
        let mut builder = tonic::transport::Server::builder();
        if let Some(span) = config.request_span {
            builder = builder.trace_fn(move |request| {
                let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
                span(request.uri().path(), traceparent)
            });
        }
        builder
            .layer(InterceptorLayer::new(move |call| server.refuse_without_leader(call)))
            .http2_keepalive_interval(Some(config.keepalive_interval))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            .max_concurrent_streams(u32::MAX)
            .accept_http1(true)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming.map(|io| io.map(Connection::new)), async {
                tokio::select! {
                    () = shutdown => self.close(),
                    () = self.closing() => {}
                }
            })
            .await?;
        Ok(())
    }

    fn boxed_routes(self) -> Task<Routes> {
        Box::pin(async move { self.routes().await })
    }

    /// All gRPC services.
    async fn routes(&self) -> Result<Routes, ServerError> {
        let size_max = self.shared.config.request_bytes_max + REQUEST_OVERHEAD;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(consensus_proto::DESCRIPTORS)
            .build_v1()?;
        let kv = KvServer::new(self.clone())
            .max_decoding_message_size(size_max)
            .max_encoding_message_size(usize::MAX);
        Ok(Routes::new(kv)
            .add_service(WatchServer::new(self.clone()).max_encoding_message_size(usize::MAX))
            .add_service(AuthServer::new(self.clone()))
            .add_service(LeaseServer::new(self.clone()))
            .add_service(ClusterServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self.clone()))
            .add_service(LockServer::new(self.clone()))
            .add_service(ElectionServer::new(self.clone()))
            .add_service(RegionsServer::new(self.clone()).max_decoding_message_size(size_max))
            .add_service(health_service)
            .add_service(reflection))
    }

    /// Who asks for it is not made to wait for a leader. That a leader gets lost later, calls that last are not told.
    fn refuse_without_leader(&self, call: Request<()>) -> Result<Request<()>, Status> {
        let asks = call.metadata().get(HAS_LEADER).is_some_and(|value| value == "true");
        match asks && self.shared.node.status().leader.is_none() {
            true => Err(status::propose(ProposeError::NoLeader)),
            false => Ok(call),
        }
    }

    fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Waits until the server stops.
    pub(crate) async fn closing(&self) {
        // The sender is in here: it cannot be gone.
        let _ = self.shared.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Stops the member, and ends what clients wait for.
    pub async fn stop(&self) {
        self.close();
        if let Some(regions) = &self.shared.regions {
            regions.network.shutdown(GOODBYE).await;
        }
        self.shared.node.stop().await;
    }

    /// What every answer begins with.
    pub(crate) fn header(&self, revision: i64) -> Option<ResponseHeader> {
        let node = &self.shared.node;
        let raft_term = node.status().term;
        Some(ResponseHeader { cluster_id: node.cluster(), member_id: node.id(), revision, raft_term })
    }

    /// The same, with the newest revision that this member has.
    pub(crate) fn header_now(&self) -> Option<ResponseHeader> {
        self.header(self.shared.reader.revision())
    }

    /// Has a request committed and applied, and says what became of it.
    pub(crate) async fn commit(
        &self,
        caller: &Caller,
        request: internal_request::Request,
    ) -> Result<Result<Response, StoreError>, Status> {
        self.commit_up_to(self.shared.config.request_bytes_max, caller, request).await
    }

    /// The same for a request that may have so many bytes.
    pub(crate) async fn commit_up_to(
        &self,
        bytes_max: usize,
        caller: &Caller,
        request: internal_request::Request,
    ) -> Result<Result<Response, StoreError>, Status> {
        if self.is_draining() {
            return Err(status::draining());
        }
        let mut header = caller.header();
        let begins = matches!(request, internal_request::Request::RegionBegin(_));
        if begins || self.shared.reader.is_region() {
            let wall_ms = self.shared.clock.wall_ms();
            header = Some(RequestHeader { wall_ms, ..header.unwrap_or_default() });
        }
        let payload = InternalRequest { header, request: Some(request) }.encode_to_vec();
        if payload.len() > bytes_max {
            return Err(status::request_too_large());
        }
        self.shared.node.propose(payload.into(), self.shared.request_timeout).await.map_err(status::propose)
    }

    /// Has a request committed and applied.
    pub(crate) async fn propose(
        &self,
        caller: &Caller,
        request: internal_request::Request,
    ) -> Result<Response, Status> {
        self.commit(caller, request).await?.map_err(|error| status::store(&error))
    }

    /// Waits until reads see everything that was acknowledged before.
    pub(crate) async fn linearize(&self) -> Result<(), Status> {
        self.shared.node.read_index(self.shared.request_timeout).await.map_err(status::propose)
    }
}

/// Tells the others this member's name and where clients find it. etcd says so in its log, and who starts it waits for that.
async fn publish(server: Server) {
    let shared = &server.shared;
    let id = shared.node.id();
    let (name, client_urls) = (&shared.config.name, &shared.config.client_urls);
    loop {
        let membership = shared.node.membership();
        let known = membership.members.get(&id);
        if known.is_none_or(|known| known.name == *name && known.client_urls == *client_urls) {
            tracing::info!(name, ?client_urls, "published the member to the cluster");
            shared.published.send_replace(true);
            return;
        }
        let change = MemberChange::Publish { id, name: name.clone(), client_urls: client_urls.clone() };
        match shared.node.change_members(change, shared.request_timeout).await {
            Ok(_) => {}
            Err(ProposeError::Stopped | ProposeError::ChangeRefused) => return,
            Err(_) => tokio::time::sleep(PUBLISH_RETRY).await,
        }
    }
}

/// A member that cannot go on has nothing to tell clients any more.
async fn close_with_node(server: Server) {
    server.shared.node.stopped().await;
    server.close();
}
