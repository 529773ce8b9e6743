//! Listens and connects.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dwcp_proto::{
    CloseCode,
    conn::{Connection as Core, ConnectionConfig, LinkId, Role},
    frame::Codec,
    hello::{Capabilities, ConnectionId, Hello, JoinToken, MINOR_VERSION},
};
use dwcp_sys::{
    SocketError,
    datagram::{DatagramSocket, UdpDatagrams},
    tcp_info,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{Instrument, Span};

use crate::{
    BindError, CompressionAlgorithm, ConfigError, ConnectError, Connection, ConnectionSnapshot,
    EndpointConfig, PeerInfo, Reach, TlsConfig,
    accept::{Acceptor, CONNECTIONS_WAITING_MAX},
    adapt::{self, CongestionControl},
    buffers::BufferPool,
    compress::{Common, CompressPool},
    compressor::Compressor,
    datagram::{ConnectionKeys, Service},
    dialer::Dialer,
    link::Link,
    rdma::Course,
    reader::{FrameReader, SCRATCH_LEN},
    security::{self, LinkSocket},
    shared::Shared,
    socket_options, task,
    zerocopy::ZeroCopy,
};

/// Initial credit of a stream in bytes; it grows up to the connection window.
const STREAM_WINDOW: u64 = 4 << 20;
/// Credit of messages in bytes, per priority.
const MESSAGE_WINDOW: u64 = 1 << 20;
/// Receive buffers that are kept for reuse.
const FRAME_BUFFERS_KEPT: usize = 32;
const SCRATCH_BUFFERS_KEPT: usize = 64;

/// Listens for and makes connections. Cheap to clone. When the last clone is dropped it takes no new connections; links may
/// join those it has made, and it listens until these have ended.
#[derive(Clone, Debug)]
pub struct Endpoint {
    core: Arc<EndpointCore>,
    incoming: Option<Arc<Incoming>>,
}

#[derive(Debug)]
struct Incoming {
    addr: SocketAddr,
    connections: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    stop: Arc<Notify>,
}

/// What the endpoint, its acceptor and its dialers share.
#[derive(Debug)]
pub(crate) struct EndpointCore {
    pub(crate) config: EndpointConfig,
    pub(crate) tls: RwLock<Option<Arc<TlsConfig>>>,
    pub(crate) connections: Mutex<HashMap<ConnectionId, Known>>,
    pub(crate) shutting_down: AtomicBool,
    /// For frames of full length, of half and of a quarter: senders shorten them on slow links.
    frame_buffers: [Arc<BufferPool>; 3],
    scratch_buffers: Arc<BufferPool>,
    /// Started with the first connection that may compress; `None` inside: no threads.
    compress_pool: OnceLock<Option<Arc<CompressPool>>>,
    pub(crate) datagrams: Arc<Service>,
}

/// A connection that links may join.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) token: JoinToken,
    pub(crate) shared: Weak<Shared>,
}

impl Endpoint {
    /// Listens on `addr` (port 0: any free one) and can connect as well.
    pub async fn listen(addr: SocketAddr, config: EndpointConfig) -> Result<Self, BindError> {
        config.validate()?;
        if config.tls.is_none() && !config.allow_plaintext && !addr.ip().is_loopback() {
            return Err(BindError::PlaintextNotAllowed { addr });
        }
        let io = |call| move |source| BindError::Io { call, addr, source };
        let listener = TcpListener::bind(addr).await.map_err(io("bind"))?;
        let addr = listener.local_addr().map_err(io("getsockname"))?;
        let core = EndpointCore::new(config);
        if let Some(addr) = core.config.datagrams.listen {
            core.check_datagrams_at(addr)?;
            let io = |error: SocketError| BindError::Io { call: error.call, addr, source: error.source };
            core.add_datagrams(Arc::new(UdpDatagrams::bind(addr).map_err(io)?))?;
        }
        let (sender, receiver) = mpsc::channel(CONNECTIONS_WAITING_MAX);
        let stop = Arc::new(Notify::new());
        let acceptor = Acceptor::new(Arc::clone(&core), sender);
        let span = tracing::info_span!("accept", %addr);
        tokio::spawn(acceptor.run(listener, Arc::clone(&stop)).instrument(span));
        let incoming = Incoming { addr, connections: tokio::sync::Mutex::new(receiver), stop };
        Ok(Self { core, incoming: Some(Arc::new(incoming)) })
    }

