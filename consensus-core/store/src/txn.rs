//! One revision in the making.

use std::{cmp::Ordering, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use consensus_disk::Disk;
use consensus_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{Event, KeyValue, event::EventType},
};

use crate::{
    StoreError,
    keys::{self, HISTORY, LEASE_KEYS, VERSIONS},
    range,
    region::Replicated,
    store::{Changes, Store},
    version::Version,
    view::{KeyRange, View},
};

/// Changes that become one revision, or none if there are none. Reads see the changes before them.
pub(crate) struct Txn<'a, D> {
    pub(crate) store: &'a mut Store<D>,
    revision: i64,
    changes: Vec<Change>,
    /// What becomes of the items of the region.
    pub(crate) replicated: Option<Replicated>,
}

struct Change {
    key: Bytes,
    before: Option<Version>,
    after: Version,
}

impl<'a, D: Disk> Txn<'a, D> {
    pub(crate) fn new(store: &'a mut Store<D>) -> Self {
        let revision = store.revision + 1;
        Self { store, revision, changes: Vec::new(), replicated: None }
    }

    fn view(&self) -> View<'_> {
        let Store { disk, overlay, published, .. } = &*self.store;
        View {
            disk: &**disk,
            overlay: Some(overlay),
            recent: Some(&published.recent),
            revision: self.revision,
        }
    }

    fn header(&self) -> Option<ResponseHeader> {
        let revision = if self.changes.is_empty() { self.revision - 1 } else { self.revision };
        Some(ResponseHeader { revision, ..ResponseHeader::default() })
    }

    fn change(&mut self, key: Bytes, before: Option<Version>, after: Version) {
        self.store.overlay.entry(key.clone()).or_default().push(after.clone());
        self.changes.push(Change { key, before, after });
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, StoreError> {
        let before = self.view().get(&request.key, true)?;
        if (request.ignore_value || request.ignore_lease) && before.is_none() {
            return Err(StoreError::KeyNotFound);
        }
        let held = before.as_ref().map_or(0, |before| before.lease);
        let lease = if request.ignore_lease { held } else { request.lease };
        if lease != 0 && !self.store.leases.contains_key(&lease) {
            return Err(StoreError::LeaseNotFound);
        }
        let value = match &before {
            Some(before) if request.ignore_value => before.value.clone(),
            _ => request.value.clone(),
        };
        let after = Version {
            create_revision: before.as_ref().map_or(self.revision, |before| before.create_revision),
            mod_revision: self.revision,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            lease,
            value,
        };
        let prev_kv =
            before.as_ref().filter(|_| request.prev_kv).map(|before| before.key_value(request.key.clone()));
        self.change(request.key.clone(), before, after);
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    pub(crate) fn delete(&mut self, key: Bytes) -> Result<Option<Version>, StoreError> {
        let before = self.view().get(&key, true)?;
        if before.is_some() {
            self.change(key, before.clone(), Version::deleted_at(self.revision));
        }
        Ok(before)
    }

    /// What a key is from now on, whoever says so; no value: it is gone.
    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), StoreError> {
        let Some(value) = value else { return self.delete(key).map(drop) };
        let before = self.view().get(&key, true)?;
        let after = Version {
            create_revision: before.as_ref().map_or(self.revision, |before| before.create_revision),
            mod_revision: self.revision,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            lease: 0,
            value,
        };
        self.change(key, before, after);
        Ok(())
    }

    /// The keys that were changed, and what they are.
    pub(crate) fn changed_keys(&self) -> impl Iterator<Item = (&Bytes, &Version)> {
        self.changes.iter().map(|change| (&change.key, &change.after))
    }

    pub(crate) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StoreError> {
        let mut doomed = Vec::new();
        self.view().scan(KeyRange::new(&request.key, &request.range_end), &mut |entry| {
            doomed.push((entry.key(), entry.version()));
            ControlFlow::Continue(())
        })?;
        let deleted = doomed.len() as i64;
        let mut prev_kvs = Vec::new();
        for (key, before) in doomed {
            if request.prev_kv {
                prev_kvs.push(before.key_value(key.clone()));
            }
            self.change(key, Some(before), Version::deleted_at(self.revision));
        }
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let mut view = self.view();
        if request.revision > 0 {
            if request.revision > self.store.revision {
                return Err(StoreError::FutureRevision);
            }
            if request.revision < self.store.compacted() {
                return Err(StoreError::Compacted);
            }
            view.revision = request.revision;
        }
        let mut response = range::range(view, request)?;
        response.header = self.header();
        Ok(response)
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let mut outcomes = Vec::new();
        self.compare_all(request, &mut outcomes)?;
        self.execute(request, &mut outcomes.into_iter())
    }

    /// Which branch is taken, of this transaction and then of those in that branch: all comparisons come before all
    /// changes.
    fn compare_all(&self, request: &TxnRequest, outcomes: &mut Vec<bool>) -> Result<(), StoreError> {
        let mut succeeded = true;
        for compare in &request.compare {
            if !holds(self.view(), compare)? {
                succeeded = false;
                break;
            }
        }
        outcomes.push(succeeded);
        for op in branch(request, succeeded) {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.compare_all(nested, outcomes)?;
            }
        }
        Ok(())
    }

    fn execute(
        &mut self,
        request: &TxnRequest,
        outcomes: &mut dyn Iterator<Item = bool>,
    ) -> Result<TxnResponse, StoreError> {
        let succeeded = outcomes.next().expect("an outcome for each transaction on the way");
        let mut responses = Vec::new();
        for op in branch(request, succeeded) {
            responses.push(self.op(op, outcomes)?);
        }
        Ok(TxnResponse { responses, succeeded, header: self.header() })
    }

    fn op(
        &mut self,
        op: &RequestOp,
        outcomes: &mut dyn Iterator<Item = bool>,
    ) -> Result<ResponseOp, StoreError> {
        let response = match op.request.as_ref().ok_or(StoreError::KeyNotFound)? {
            Request::RequestRange(request) => Response::ResponseRange(self.range(request)?),
            Request::RequestPut(request) => Response::ResponsePut(self.put(request)?),
            Request::RequestDeleteRange(request) => {
                Response::ResponseDeleteRange(self.delete_range(request)?)
            }
            Request::RequestTxn(request) => Response::ResponseTxn(self.execute(request, outcomes)?),
        };
        Ok(ResponseOp { response: Some(response) })
    }

    /// The changes become visible to what is applied after them.
    pub(crate) fn commit(self) -> Option<Changes> {
        let Self { store, revision, changes, replicated } = self;
        if let (Some(region), Some(replicated)) = (&mut store.region, replicated) {
            region.write(replicated, &mut store.batch);
        }
        if changes.is_empty() {
            return None;
        }
        let mut events = Vec::with_capacity(changes.len());
        let published = Arc::clone(&store.published);
        let mut recent = published.recent.write();
        for (sub, Change { key, before, after }) in changes.into_iter().enumerate() {
            store.batch.put(VERSIONS, keys::version_key(&key, revision), after.encode());
            store.batch.put(HISTORY, keys::history_key(revision, sub as u32), &key[..]);
            recent.put(&key, &after);
            let held = before.as_ref().map_or(0, |before| before.lease);
            if held != after.lease {
                if let Some(lease) = store.leases.get_mut(&held) {
                    lease.keys.remove(&key);
                    store.batch.delete(LEASE_KEYS, keys::attachment_key(held, &key));
                }
                if let Some(lease) = store.leases.get_mut(&after.lease) {
                    lease.keys.insert(key.clone());
                    store.batch.put(LEASE_KEYS, keys::attachment_key(after.lease, &key), []);
                }
            }
            events.push(event(key, before.as_ref(), &after));
        }
        store.revision = revision;
        Some(Changes { revision, events })
    }

    /// As if nothing had been asked.
    pub(crate) fn roll_back(self) {
        for change in self.changes {
            if let Some(versions) = self.store.overlay.get_mut(&change.key) {
                versions.retain(|version| version.mod_revision != self.revision);
            }
        }
    }
}

