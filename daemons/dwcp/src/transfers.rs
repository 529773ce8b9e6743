//! Transfers from and to this node: a connection each, so that one does not wait for another.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dwcp_core::{Connection, RecvStream, SendStream};
use dwcp_transfer::{
    Destination, ProgressSource, Receiver, ReceiverConfig, RelPath, Sender, SenderConfig, Source, Stopper,
    Summary, TransferError, Transport,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    hub::Hub,
    schema::{Direction, NewTransfer, Transfer, TransferState},
};

/// Transfers that run at a time, of either direction; more are refused.
const RUNNING_MAX: usize = 64;
/// Transfers that have ended and are still told of.
const ENDED_KEPT_MAX: usize = 256;
/// How often a transfer is begun again that lost its connection, and the rests between.
const ATTEMPTS_MAX: u32 = 8;
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// For the peer to take note of the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The transfers of one agent.
pub(crate) struct Transfers {
    receiver: Option<Receiver>,
    state: Mutex<State>,
    /// How many run.
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<u64, Known>,
    next_id: u64,
    draining: bool,
}

struct Known {
    direction: Direction,
    peer: String,
    from: Option<PathBuf>,
    to: Option<String>,
    state: TransferState,
    error: Option<String>,
    attempts: u32,
    progress: ProgressSource,
    began: Instant,
    ended: Option<Instant>,
    /// Ends the attempt under way.
    stopper: Option<Stopper>,
    /// Ends a rest between attempts.
    cancelled: watch::Sender<bool>,
}

/// Why a transfer was not begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TransferRefused {
    /// Nobody of that name is connected.
    #[error("no peer {peer:?} is connected")]
    Peer {
        /// The name.
        peer: String,
    },
    /// It takes none.
    #[error("{peer} takes no transfers: transfers.into is not set there")]
    NotTaken {
        /// The peer.
        peer: String,
    },
    /// The request makes no sense.
    #[error("{what}")]
    Bad {
        /// Why.
        what: String,
    },
    /// This agent is about to end.
    #[error("this node is draining")]
    Draining,
    /// Too many run.
    #[error("{RUNNING_MAX} transfers are running, which is as many as there can be")]
    TooMany,
    /// What is to be sent cannot be.
    #[error(transparent)]
    Source(#[from] TransferError),
}

impl Transfers {
    /// `into`: where transfers are received; empty: none are.
    pub(crate) fn new(into: &Path) -> Result<Self, TransferError> {
        let receiver = match into.as_os_str().is_empty() {
            true => None,
            false => Some(Receiver::open(ReceiverConfig::new(Destination::Folder(into.to_owned())))?),
        };
        Ok(Self { receiver, state: Mutex::default(), running: watch::Sender::new(0) })
    }

    pub(crate) fn are_taken(&self) -> bool {
        self.receiver.is_some()
    }

