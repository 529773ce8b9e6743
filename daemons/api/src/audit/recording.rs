//! A change that somebody has asked for, while it is made: how it comes to its record.
//!
//! What changes the store writes the record in the same transaction. What changes something else has it written before.

use std::sync::OnceLock;

use axum::{http::StatusCode, response::Response};
use consensus_proto::etcdserverpb::RequestOp;

use super::{
    database::{Audit, AuditError},
    outbox::{Entry, Outbox, Room},
    record::{Outcome, Record},
    waiting::{Waiting, Was},
};
use crate::store::{Store, put};

/// Where the record is before the change is made.
#[derive(Debug)]
enum Place {
    /// In the transaction that changes the store.
    Outbox(Entry),
    /// In the database, as begun.
    Database,
}

/// A change, and what is known of it.
pub(crate) struct Recording {
    record: Record,
    place: OnceLock<Place>,
}

impl Recording {
    /// With a record that says who asks for what.
    pub(crate) fn new(record: Record) -> Self {
        Self { record, place: OnceLock::new() }
    }

    /// What the transaction has to write that makes the change, and is answered with this status and location (empty: none).
    pub(crate) fn entry(
        &self,
        outbox: &Outbox,
        status: StatusCode,
        location: &str,
        was: Was<'_>,
    ) -> Result<RequestOp, AuditError> {
        let mut record = self.record.clone();
        record.status = i64::from(status.as_u16());
        if !location.is_empty() {
            location.clone_into(&mut record.resource);
        }
        if self.place.get().is_none() {
            // There is nothing yet, since one task makes the change.
            let _ = self.place.set(Place::Outbox(outbox.entry(&record.id)?));
        }
        let Some(Place::Outbox(entry)) = self.place.get() else {
            unreachable!("what changes the store does not begin its record in the database");
        };
        let waiting = Waiting::new(record, was, status != StatusCode::NO_CONTENT);
        Ok(put(&entry.key, waiting.value(), 0))
    }

    /// Writes the record of what does not change the store, before it is done.
    pub(crate) async fn begin(&self, audit: &Audit) -> Result<(), AuditError> {
        audit.write(self.record.clone()).await?;
        self.place.get_or_init(|| Place::Database);
        Ok(())
    }

    /// Completes the record with what was answered. `room`: what the change has waited for.
    pub(crate) async fn end(&self, audit: &Audit, store: &Store, ended: Record, room: Option<Room>) {
        let written = match (self.place.get(), ended.outcome) {
            (Some(Place::Outbox(entry)), Outcome::Done) => return audit.take(ended, entry.clone(), room),
            // If it was done, its entry says so. It is not written again: that may still come.
            (Some(Place::Outbox(_)), Outcome::Unknown) | (Some(Place::Database), _) => {
                audit.complete(ended).await
            }
            (place, _) => {
                if let Some(Place::Outbox(entry)) = place {
                    give_back(audit, store, entry, &ended.id).await;
                }
                // Nothing was changed, and nothing depends on this record.
                audit.write(ended).await
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the record of a request");
        }
    }

    /// The record with what was answered.
    pub(crate) fn ended(&self, response: &Response) -> Record {
        self.record.clone().ended(response)
    }
}

/// Has the entry of a change that was not made written again. That it was not is only what was answered, and a record must not
/// depend on that.
async fn give_back(audit: &Audit, store: &Store, entry: &Entry, id: &str) {
    match store.get(&entry.key).await {
        Ok(Some(kv)) if Waiting::parsed(&kv).is_none_or(|waiting| waiting.id() == id) => {}
        Ok(_) => audit.outbox.free_again(entry.clone()),
        Err(error) => tracing::debug!(%error, "an entry is left as it is"),
    }
}