pub(crate) fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

/// Whether a comparison holds: for all keys of its range, or, if there are none, for a key that never was.
pub(crate) fn holds(view: View<'_>, compare: &Compare) -> Result<bool, StoreError> {
    let target =
        CompareTarget::try_from(compare.target).map_err(|_| StoreError::Invalid("unknown target"))?;
    let result =
        CompareResult::try_from(compare.result).map_err(|_| StoreError::Invalid("unknown result"))?;
    let (mut all, mut none) = (true, true);
    let with_value = target == CompareTarget::Value;
    view.scan(KeyRange::new(&compare.key, &compare.range_end), &mut |entry| {
        none = false;
        let version = if with_value { entry.version() } else { entry.head() };
        all = one_holds(compare, target, result, &version);
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if none {
        return Ok(target != CompareTarget::Value && one_holds(compare, target, result, &Version::default()));
    }
    Ok(all)
}

/// What watchers get to know of a change.
pub(crate) fn event(key: Bytes, before: Option<&Version>, after: &Version) -> Event {
    let prev_kv = before.map(|before| before.key_value(key.clone()));
    let (kind, kv) = match after.is_deletion() {
        true => {
            (EventType::Delete, KeyValue { key, mod_revision: after.mod_revision, ..KeyValue::default() })
        }
        false => (EventType::Put, after.key_value(key)),
    };
    Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

fn one_holds(compare: &Compare, target: CompareTarget, result: CompareResult, version: &Version) -> bool {
    let number = |given: i64, found: i64| found.cmp(&given);
    let ordering = match (&compare.target_union, target) {
        (Some(TargetUnion::Value(given)), CompareTarget::Value) => version.value.cmp(given),
        (Some(TargetUnion::Version(given)), CompareTarget::Version) => number(*given, version.version),
        (Some(TargetUnion::CreateRevision(given)), CompareTarget::Create) => {
            number(*given, version.create_revision)
        }
        (Some(TargetUnion::ModRevision(given)), CompareTarget::Mod) => number(*given, version.mod_revision),
        (Some(TargetUnion::Lease(given)), CompareTarget::Lease) => number(*given, version.lease),
        // What is not given is zero, or empty.
        (_, CompareTarget::Value) => version.value.as_ref().cmp(&[]),
        (_, CompareTarget::Version) => number(0, version.version),
        (_, CompareTarget::Create) => number(0, version.create_revision),
        (_, CompareTarget::Mod) => number(0, version.mod_revision),
        (_, CompareTarget::Lease) => number(0, version.lease),
    };
    match result {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
