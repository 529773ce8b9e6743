//! The store as a replicated state machine.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use consensus_core::{Job, Request, ScrubError, Scrubbed, StateMachine, StateMachineError};
use consensus_rocks::{Home, Kind, Place, RocksDisk, Slice};
use consensus_store::{Hub, LeaseChange, Lessor, Reader, Response, Store, StoreError, TokenChange};
use tokio::sync::watch;

use crate::{regions::ChangeNews, remover::Remover, token::Tokens, watch::Target};

/// What the apply thread tells everyone else of.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) hub: Mutex<Hub<Target>>,
    lessor: Mutex<Lessor>,
    /// The term in which the lessor's deadlines were set; a leader of another one begins them anew.
    lessor_term: AtomicU64,
    tokens: Mutex<Tokens>,
    /// Changes for other regions.
    pub(crate) regions: ChangeNews,
    /// Up to which compaction everything that is out of reach is removed.
    pub(crate) removed: watch::Sender<i64>,
    /// Beginning of the lessor's time.
    start: Instant,
}

/// All leases of a store, with their full time from now on.
fn lessor(store: &Store<RocksDisk>, now: Duration) -> Lessor {
    let mut lessor = Lessor::default();
    for (id, ttl) in store.leases() {
        lessor.start(id, Duration::from_secs(ttl as u64), now);
    }
    lessor
}

impl News {
    pub(crate) fn new(store: &Store<RocksDisk>, token_ttl: Duration) -> Self {
        let lessor = lessor(store, Duration::ZERO);
        let hub = Hub::new(store.reader().revision());
        Self {
            hub: Mutex::new(hub),
            lessor: Mutex::new(lessor),
            lessor_term: AtomicU64::new(0),
            tokens: Mutex::new(Tokens::new(token_ttl)),
            regions: ChangeNews::default(),
            removed: watch::Sender::new(0),
            start: Instant::now(),
        }
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub<Target>> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lessor(&self) -> MutexGuard<'_, Lessor> {
        self.lessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lessor of a leader in this term.
    pub(crate) fn lessor_of(&self, term: u64) -> MutexGuard<'_, Lessor> {
        let mut lessor = self.lessor();
        if self.lessor_term.swap(term, Relaxed) != term {
            lessor.restart_all(self.now());
        }
        lessor
    }

    /// Whether leases have been given their full time since the leader of this term began to lead.
    pub(crate) fn has_lessor_of(&self, term: u64) -> bool {
        self.lessor_term.load(Relaxed) == term
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

pub(crate) struct Machine {
    home: Home,
    disk: Arc<RocksDisk>,
    store: Store<RocksDisk>,
    news: Arc<News>,
    remover: Remover,
}

impl Machine {
    /// Begins with what a stop may have left over of a compaction.
    pub(crate) fn new(
        home: Home,
        disk: Arc<RocksDisk>,
        store: Store<RocksDisk>,
        news: Arc<News>,
    ) -> std::io::Result<Self> {
        let remover = Remover::start(news.removed.clone())?;
        let machine = Self { home, disk, store, news, remover };
        machine.remove_old();
        Ok(machine)
    }

    fn remove_old(&self) {
        self.remover.remove(&self.disk, self.store.reader().compacted());
    }
}

impl StateMachine for Machine {
    type Response = Result<Response, StoreError>;

    fn applied(&self) -> u64 {
        self.store.applied()
    }

    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<Self::Response>, StateMachineError> {
        let applied = self.store.apply(index, requests.iter().map(|request| &request.payload))?;
        if !applied.leases.is_empty() {
            let (mut lessor, now) = (self.news.lessor(), self.news.now());
            for change in &applied.leases {
                match change {
                    LeaseChange::Granted(id, ttl) => lessor.start(*id, Duration::from_secs(*ttl as u64), now),
                    LeaseChange::Revoked(id) => lessor.stop(*id),
                }
            }
        }
        if !applied.tokens.is_empty() {
            let (mut tokens, now) = (self.news.tokens(), self.news.now());
            for change in applied.tokens {
                match change {
                    TokenChange::Assigned { token, user } => tokens.assign(token, user, now),
                    TokenChange::UserGone(user) => tokens.forget_user(&user),
                    TokenChange::AllGone => tokens.forget_all(),
                }
            }
        }
        if !applied.changes.is_empty() {
            let mut hub = self.news.hub();
            for changes in &applied.changes {
                hub.publish(changes, |target, _, revision, events| target.deliver(revision, events));
            }
        }
        if applied.compacted.is_some() {
            self.remove_old();
        }
        if applied.region_changed {
            self.news.regions.tell(applied.region_urgent);
        }
        Ok(applied.responses)
    }

    fn save(&mut self) -> Job {
        let (disk, applied) = (Arc::clone(&self.disk), self.store.applied());
        Box::new(move || {
            disk.flush()?;
            Ok(applied)
        })
    }

    fn copy(&mut self, folder: PathBuf) -> Job {
        let disk = Arc::clone(&self.disk);
        Box::new(move || {
            disk.copy_to(&folder)?;
            // What is applied meanwhile may be in it.
            let copy = RocksDisk::open_to_read(&folder, Kind::Data, consensus_store::SPACES)?;
            Ok(consensus_store::export::summary(&copy)?.applied)
        })
    }

    fn restore(&mut self, folder: &Path) -> Result<(), StateMachineError> {
        let disk = Arc::new(self.home.replace(folder)?);
        self.store.replace(Arc::clone(&disk))?;
        std::mem::replace(&mut self.disk, disk).discard();
        self.remove_old();
        // Tokens are in no snapshot: clients log in again.
        self.news.tokens().forget_all();
        *self.news.lessor() = lessor(&self.store, self.news.now());
        let behind = self.news.hub().jump(self.store.reader().revision());
        behind.for_each(|target| target.fell_behind());
        Ok(())
    }

    fn scrubbed(&self) -> Option<Box<dyn Scrubbed>> {
        Some(Box::new(ScrubbedState { reader: self.store.reader(), place: Place::default() }))
    }
}

/// The store's disk, whichever is in force.
struct ScrubbedState {
    reader: Reader<RocksDisk>,
    place: Place,
}

impl Scrubbed for ScrubbedState {
    fn read_slice(&mut self, bytes_max: usize) -> Result<Slice, ScrubError> {
        // The store checks records as it uses them; that they are what was written, the disk knows.
        let disk = self.reader.disk();
        Ok(disk.read_slice(&mut self.place, bytes_max, |_, _, _| ControlFlow::Continue(()))?)
    }
}
