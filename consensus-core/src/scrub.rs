//! The thread that reads everything that is stored, slowly, to find what has rotted before it is needed.
//!
//! A member whose disk has lost what was written must not go on: it may have promised what it no longer has. It stops, and
//! its [`Damage`] says why. Other members are not told: theirs is another disk, and they go on without it.
//! Deliberately not here: how a member comes back.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use consensus_raft::{LogCheck, LogError};
use consensus_rocks::{Place, RocksDisk, Slice};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Scrub,
    inbox::Input,
    state_machine::{ScrubError, Scrubbed},
};

/// What is read between two rests. No file is held meanwhile.
const SLICE_BYTES: usize = 1 << 20;
/// Those who want everything read now, and wait for it.
const ORDERS: usize = 4;
/// A member that ends waits no longer than this for the thread.
const REST_MAX: Duration = Duration::from_secs(1);
/// What the system lets go first.
const LOWEST_PRIORITY: i32 = 19;

/// Why a member must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged: {text}")]
#[non_exhaustive]
pub struct Damage {
    /// The log or the state.
    pub what: &'static str,
    /// What was found.
    pub text: String,
}

/// What came out of reading everything: whether it is whole.
type Outcome = Result<(), Damage>;

/// Has everything read now, and is told what came out of it.
pub(crate) type Order = oneshot::Sender<Outcome>;

pub(crate) fn describe() {
    describe_counter!("consensus_scrub_bytes_total", "Stored bytes that were read to find what has rotted.");
    describe_counter!("consensus_scrub_errors_total", "Reads of stored data that found damage, or failed.");
    describe_gauge!(
        "consensus_scrub_last_timestamp_seconds",
        "When all of the stored data was last read and found whole, in Unix time; 0: not since the start."
    );
    counter!("consensus_scrub_bytes_total").increment(0);
    counter!("consensus_scrub_errors_total").increment(0);
    gauge!("consensus_scrub_last_timestamp_seconds").set(0.0);
}

/// A log, read beside the member that writes it.
struct ScrubbedLog {
    disk: Arc<RocksDisk>,
    place: Place,
    check: LogCheck,
}

impl Scrubbed for ScrubbedLog {
    fn read_slice(&mut self, bytes_max: usize) -> Result<Slice, ScrubError> {
        // Entries may have been replaced, or forgotten, since the slice before.
        self.check.begin_slice();
        let mut checked: Result<(), LogError> = Ok(());
        let slice = self.disk.read_slice(&mut self.place, bytes_max, |space, key, value| {
            checked = self.check.record(space, key, value);
            if checked.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        checked.map_err(|error| ScrubError {
            is_damage: error.is_damage(),
            // The records do not know where they are.
            source: format!("{}: {error}", self.disk.path().display()).into(),
        })?;
        Ok(slice)
    }
}

/// The thread's work.
pub(crate) struct Scrubber {
    config: Scrub,
    log: ScrubbedLog,
    state: Option<Box<dyn Scrubbed>>,
    /// The raft thread, which stops.
    inbox: mpsc::WeakSender<Input>,
    pub(crate) damage: Arc<OnceLock<Damage>>,
    metrics: Metrics,
}

/// The thread ends when nobody can give orders any more.
pub(crate) fn orders() -> (SyncSender<Order>, Receiver<Order>) {
    sync_channel(ORDERS)
}

struct Metrics {
    bytes: Counter,
    errors: Counter,
    last: Gauge,
}

/// The member has ended.
struct Ended;

impl Scrubber {
    pub(crate) fn new(
        config: Scrub,
        log: Arc<RocksDisk>,
        state: Option<Box<dyn Scrubbed>>,
        inbox: mpsc::WeakSender<Input>,
    ) -> Self {
        let metrics = Metrics {
            bytes: counter!("consensus_scrub_bytes_total"),
            errors: counter!("consensus_scrub_errors_total"),
            last: gauge!("consensus_scrub_last_timestamp_seconds"),
        };
        let log = ScrubbedLog { disk: log, place: Place::default(), check: LogCheck::default() };
        Self { config, log, state, inbox, damage: Arc::default(), metrics }
    }

    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        // On Linux this is the thread's alone. Without it, it is only less polite.
        let _ = rustix::process::nice(LOWEST_PRIORITY);
        let mut order = None;
        loop {
            let Ok(outcome) = self.read_everything() else { return };
            if let Err(damage) = &outcome {
                self.stop_member(damage);
            }
            if let Some(order) = Option::<Order>::take(&mut order) {
                let _ = order.send(outcome.clone());
            }
            if outcome.is_err() {
                return;
            }
            order = match orders.recv_timeout(self.config.interval) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    fn stop_member(&self, damage: &Damage) {
        tracing::error!(%damage, "this member must not go on: it stops");
        let _ = self.damage.set(damage.clone());
        if let Some(inbox) = self.inbox.upgrade() {
            let _ = inbox.blocking_send(Input::Stop);
        }
    }

    /// Reads the log, then the state, once.
    fn read_everything(&mut self) -> Result<Outcome, Ended> {
        let log = self.read_part("the log", |scrubber| Some(&mut scrubber.log))?;
        let state = match &log {
            Ok(_) => {
                self.read_part("the state", |scrubber| scrubber.state.as_deref_mut().map(|state| state as _))?
            }
            Err(damage) => Err(damage.clone()),
        };
        Ok(log.and_then(|log| state.map(|state| log && state)).map(|whole| {
            if whole {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.metrics.last.set(now.as_secs_f64());
            }
        }))
    }

    /// Reads one part; whether all of it could be read.
    fn read_part(
        &mut self,
        what: &'static str,
        part: impl Fn(&mut Self) -> Option<&mut dyn Scrubbed>,
    ) -> Result<Result<bool, Damage>, Ended> {
        loop {
            let began = Instant::now();
            let Some(read) = part(self).map(|part| part.read_slice(SLICE_BYTES)) else { return Ok(Ok(true)) };
            match read {
                Ok(slice) => {
                    self.metrics.bytes.increment(slice.bytes as u64);
                    if slice.last {
                        return Ok(Ok(true));
                    }
                    self.rest(slice.bytes, began.elapsed())?;
                }
                Err(error) => {
                    self.metrics.errors.increment(1);
                    if error.is_damage {
                        return Ok(Err(Damage { what, text: error.to_string() }));
                    }
                    tracing::error!(%error, "{what} cannot be read now: the next time it is tried again");
                    return Ok(Ok(false));
                }
            }
        }
    }

    /// Until so many bytes may have been read.
    fn rest(&self, bytes: usize, took: Duration) -> Result<(), Ended> {
        let due = Duration::from_secs_f64(bytes as f64 / self.config.bytes_per_second.max(1) as f64);
        std::thread::sleep(due.saturating_sub(took).min(REST_MAX));
        let works = self.inbox.upgrade().is_some_and(|inbox| !inbox.is_closed());
        if works { Ok(()) } else { Err(Ended) }
    }
}