    /// Only connects.
    pub fn client(config: EndpointConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        if let Some(addr) = config.datagrams.listen {
            let expected = "none: this endpoint does not listen, give it a socket by add_datagram_socket";
            return Err(ConfigError { key: "datagrams.listen", value: addr.to_string(), expected });
        }
        Ok(Self { core: EndpointCore::new(config), incoming: None })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.incoming.as_ref().map(|incoming| incoming.addr)
    }

    /// Takes and sends datagrams over this socket, too; connections have some only if there was one when they began. The first
    /// one is where a peer is told to send to; of several with its port, a connection's datagrams go out by that on which they come.
    ///
    /// # Errors
    /// It takes plaintext from others than this host, or the reactor does not take it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn add_datagram_socket(&self, socket: Arc<dyn DatagramSocket>) -> Result<(), BindError> {
        self.core.check_datagrams_at(socket.local_addr())?;
        self.core.add_datagrams(socket)
    }

    /// Takes no datagrams over a socket any more that was added; those whose way it was go by the first. The first one stays.
    /// Whether it was there, and is not the first.
    pub fn remove_datagram_socket(&self, socket: &Arc<dyn DatagramSocket>) -> bool {
        self.core.datagrams.remove(socket)
    }

    /// Who exchanges datagrams with this endpoint, and from where these come now; at most `max`, in no order.
    pub fn datagram_peers(&self, max: usize) -> Vec<(SocketAddr, PeerInfo)> {
        let live = self.live();
        let peer = |shared: &Arc<Shared>| Some((shared.datagrams.get()?.peer()?, shared.peer.clone()));
        live.iter().filter_map(peer).take(max).collect()
    }

    /// Where it takes datagrams.
    pub fn datagram_addr(&self) -> Option<SocketAddr> {
        self.core.datagrams.local_addr()
    }

    /// The flows (DATAGRAM-2.6) on which datagrams are expected now, for whoever steers them.
    pub fn watch_datagram_flows(&self) -> watch::Receiver<HashSet<u64>> {
        self.core.datagrams.watch_flows()
    }

    /// Connects; with TLS the peer's certificate must carry `server_name`.
    pub async fn connect(&self, addr: SocketAddr, server_name: &str) -> Result<Connection, ConnectError> {
        let config = &self.core.config;
        if self.core.shutting_down.load(Ordering::Acquire) {
            return Err(ConnectError::ShuttingDown);
        }
        if self.core.tls().is_none() && !config.allow_plaintext && !addr.ip().is_loopback() {
            return Err(ConnectError::PlaintextNotAllowed { addr });
        }
        let hello = Hello {
            minor: MINOR_VERSION,
            link: 0,
            connection: ConnectionId::default(),
            token: JoinToken::default(),
            capabilities: self.core.capabilities(),
            rdma: Vec::new(),
            datagram_port: self.core.datagrams.port(),
        };
        let (mut made, spares) = self.core.make_first_link(addr, server_name, hello).await?;
        let peer = PeerInfo {
            node_id: made.hello.capabilities.node_id.clone(),
            region: Some(made.hello.capabilities.region.clone()).filter(|region| !region.is_empty()),
            names: made.names,
            addr,
        };
        let id = made.hello.connection;
        let token = made.hello.token;
        let rdma = !made.hello.rdma.is_empty();
        let shared = self.core.new_connection(Role::Client, id, made.hello.capabilities, peer, rdma);
        self.core.remember(id, token, &shared);
        self.core.begin_datagrams(&shared, &mut made.socket, (id, token), made.hello.datagram_port);
        self.core.attach(&shared, LinkId(0), made.socket);
        let dialer = Dialer {
            endpoint: Arc::clone(&self.core),
            shared: Arc::clone(&shared),
            addr,
            server_name: server_name.to_owned(),
            connection: id,
            token,
        };
        task::spawn(&shared, "dialer", shared.span.clone(), dialer.run(spares));
        Ok(Connection::new(shared))
    }

    /// The next connection from a peer; `None` after [`shutdown`](Self::shutdown), or if it does not listen.
    pub async fn accept(&self) -> Option<Connection> {
        self.incoming.as_ref()?.connections.lock().await.recv().await
    }

    /// The connections that have not ended, in no order, at most `max` of them, and how many there are.
    pub fn connections(&self, max: usize) -> (Vec<ConnectionSnapshot>, usize) {
        let live = self.live();
        let snapshot =
            |shared: &Arc<Shared>| ConnectionSnapshot { peer: shared.peer.clone(), stats: shared.stats() };
        (live.iter().take(max).map(snapshot).collect(), live.len())
    }

    /// Connections that have not ended. None of them is let go of under the lock.
    fn live(&self) -> Vec<Arc<Shared>> {
        let mut live: Vec<_> = {
            let known = self.core.connections.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(|known| known.shared.upgrade()).collect()
        };
        live.retain(|shared| !shared.is_closed());
        live
    }

    /// Whether [`shutdown`](Self::shutdown) was called.
    pub fn is_shutting_down(&self) -> bool {
        self.core.shutting_down.load(Ordering::Acquire)
    }

    /// Replaces certificates and the allow rule; existing connections go on.
    pub fn reload_tls(&self, tls: Arc<TlsConfig>) {
        *self.core.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    /// Accepts nothing more, drains all connections, then closes what is left after `timeout`.
    pub async fn shutdown(&self, timeout: Duration) {
        self.core.shutting_down.store(true, Ordering::Release);
        if let Some(incoming) = &self.incoming {
            incoming.stop.notify_one();
        }
        let connections: Vec<_> = {
            let known = self.core.connections.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(|known| known.shared.upgrade()).collect()
        };
        let until = Instant::now() + timeout;
        for shared in &connections {
            shared.with(|state, _| state.core.drain());
        }
        for shared in connections {
            let connection = shared.wait_closed();
            if tokio::time::timeout_at(until, connection).await.is_err() {
                shared.with(|state, _| {
                    state.core.close(CloseCode::SHUTTING_DOWN, "drain timeout is over");
                });
            }
            shared.wait_links_closed().await;
        }
        self.core.datagrams.stop();
    }
}

