//! The store as the replicated state machine of a simulated member, and the files that survive its crashes.
//!
//! Does what the etcd service does with a store on RocksDB, on disks in memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use consensus_core::{Job, Request, StateMachine, StateMachineError};
use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk, Order, Space};
use consensus_proto::mvccpb::Event;
use consensus_raft::SnapshotMetadata;
use consensus_store::{Changes, Hub, Removal, Response, SPACES, Store, StoreError};

use crate::{Mistake, disk::SimDisk};

/// Revisions that wait for one watcher. With more, it is behind.
const WATCH_QUEUE: usize = 4;
/// Changes in a step of a removal.
const REMOVED_AT_ONCE: usize = 8;

/// What became of a request.
pub(crate) type Answer = Result<Response, StoreError>;

/// Where a watcher's events go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) queue: Arc<Mutex<Vec<(i64, Vec<Event>)>>>,
    pub(crate) behind: Arc<AtomicBool>,
}

impl Target {
    /// Whether there was room.
    fn deliver(&self, revision: i64, events: Vec<Event>) -> bool {
        let mut queue = lock(&self.queue);
        let room = queue.len() < WATCH_QUEUE;
        match room {
            true => queue.push((revision, events)),
            false => self.behind.store(true, Relaxed),
        }
        room
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a machine has beside its log.
#[derive(Debug)]
pub(crate) struct Files {
    /// The state.
    pub(crate) data: Arc<SimDisk>,
    /// Copies of this and other states, by folder.
    pub(crate) copies: BTreeMap<PathBuf, MemoryDisk>,
    /// Those of others that are complete: what they are of, and the folder they are in.
    pub(crate) fetched: Vec<(SnapshotMetadata, PathBuf)>,
}

impl Files {
    pub(crate) fn new(mistake: Option<Mistake>) -> Self {
        let data = Arc::new(SimDisk::new(MemoryDisk::default(), mistake));
        Self { data, copies: BTreeMap::new(), fetched: Vec::new() }
    }

    /// A complete copy of everything up to `index`, if there is one; all else is removed, as at a start.
    pub(crate) fn left_over(&mut self, index: u64) -> Option<PathBuf> {
        let fetched = std::mem::take(&mut self.fetched);
        let (_, folder) = fetched.into_iter().find(|(metadata, _)| metadata.index == index)?;
        self.copies.retain(|path, _| path.starts_with(&folder));
        Some(folder)
    }
}

/// What is told while requests are applied.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) changes: Vec<Changes>,
    /// By (origin, id).
    pub(crate) answers: Vec<((u64, u64), Answer)>,
    pub(crate) restored: u64,
}

pub(crate) struct Machine {
    files: Arc<Mutex<Files>>,
    pub(crate) store: Store<SimDisk>,
    pub(crate) hub: Arc<Mutex<Hub<Target>>>,
    pub(crate) news: Arc<Mutex<News>>,
    mistake: Option<Mistake>,
    /// Before what was applied last, for a mistake.
    before: Arc<Mutex<Option<MemoryDisk>>>,
    applied_anything: bool,
}

impl Machine {
    pub(crate) fn open(files: Arc<Mutex<Files>>, mistake: Option<Mistake>) -> Result<Self, StoreError> {
        let data = Arc::clone(&lock(&files).data);
        let store = Store::open(Arc::clone(&data))?;
        remove(store.reader().compacted(), &data)?;
        let hub = Arc::new(Mutex::new(Hub::new(store.reader().revision())));
        Ok(Self {
            files,
            store,
            hub,
            news: Arc::default(),
            mistake,
            before: Arc::default(),
            applied_anything: false,
        })
    }

    fn data(&self) -> Arc<SimDisk> {
        Arc::clone(&lock(&self.files).data)
    }
}

impl StateMachine for Machine {
    type Response = Answer;

    fn applied(&self) -> u64 {
        self.store.applied()
    }

    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<Answer>, StateMachineError> {
        if self.mistake == Some(Mistake::SnapshotWithoutEnd) {
            *lock(&self.before) = Some(self.data().copy());
        }
        let twice = self.mistake == Some(Mistake::AppliedTwice) && !self.applied_anything;
        let payloads: Vec<_> = requests.iter().map(|request| &request.payload).collect();
        let repeated = if twice { &payloads[..] } else { &[] };
        let mut applied = self.store.apply(index, payloads.iter().chain(repeated).copied())?;
        applied.responses.truncate(requests.len());
        if let Some(compacted) = applied.compacted {
            remove(compacted, &self.data())?;
        }
        self.applied_anything |= !requests.is_empty();
        let (mut hub, mut news) = (lock(&self.hub), lock(&self.news));
        for changes in &applied.changes {
            hub.publish(changes, |target, _, revision, events| target.deliver(revision, events));
        }
        news.changes.extend(applied.changes);
        let names = requests.iter().map(|request| (request.origin, request.id));
        news.answers.extend(names.zip(applied.responses.iter().cloned()));
        Ok(applied.responses)
    }

    fn save(&mut self) -> Job {
        let (disk, applied) = (self.data(), self.store.applied());
        Box::new(move || {
            disk.write(Batch::default(), Durability::Synced)?;
            Ok(applied)
        })
    }

    fn copy(&mut self, folder: PathBuf) -> Job {
        let (disk, files, before) = (self.data(), Arc::clone(&self.files), Arc::clone(&self.before));
        Box::new(move || {
            let copy = match lock(&before).take() {
                None => disk.copy(),
                Some(before) => {
                    take_state_of(&before, &disk)?;
                    before
                }
            };
            let index = consensus_store::export::summary(&copy)?.applied;
            lock(&files).copies.insert(folder, copy);
            Ok(index)
        })
    }

    fn restore(&mut self, folder: &Path) -> Result<(), StateMachineError> {
        let copy = lock(&self.files).copies.remove(folder).ok_or("there is no such copy")?;
        let disk = Arc::new(SimDisk::new(copy, self.mistake));
        lock(&self.files).data = Arc::clone(&disk);
        self.store.replace(Arc::clone(&disk))?;
        remove(self.store.reader().compacted(), &disk)?;
        lock(&self.news).restored += 1;
        let behind = lock(&self.hub).jump(self.store.reader().revision());
        behind.for_each(|target| target.behind.store(true, Relaxed));
        Ok(())
    }
}

/// Removes what is compacted at once, so that the disks of members can be compared; a crash comes between its steps too.
fn remove(compacted: i64, disk: &SimDisk) -> Result<(), StoreError> {
    Removal::new(compacted).finish(disk, REMOVED_AT_ONCE)
}

/// Lets an older state say that it is as new as what is on a disk.
fn take_state_of(copy: &MemoryDisk, disk: &SimDisk) -> Result<(), StateMachineError> {
    const STATE: &[u8] = b"state";
    for space in (0..SPACES).map(Space) {
        if let Some(state) = disk.get(space, STATE)? {
            let mut batch = Batch::default();
            batch.put(space, STATE, state);
            copy.write(batch, Durability::Synced)?;
        }
    }
    Ok(())
}

/// Everything on a disk, for comparison.
pub(crate) fn dump(disk: &SimDisk) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for space in (0..SPACES).map(Space) {
        let scanned = disk.scan(space, &[], None, Order::Ascending, &mut |key, value| {
            all.push((space, key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        });
        scanned.expect("memory gives every value");
    }
    all
}
