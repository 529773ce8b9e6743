//! The client's side of making a link: TCP, TLS, HELLO.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use dwcp_proto::{ProtocolError, hello::Hello};
use tokio::{net::TcpStream, task::JoinHandle};
use tracing::Instrument;

use crate::{
    ConnectError, adapt,
    dialer::DIALS_MAX,
    endpoint::EndpointCore,
    handshake::{self, HandshakeError},
    rdma::Offer,
    security::{self, LinkSocket, RecordError},
    socket_options,
};

/// A link after its handshake.
pub(crate) struct MadeLink {
    pub(crate) socket: LinkSocket,
    pub(crate) hello: Hello,
    pub(crate) names: Vec<String>,
}

/// A socket on which nobody has said HELLO.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    socket: LinkSocket,
    names: Vec<String>,
}

/// A socket that is being opened; given up when dropped.
#[derive(Debug)]
pub(crate) struct Spare(JoinHandle<Result<OpenSocket, ConnectError>>);

impl Spare {
    async fn opened(mut self, addr: SocketAddr) -> Result<OpenSocket, ConnectError> {
        let stopped =
            || ConnectError::Io { call: "connect", addr, source: io::ErrorKind::Interrupted.into() };
        (&mut self.0).await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(stopped()), // the runtime ends
        })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl EndpointCore {
    /// Makes the first link of a connection. On a long path, sockets for further links are opened meanwhile: the
    /// connection's id, with which they join it, is known a round trip later only.
    pub(crate) async fn make_first_link(
        self: &Arc<Self>,
        addr: SocketAddr,
        server_name: &str,
        hello: Hello,
    ) -> Result<(MadeLink, VecDeque<Spare>), ConnectError> {
        let making = async {
            let opened = self.open_socket(addr, server_name).await?;
            let rtt_min = socket_options::rtt_min(opened.socket.tcp()).unwrap_or_default();
            let links = adapt::links_at_first(self.config.transport.streams, rtt_min);
            let spares = (1..links).take(DIALS_MAX).map(|_| self.open_spare(addr, server_name)).collect();
            Ok((self.introduce(addr, opened, hello, true).await?, spares))
        };
        self.in_time(addr, 0, making).await
    }

    /// Makes a further link, on `spare` if there is one; over RDMA, if `rdma` and both sides can.
    pub(crate) async fn make_link(
        &self,
        addr: SocketAddr,
        server_name: &str,
        hello: Hello,
        spare: Option<Spare>,
        rdma: bool,
    ) -> Result<MadeLink, ConnectError> {
        let link = hello.link;
        let making = async {
            let opened = match spare {
                Some(spare) => spare.opened(addr).await?,
                None => self.open_socket(addr, server_name).await?,
            };
            self.introduce(addr, opened, hello, rdma).await
        };
        self.in_time(addr, link, making).await
    }

    async fn in_time<T>(
        &self,
        addr: SocketAddr,
        link: u32,
        making: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let timeout = self.config.transport.handshake_timeout;
        let making = making.instrument(tracing::info_span!("handshake", role = "client", %addr, link));
        tokio::time::timeout(timeout, making).await.unwrap_or(Err(ConnectError::TimedOut { addr, timeout }))
    }

    fn open_spare(self: &Arc<Self>, addr: SocketAddr, server_name: &str) -> Spare {
        let (core, server_name) = (Arc::clone(self), server_name.to_owned());
        let opening = async move {
            let timeout = core.config.transport.handshake_timeout;
            let opened = tokio::time::timeout(timeout, core.open_socket(addr, &server_name)).await;
            opened.unwrap_or(Err(ConnectError::TimedOut { addr, timeout }))
        };
        Spare(tokio::spawn(opening.in_current_span()))
    }

    /// Connects, and does the TLS handshake if configured.
    async fn open_socket(&self, addr: SocketAddr, server_name: &str) -> Result<OpenSocket, ConnectError> {
        let io = |call| move |source| ConnectError::Io { call, addr, source };
        let tcp = TcpStream::connect(addr).await.map_err(io("connect"))?;
        let Some(tls) = self.tls() else {
            return Ok(OpenSocket { socket: LinkSocket::plain(tcp), names: Vec::new() });
        };
        let connected = LinkSocket::connect_tls(tcp, server_name, &tls).await;
        let (socket, names) = connected.map_err(|source| ConnectError::Tls { addr, source })?;
        Ok(OpenSocket { socket, names })
    }

    /// Exchanges HELLOs, and goes over to RDMA if `rdma` is wanted and both sides can.
    async fn introduce(
        &self,
        addr: SocketAddr,
        opened: OpenSocket,
        mut hello: Hello,
        rdma: bool,
    ) -> Result<MadeLink, ConnectError> {
        let OpenSocket { mut socket, names } = opened;
        let offer = match rdma && self.config.transport.trusts_wire_to(addr.ip()) {
            true => Offer::make(socket.tcp()).await,
            false => None,
        };
        hello.rdma = offer.as_ref().map(Offer::data).unwrap_or_default();
        let sent = handshake::send_hello(&socket, &hello).await;
        // A peer that refused before our HELLO came may have closed; why is to be read all the same.
        let mut answer = match handshake::receive_hello(&socket).await {
            Ok(answer) => answer,
            Err(error) => return Err(connect_error(addr, sent.err(), error)),
        };
        match offer {
            Some(offer) => {
                let decided =
                    offer.decide(&mut socket, answer.rdma.clone(), &self.config.transport.rdma_zones).await;
                decided.map_err(|source| ConnectError::Io { call: "write", addr, source })?;
            }
            None => answer.rdma.clear(), // nobody has asked for it
        }
        Ok(MadeLink { socket, hello: answer, names })
    }
}

/// Why a handshake failed whose HELLO was sent, or failed to be sent with `write`.
fn connect_error(addr: SocketAddr, write: Option<io::Error>, read: HandshakeError) -> ConnectError {
    /// First byte of a TLS alert record.
    const TLS_ALERT: u8 = 21;
    match read {
        HandshakeError::Refused(reason) => ConnectError::Refused { addr, reason },
        HandshakeError::Protocol(ProtocolError::BadMagic(TLS_ALERT)) => ConnectError::PeerSpeaksTls { addr },
        HandshakeError::Protocol(source) => ConnectError::Protocol { addr, source },
        HandshakeError::Io(source) => {
            // In TLS 1.3 the client's certificate is judged after the client has finished (RFC 8446 section 4.4.2.4).
            if let Some(RecordError::Alert(alert)) = source.get_ref().and_then(|inner| inner.downcast_ref()) {
                return ConnectError::Tls { addr, source: security::HandshakeError::Refused(*alert) };
            }
            match write {
                Some(source) => ConnectError::Io { call: "write", addr, source },
                None => ConnectError::Io { call: "read", addr, source },
            }
        }
    }
}
