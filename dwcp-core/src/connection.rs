//! A connection to one peer.

use std::sync::Arc;

use dwcp_proto::{CloseCode, conn::OpenError};
use tokio::sync::watch;

use crate::{
    ConnectionError, ConnectionStats, Datagrams, Messages, PathStats, Reach, RecvStream, SendStream,
    shared::Shared, stream::stream_pair,
};

/// A connection of 1..N links. Cheap to clone; closed when the last clone and all of its streams are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// Closes the connection when the last one who uses it is gone.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state, _| state.core.close(CloseCode::NONE, ""));
    }
}

/// Who the peer is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// What the peer calls itself. Without TLS nothing proves it.
    pub node_id: String,
    /// The peer's region, if it has one.
    pub region: Option<String>,
    /// Subject alternative names of its certificate; empty without TLS.
    pub names: Vec<String>,
    /// Address of the first link.
    pub addr: std::net::SocketAddr,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Opens a bidirectional stream; waits while the peer's limit of open streams is reached.
    pub async fn open_stream(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let shared = self.shared();
        loop {
            let mut available = std::pin::pin!(shared.streams_available.notified());
            available.as_mut().enable();
            let opened = shared.with(|state, _| match state.core.open_stream() {
                Ok(id) => Ok(Some(stream_pair(&self.handle, state, id))),
                Err(OpenError::Blocked) => Ok(None),
                Err(OpenError::Draining) => Err(ConnectionError::Draining),
                Err(OpenError::Closed) => Err(shared.error(state)),
            })?;
            match opened {
                Some(pair) => return Ok(pair),
                None => available.await,
            }
        }
    }

    /// The next stream that the peer opens. Cancellation-safe.
    pub async fn accept_stream(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let shared = self.shared();
        loop {
            let mut incoming = std::pin::pin!(shared.incoming.notified());
            incoming.as_mut().enable();
            let accepted = shared.with(|state, _| match state.core.accept_stream() {
                Some(id) => Ok(Some(stream_pair(&self.handle, state, id))),
                None if state.core.closed().is_some() => Err(shared.error(state)),
                None => Ok(None),
            });
            match accepted {
                Ok(Some(pair)) => {
                    shared.incoming.notify_one(); // there may be more, for another who waits
                    return Ok(pair);
                }
                Ok(None) => incoming.await,
                Err(error) => {
                    shared.incoming.notify_one();
                    return Err(error);
                }
            }
        }
    }

    /// Messages beside the streams.
    pub fn messages(&self) -> Messages {
        Messages::new(Arc::clone(&self.handle))
    }

    /// Datagrams beside the streams; `None`: one of both ends takes none.
    pub fn datagrams(&self) -> Option<Datagrams> {
        let channel = self.shared().datagrams.get()?;
        Some(Datagrams::new(Arc::clone(&self.handle), Arc::clone(channel)))
    }

    /// What datagrams tell of the path; `None`: the connection has none, or has ended.
    pub fn path(&self) -> Option<PathStats> {
        self.shared().datagrams.get()?.stats()
    }

    /// Looks anew for what the path carries, up to IP packets of this many bytes: for whoever has changed the MTU of an
    /// interface. At the beginning that is what the kernel says of the path, which it need not say of packets of probes.
    pub fn search_path_mtu(&self, packet_bytes_max: u32) {
        if let Some(channel) = self.shared().datagrams.get() {
            channel.search(packet_bytes_max);
        }
    }

    /// Who the peer is.
    pub fn peer(&self) -> &PeerInfo {
        &self.shared().peer
    }

    /// What was measured so far.
    pub fn stats(&self) -> ConnectionStats {
        self.shared().stats()
    }

    /// Closes at once; what is not acknowledged is lost. `code` is the application's (0: no error), `text` is cut
    /// at 256 bytes.
    pub fn close(&self, code: u32, text: &str) {
        let code =
            if code == 0 { CloseCode::NONE } else { CloseCode(code.saturating_add(CloseCode::APPLICATION)) };
        self.shared().with(|state, _| state.core.close(code, text));
    }

    /// Opens no more streams, waits until all that exist are finished and acknowledged, then closes. What the peer
    /// sends meanwhile still has to be read.
    pub async fn drain(&self) -> Result<(), ConnectionError> {
        self.shared().with(|state, _| state.core.drain());
        match self.closed().await {
            ConnectionError::ClosedLocally => Ok(()),
            ConnectionError::ClosedByPeer(reason) if reason.code == CloseCode::NONE => Ok(()),
            error => Err(error),
        }
    }

    /// Takes a link out of service, for tests; the last one stays. The client replaces it.
    #[doc(hidden)]
    pub fn retire_link(&self, id: u32) {
        self.shared().retire_link(id);
    }

    /// Breaks the queue pairs of links over RDMA, for tests. Returns how many there were.
    #[doc(hidden)]
    pub fn break_rdma(&self) -> usize {
        let links = self.shared().lock().links.clone();
        links.iter().filter_map(|link| link.socket.rdma()).inspect(|rdma| rdma.abort()).count()
    }

    /// Whether the peer is within reach, for whoever waits for a change. Does not keep the connection open.
    pub fn watch_reach(&self) -> watch::Receiver<Reach> {
        self.shared().reach.subscribe()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> ConnectionError {
        self.shared().wait_closed().await;
        let state = self.shared().lock();
        self.shared().error(&state)
    }
}
