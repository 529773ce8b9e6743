//! Transfers from and to this node: a connection each, so that one does not wait for another.

mod origin;
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
use novacron_control::schema::{Direction, NewTransfer, TRANSFER_KEY_BYTES_MAX, Transfer, TransferState};
pub(crate) use origin::Origin;
use sending::Sending;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::Instrument as _;

use crate::hub::Hub;

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
    key: Option<String>,
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
    /// Who asks from afar may not have this sent.
    #[error(
        "{from:?} is not there without links below transfers.from of this node, of which alone transfers may be asked for over DWCP, and to which \
         relative paths belong"
    )]
    NotBelow {
        /// What should be sent.
        from: String,
    },
    /// The key names another transfer.
    #[error("the key of transfer {id}, which sends something else, to somewhere else or by another name")]
    OtherContent {
        /// What it names.
        id: u64,
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
    /// `into`: where transfers are received; empty: none are. `overwrite`: what comes replaces what differs there.
    pub(crate) fn new(into: &Path, overwrite: bool) -> Result<Self, TransferError> {
        let receiver = match into.as_os_str().is_empty() {
            true => None,
            false => {
                let mut config = ReceiverConfig::new(Destination::Folder(into.to_owned()));
                config.overwrite = overwrite;
                Some(Receiver::open(config)?)
            }
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

    fn begin(self: &Arc<Self>, known: Known) -> Result<Begun, TransferRefused> {
        let mut state = self.lock();
        if let Some(id) = state.begun_before(&known)? {
            return Ok(Begun::Before(id));
        }
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
        Ok(Begun::Now(Slot { transfers: self.clone(), id }))
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
            Ok(Begun::Now(slot)) => slot,
            // What comes has no key.
            Ok(Begun::Before(_)) => return,
            Err(refused) => return connection.close(0, &refused.to_string()),
        };
        let begun = Opened { connection: connection.clone(), first: Arc::new(Mutex::new(Some(first))) };
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

    /// Begins to send something to a peer, if that was not begun before; returns the transfer's id.
    pub(crate) fn send(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        new: NewTransfer,
        from: Origin,
    ) -> Result<u64, TransferRefused> {
        let key = new.key.clone();
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > TRANSFER_KEY_BYTES_MAX) {
            let what = format!("a key has 1 to {TRANSFER_KEY_BYTES_MAX} bytes");
            return Err(TransferRefused::Bad { what });
        }
        let sending = Sending::of(hub, new, from)?;
        let mut known = Known::new(Direction::Send, sending.peer.clone(), ProgressSource::default());
        known.from = Some(sending.from.path());
        known.to = Some(sending.to.to_string());
        known.key = key;
        if let Some(id) = self.lock().begun_before(&known)? {
            return Ok(id);
        }
        let peer = sending.peer.clone();
        let Some((_, greeting)) = hub.peer(&peer) else {
            return Err(TransferRefused::Peer { peer });
        };
        if !greeting.takes_transfers {
            return Err(TransferRefused::NotTaken { peer });
        }
        // A mistake in the source shows at once.
        sending.sender().map_err(Sending::refused)?;
        let cancelled = known.cancelled.subscribe();
        let slot = match self.begin(known)? {
            Begun::Now(slot) => slot,
            Begun::Before(id) => return Ok(id),
        };
        let id = slot.id;
        let mut tasks = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        // As long as it runs, in the trace of who asked for it.
        let span = tracing::info_span!("transfer", id, peer = sending.peer);
        tasks.spawn(sending.run(hub.clone(), slot, cancelled).instrument(span));
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

impl State {
    /// The transfer of this one's key that runs or is done, which has to be the same.
    fn begun_before(&self, new: &Known) -> Result<Option<u64>, TransferRefused> {
        if new.key.is_none() {
            return Ok(None);
        }
        let counts = |known: &Known| matches!(known.state, TransferState::Running | TransferState::Done);
        let mut known = self.known.iter().rev();
        match known.find(|(_, known)| known.key == new.key && counts(known)) {
            Some((id, known)) if known.is_same(new) => Ok(Some(*id)),
            Some((id, _)) => Err(TransferRefused::OtherContent { id: *id }),
            None => Ok(None),
        }
    }
}

/// What became of a transfer that was to begin.
enum Begun {
    Now(Slot),
    /// It was, with the same key.
    Before(u64),
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
            key: None,
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

    /// The same thing to the same place.
    fn is_same(&self, other: &Self) -> bool {
        (&self.peer, &self.from, &self.to) == (&other.peer, &other.from, &other.to)
    }

    fn view(&self, id: u64) -> Transfer {
        let progress = self.progress.snapshot();
        Transfer {
            id,
            key: self.key.clone(),
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
struct Opened {
    connection: Connection,
    first: Arc<Mutex<Option<(SendStream, RecvStream)>>>,
}

impl Transport for Opened {
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
