//! The store against a model of it: any requests, in batches, with crashes that take the end of what was written, and with its
//! data replaced by a copy. Every answer, event and lease is compared, and reads at every revision.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk, Order, Space};
use consensus_proto::internal::{InternalRequest, internal_request::Request};
use consensus_store::{Changes, Removal, Response, SPACES, Store, StoreError, WatchRange, check};
use prost::Message as _;

#[path = "input.rs"]
mod input;
#[path = "store_ops/model.rs"]
mod model;
#[path = "store_ops/requests.rs"]
mod requests;

use input::Input;
use model::Model;

/// A run that is longer shows nothing that a shorter one does not.
const OPS_MAX: usize = 150;
const TXN_OPS_MAX: usize = 128;
/// How a store lies on its disk.
const VERSIONS: Space = Space(0);
const HISTORY: Space = Space(1);

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0..8 => world.ask(requests::request(&mut input, world.model.revision)),
            8 => world.remove(&mut input),
            9..12 => world.write(),
            12 => world.read(&mut input),
            13 => world.watch(&mut input),
            14 => world.crash(&mut input),
            _ => world.replace(&mut input),
        }
    }
    world.write();
    world.remove_all();
}

/// An entry of the log, what became of it, and where the store was then.
struct Entry {
    payloads: Vec<Bytes>,
    answers: Vec<Result<Response, StoreError>>,
    revision: i64,
}

struct World {
    disk: Arc<MemoryDisk>,
    store: Store<MemoryDisk>,
    model: Model,
    /// The model as of the last batch that was written: what can be read.
    written: Model,
    log: Vec<Entry>,
    /// What a compaction has put out of reach, half removed.
    removal: Removal,
    /// Of the batch in the making.
    payloads: Vec<Bytes>,
    answers: Vec<Result<Response, StoreError>>,
}

impl World {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        Self {
            store: Store::open(Arc::clone(&disk)).expect("an empty disk"),
            disk,
            model: Model::new(),
            written: Model::new(),
            log: Vec::new(),
            removal: Removal::new(0),
            payloads: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Adds a request to the batch if a server would propose it.
    fn ask(&mut self, request: Request) {
        let checked = match &request {
            Request::Put(put) => check::put(put),
            Request::DeleteRange(delete) => check::delete_range(delete),
            Request::Txn(txn) => check::txn(txn, TXN_OPS_MAX),
            _ => Ok(()),
        };
        if checked.is_ok() {
            self.answers.push(self.model.apply(&request));
            self.payloads
                .push(InternalRequest { header: None, request: Some(request) }.encode_to_vec().into());
        }
    }

    fn write(&mut self) {
        let (payloads, answers) = (std::mem::take(&mut self.payloads), std::mem::take(&mut self.answers));
        self.log.push(Entry { payloads, answers, revision: self.model.revision });
        let changes = self.apply(self.log.len());
        let expected = self.model.events.iter().filter(|changes| changes.revision > self.written.revision);
        assert_eq!(changes, expected.cloned().collect::<Vec<_>>(), "what watchers are told");
        self.written = self.model.clone();
        self.check();
    }

    /// Entry `index` of the log, which begins with 1.
    fn apply(&mut self, index: usize) -> Vec<Changes> {
        let Entry { payloads, answers, revision } = &self.log[index - 1];
        let applied = self.store.apply(index as u64, payloads).expect("a good disk");
        assert_eq!(&applied.responses, answers);
        assert_eq!(self.store.reader().revision(), *revision);
        applied.changes
    }

    /// Some of what is out of reach: nobody notices.
    fn remove(&mut self, input: &mut Input<'_>) {
        let compacted = self.written.compacted;
        if self.removal.compacted() != compacted {
            self.removal = Removal::new(compacted);
        }
        let hash = self.store.reader().hash_of_keys(0);
        self.removal.step(&*self.disk, 1 + input.below(4)).expect("a good disk");
        assert_eq!(self.store.reader().hash_of_keys(0), hash, "what is out of reach counts for nothing");
        self.check();
    }

    /// Nothing is left that is out of reach.
    fn remove_all(&mut self) {
        let (compacted, hash) = (self.written.compacted, self.store.reader().hash_of_keys(0));
        Removal::new(compacted).finish(&*self.disk, 3).expect("a good disk");
        assert_eq!(self.store.reader().hash_of_keys(0), hash);
        self.check();
        let mut left = std::collections::BTreeSet::new();
        visit(&self.disk, VERSIONS, |disk_key, stored| {
            let (key, revision) = disk_key.split_last_chunk().expect("a key ends with its revision");
            if (!u64::from_be_bytes(*revision)).cast_signed() <= compacted {
                assert!(left.insert(key.to_vec()), "two versions of {key:?} before the compaction");
                assert_ne!(stored[8..16], [0; 8], "{key:?} was deleted before the compaction");
            }
        });
        visit(&self.disk, HISTORY, |disk_key, _| {
            let revision = disk_key.first_chunk().expect("a change begins with its revision");
            assert!(i64::from_be_bytes(*revision) >= compacted, "a change before the compaction");
        });
    }

