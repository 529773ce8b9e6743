//! A client that watches: it stays with a member while that is up, and then goes on at another from where it was.
//!
//! Does what a watch stream of the etcd service does: what waits first, and when it is behind, a look at the past.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use consensus_proto::mvccpb::Event;
use consensus_store::{StoreError, WatchRange};

use crate::{
    checks::{Checks, Violation, comparable},
    machine::{Machine, Target, lock},
};

#[derive(Debug)]
pub(crate) struct Watcher {
    range: WatchRange,
    /// The member and which of its starts.
    pub(crate) at: Option<(u64, u64)>,
    target: Target,
    /// What it was told since `from`, up to before `next`.
    told: Vec<(i64, Vec<Event>)>,
    from: i64,
    next: i64,
    pub(crate) events: u64,
}

impl Watcher {
    pub(crate) fn new(range: WatchRange) -> Self {
        Self { range, at: None, target: Target::default(), told: Vec::new(), from: 1, next: 1, events: 0 }
    }

    /// Goes on at another member, or at the same after a start.
    pub(crate) fn connect(
        &mut self,
        at: (u64, u64),
        machine: &Machine,
        checks: &Checks,
    ) -> Result<(), Violation> {
        (self.at, self.target) = (Some(at), Target::default());
        self.catch_up(machine, checks)
    }

    /// Takes what has come; the past, if that was too much to wait.
    pub(crate) fn take(&mut self, machine: &Machine, checks: &Checks) -> Result<(), Violation> {
        let queue = std::mem::take(&mut *lock(&self.target.queue));
        for (revision, events) in queue {
            if revision >= self.next {
                self.tell(revision, events);
                self.next = revision + 1;
            }
        }
        if self.target.behind.swap(false, Relaxed) {
            self.catch_up(machine, checks)?;
        }
        Ok(())
    }

    fn tell(&mut self, revision: i64, events: Vec<Event>) {
        self.events += events.len() as u64;
        self.told.push((revision, comparable(events)));
    }

    fn catch_up(&mut self, machine: &Machine, checks: &Checks) -> Result<(), Violation> {
        loop {
            let registered = lock(&machine.hub).register(self.range.clone(), self.next, self.target.clone());
            let Err((_, current)) = registered else { return Ok(()) };
            match machine.store.reader().changes(&self.range, self.next, current) {
                Ok((changes, next)) => {
                    changes.into_iter().for_each(|changes| self.tell(changes.revision, changes.events));
                    self.next = next;
                }
                Err(StoreError::Compacted) => {
                    self.check(checks, self.next - 1)?;
                    self.told.clear();
                    self.from = machine.store.reader().compacted();
                    self.next = self.from;
                }
                Err(error) => {
                    let member = self.at.map_or(0, |(id, _)| id);
                    return Err(Violation::Stopped { member, why: error.to_string() });
                }
            }
        }
    }

    fn check(&self, checks: &Checks, to: i64) -> Result<(), Violation> {
        checks.watched(self.at.map_or(0, |(id, _)| id), &self.range, (self.from, to), &self.told)
    }

    /// When everything up to now has been told.
    pub(crate) fn check_all(&mut self, machine: &Machine, checks: &Checks) -> Result<(), Violation> {
        self.take(machine, checks)?;
        let revision = lock(&machine.hub).revision();
        self.check(checks, revision.max(self.next - 1))
    }
}

/// All keys of the clients, or one of them.
pub(crate) fn range(keys: &BTreeMap<u8, Bytes>, one: Option<u8>) -> WatchRange {
    match one.and_then(|key| keys.get(&key)) {
        Some(key) => WatchRange { key: key.clone(), range_end: Bytes::new() },
        None => WatchRange { key: Bytes::from_static(b"k"), range_end: Bytes::from_static(b"l") },
    }
}
