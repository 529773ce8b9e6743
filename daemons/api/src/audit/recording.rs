//! A change that somebody has asked for, while it is made: how it comes to its record.
//!
//! What changes the store writes the record in the same transaction. What changes something else has it written before.

use std::sync::OnceLock;

use axum::{http::StatusCode, response::Response};
use consensus_proto::etcdserverpb::RequestOp;

use super::{
    database::{Audit, AuditError},
    outbox::{Outbox, Waiting, Was},
    record::{Outcome, Record},
};

/// Where the record is before the change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the transaction that changes the store.
    Outbox,
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
            outbox.check()?;
            outbox.add(1);
        }
        self.place.get_or_init(|| Place::Outbox);
        Ok(Waiting::new(record, was, status != StatusCode::NO_CONTENT).put())
    }

    /// Writes the record of what does not change the store, before it is done.
    pub(crate) async fn begin(&self, audit: &Audit) -> Result<(), AuditError> {
        audit.write(self.record.clone()).await?;
        self.place.get_or_init(|| Place::Database);
        Ok(())
    }

    /// Completes the record with what was answered.
    pub(crate) async fn end(&self, audit: &Audit, ended: Record) {
        let written = match (self.place.get(), ended.outcome) {
            (Some(Place::Outbox), Outcome::Done) => return audit.take(ended),
            // If it was done, its entry says so.
            (Some(Place::Outbox), Outcome::Unknown) | (Some(Place::Database), _) => {
                audit.complete(ended).await
            }
            (place, _) => {
                if place.is_some() {
                    audit.outbox.add(-1);
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
