//! The client's side of links: opens as many as are wanted, and replaces those that die.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dwcp_proto::{
    conn::LinkId,
    hello::{ConnectionId, Hello, JoinToken, MINOR_VERSION},
};

use crate::{ConnectError, endpoint::EndpointCore, shared::Shared};

/// First and longest wait after a failed attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Opens links of one connection until it ends.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Arc<EndpointCore>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) addr: SocketAddr,
    pub(crate) server_name: String,
    pub(crate) connection: ConnectionId,
    pub(crate) token: JoinToken,
}

impl Dialer {
    pub(crate) async fn run(self) {
        let mut next_link = 1;
        let mut backoff = BACKOFF_MIN;
        while !self.shared.is_closed() {
            if self.shared.link_count() >= self.shared.links_wanted() {
                self.shared.links_changed.notified().await;
                continue;
            }
            let hello = Hello {
                minor: MINOR_VERSION,
                link: next_link,
                connection: self.connection,
                token: self.token,
                capabilities: self.endpoint.capabilities(),
            };
            next_link += 1;
            match self.endpoint.make_link(self.addr, &self.server_name, &hello).await {
                Ok(made) if made.names == self.shared.peer.names => {
                    self.endpoint.attach(&self.shared, LinkId(hello.link), made.socket);
                    backoff = BACKOFF_MIN;
                }
                Ok(made) => {
                    tracing::warn!(names = ?made.names, "another peer answers at this address: link not used");
                    self.rest(&mut backoff).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "a link could not be made");
                    if self.is_final(&error) {
                        return;
                    }
                    self.rest(&mut backoff).await;
                }
            }
        }
    }

    /// The peer no longer knows the connection: without links there is no hope left.
    fn is_final(&self, error: &ConnectError) -> bool {
        let ConnectError::Refused { reason, .. } = error else { return false };
        if reason.code != dwcp_proto::CloseCode::UNKNOWN_CONNECTION {
            return false;
        }
        self.shared.peer_forgot();
        self.shared.is_closed()
    }

    async fn rest(&self, backoff: &mut Duration) {
        tokio::select! {
            () = tokio::time::sleep(*backoff) => {}
            () = self.shared.closed.notified() => {}
        }
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
    }
}
