//! A transfer that this node sends: attempts until one comes to its end.

use std::{sync::Arc, time::Duration};

use dwcp_core::{CloseCode, Connection, ConnectionError};
use dwcp_transfer::{RelPath, Sender, SenderConfig, Summary, TransferError};
use novacron_control::schema::NewTransfer;
use tokio::sync::watch;

use super::{CANCELLED, DRAIN_TIMEOUT, Origin, Slot, TransferRefused};
use crate::hub::Hub;

/// How often a transfer is begun again that lost its connection, and the rests between.
const ATTEMPTS_MAX: u32 = 8;
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// How [`CANCELLED`] reads at the other end.
const CANCELLED_CODE: CloseCode = CloseCode(CloseCode::APPLICATION + CANCELLED);

/// What is sent, and to whom.
pub(super) struct Sending {
    node_id: String,
    pub(super) peer: String,
    pub(super) from: Origin,
    pub(super) to: RelPath,
    checksum: bool,
}

/// Why an attempt has not come to its end.
#[derive(Debug, thiserror::Error)]
enum Attempt {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Cancelled(String),
    #[error(transparent)]
    Transfer(TransferError),
}

impl Attempt {
    /// Another attempt may get further.
    fn is_for_now(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Cancelled(_) => false,
            Self::Transfer(error) => matches!(error, TransferError::Stream { .. }),
        }
    }
}

impl Sending {
    pub(super) fn of(hub: &Hub, new: NewTransfer, from: Origin) -> Result<Self, TransferRefused> {
        let bad = |what: String| TransferRefused::Bad { what };
        let to = match (&new.to, from.name()) {
            (Some(to), _) => RelPath::new(to.as_bytes()),
            (None, Some(name)) => RelPath::new(name),
            (None, None) => return Err(bad(format!("{:?} has no name of its own: give one", new.from))),
        };
        let to = to.map_err(|error| bad(format!("{error}: it names something below the peer's folder")))?;
        let node_id = hub.greeting.borrow().node_id.clone();
        Ok(Self { node_id, peer: new.peer, from, to, checksum: new.checksum })
    }

    pub(super) fn sender(&self) -> Result<Sender, TransferError> {
        let mut config = SenderConfig::new(vec![self.from.source(self.to.clone())]);
        config.checksum = self.checksum;
        config.sender = self.node_id.clone();
        Sender::new(config)
    }

    /// Why what cannot be sent is refused.
    pub(super) fn refused(error: TransferError) -> TransferRefused {
        match error {
            TransferError::NotBeneath { path } => {
                TransferRefused::NotBelow { from: path.display().to_string() }
            }
            error => error.into(),
        }
    }

    /// Sends, and again when the connection is lost: what has arrived is kept.
    pub(super) async fn run(self, hub: Arc<Hub>, slot: Slot, mut cancelled: watch::Receiver<bool>) {
        let mut rest = REST_MIN;
        for attempt in 1.. {
            let error = match self.attempt(&hub, &slot, attempt).await {
                Ok(summary) => return slot.end(Ok(summary)),
                Err(error) => error,
            };
            if !error.is_for_now() || attempt == ATTEMPTS_MAX || *cancelled.borrow() {
                return slot.fail(error.to_string());
            }
            slot.with(|known| known.error = Some(error.to_string()));
            let _ = tokio::time::timeout(rest, cancelled.wait_for(|cancelled| *cancelled)).await;
            rest = (rest * 2).min(REST_MAX);
        }
    }

    async fn attempt(&self, hub: &Hub, slot: &Slot, attempt: u32) -> Result<Summary, Attempt> {
        let sender = self.sender().map_err(Attempt::Transfer)?;
        let is_cancelled = slot.with(|known| {
            known.attempts = attempt;
            known.progress = sender.progress();
            known.stopper = Some(sender.stopper());
            *known.cancelled.borrow()
        });
        if is_cancelled {
            return Err(Attempt::Cancelled("cancelled".to_owned()));
        }
        let connection = self.connect(hub).await.map_err(Attempt::Unreachable)?;
        let ended = sender.run(&connection).await;
        match (ended, tokio::time::timeout(DRAIN_TIMEOUT, connection.drain()).await) {
            (Err(_), Ok(Err(ConnectionError::ClosedByPeer(reason)))) if reason.code == CANCELLED_CODE => {
                Err(Attempt::Cancelled(format!("{}: {}", self.peer, reason.text)))
            }
            (ended, drained) => {
                if drained.is_err() {
                    connection.close(0, "transfer ended");
                }
                ended.map_err(Attempt::Transfer)
            }
        }
    }

    /// Another connection to the peer: where this agent has found it, or else where it came from.
    async fn connect(&self, hub: &Hub) -> Result<Connection, String> {
        let (standing, greeting) =
            hub.peer(&self.peer).ok_or_else(|| format!("{} is not connected", self.peer))?;
        let connection = match hub.target_of(&self.peer) {
            Some(target) => novacron_control::connect(&hub.endpoint, &target).await?,
            None => {
                let peer = standing.peer();
                let mut address = peer.addr;
                address.set_port(greeting.port);
                // A name that can be asked for: no URI, no pattern.
                let name = peer.names.iter().find(|name| !name.contains(['*', '/']));
                let name = name.cloned().unwrap_or_else(|| peer.addr.ip().to_string());
                hub.endpoint.connect(address, &name).await.map_err(|error| error.to_string())?
            }
        };
        let found = &connection.peer().node_id;
        if *found != self.peer {
            let why = format!("{found} is now where {} was", self.peer);
            connection.close(0, "another node is meant");
            return Err(why);
        }
        Ok(connection)
    }
}
