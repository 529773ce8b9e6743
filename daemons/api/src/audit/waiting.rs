//! What an entry of the outbox says: the record of a change, as far as it is known when the change is asked for.

use consensus_proto::mvccpb::KeyValue;
use novacron_store::StoreError;
use serde::Deserialize;
use tonic::Code;

use super::record::{Outcome, Record};
use crate::{http::condition::etag_text, store::Store};

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
#[derive(Debug, Deserialize)]
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

    /// As it is in the store: its fields in their order, without their names, which would be the most of it.
    pub(super) fn value(&self) -> Vec<u8> {
        let of = &self.record;
        let record = (
            &of.id,
            of.at_ms,
            &of.principal,
            &of.name,
            &of.address,
            &of.method,
            &of.route,
            &of.resource,
            &of.request_id,
            &of.replica,
            of.outcome,
            of.status,
            &of.etag_before,
            &of.etag_after,
        );
        serde_json::to_vec(&(record, &self.before_of, self.has_etag)).expect("texts and numbers are JSON")
    }

    /// As it is in the store; `None`, and a line in the log, for one of a newer version.
    pub(super) fn parsed(kv: &KeyValue) -> Option<Self> {
        serde_json::from_slice(&kv.value)
            .inspect_err(|error| {
                tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "a record that waits for the database");
            })
            .ok()
    }

    pub(super) fn id(&self) -> &str {
        &self.record.id
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let record = Record { principal: "local".to_owned(), status: 200, ..Record::begun() };
        let waiting = Waiting::new(record.clone(), Was::At(7), true);
        let expected = Record { outcome: Outcome::Done, etag_before: "\"7\"".to_owned(), ..record };
        let kv = |value: Vec<u8>| KeyValue { value: value.into(), ..KeyValue::default() };
        let read = Waiting::parsed(&kv(waiting.value())).unwrap();
        assert_eq!((read.record, read.before_of, read.has_etag), (expected.clone(), String::new(), true));
        // As it was written before.
        let named = serde_json::json!({ "record": expected, "before_of": "/k", "has_etag": false });
        let read = Waiting::parsed(&kv(named.to_string().into())).unwrap();
        assert_eq!((read.record, read.before_of, read.has_etag), (expected, "/k".to_owned(), false));
        assert!(Waiting::parsed(&kv(b"{}".to_vec())).is_none());
    }
}
