//! etcd's data model the slow way: every key at every revision in plain maps. Written from etcd's documentation, not from the
//! store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus_proto::{
    etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse, Compare,
        DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
        LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
        ResponseOp, TxnRequest, TxnResponse,
        alarm_request::AlarmAction,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op, response_op,
    },
    internal::internal_request::Request,
    mvccpb::{Event, KeyValue, event::EventType},
};
use consensus_store::{Changes, Response, StoreError, WatchRange};

pub(crate) type Keys = BTreeMap<Bytes, KeyValue>;
type Answer = Result<Response, StoreError>;

#[derive(Clone)]
pub(crate) struct Model {
    /// The keys after each revision.
    pub(crate) at: BTreeMap<i64, Keys>,
    /// What changed in each.
    pub(crate) events: Vec<Changes>,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<i64, i64>,
    alarms: BTreeSet<(i32, u64)>,
}

/// A revision in the making.
struct Draft<'a> {
    model: &'a Model,
    now: Keys,
    events: Vec<Event>,
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

fn within(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            at: BTreeMap::from([(1, Keys::new())]),
            events: Vec::new(),
            revision: 1,
            compacted: 0,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }

    pub(crate) fn apply(&mut self, request: &Request) -> Answer {
        self.refused_by_alarms(request)?;
        match request {
            Request::Put(put) => self.write(|draft| draft.put(put).map(Response::Put)),
            Request::DeleteRange(delete) => {
                self.write(|draft| Ok(Response::DeleteRange(draft.delete(delete))))
            }
            Request::Txn(txn) => self.write(|draft| draft.txn(txn).map(Response::Txn)),
            Request::Compaction(request) => self.compact(request),
            Request::LeaseGrant(request) => self.grant(request),
            Request::LeaseRevoke(request) => self.revoke(request),
            Request::Alarm(request) => Ok(self.alarm(request)),
            _ => unreachable!("users and roles have a model of their own"),
        }
    }

    fn raised(&self, kind: AlarmType) -> bool {
        self.alarms.iter().any(|(raised, _)| *raised == kind as i32)
    }

    fn refused_by_alarms(&self, request: &Request) -> Result<(), StoreError> {
        let grows = match request {
            Request::Alarm(_) => return Ok(()),
            Request::Put(_) | Request::LeaseGrant(_) => true,
            Request::Txn(txn) => puts(txn),
            _ => false,
        };
        match () {
            () if self.raised(AlarmType::Corrupt) => Err(StoreError::CorruptMember),
            () if self.raised(AlarmType::Nospace) && grows => Err(StoreError::NoSpace),
            () => Ok(()),
        }
    }

    fn write(&mut self, body: impl FnOnce(&mut Draft<'_>) -> Answer) -> Answer {
        let mut draft = Draft { model: self, now: self.at[&self.revision].clone(), events: Vec::new() };
        let answer = body(&mut draft)?;
        let Draft { now, events, .. } = draft;
        if !events.is_empty() {
            self.revision += 1;
            self.at.insert(self.revision, now);
            self.events.push(Changes { revision: self.revision, events });
        }
        Ok(answer)
    }

    fn compact(&mut self, request: &CompactionRequest) -> Answer {
        match request.revision {
            revision if revision <= self.compacted => Err(StoreError::Compacted),
            revision if revision > self.revision => Err(StoreError::FutureRevision),
            revision => {
                self.compacted = revision;
                Ok(Response::Compact(CompactionResponse { header: header(self.revision) }))
            }
        }
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Answer {
        if request.ttl > 9_000_000_000 {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if request.id == 0 || self.leases.contains_key(&request.id) {
            return Err(StoreError::LeaseExists);
        }
        let (id, ttl) = (request.id, request.ttl.max(1));
        self.leases.insert(id, ttl);
        let header = header(self.revision);
        Ok(Response::LeaseGrant(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    fn revoke(&mut self, request: &LeaseRevokeRequest) -> Answer {
        self.leases.remove(&request.id).ok_or(StoreError::LeaseNotFound)?;
        let doomed = self.lease_keys(request.id);
        self.write(|draft| {
            doomed.into_iter().for_each(|key| draft.remove(&key));
            Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: draft.header() }))
        })
    }

    pub(crate) fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let keys = self.at[&self.revision].values();
        keys.filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Response {
        let (kind, member) = (request.alarm, request.member_id);
        let about = match request.action() {
            AlarmAction::Get => {
                self.alarms.iter().copied().filter(|(raised, _)| kind == 0 || *raised == kind).collect()
            }
            AlarmAction::Activate if kind == 0 => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert((kind, member));
                vec![(kind, member)]
            }
            AlarmAction::Deactivate => self.alarms.take(&(kind, member)).into_iter().collect(),
        };
        Response::Alarm(AlarmResponse { header: header(self.revision), alarms: members(about) })
    }

    pub(crate) fn all_alarms(&self) -> Vec<AlarmMember> {
        members(self.alarms.iter().copied())
    }

    /// What a watcher reads from revision `from` on. The states before a compaction are gone, also as what was before.
    pub(crate) fn history(&self, range: &WatchRange, from: i64) -> Vec<Changes> {
        let mut history = Vec::new();
        for Changes { revision, events } in self.events.iter().filter(|changes| changes.revision >= from) {
            let key = |event: &Event| event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            let events = events.iter().filter(|event| within(&key(event), &range.key, &range.range_end));
            let known = *revision > self.compacted;
            let events = events
                .map(|event| Event { prev_kv: event.prev_kv.clone().filter(|_| known), ..event.clone() });
            let events: Vec<Event> = events.collect();
            if !events.is_empty() {
                history.push(Changes { revision: *revision, events });
            }
        }
        history
    }

    /// What a read beside the log answers.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let revision = if request.revision > 0 { request.revision } else { self.revision };
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(StoreError::Compacted);
        }
        range(&self.at[&revision], request, self.revision)
    }
}