    fn read(&self, input: &mut Input<'_>) {
        let request = requests::range(input, self.written.revision);
        let (reader, expected) = (self.store.reader(), self.written.range(&request));
        assert_eq!(reader.range(&request), expected, "{request:?}");
        assert_eq!(reader.short_range(&request), expected.map(Some), "{request:?}");
    }

    /// The history from some revision on, as a watcher that is behind reads it.
    fn watch(&self, input: &mut Input<'_>) {
        let range = WatchRange { key: requests::key(input), range_end: requests::range_end(input) };
        let from = requests::revision(input, self.written.revision).max(1);
        self.check_history(&range, from);
    }

    fn check_history(&self, range: &WatchRange, from: i64) {
        let (reader, to) = (self.store.reader(), self.written.revision);
        if from < self.written.compacted {
            assert_eq!(reader.changes(range, from, to), Err(StoreError::Compacted));
            return;
        }
        let (mut next, mut found) = (from, Vec::new());
        while next <= to {
            let (changes, after) = reader.changes(range, next, to).expect("nothing of it is compacted");
            assert!(after > next, "it gets on");
            found.extend(changes);
            next = after;
        }
        assert_eq!(found, self.written.history(range, from), "from {from}");
    }

    /// The log brings back what a crash takes.
    fn crash(&mut self, input: &mut Input<'_>) {
        let hash = self.store.reader().hash_of_keys(0);
        self.disk.crash(input.below(self.disk.unsynced() + 1));
        self.store = Store::open(Arc::clone(&self.disk)).expect("what was written in order");
        self.removal = Removal::new(self.store.reader().compacted());
        let applied = self.store.applied() as usize;
        let revision = applied.checked_sub(1).map_or(1, |last| self.log[last].revision);
        assert_eq!(self.store.reader().revision(), revision);
        (applied + 1..=self.log.len()).for_each(|index| drop(self.apply(index)));
        assert_eq!(self.store.reader().hash_of_keys(0), hash, "the same requests, the same store");
        self.check();
    }

    /// A store that is behind goes on with a copy of this one, with its readers.
    fn replace(&mut self, input: &mut Input<'_>) {
        let hash = self.store.reader().hash_of_keys(0);
        let copy = Arc::new(copy(&self.disk));
        let mut behind = Store::open(Arc::new(MemoryDisk::default())).expect("an empty disk");
        for index in 1..=input.below(self.log.len() + 1) {
            behind.apply(index as u64, &self.log[index - 1].payloads).expect("a good disk");
        }
        let reader = behind.reader();
        behind.replace(Arc::clone(&copy)).expect("a good copy");
        assert_eq!((reader.revision(), reader.hash_of_keys(0)), (self.written.revision, hash));
        (self.store, self.disk) = (behind, copy);
        self.removal = Removal::new(self.written.compacted);
        self.check();
    }

    fn check(&self) {
        let (reader, model) = (self.store.reader(), &self.written);
        assert_eq!((reader.revision(), reader.compacted()), (model.revision, model.compacted));
        for revision in 1..=model.revision {
            let request = everything(revision);
            assert_eq!(reader.range(&request), model.range(&request), "at revision {revision}");
        }
        let leases: Vec<_> = model.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect();
        assert_eq!(self.store.leases().collect::<Vec<_>>(), leases);
        for (id, ttl) in leases {
            assert_eq!(reader.lease_ttl(id), Ok(Some(ttl)));
            assert_eq!(reader.lease_keys(id), Ok(model.lease_keys(id)), "of lease {id}");
        }
        assert_eq!(reader.alarms(), Ok(model.all_alarms()));
        let all = WatchRange { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0") };
        self.check_history(&all, model.compacted.max(1));
    }
}

fn everything(revision: i64) -> consensus_proto::etcdserverpb::RangeRequest {
    let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    consensus_proto::etcdserverpb::RangeRequest { key, range_end, revision, ..Default::default() }
}

fn visit(disk: &MemoryDisk, space: Space, mut visit: impl FnMut(&[u8], &[u8])) {
    disk.scan(space, &[], None, Order::Ascending, &mut |key, value| {
        visit(key, value);
        ControlFlow::Continue(())
    })
    .expect("memory");
}

fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::default();
    let mut batch = Batch::default();
    for space in (0..SPACES).map(Space) {
        visit(disk, space, |key, value| batch.put(space, key, value));
    }
    copy.write(batch, Durability::Synced).expect("memory");
    copy
}
