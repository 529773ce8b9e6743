//! The client's side of links: opens as many as are wanted, several at a time, and replaces those that die.
//!
//! An attempt is one handshake and, if it fails, the rest after it. Attempts do not wait for each other: one that
//! hangs until the handshake timeout costs one link for that long and delays no other.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use dwcp_proto::{
    conn::LinkId,
    hello::{ConnectionId, Hello, JoinToken, MINOR_VERSION},
};
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep_until,
};
use tracing::Instrument;

use crate::{
    ConnectError,
    connect::{MadeLink, Spare},
    endpoint::EndpointCore,
    shared::Shared,
};

/// First and longest wait after a failed attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Attempts at a time.
pub(crate) const DIALS_MAX: usize = 16;

/// What an attempt needs to know.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Arc<EndpointCore>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) addr: SocketAddr,
    pub(crate) server_name: String,
    pub(crate) connection: ConnectionId,
    pub(crate) token: JoinToken,
}

/// The waits that failed attempts leave to those that follow them.
#[derive(Debug, Default)]
struct Backoffs(Vec<Duration>);

impl Backoffs {
    fn take(&mut self) -> Duration {
        self.0.pop().unwrap_or(BACKOFF_MIN)
    }

    /// `failed`: what the attempt that has ended waited, if it failed.
    fn attempt_ended(&mut self, failed: Option<Duration>) {
        match failed {
            Some(waited) => self.0.push((waited * 2).min(BACKOFF_MAX)),
            None => self.0.clear(), // the path works
        }
    }
}

impl Dialer {
    /// Opens links of the connection until it ends, the first of them on `spares`.
    pub(crate) async fn run(self, mut spares: VecDeque<Spare>) {
        let dialer = Arc::new(self);
        let mut attempts = JoinSet::new();
        let mut backoffs = Backoffs::default();
        let mut next_link = 1;
        while !dialer.shared.is_closed() {
            let rdma_due = dialer.shared.rdma_due();
            while attempts.len() < dialer.shared.links_missing().min(DIALS_MAX) {
                let attempt = Arc::clone(&dialer).attempt(next_link, backoffs.take(), spares.pop_front());
                attempts.spawn(attempt.in_current_span());
                next_link += 1;
            }
            spares.clear(); // the peer takes fewer
            // Not before there is a link: whatever is wrong with RDMA must not keep the connection waiting.
            let returns = rdma_due.filter(|_| attempts.is_empty() && dialer.shared.link_count() > 0);
            tokio::select! {
                () = dialer.shared.links_changed.notified() => {}
                () = sleep_until(dialer.shared.instant(returns.unwrap_or_default())), if returns.is_some() => {
                    attempts.spawn(Arc::clone(&dialer).return_to_rdma(next_link).in_current_span());
                    next_link += 1;
                }
                Some(ended) = attempts.join_next() => backoffs.attempt_ended(result(ended)),
            }
        }
    }

    /// Tries to make one link. If that fails, waits and says how long it has waited.
    async fn attempt(
        self: Arc<Self>,
        link: u32,
        backoff: Duration,
        spare: Option<Spare>,
    ) -> Option<Duration> {
        match self.make(link, spare, false).await {
            Ok(made) if made.names == self.shared.peer.names => {
                self.endpoint.attach(&self.shared, LinkId(link), made.socket);
                return None;
            }
            Ok(made) => {
                tracing::warn!(link, names = ?made.names, "another peer answers at this address: link not used");
            }
            Err(error) => {
                tracing::debug!(link, %error, "a link could not be made");
                if is_unknown_connection(&error) {
                    self.shared.peer_forgot();
                } else {
                    self.shared.dial_failed();
                }
            }
        }
        tokio::time::sleep(backoff).await;
        Some(backoff)
    }
}

impl Dialer {
    async fn make(&self, link: u32, spare: Option<Spare>, rdma: bool) -> Result<MadeLink, ConnectError> {
        let hello = Hello {
            minor: MINOR_VERSION,
            link,
            connection: self.connection,
            token: self.token,
            capabilities: self.endpoint.capabilities(),
            rdma: Vec::new(),
            datagram_port: 0,
        };
        self.endpoint.make_link(self.addr, &self.server_name, hello, spare, rdma).await
    }

    /// Tries to make a link over RDMA in the place of those over TCP. A link that came out as one of them is not kept.
    async fn return_to_rdma(self: Arc<Self>, link: u32) -> Option<Duration> {
        // Whatever becomes of it, the next attempt takes its time.
        self.shared.rdma_rests();
        match self.make(link, None, true).await {
            Ok(made) if made.names == self.shared.peer.names => {
                let is_rdma = made.socket.rdma().is_some();
                if self.endpoint.attach(&self.shared, LinkId(link), made.socket) && !is_rdma {
                    self.shared.with(|state, _| state.core.retire_link(LinkId(link)));
                }
            }
            Ok(_) => tracing::warn!(link, "another peer answers at this address: link not used"),
            Err(error) => tracing::debug!(link, %error, "a link over RDMA could not be made"),
        }
        None
    }
}

/// An attempt's panic is the dialer's.
fn result(ended: Result<Option<Duration>, JoinError>) -> Option<Duration> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => None, // cancelled: only the end of the dialer does that
    })
}

/// The peer no longer knows the connection: without links there is no hope left.
fn is_unknown_connection(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused { reason, .. }
        if reason.code == dwcp_proto::CloseCode::UNKNOWN_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_ends_with_a_success() {
        let mut backoffs = Backoffs::default();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let wait = backoffs.take();
                backoffs.attempt_ended(Some(wait));
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2000]);
        backoffs.attempt_ended(None);
        assert_eq!(backoffs.take(), BACKOFF_MIN);
    }

    #[test]
    fn attempts_at_the_same_time_have_waits_of_their_own() {
        let mut backoffs = Backoffs::default();
        let [first, second] = [backoffs.take(), backoffs.take()];
        assert_eq!([first, second], [BACKOFF_MIN; 2]);
        backoffs.attempt_ended(Some(first));
        assert_eq!([backoffs.take(), backoffs.take()], [2 * BACKOFF_MIN, BACKOFF_MIN]);
    }
}