/// A root: a connection outlives the handshake, or the caller, that made it.
fn connection_span(role: Role, id: ConnectionId, peer: &PeerInfo) -> Span {
    let role = match role {
        Role::Client => "client",
        Role::Server => "server",
    };
    let id = u128::from_be_bytes(id.0);
    let span = tracing::info_span!(
        parent: None,
        "connection",
        role,
        peer = peer.node_id,
        addr = %peer.addr,
        id = format_args!("{id:032x}"),
    );
    span.follows_from(Span::current());
    span
}

impl EndpointCore {
    pub(crate) fn new(config: EndpointConfig) -> Arc<Self> {
        Arc::new(Self {
            tls: RwLock::new(config.tls.clone()),
            connections: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            frame_buffers: [1, 2, 4].map(|part| {
                BufferPool::new(config.transport.frame_bytes_max as usize / part, FRAME_BUFFERS_KEPT)
            }),
            scratch_buffers: BufferPool::new(SCRATCH_LEN, SCRATCH_BUFFERS_KEPT),
            compress_pool: OnceLock::new(),
            datagrams: Service::new(config.datagrams.probe_interval),
            config,
        })
    }

    pub(crate) fn tls(&self) -> Option<Arc<TlsConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let t = &self.config.transport;
        Capabilities {
            node_id: self.config.node_id.clone(),
            region: self.config.region.clone().unwrap_or_default(),
            codecs: [Codec::Identity, Codec::Zstd, Codec::Lz4]
                .into_iter()
                .fold(0, |bits, codec| bits | Capabilities::codec_bit(codec)),
            dictionaries: self.config.dictionaries.iter().map(|one| *one.hash()).collect(),
            links_max: t.streams.max,
            frame_bytes_max: t.frame_bytes_max,
            connection_window: t.connection_window_bytes,
            stream_window: STREAM_WINDOW.min(t.connection_window_bytes),
            message_window: MESSAGE_WINDOW,
            streams_max: t.streams_open_max,
            payload_crc: true,
            resume_timeout_ms: t.resume_timeout.as_millis().min(u32::MAX.into()) as u32,
        }
    }

    pub(crate) async fn server_socket(
        &self,
        tcp: TcpStream,
    ) -> Result<(LinkSocket, Vec<String>), security::HandshakeError> {
        match self.tls() {
            Some(tls) => LinkSocket::accept_tls(tcp, &tls).await,
            None => Ok((LinkSocket::plain(tcp), Vec::new())),
        }
    }

    /// `rdma`: the HELLOs of both sides carry the data for it.
    pub(crate) fn new_connection(
        &self,
        role: Role,
        id: ConnectionId,
        peer_says: Capabilities,
        peer: PeerInfo,
        rdma: bool,
    ) -> Arc<Shared> {
        let t = &self.config.transport;
        let config = ConnectionConfig {
            role,
            local: self.capabilities(),
            peer: peer_says,
            keepalive_interval: t.keepalive_interval,
            idle_timeout: t.idle_timeout,
            resume_timeout: t.resume_timeout,
            // Of what goes over RDMA, only frames' own checksums tell that it is what was sent.
            links_authenticated: self.tls().is_some() && !rdma,
        };
        let coding = (self.compressor(&config.peer), Common::new(&self.config.dictionaries, &config.peer));
        let core = Core::new(config, Duration::ZERO);
        let span = connection_span(role, id, &peer);
        let shared =
            Shared::new(core, Instant::now(), peer, t.clone(), coding, span.clone(), Course::new(rdma));
        task::spawn(&shared, "timer", span.clone(), Arc::clone(&shared).run_timer());
        task::spawn(&shared, "closer", span, Arc::clone(&shared).run_closer());
        shared
    }

    fn compressor(&self, peer: &Capabilities) -> Option<Compressor> {
        if self.config.compression.algorithm == CompressionAlgorithm::None {
            return None;
        }
        let pool = self.compress_pool.get_or_init(|| match CompressPool::new() {
            Ok(pool) => Some(Arc::new(pool)),
            Err(error) => {
                tracing::warn!(%error, "no threads for compression: sending everything as it is");
                None
            }
        });
        Some(Compressor::new(self.config.compression, peer, pool.clone()?))
    }

    fn check_datagrams_at(&self, addr: SocketAddr) -> Result<(), BindError> {
        match self.tls().is_some() || self.config.allow_plaintext || addr.ip().is_loopback() {
            true => Ok(()),
            false => Err(BindError::PlaintextNotAllowed { addr }),
        }
    }

    fn add_datagrams(&self, socket: Arc<dyn DatagramSocket>) -> Result<(), BindError> {
        let addr = socket.local_addr();
        self.datagrams.add(socket).map_err(|source| BindError::Io { call: "epoll_ctl", addr, source })
    }

    /// Datagrams of a new connection begin, if both ends take them: `peer_port` is of the peer's HELLO on this first link.
    pub(crate) fn begin_datagrams(
        &self,
        shared: &Arc<Shared>,
        socket: &mut LinkSocket,
        (id, token): (ConnectionId, JoinToken),
        peer_port: u16,
    ) {
        let exporter = socket.take_exporter();
        if peer_port == 0 || self.datagrams.port() == 0 {
            return;
        }
        let keys = ConnectionKeys::new(shared.role, exporter.as_ref(), id, token);
        let peer = SocketAddr::new(shared.peer.addr.ip().to_canonical(), peer_port);
        let path_mtu = tcp_info::sample(socket.tcp()).ok().map(|info| info.path_mtu);
        self.datagrams.begin(shared, keys, peer, path_mtu);
    }

    /// Connections that have not ended, or of which somebody still has a handle.
    pub(crate) fn connection_count(&self) -> usize {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.values().filter(|known| known.shared.strong_count() > 0).count()
    }

    pub(crate) fn remember(&self, id: ConnectionId, token: JoinToken, shared: &Arc<Shared>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, known| known.shared.strong_count() > 0);
        connections.insert(id, Known { token, shared: Arc::downgrade(shared) });
    }

    /// Puts a link to work. `false`: the connection does not take it.
    pub(crate) fn attach(&self, shared: &Arc<Shared>, id: LinkId, mut socket: LinkSocket) -> bool {
        drop(socket.take_exporter()); // nobody needs that of a further link
        let rtt_min = socket_options::rtt_min(socket.tcp());
        let (is_first, chosen, payload_max) = {
            let mut state = shared.lock();
            let is_first = state.congestion_control.is_none();
            let first = CongestionControl::first(rtt_min);
            if is_first {
                let links = adapt::links_at_first(self.config.transport.streams, rtt_min.unwrap_or_default());
                state.links_wanted = links.into();
                state.congestion_control_decision = match (&self.config.transport.congestion_control, rtt_min)
                {
                    (Some(name), _) => format!("{name}: configured"),
                    (None, Some(rtt)) => format!("{} at first: round trip {rtt:.1?}", first.name()),
                    (None, None) => format!("{} at first", first.name()),
                };
                if shared.role == Role::Server {
                    state.core.want_links(links.into());
                }
            }
            (is_first, *state.congestion_control.get_or_insert(first), state.core.frame_bytes_max())
        };
        socket_options::configure(socket.tcp(), &self.config.transport, chosen);
        let reader =
            FrameReader::new(payload_max, self.frame_buffers.clone(), Arc::clone(&self.scratch_buffers));
        let zerocopy = ZeroCopy::new(self.config.transport.zerocopy, &socket);
        let link = Link::new(id, socket, reader, zerocopy);
        let added = shared.with(|state, now| {
            let added = state.core.link_added(now, id);
            if added {
                state.links.push(Arc::clone(&link));
                if link.socket.rdma().is_some() {
                    state.rely_on(id, shared.role, self.config.transport.streams.min);
                }
                shared
                    .reach
                    .send_if_modified(|reach| std::mem::replace(reach, Reach::Linked) != Reach::Linked);
                state.divide_pacing();
            }
            added
        });
        if !added {
            return false;
        }
        if is_first {
            // Its first sample, of this link, says how many more to make.
            task::spawn(shared, "monitor", shared.span.clone(), crate::monitor::run(Arc::clone(shared)));
        }
        let (writer_link, writer_shared) = (Arc::clone(&link), Arc::clone(shared));
        let span = tracing::info_span!(parent: &shared.span, "link", id = id.0);
        tracing::debug!(parent: &span, "link up");
        task::spawn(
            shared,
            "writer",
            span.clone(),
            async move { writer_link.run_writer(&writer_shared).await },
        );
        let reader_shared = Arc::clone(shared);
        task::spawn(shared, "reader", span, async move { link.run_reader(&reader_shared).await });
        true
    }
}
