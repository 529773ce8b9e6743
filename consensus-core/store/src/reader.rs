//! Reads that do not go through the log.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use consensus_disk::{Disk, Order};
use consensus_proto::{
    etcdserverpb::{
        AlarmMember, AlarmType, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest,
        TxnResponse, request_op::Request as Asked, response_op::Response as Answer,
    },
    mvccpb::Event,
};

use prost::Message as _;

use crate::{
    StoreError,
    alarm::Alarms,
    auth::{AuthEpoch, Policy},
    glance::{Effort, Glance},
    keys::{self, HISTORY, LEASE_KEYS, LEASES},
    range,
    store::{Changes, Published, Store, decode_ttl},
    txn,
    view::{KeyRange, View},
    watch::WatchRange,
};

/// Changes that are looked at in one call of [`Reader::changes`], and about how long its result may be.
const READ_AT_ONCE: usize = 2000;
const BYTES_AT_ONCE: usize = 1 << 20;

/// Gives the disk in force when it is called: after the revision that is read at, or it may not have that.
type InForce<'a> = &'a dyn Fn() -> Arc<dyn Disk>;

/// Reads from any thread while one applies. Cheap to clone.
#[derive(Debug)]
pub struct Reader<D> {
    pub(crate) published: Arc<Published<D>>,
}

impl<D> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self { published: Arc::clone(&self.published) }
    }
}

impl<D: Disk> Store<D> {
    /// A reader of this store.
    pub fn reader(&self) -> Reader<D> {
        Reader { published: Arc::clone(&self.published) }
    }
}

impl<D: Disk> Reader<D> {
    /// The disk in force.
    pub fn disk(&self) -> Arc<D> {
        self.published.disk()
    }

    /// The newest revision that can be read.
    pub fn revision(&self) -> i64 {
        self.published.current.load(SeqCst)
    }

    /// The revision before which nothing can be read; 0: everything can.
    pub fn compacted(&self) -> i64 {
        self.published.compacted.load(SeqCst)
    }

    /// Which policy holds.
    pub fn auth_epoch(&self) -> AuthEpoch {
        self.published.policy.epoch()
    }

    /// The policy that holds. What was read before its epoch is asked for again, and is the same, was read under it.
    pub fn policy(&self) -> Arc<Policy> {
        self.published.policy.policy()
    }

