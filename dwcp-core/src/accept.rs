//! The accepting side: handshakes in bounded number, new connections, and links that join.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use dwcp_proto::{
    CloseCode, ProtocolError,
    conn::{LinkId, Role},
    hello::{ConnectionId, Hello, JoinToken, MINOR_VERSION},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    task::AbortHandle,
};
use tracing::Instrument;

use crate::{
    Connection, PeerInfo,
    endpoint::EndpointCore,
    handshake::{self, HandshakeError},
    rdma,
    security::LinkSocket,
};

/// Connections that may wait for `accept`.
pub(crate) const CONNECTIONS_WAITING_MAX: usize = 128;
/// Handshakes at a time; the oldest gives way to a new one.
const HANDSHAKES_MAX: usize = 1024;
/// Connections of one endpoint.
const CONNECTIONS_MAX: usize = 4096;
/// How long to rest when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often an endpoint that was dropped looks whether its connections have ended, too.
const UNUSED_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts links for an endpoint.
#[derive(Debug)]
pub(crate) struct Acceptor {
    endpoint: Arc<EndpointCore>,
    connections: mpsc::Sender<Connection>,
    handshakes: Mutex<VecDeque<AbortHandle>>,
}

impl Acceptor {
    pub(crate) fn new(endpoint: Arc<EndpointCore>, connections: mpsc::Sender<Connection>) -> Arc<Self> {
        Arc::new(Self { endpoint, connections, handshakes: Mutex::default() })
    }

    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, stop: Arc<Notify>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.notified() => return,
                () = self.unused() => return,
            };
            match accepted {
                Ok((tcp, addr)) => self.start_handshake(tcp, addr),
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Nobody takes new connections any more, and none is left that links may join.
    async fn unused(&self) {
        self.connections.closed().await;
        while self.endpoint.connection_count() > 0 {
            tokio::time::sleep(UNUSED_INTERVAL).await;
        }
    }

    fn start_handshake(self: &Arc<Self>, tcp: TcpStream, addr: SocketAddr) {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.retain(|handshake| !handshake.is_finished());
        if handshakes.len() >= HANDSHAKES_MAX
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
            tracing::warn!(limit = HANDSHAKES_MAX, "too many handshakes at a time: gave up the oldest");
        }
        let acceptor = Arc::clone(self);
        let timeout = self.endpoint.config.transport.handshake_timeout;
        let handshake = async move {
            if tokio::time::timeout(timeout, acceptor.handshake(tcp, addr)).await.is_err() {
                tracing::debug!(?timeout, "handshake timed out");
            }
        };
        let span = tracing::info_span!("handshake", role = "server", %addr);
        let handshake = tokio::spawn(handshake.instrument(span));
        handshakes.push_back(handshake.abort_handle());
    }

    async fn handshake(&self, tcp: TcpStream, addr: SocketAddr) {
        let (socket, names) = match self.endpoint.server_socket(tcp).await {
            Ok(made) => made,
            Err(error) => return tracing::warn!(%error, "TLS handshake failed"),
        };
        let hello = match handshake::receive_hello(&socket).await {
            Ok(hello) => hello,
            Err(HandshakeError::Protocol(error)) => {
                tracing::warn!(%error, "the handshake broke the protocol");
                // A peer that speaks something else entirely gets no bytes that it cannot understand.
                if !matches!(error, ProtocolError::BadMagic(_)) {
                    handshake::refuse(&socket, error.close_code(), &error.to_string()).await;
                }
                return;
            }
            Err(error) => return tracing::debug!(%error, "the handshake failed"),
        };
        if self.endpoint.shutting_down.load(Ordering::Acquire) {
            return handshake::refuse(&socket, CloseCode::SHUTTING_DOWN, "").await;
        }
        if hello.connection == ConnectionId::default() {
            self.open(socket, names, hello, addr).await;
        } else {
            self.join(socket, names, hello, addr).await;
        }
    }

    async fn open(&self, mut socket: LinkSocket, names: Vec<String>, hello: Hello, addr: SocketAddr) {
        let permit = match self.connections.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => {
                return handshake::refuse(&socket, CloseCode::BUSY, "too many connections wait").await;
            }
            Err(TrySendError::Closed(())) => {
                return handshake::refuse(&socket, CloseCode::SHUTTING_DOWN, "").await;
            }
        };
        let (mut id, mut token) = ([0; 16], [0; 16]);
        if getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut token)).is_err() || id == [0; 16] {
            return handshake::refuse(&socket, CloseCode::INTERNAL, "no randomness").await;
        }
        let rdma = match self.endpoint.connection_count() < CONNECTIONS_MAX {
            true => self.answer_rdma(&socket, &hello, addr).await,
            false => None, // it is about to be refused
        };
        let answer = Hello {
            minor: MINOR_VERSION,
            link: hello.link,
            connection: ConnectionId(id),
            token: JoinToken(token),
            capabilities: self.endpoint.capabilities(),
            rdma: rdma.as_ref().map(|answer| answer.data()).unwrap_or_default(),
            datagram_port: self.endpoint.datagrams.port(),
        };
        let says = hello.capabilities;
        let peer = PeerInfo {
            node_id: says.node_id.clone(),
            region: Some(says.region.clone()).filter(|region| !region.is_empty()),
            names,
            addr,
        };
        if self.endpoint.connection_count() >= CONNECTIONS_MAX {
            return handshake::refuse(&socket, CloseCode::BUSY, "too many connections").await;
        }
        let shared =
            self.endpoint.new_connection(Role::Server, answer.connection, says, peer, rdma.is_some());
        // Whoever gives this handshake up closes the connection with it.
        let connection = Connection::new(Arc::clone(&shared));
        self.endpoint.remember(answer.connection, answer.token, &shared);
        // Before the answer is on its way: the client's first datagram follows it at once.
        let names = (answer.connection, answer.token);
        self.endpoint.begin_datagrams(&shared, &mut socket, names, hello.datagram_port);
        // The answer must be first on the wire: only then may the link carry frames.
        if let Err(error) = answer_hello(&mut socket, &answer, rdma).await {
            return tracing::debug!(%error, "the handshake failed");
        }
        self.endpoint.attach(&shared, LinkId(hello.link), socket);
        permit.send(connection);
    }

    async fn join(&self, mut socket: LinkSocket, names: Vec<String>, hello: Hello, addr: SocketAddr) {
        let shared = {
            let known = self.endpoint.connections.lock().unwrap_or_else(PoisonError::into_inner);
            let found = known.get(&hello.connection).filter(|known| known.token.matches(&hello.token));
            found.and_then(|known| known.shared.upgrade())
        };
        // With TLS the link must also come from the same node.
        let Some(shared) = shared.filter(|shared| shared.peer.names == names && !shared.is_closed()) else {
            return handshake::refuse(&socket, CloseCode::UNKNOWN_CONNECTION, "").await;
        };
        // Our own bound only: a client that has lost all of its few links may be back before we have noticed.
        let limit = self.endpoint.config.transport.streams.max;
        if shared.link_count() >= usize::from(limit) {
            return handshake::refuse(&socket, CloseCode::BUSY, "too many links").await;
        }
        let rdma = match shared.takes_rdma() {
            true => self.answer_rdma(&socket, &hello, addr).await,
            false => None,
        };
        let answer = Hello {
            minor: MINOR_VERSION,
            link: hello.link,
            connection: hello.connection,
            token: JoinToken::default(),
            capabilities: self.endpoint.capabilities(),
            rdma: rdma.as_ref().map(|answer| answer.data()).unwrap_or_default(),
            datagram_port: 0,
        };
        match answer_hello(&mut socket, &answer, rdma).await {
            Ok(()) => {
                self.endpoint.attach(&shared, LinkId(hello.link), socket);
            }
            Err(error) => tracing::debug!(%error, "the handshake failed"),
        }
    }

    /// The answer to the client's offer of RDMA, if it made one and its wire is trusted.
    async fn answer_rdma(
        &self,
        socket: &LinkSocket,
        hello: &Hello,
        addr: SocketAddr,
    ) -> Option<rdma::Answer> {
        let transport = &self.endpoint.config.transport;
        match !hello.rdma.is_empty() && transport.trusts_wire_to(addr.ip()) {
            true => rdma::answer(socket.tcp(), &hello.rdma, &transport.rdma_zones).await,
            false => None,
        }
    }
}

