//! Who wants to know of which keys.
//!
//! A watcher is either *current*, and then registered here and told of each revision as it is applied, or *behind*, and then
//! reads the history until it is current. Whoever cannot be told at once becomes one that is behind, so nobody ever waits
//! for a slow watcher.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus_proto::mvccpb::Event;

use crate::store::Changes;

/// Keys that someone watches, as requests say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRange {
    /// The key, or the first of them.
    pub key: Bytes,
    /// Empty: one key; one zero byte: all from `key` on; else the key after the last.
    pub range_end: Bytes,
}

/// Names a registered watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherId(u64);

#[derive(Debug)]
struct Watcher<T> {
    range: WatchRange,
    /// It wants no revision before this one, which may be yet to come.
    next: i64,
    target: T,
}

/// The watchers that are current. `T` is where a watcher's events go.
#[derive(Debug)]
pub struct Hub<T> {
    revision: i64,
    next_id: u64,
    watchers: BTreeMap<WatcherId, Watcher<T>>,
    /// Watchers of one key, by that key.
    keys: BTreeMap<Bytes, Vec<WatcherId>>,
    /// Watchers of more than one key.
    spans: BTreeSet<WatcherId>,
}

impl<T> Hub<T> {
    /// Nobody watches. `revision` is the last that was applied.
    pub fn new(revision: i64) -> Self {
        Self {
            revision,
            next_id: 0,
            watchers: BTreeMap::new(),
            keys: BTreeMap::new(),
            spans: BTreeSet::new(),
        }
    }

    /// The last revision that watchers were told of.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many are registered.
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Registers a watcher that knows everything before `next`. It is behind if that is not all there is: then it gets back
    /// `target` and the last revision to read up to first.
    pub fn register(&mut self, range: WatchRange, next: i64, target: T) -> Result<WatcherId, (T, i64)> {
        if next <= self.revision {
            return Err((target, self.revision));
        }
        let id = WatcherId(self.next_id);
        self.next_id += 1;
        match range.range_end.is_empty() {
            true => self.keys.entry(range.key.clone()).or_default().push(id),
            false => drop(self.spans.insert(id)),
        }
        self.watchers.insert(id, Watcher { range, next, target });
        Ok(id)
    }

    /// Forgets a watcher.
    pub fn remove(&mut self, id: WatcherId) -> Option<T> {
        let Watcher { range, target, .. } = self.watchers.remove(&id)?;
        if range.range_end.is_empty() {
            if let Some(ids) = self.keys.get_mut(&range.key) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.keys.remove(&range.key);
                }
            }
        } else {
            self.spans.remove(&id);
        }
        Some(target)
    }

    /// Everything up to `revision` is there, and nobody can tell here what it was: all watchers are behind, and forgotten.
    pub fn jump(&mut self, revision: i64) -> impl Iterator<Item = T> + use<T> {
        self.revision = revision;
        self.keys.clear();
        self.spans.clear();
        std::mem::take(&mut self.watchers).into_values().map(|watcher| watcher.target)
    }

    /// Tells of one revision. `deliver` says whether the watcher could be told; if not, it is forgotten here, and is
    /// behind from that revision on.
    pub fn publish(
        &mut self,
        changes: &Changes,
        mut deliver: impl FnMut(&T, WatcherId, i64, Vec<Event>) -> bool,
    ) {
        assert!(changes.revision > self.revision, "revisions are told of in order");
        self.revision = changes.revision;
        let mut told: BTreeMap<WatcherId, Vec<Event>> = BTreeMap::new();
        for event in &changes.events {
            let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            for id in self.keys.get(&key).into_iter().flatten().chain(&self.spans) {
                let Watcher { range, next, .. } = &self.watchers[id];
                if range.as_range().contains(&key) && *next <= changes.revision {
                    told.entry(*id).or_default().push(event.clone());
                }
            }
        }
        for (id, events) in told {
            let target = &self.watchers[&id].target;
            if !deliver(target, id, changes.revision, events) {
                self.remove(id);
            }
        }
    }
}