    pub(crate) fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Begins nothing more; returns when what is under way has ended.
    pub(crate) async fn drain(&self) {
        self.lock().draining = true;
        // The sender is in `self`.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, known: Known) -> Result<u64, TransferRefused> {
        let mut state = self.lock();
        if state.draining {
            return Err(TransferRefused::Draining);
        }
        if self.running() >= RUNNING_MAX {
            return Err(TransferRefused::TooMany);
        }
        while state.known.len() >= RUNNING_MAX + ENDED_KEPT_MAX {
            let ended = state.known.iter().filter_map(|(id, known)| Some((known.ended?, *id)));
            let Some((_, id)) = ended.min() else {
                break;
            };
            state.known.remove(&id);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.known.insert(id, known);
        self.running.send_modify(|running| *running += 1);
        Ok(id)
    }

    fn end(&self, id: u64, how: TransferState, error: Option<String>) {
        if let Some(known) = self.lock().known.get_mut(&id) {
            let how = if *known.cancelled.borrow() && how != TransferState::Done {
                TransferState::Cancelled
            } else {
                how
            };
            tracing::info!(id, peer = known.peer, ?how, error, "transfer ended");
            known.state = how;
            known.error = error;
            known.ended = Some(Instant::now());
            known.stopper = None;
        }
        self.running.send_modify(|running| *running -= 1);
    }

    /// Receives what a peer sends over a connection of its own, whose first stream it has opened.
    pub(crate) async fn receive(&self, connection: Connection, first: (SendStream, RecvStream)) {
        let peer = connection.peer();
        // Certificates prove names; without them the node's name is only a courtesy, and plaintext is for trusted places.
        let name = peer.names.first().unwrap_or(&peer.node_id).clone();
        let Some(receiver) = &self.receiver else {
            return connection.close(0, "this node takes no transfers: transfers.into is not set");
        };
        let progress = ProgressSource::default();
        let known = Known::new(Direction::Receive, peer.node_id.clone(), progress.clone());
        let id = match self.begin(known) {
            Ok(id) => id,
            Err(refused) => return connection.close(0, &refused.to_string()),
        };
        let begun = Begun { connection: connection.clone(), first: Arc::new(Mutex::new(Some(first))) };
        let ended = receiver.serve(&begun, &name, &progress).await;
        drop(begun);
        if tokio::time::timeout(DRAIN_TIMEOUT, connection.drain()).await.is_err() {
            connection.close(0, "transfer ended");
        }
        self.ended(id, ended);
    }

    fn ended(&self, id: u64, ended: Result<Summary, TransferError>) {
        match ended {
            Ok(summary) => match why_incomplete(&summary) {
                None => self.end(id, TransferState::Done, None),
                Some(why) => self.end(id, TransferState::Failed, Some(why)),
            },
            Err(error) => self.end(id, TransferState::Failed, Some(error.to_string())),
        }
    }

    /// Begins to send something to a peer; returns the transfer's id.
    pub(crate) fn send(self: &Arc<Self>, hub: &Arc<Hub>, new: NewTransfer) -> Result<u64, TransferRefused> {
        let (_, greeting) =
            hub.peer(&new.peer).ok_or_else(|| TransferRefused::Peer { peer: new.peer.clone() })?;
        if !greeting.takes_transfers {
            return Err(TransferRefused::NotTaken { peer: new.peer });
        }
        let sending = Sending::of(hub, new)?;
        // A mistake in the source shows at once.
        sending.sender()?;
        let mut known = Known::new(Direction::Send, sending.peer.clone(), ProgressSource::default());
        known.from = Some(sending.from.clone());
        known.to = Some(sending.to.to_string());
        let cancelled = known.cancelled.subscribe();
        let id = self.begin(known)?;
        tokio::spawn(self.clone().run(hub.clone(), id, sending, cancelled));
        Ok(id)
    }

    /// Sends, and again when the connection is lost: what has arrived is kept.
    async fn run(
        self: Arc<Self>,
        hub: Arc<Hub>,
        id: u64,
        sending: Sending,
        mut cancelled: watch::Receiver<bool>,
    ) {
        let mut rest = REST_MIN;
        for attempt in 1.. {
            let ended = self.attempt(&hub, id, &sending, attempt).await;
            let again = match &ended {
                Err(Attempt::Unreachable(_)) => true,
                Err(Attempt::Transfer(error)) => matches!(error, TransferError::Stream { .. }),
                Ok(_) => false,
            };
            if !again || attempt == ATTEMPTS_MAX || *cancelled.borrow() {
                return match ended {
                    Ok(summary) => self.ended(id, Ok(summary)),
                    Err(Attempt::Transfer(error)) => self.ended(id, Err(error)),
                    Err(Attempt::Unreachable(why)) => self.end(id, TransferState::Failed, Some(why)),
                };
            }
            if let Some(known) = self.lock().known.get_mut(&id) {
                known.error = ended.err().map(|error| error.to_string());
            }
            let _ = tokio::time::timeout(rest, cancelled.wait_for(|cancelled| *cancelled)).await;
            rest = (rest * 2).min(REST_MAX);
        }
    }

    async fn attempt(&self, hub: &Hub, id: u64, sending: &Sending, attempt: u32) -> Result<Summary, Attempt> {
        let sender = sending.sender().map_err(Attempt::Transfer)?;
        {
            let mut state = self.lock();
            let Some(known) = state.known.get_mut(&id) else {
                return Err(Attempt::Unreachable("it is not known any more".to_owned()));
            };
            known.attempts = attempt;
            known.progress = sender.progress();
            known.stopper = Some(sender.stopper());
            if *known.cancelled.borrow() {
                return Err(Attempt::Unreachable("cancelled".to_owned()));
            }
        }
        let (standing, greeting) = hub
            .peer(&sending.peer)
            .ok_or_else(|| Attempt::Unreachable(format!("{} is not connected", sending.peer)))?;
        let peer = standing.peer();
        let mut address = peer.addr;
        address.set_port(greeting.port);
        // A name that can be asked for: no URI, no pattern.
        let name = peer.names.iter().find(|name| !name.contains(['*', '/']));
        let name = name.cloned().unwrap_or_else(|| peer.addr.ip().to_string());
        drop(standing);
        let connection = hub
            .endpoint
            .connect(address, &name)
            .await
            .map_err(|error| Attempt::Unreachable(error.to_string()))?;
        let ended = sender.run(&connection).await;
        if tokio::time::timeout(DRAIN_TIMEOUT, connection.drain()).await.is_err() {
            connection.close(0, "transfer ended");
        }
        ended.map_err(Attempt::Transfer)
    }

    /// Ends a transfer of this node's own; what has arrived stays, and another run goes on from there. `None`: there is
    /// no such transfer; `false`: it has ended, or is the peer's to end.
    pub(crate) fn cancel(&self, id: u64) -> Option<bool> {
        let mut state = self.lock();
        let known = state.known.get_mut(&id)?;
        if known.ended.is_some() || known.direction == Direction::Receive {
            return Some(false);
        }
        known.cancelled.send_replace(true);
        if let Some(stopper) = &known.stopper {
            stopper.stop();
        }
        Some(true)
    }

    pub(crate) fn view(&self, id: u64) -> Option<Transfer> {
        self.lock().known.get(&id).map(|known| known.view(id))
    }

    pub(crate) fn views(&self) -> Vec<Transfer> {
        self.lock().known.iter().map(|(id, known)| known.view(*id)).collect()
    }
}

/// Why an attempt has ended.
#[derive(Debug, thiserror::Error)]
enum Attempt {
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Transfer(TransferError),
}

/// What is sent, and to whom.
struct Sending {
    node_id: String,
    peer: String,
    from: PathBuf,
    to: RelPath,
    checksum: bool,
}

impl Sending {
    fn of(hub: &Hub, new: NewTransfer) -> Result<Self, TransferRefused> {
        let bad = |what: String| TransferRefused::Bad { what };
        let from = PathBuf::from(&new.from);
        if !from.is_absolute() {
            return Err(bad(format!("{:?} is not an absolute path", new.from)));
        }
        let to = match (&new.to, from.file_name()) {
            (Some(to), _) => RelPath::new(to.as_bytes()),
            (None, Some(name)) => RelPath::new(name.as_encoded_bytes()),
            (None, None) => return Err(bad(format!("{:?} has no name of its own: give one", new.from))),
        };
        let to = to.map_err(|error| bad(format!("{error}: it names something below the peer's folder")))?;
        let node_id = hub.greeting.borrow().node_id.clone();
        Ok(Self { node_id, peer: new.peer, from, to, checksum: new.checksum })
    }