/// Sends the server's HELLO and, where it offers RDMA, hears what the client makes of that.
async fn answer_hello(
    socket: &mut LinkSocket,
    answer: &Hello,
    rdma: Option<rdma::Answer>,
) -> Result<(), HandshakeError> {
    handshake::send_hello(socket, answer).await?;
    rdma::conclude(socket, rdma).await
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::EndpointConfig;

    const DEADLINE: Duration = Duration::from_secs(60);
    /// After which a socket that takes nothing is full: what its peer's kernel takes it has taken by then.
    const FULL_AFTER: Duration = Duration::from_secs(1);

    async fn until_connections(endpoint: &EndpointCore, count: usize) {
        let waiting = async {
            while endpoint.connection_count() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, waiting).await;
        assert!(in_time.is_ok(), "{} connections", endpoint.connection_count());
    }

    // As it waits here for a peer that does not read, it waits elsewhere for one that does not decide about RDMA.
    #[tokio::test]
    async fn a_handshake_that_is_given_up_leaves_no_connection() {
        let endpoint = EndpointCore::new(EndpointConfig::new("server"));
        let (connections, mut accepted) = mpsc::channel(1);
        let acceptor = Acceptor::new(Arc::clone(&endpoint), connections);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, addr) = listener.accept().await.unwrap();
        while let Ok(writable) = tokio::time::timeout(FULL_AFTER, server.writable()).await {
            writable.unwrap();
            match server.try_write(&[0; 1 << 16]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => assert!(result.unwrap() > 0),
            }
        }
        let hello = Hello {
            minor: MINOR_VERSION,
            link: 0,
            connection: ConnectionId::default(),
            token: JoinToken::default(),
            capabilities: endpoint.capabilities(),
            rdma: Vec::new(),
            datagram_port: 0,
        };
        let client = LinkSocket::plain(client);
        handshake::send_hello(&client, &hello).await.unwrap();
        acceptor.start_handshake(server, addr);
        until_connections(&endpoint, 1).await;
        assert!(accepted.try_recv().is_err(), "the handshake is not over");
        acceptor.handshakes.lock().unwrap().drain(..).for_each(|handshake| handshake.abort());
        until_connections(&endpoint, 0).await;
    }
}