    /// A range at one revision: the one asked for, or the newest.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.range_on(&|| self.disk(), request)
    }

    /// The same; `None`: that takes longer than a thread that others wait for should be kept.
    pub fn short_range(&self, request: &RangeRequest) -> Result<Option<RangeResponse>, StoreError> {
        match request.range_end.is_empty() {
            true => self.range(request).map(Some),
            false => self.shortly(|disk| self.range_on(disk, request)),
        }
    }

    /// A transaction that changes nothing ([`check::is_read_only`](crate::check::is_read_only)), at the newest revision.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        self.txn_on(&|| self.disk(), request)
    }

    /// The same; `None`: that takes longer than a thread that others wait for should be kept.
    pub fn short_txn(&self, request: &TxnRequest) -> Result<Option<TxnResponse>, StoreError> {
        self.shortly(|disk| self.txn_on(disk, request))
    }

    fn shortly<T>(
        &self,
        read: impl FnOnce(InForce<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let effort = Effort::short();
        let found = read(&|| Arc::new(Glance { disk: self.disk(), effort: Arc::clone(&effort) }));
        if effort.is_too_little() { Ok(None) } else { found.map(Some) }
    }

    fn range_on(&self, disk: InForce<'_>, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        loop {
            let current = self.revision();
            let revision = if request.revision > 0 { request.revision } else { current };
            if revision > current {
                return Err(StoreError::FutureRevision);
            }
            let read = range::range(
                View { disk: &*disk(), overlay: None, recent: Some(&self.published.recent), revision },
                request,
            );
            // A compaction meanwhile may have removed what was to be read.
            match (self.compacted() > revision, request.revision > 0) {
                (true, true) => return Err(StoreError::Compacted),
                (true, false) => {}
                (false, _) => {
                    let mut response = read?;
                    response.header = Some(ResponseHeader { revision: current, ..ResponseHeader::default() });
                    return Ok(response);
                }
            }
        }
    }

    fn txn_on(&self, disk: InForce<'_>, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        loop {
            let revision = self.revision();
            let answer = self.txn_at(disk, revision, request);
            if self.compacted() <= revision {
                return answer;
            }
        }
    }

    fn txn_at(
        &self,
        in_force: InForce<'_>,
        revision: i64,
        request: &TxnRequest,
    ) -> Result<TxnResponse, StoreError> {
        let disk = in_force();
        let view = View { disk: &*disk, overlay: None, recent: Some(&self.published.recent), revision };
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let mut succeeded = true;
        for compare in &request.compare {
            if !txn::holds(view, compare)? {
                succeeded = false;
                break;
            }
        }
        let mut responses = Vec::new();
        for op in txn::branch(request, succeeded) {
            let response = match &op.request {
                Some(Asked::RequestRange(request)) => {
                    let mut response = match request.revision {
                        ..=0 => range::range(view, request)?,
                        _ => self.range_on(in_force, request)?,
                    };
                    response.header = header;
                    Answer::ResponseRange(response)
                }
                Some(Asked::RequestTxn(request)) => {
                    Answer::ResponseTxn(self.txn_at(in_force, revision, request)?)
                }
                _ => {
                    return Err(StoreError::Invalid("a change in a transaction that was said to be without"));
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header, succeeded, responses })
    }

    /// What changed in `range` from revision `from` to `to`, both included, in order. Stops early, after whole revisions, when
    /// it has read much or found much. The second value is the next revision to ask for.
    pub fn changes(&self, range: &WatchRange, from: i64, to: i64) -> Result<(Vec<Changes>, i64), StoreError> {
        if self.compacted() > from {
            return Err(StoreError::Compacted);
        }
        let mut read = 0;
        let mut found: Vec<(i64, Bytes)> = Vec::new();
        let (mut next, mut last) = (to + 1, from);
        let mut failed = None;
        let (low, high) = (keys::history_key(from, 0), keys::history_key(to + 1, 0));
        self.disk().scan(HISTORY, &low, Some(&high), Order::Ascending, &mut |disk_key, key| {
            let revision = match keys::history_revision(disk_key) {
                Ok(revision) => revision,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            read += 1;
            if read > READ_AT_ONCE && revision > last {
                next = revision;
                return ControlFlow::Break(());
            }
            last = revision;
            if range.as_range().contains(key) {
                found.push((revision, Bytes::copy_from_slice(key)));
            }
            ControlFlow::Continue(())
        })?;
        let mut changes: Vec<Changes> = Vec::new();
        let mut bytes = 0;
        for (revision, key) in found {
            if bytes > BYTES_AT_ONCE && changes.last().is_some_and(|last| last.revision < revision) {
                next = revision;
                break;
            }
            let event = self.event(key, revision)?;
            bytes += event.encoded_len();
            match changes.last_mut() {
                Some(last) if last.revision == revision => last.events.push(event),
                _ => changes.push(Changes { revision, events: vec![event] }),
            }
        }
        // What is compacted meanwhile may be missing above.
        if self.compacted() > from {
            return Err(StoreError::Compacted);
        }
        failed.map_or(Ok((changes, next)), Err)
    }

    fn event(&self, key: Bytes, revision: i64) -> Result<Event, StoreError> {
        let at = |revision| {
            View { disk: &*self.disk(), overlay: None, recent: Some(&self.published.recent), revision }
                .get(&key, true)
        };
        // What was before a compaction cannot be asked for, whether or not it is removed already.
        let before = if revision > self.compacted() { at(revision - 1)? } else { None };
        let after = at(revision)?;
        let after = after.unwrap_or_else(|| crate::version::Version::deleted_at(revision));
        Ok(txn::event(key.clone(), before.as_ref(), &after))
    }

    /// The alarms that members have raised.
    pub fn alarms(&self) -> Result<Vec<AlarmMember>, StoreError> {
        Ok(Alarms::read(&*self.disk())?.list(AlarmType::None.into()))
    }

    /// The leases and their time to live in seconds.
    pub fn leases(&self) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut leases = Vec::new();
        let mut damaged = false;
        self.disk().scan(LEASES, &[], None, Order::Ascending, &mut |key, ttl| {
            match (key.try_into(), decode_ttl(ttl)) {
                (Ok(id), Ok(ttl)) => leases.push((u64::from_be_bytes(id) as i64, ttl)),
                _ => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        if damaged { Err(StoreError::Damaged { what: "lease" }) } else { Ok(leases) }
    }

    /// The time to live of a lease in seconds.
    pub fn lease_ttl(&self, id: i64) -> Result<Option<i64>, StoreError> {
        let stored = self.disk().get(LEASES, &keys::lease_key(id))?;
        stored.map(|ttl| decode_ttl(&ttl)).transpose()
    }

    /// The keys that a lease keeps.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, StoreError> {
        let mut found = Vec::new();
        let (from, to) = keys::attachments_of(id);
        self.disk().scan(LEASE_KEYS, &from, to.as_deref(), Order::Ascending, &mut |attachment, _| {
            if let Ok((_, key)) = keys::split_attachment_key(attachment) {
                found.push(Bytes::copy_from_slice(key));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

impl WatchRange {
    pub(crate) fn as_range(&self) -> KeyRange<'_> {
        KeyRange::new(&self.key, &self.range_end)
    }
}