    fn sender(&self) -> Result<Sender, TransferError> {
        let source = Source::Path { path: self.from.clone(), dest: self.to.clone() };
        let mut config = SenderConfig::new(vec![source]);
        config.checksum = self.checksum;
        config.sender = self.node_id.clone();
        Sender::new(config)
    }
}

impl Known {
    fn new(direction: Direction, peer: String, progress: ProgressSource) -> Self {
        Self {
            direction,
            peer,
            from: None,
            to: None,
            state: TransferState::Running,
            error: None,
            attempts: 1,
            progress,
            began: Instant::now(),
            ended: None,
            stopper: None,
            cancelled: watch::Sender::new(false),
        }
    }

    fn view(&self, id: u64) -> Transfer {
        let progress = self.progress.snapshot();
        Transfer {
            id,
            direction: self.direction,
            peer: self.peer.clone(),
            from: self.from.as_ref().map(|path| path.display().to_string()),
            to: self.to.clone(),
            state: self.state,
            error: self.error.clone(),
            attempts: self.attempts,
            bytes_total: progress.bytes_total,
            bytes_done: progress.bytes_done,
            bytes_moved: progress.bytes_moved,
            bytes_skipped: progress.bytes_skipped,
            failures: progress.failures,
            seconds: self.ended.unwrap_or_else(Instant::now).duration_since(self.began).as_secs_f64(),
        }
    }
}

/// Why not everything is there, of a transfer that ended in order.
fn why_incomplete(summary: &Summary) -> Option<String> {
    if summary.unsent.is_some() {
        return Some("it was told to end before everything was sent".to_owned());
    }
    let first = summary.failures.first()?;
    let more = summary.progress.failures.saturating_sub(1);
    let others = if more > 0 { format!(", and {more} more") } else { String::new() };
    Some(format!("{}: {}{others}", first.path, first.failure))
}

/// A connection whose first stream was taken already.
#[derive(Clone)]
struct Begun {
    connection: Connection,
    first: Arc<Mutex<Option<(SendStream, RecvStream)>>>,
}

impl Transport for Begun {
    type Sink = SendStream;
    type Source = RecvStream;

    async fn open_stream(&self) -> io::Result<(SendStream, RecvStream)> {
        Transport::open_stream(&self.connection).await
    }

    async fn accept_stream(&self) -> io::Result<(SendStream, RecvStream)> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(stream) => Ok(stream),
            None => Transport::accept_stream(&self.connection).await,
        }
    }
}
