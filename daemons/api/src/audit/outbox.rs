//! Records of changes on their way into the database: entries of the store, each written in one transaction with its change.
//!
//! Owns which entry a record is written to, and how many there may be. An entry is written again and again, always after the
//! database has the record that is in it: a new one costs each member a look at its disk, and is to be removed.
//!
//! What always holds: an entry is written by the replica that made it, and by no transaction of which nobody knows what became of
//! it when it is written the next time. Whoever else removes one does so only as it has been read.
//!
//! Deliberately not here: what an entry says (`waiting`), and when entries go (`drain`).

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use novacron_store::StoreError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::database::AuditError;
use crate::store::Store;

/// Entries in the store: the id of the first record that was written to each, which sorts by time.
pub(crate) const OUTBOX: &str = "/novacron/audit/";
/// Entries that there may be. With more, nothing is changed. A replica knows of those that others have added since its last look
/// only then, and may go beyond it by as many.
pub(crate) const OUTBOX_MAX: usize = 10_000;
/// Changes of one replica whose records the database does not have yet; further ones wait, so that changes do not outrun a
/// database that takes records.
const UNTAKEN_MAX: usize = OUTBOX_MAX / 4;
/// How long they wait. If the database takes nothing in this time, they are made all the same.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How long an entry is written again. Those who look for what waits leave out what is long gone, by the names of entries.
const ENTRY_LIFE: Duration = Duration::from_secs(5);

/// An entry that this replica has made.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    made: Instant,
}

impl Entry {
    fn is_old(&self) -> bool {
        self.made.elapsed() >= ENTRY_LIFE
    }
}

/// Room for one more change.
pub(crate) type Room = OwnedSemaphorePermit;

/// The entries.
pub(crate) struct Outbox {
    /// In the store, of all replicas, as this one knows it.
    count: AtomicI64,
    free: Mutex<Free>,
    room: Arc<Semaphore>,
}

/// Of this replica, those whose records the database has.
#[derive(Default)]
struct Free {
    /// The last one is written next, so that those that are not needed get old.
    again: Vec<Entry>,
    old: Vec<Entry>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { count: AtomicI64::new(0), free: Mutex::default(), room: Arc::new(Semaphore::new(UNTAKEN_MAX)) }
    }
}

impl Outbox {
    /// As the store has it.
    pub(crate) async fn of(store: &Store) -> Result<Self, StoreError> {
        let outbox = Self::default();
        outbox.set(store.count(OUTBOX).await? as i64);
        Ok(outbox)
    }

    /// Waits until there is room for one more change; `None`: it must do without, and nobody is in a hurry to take its record.
    pub(crate) async fn room(&self) -> Option<Room> {
        timeout(ROOM_WAIT, self.room.clone().acquire_owned()).await.ok()?.ok()
    }

    /// An entry for a record, unless there are too many.
    pub(super) fn entry(&self, id: &str) -> Result<Entry, AuditError> {
        let mut free = self.free();
        while let Some(entry) = free.again.pop() {
            if !entry.is_old() {
                return Ok(entry);
            }
            free.old.push(entry);
        }
        drop(free);
        if self.count.load(Relaxed) >= OUTBOX_MAX as i64 {
            return Err(AuditError::Full);
        }
        self.add(1);
        Ok(Entry { key: format!("{OUTBOX}{id}").into(), made: Instant::now() })
    }

    /// The database has the record that is in it, if there is one.
    pub(super) fn free_again(&self, entry: Entry) {
        self.free().again.push(entry);
    }

    /// Free entries that are not written any more, once: they are to be removed.
    pub(super) fn old(&self) -> Vec<Entry> {
        let mut free = self.free();
        let (mut old, again) = mem::take(&mut free.again).into_iter().partition::<Vec<_>, _>(Entry::is_old);
        free.again = again;
        old.append(&mut free.old);
        self.add(-(old.len() as i64));
        // Those that wait are all but those that the database has.
        let waiting = self.count.load(Relaxed) - free.again.len() as i64;
        metrics::gauge!("audit_records_waiting").set(waiting.max(0) as f64);
        old
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, entries: i64) {
        self.count.fetch_add(entries, Relaxed);
    }

    pub(super) fn set(&self, entries: i64) {
        self.count.store(entries, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_too_many_there_is_no_entry_but_those_that_are_free() {
        let outbox = Outbox::default();
        outbox.set(OUTBOX_MAX as i64 - 1);
        let entry = outbox.entry("1").unwrap();
        assert_eq!(*entry.key, *format!("{OUTBOX}1"));
        assert!(matches!(outbox.entry("2"), Err(AuditError::Full)));
        outbox.free_again(entry.clone());
        assert_eq!(outbox.entry("2").unwrap().key, entry.key);
        assert!(matches!(outbox.entry("3"), Err(AuditError::Full)));
        outbox.add(-1);
        assert_eq!(*outbox.entry("3").unwrap().key, *format!("{OUTBOX}3"));
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_written_again_until_they_are_old() {
        let outbox = Outbox::default();
        let entries: Vec<_> = ["1", "2"].map(|id| outbox.entry(id).unwrap()).into();
        tokio::time::advance(ENTRY_LIFE / 2).await;
        let young = outbox.entry("3").unwrap();
        entries.iter().chain([&young]).for_each(|entry| outbox.free_again(entry.clone()));
        assert_eq!(outbox.old().len(), 0);
        assert_eq!(outbox.entry("4").unwrap().key, young.key);
        tokio::time::advance(ENTRY_LIFE / 2).await;
        assert_eq!(*outbox.entry("5").unwrap().key, *format!("{OUTBOX}5"));
        let keys = |entries: &[Entry]| entries.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>();
        let mut old = keys(&outbox.old());
        old.sort();
        assert_eq!(old, keys(&entries));
        assert_eq!(outbox.old().len(), 0);
        assert_eq!(outbox.count.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn further_changes_wait_for_room_and_not_for_ever() {
        let outbox = Outbox::default();
        let mut taken = Vec::new();
        for _ in 0..UNTAKEN_MAX {
            taken.push(outbox.room().await.unwrap());
        }
        let began = Instant::now();
        assert!(outbox.room().await.is_none());
        assert_eq!(began.elapsed(), ROOM_WAIT);
        let (room, ()) = tokio::join!(outbox.room(), async { drop(taken.pop()) });
        assert!(room.is_some());
    }
}
