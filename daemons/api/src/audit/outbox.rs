//! Records of changes on their way into the database: entries of the store, each written in one transaction with its change.
//!
//! Owns what such an entry is, and how many there may be. Deliberately not here: when they go, which is `drain`'s.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use consensus_proto::{etcdserverpb::RequestOp, mvccpb::KeyValue};
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::{
    database::AuditError,
    record::{Outcome, Record},
};
use crate::{
    http::condition::etag_text,
    store::{Store, put},
};

/// Entries in the store: the record's id, which sorts by time.
pub(crate) const OUTBOX: &str = "/novacron/audit/";
/// Records that wait for the database. With more, nothing is changed. A replica knows of those that others have added since
/// its last look only then, and may go beyond it by as many.
pub(crate) const OUTBOX_MAX: usize = 10_000;

/// What was there before a change, as far as it is known when the change is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Was<'a> {
    /// Nothing.
    Absent,
    /// What was last changed at this revision.
    At(i64),
    /// Whatever the entry of this key is then.
    Read(&'a str),
}

/// A record as it waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    record: Record,
    /// The entry whose revision before is the ETag before; empty: the record has that.
    before_of: String,
    /// The ETag after is that of this entry's revision, which nobody knew when it was written.
    has_etag: bool,
}

impl Waiting {
    /// Of a change that will have been made if its transaction holds.
    pub(super) fn new(mut record: Record, was: Was<'_>, has_etag: bool) -> Self {
        record.outcome = Outcome::Done;
        let before_of = match was {
            Was::Absent => "",
            Was::At(revision) => {
                record.etag_before = etag_text(revision);
                ""
            }
            Was::Read(key) => key,
        };
        Self { record, before_of: before_of.to_owned(), has_etag }
    }

    pub(super) fn put(&self) -> RequestOp {
        put(&key(&self.record.id), serde_json::to_vec(self).expect("texts and numbers are JSON"), 0)
    }

    /// As it is in the store; `None`, and a line in the log, for one of a newer version.
    pub(super) fn parsed(kv: &KeyValue) -> Option<Self> {
        serde_json::from_slice(&kv.value)
            .inspect_err(|error| {
                tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "a record that waits for the database");
            })
            .ok()
    }

    pub(super) fn replica(&self) -> &str {
        &self.record.replica
    }

    /// The whole record, of an entry that was written at this revision.
    pub(super) async fn completed(self, store: &Store, revision: i64) -> Result<Record, StoreError> {
        let Self { mut record, before_of, has_etag } = self;
        if has_etag {
            record.etag_after = etag_text(revision);
        }
        if !before_of.is_empty() {
            record.etag_before = match store.get_at(&before_of, revision - 1).await {
                Ok(before) => before.map(|kv| etag_text(kv.mod_revision)).unwrap_or_default(),
                // The store has compacted that away.
                Err(StoreError::Refused { failure, .. }) if failure.code == Code::OutOfRange => String::new(),
                Err(error) => return Err(error),
            };
        }
        Ok(record)
    }
}

/// Where a record waits.
pub(super) fn key(id: &str) -> String {
    format!("{OUTBOX}{id}")
}

/// How many records wait, of all replicas, as this one knows it.
#[derive(Default)]
pub(crate) struct Outbox(AtomicI64);

impl Outbox {
    /// As the store has it.
    pub(crate) async fn of(store: &Store) -> Result<Self, StoreError> {
        let count = store.count(OUTBOX).await?;
        Ok(Self(AtomicI64::new(count as i64)))
    }

    /// Refuses one more, if there are too many.
    pub(super) fn check(&self) -> Result<(), AuditError> {
        if self.0.load(Relaxed) >= OUTBOX_MAX as i64 { Err(AuditError::Full) } else { Ok(()) }
    }

    pub(super) fn add(&self, records: i64) {
        tell(self.0.fetch_add(records, Relaxed) + records);
    }

    pub(super) fn set(&self, records: i64) {
        self.0.store(records, Relaxed);
        tell(records);
    }
}

fn tell(records: i64) {
    metrics::gauge!("audit_records_waiting").set(records.max(0) as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_too_many_there_is_no_room() {
        let outbox = Outbox::default();
        outbox.set(OUTBOX_MAX as i64 - 1);
        assert!(outbox.check().is_ok());
        outbox.add(1);
        assert!(matches!(outbox.check(), Err(AuditError::Full)));
        outbox.add(-1);
        assert!(outbox.check().is_ok());
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let record = Record { principal: "local".to_owned(), status: 200, ..Record::begun() };
        let waiting = Waiting::new(record.clone(), Was::At(7), true);
        let value = serde_json::to_vec(&waiting).unwrap();
        let kv = KeyValue { value: value.into(), ..KeyValue::default() };
        let read = Waiting::parsed(&kv).unwrap();
        let expected = Record { outcome: Outcome::Done, etag_before: "\"7\"".to_owned(), ..record };
        assert_eq!((read.record, read.before_of, read.has_etag), (expected, String::new(), true));
        assert!(Waiting::parsed(&KeyValue { value: "{}".into(), ..KeyValue::default() }).is_none());
    }
}
