//! Transfers from and to this node: a connection each, so that one does not wait for another.

mod sending;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dwcp_core::{Connection, RecvStream, SendStream};
use dwcp_transfer::{
    Destination, ProgressSource, Receiver, ReceiverConfig, Stopper, Summary, TransferError, Transport,
};
use sending::Sending;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    hub::Hub,
    schema::{Direction, NewTransfer, Transfer, TransferState},
};

/// Transfers that run at a time, of either direction; more are refused.
const RUNNING_MAX: usize = 64;
/// Transfers that have ended and are still told of.
const ENDED_KEPT_MAX: usize = 256;
/// For the peer to take note of the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The code with which a connection is closed whose transfer the receiver has cancelled: it is not begun again.
const CANCELLED: u32 = 1;

/// The transfers of one agent.
pub(crate) struct Transfers {
    receiver: Option<Receiver>,
    state: Mutex<State>,
    /// How many run.
    running: watch::Sender<usize>,
    /// Those that this node sends.
    sending: Mutex<JoinSet<()>>,
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
        Ok(Self {
            receiver,
            state: Mutex::default(),
            running: watch::Sender::new(0),
            sending: Mutex::default(),
        })
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

    /// Ends what this node sends, at once. What has arrived stays, and another run goes on from there.
    pub(crate) fn abort(&self) {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    fn begin(self: &Arc<Self>, known: Known) -> Result<Slot, TransferRefused> {
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
        Ok(Slot { transfers: self.clone(), id })
    }

    /// Receives what a peer sends over a connection of its own, whose first stream it has opened.
    pub(crate) async fn receive(self: &Arc<Self>, connection: Connection, first: (SendStream, RecvStream)) {
        let peer = connection.peer();
        // Certificates prove names; without them the node's name is only a courtesy, and plaintext is for trusted places.
        let name = peer.names.first().unwrap_or(&peer.node_id).clone();
        let Some(receiver) = &self.receiver else {
            return connection.close(0, "this node takes no transfers: transfers.into is not set");
        };
        let progress = ProgressSource::default();
        let known = Known::new(Direction::Receive, peer.node_id.clone(), progress.clone());
        let mut cancelled = known.cancelled.subscribe();
        let slot = match self.begin(known) {
            Ok(slot) => slot,
            Err(refused) => return connection.close(0, &refused.to_string()),
        };
        let begun = Begun { connection: connection.clone(), first: Arc::new(Mutex::new(Some(first))) };
        let mut serving = std::pin::pin!(receiver.serve(&begun, &name, &progress));
        let asked = async { drop(cancelled.wait_for(|cancelled| *cancelled).await) };
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = asked => {
                connection.close(CANCELLED, "the receiver has cancelled this transfer");
                // It lets go of its files first.
                serving.await
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, connection.drain()).await.is_err() {
            connection.close(0, "transfer ended");
        }
        slot.end(ended);
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
        let slot = self.begin(known)?;
        let id = slot.id;
        let mut tasks = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(sending.run(hub.clone(), slot, cancelled));
        Ok(id)
    }

    /// Ends a transfer; what has arrived stays, and another run goes on from there. `None`: there is no such transfer;
    /// `false`: it has ended.
    pub(crate) fn cancel(&self, id: u64) -> Option<bool> {
        let mut state = self.lock();
        let known = state.known.get_mut(&id)?;
        if known.ended.is_some() {
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

/// A transfer's place among those that run. Dropped, it is free again, however the transfer has ended.
struct Slot {
    transfers: Arc<Transfers>,
    id: u64,
}

impl Slot {
    /// Changes what is told of the transfer.
    fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut state = self.transfers.lock();
        change(state.known.get_mut(&self.id).expect("what runs is known"))
    }

    fn end(self, ended: Result<Summary, TransferError>) {
        match ended {
            Ok(summary) => match why_incomplete(&summary) {
                None => self.with(|known| known.end(self.id, TransferState::Done, None)),
                Some(why) => self.fail(why),
            },
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&self, why: String) {
        self.with(|known| known.end(self.id, TransferState::Failed, Some(why)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // It has said how it ended, unless its task was aborted or has panicked.
        self.fail("it was given up".to_owned());
        self.transfers.running.send_modify(|running| *running -= 1);
    }
}

impl Known {
    fn end(&mut self, id: u64, how: TransferState, error: Option<String>) {
        if self.ended.is_some() {
            return;
        }
        self.state = match *self.cancelled.borrow() && how != TransferState::Done {
            true => TransferState::Cancelled,
            false => how,
        };
        tracing::info!(id, peer = self.peer, how = ?self.state, error, "transfer ended");
        self.error = error;
        self.ended = Some(Instant::now());
        self.stopper = None;
    }

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