fn members(alarms: impl IntoIterator<Item = (i32, u64)>) -> Vec<AlarmMember> {
    alarms.into_iter().map(|(alarm, member_id)| AlarmMember { member_id, alarm }).collect()
}

fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(request_op::Request::RequestPut(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}

impl Draft<'_> {
    fn header(&self) -> Option<ResponseHeader> {
        header(self.model.revision + i64::from(!self.events.is_empty()))
    }

    fn put(&mut self, put: &PutRequest) -> Result<PutResponse, StoreError> {
        let revision = self.model.revision + 1;
        let before = self.now.get(&put.key).cloned();
        if before.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(StoreError::KeyNotFound);
        }
        let fresh = KeyValue { key: put.key.clone(), create_revision: revision, ..Default::default() };
        let mut after = before.clone().unwrap_or(fresh);
        after.version += 1;
        after.mod_revision = revision;
        if !put.ignore_value {
            after.value = put.value.clone();
        }
        if !put.ignore_lease {
            after.lease = put.lease;
        }
        if after.lease != 0 && !self.model.leases.contains_key(&after.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        self.now.insert(put.key.clone(), after.clone());
        let prev_kv = before.clone().filter(|_| put.prev_kv);
        self.events.push(Event { r#type: EventType::Put.into(), kv: Some(after), prev_kv: before });
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(before) = self.now.remove(key) else { return };
        let mod_revision = self.model.revision + 1;
        let kv = KeyValue { key: key.clone(), mod_revision, ..Default::default() };
        self.events.push(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: Some(before) });
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let doomed = self.now.values().filter(|kv| within(&kv.key, &delete.key, &delete.range_end));
        let doomed: Vec<KeyValue> = doomed.cloned().collect();
        doomed.iter().for_each(|kv| self.remove(&kv.key));
        let deleted = doomed.len() as i64;
        let prev_kvs = if delete.prev_kv { doomed } else { Vec::new() };
        DeleteRangeResponse { header: self.header(), deleted, prev_kvs }
    }

    /// Comparisons see the keys before all changes, those of nested transactions too.
    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let before = &self.model.at[&self.model.revision];
        let succeeded = txn.compare.iter().all(|compare| holds(before, compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let response = match op.request.as_ref().expect("the checks let none pass without") {
                request_op::Request::RequestPut(put) => response_op::Response::ResponsePut(self.put(put)?),
                request_op::Request::RequestTxn(txn) => response_op::Response::ResponseTxn(self.txn(txn)?),
                request_op::Request::RequestDeleteRange(delete) => {
                    response_op::Response::ResponseDeleteRange(self.delete(delete))
                }
                request_op::Request::RequestRange(range) => {
                    response_op::Response::ResponseRange(self.range(range)?)
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: self.header(), succeeded, responses })
    }

    /// Of now, or of a revision that was there before.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let mut response = match request.revision {
            ..=0 => range(&self.now, request, 0)?,
            _ => self.model.range(request)?,
        };
        response.header = self.header();
        Ok(response)
    }
}

fn range(keys: &Keys, request: &RangeRequest, revision: i64) -> Result<RangeResponse, StoreError> {
    let order = SortOrder::try_from(request.sort_order).map_err(|_| StoreError::InvalidSortOption)?;
    let target = SortTarget::try_from(request.sort_target).map_err(|_| StoreError::InvalidSortOption)?;
    let mut kvs: Vec<KeyValue> =
        keys.values().filter(|kv| within(&kv.key, &request.key, &request.range_end)).cloned().collect();
    let mut count = kvs.len() as i64;
    let least = |bound: i64, value: i64| bound == 0 || value >= bound;
    let most = |bound: i64, value: i64| bound == 0 || value <= bound;
    kvs.retain(|kv| {
        least(request.min_mod_revision, kv.mod_revision)
            && most(request.max_mod_revision, kv.mod_revision)
            && least(request.min_create_revision, kv.create_revision)
            && most(request.max_create_revision, kv.create_revision)
    });
    let by = |kv: &KeyValue| match target {
        SortTarget::Key => (0, kv.key.clone()),
        SortTarget::Value => (0, kv.value.clone()),
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
    };
    kvs.sort_by(|a, b| if order == SortOrder::Descend { by(b).cmp(&by(a)) } else { by(a).cmp(&by(b)) });
    let mut more = false;
    if request.count_only {
        kvs.clear();
    } else if request.limit > 0 && kvs.len() as i64 > request.limit {
        kvs.truncate(request.limit as usize);
        more = true;
    }
    if request.uncounted && !request.count_only {
        count = kvs.len() as i64;
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    Ok(RangeResponse { header: header(revision), kvs, more, count })
}

/// For all keys of its range; of those that are not there, everything is zero, and a value is equal to none.
fn holds(keys: &Keys, compare: &Compare) -> bool {
    let mut found = keys.values().filter(|kv| within(&kv.key, &compare.key, &compare.range_end)).peekable();
    match found.peek() {
        Some(_) => found.all(|kv| holds_for(kv, compare)),
        None => compare.target() != CompareTarget::Value && holds_for(&KeyValue::default(), compare),
    }
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let given =
        compare.target_union.as_ref().expect("the comparisons of this test have something to compare with");
    let ordering = match given {
        TargetUnion::Version(given) => kv.version.cmp(given),
        TargetUnion::CreateRevision(given) => kv.create_revision.cmp(given),
        TargetUnion::ModRevision(given) => kv.mod_revision.cmp(given),
        TargetUnion::Value(given) => kv.value.cmp(given),
        TargetUnion::Lease(given) => kv.lease.cmp(given),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}
