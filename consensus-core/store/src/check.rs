//! What a request must satisfy before it is proposed. The same rules and texts as etcd's.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use consensus_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortOrder,
    range_request::SortTarget, request_op::Request,
};

use crate::{StoreError, view::KeyRange};

/// Transactions within transactions: enough for every client, and far from the end of the stack.
const NESTING_MAX: usize = 32;

/// Looks at a range.
pub fn range(request: &RangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    SortOrder::try_from(request.sort_order).map_err(|_| StoreError::InvalidSortOption)?;
    SortTarget::try_from(request.sort_target).map_err(|_| StoreError::InvalidSortOption)?;
    Ok(())
}

/// Looks at a put.
pub fn put(request: &PutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    Ok(())
}

/// Looks at a deletion.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

/// Looks at a transaction, in which no list may have more than `ops_max` members.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), StoreError> {
    txn_at(request, ops_max, 0)?;
    for branch in [&request.success, &request.failure] {
        writes(branch)?;
    }
    Ok(())
}

fn txn_at(request: &TxnRequest, ops_max: usize, depth: usize) -> Result<(), StoreError> {
    if depth > NESTING_MAX {
        return Err(StoreError::TooManyOps);
    }
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > ops_max {
        return Err(StoreError::TooManyOps);
    }
    request.compare.iter().try_for_each(compare)?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            // What is left of the operations is for those inside, as in etcd.
            Some(Request::RequestTxn(request)) => txn_at(request, ops_max - longest, depth + 1)?,
            None => return Err(StoreError::KeyNotFound),
        }
    }
    Ok(())
}

fn compare(compare: &Compare) -> Result<(), StoreError> {
    if compare.key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

/// Whether a transaction changes nothing, whichever branches are taken.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        _ => false,
    })
}

/// Whether a read-only transaction is content with what this member has, as all of its ranges say.
pub fn is_serializable(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestTxn(nested)) => is_serializable(nested),
        _ => false,
    })
}

/// What a branch puts and deletes.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Spans,
}

impl Writes {
    /// Whether one puts what the other puts or deletes.
    fn meets(&self, inner: &Self) -> bool {
        inner.puts.iter().any(|key| self.puts.contains(key) || self.deletes.contains(key))
            || inner.deletes.meets(&self.puts)
    }
}

/// A key may be put once in a branch, and not be deleted there as well: its version at the end would depend on what
/// nobody asked for. The branches of a nested transaction exclude each other. A request has room for some hundred
/// thousand operations, so each is looked up, not compared with every other.
fn writes(ops: &[RequestOp]) -> Result<Writes, StoreError> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            all.deletes.insert(&request.key, &request.range_end);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(request)) = &op.request else { continue };
        let branches = [writes(&request.success)?, writes(&request.failure)?];
        if branches.iter().any(|inner| all.meets(inner)) {
            return Err(StoreError::DuplicateKey);
        }
        for inner in branches {
            all.puts.extend(inner.puts);
            inner.deletes.0.into_iter().for_each(|(start, end)| all.deletes.unite(start, end));
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request
            && (all.deletes.contains(&request.key) || !all.puts.insert(request.key.clone()))
        {
            return Err(StoreError::DuplicateKey);
        }
    }
    Ok(all)
}

/// Sets of keys: spans that do not touch each other, by their first key, with the key after their last; `None`: no end.
#[derive(Default)]
struct Spans(BTreeMap<Bytes, Option<Bytes>>);

impl Spans {
    fn insert(&mut self, key: &Bytes, range_end: &Bytes) {
        match KeyRange::new(key, range_end) {
            KeyRange::One(key) => self.unite(key.to_vec().into(), Some([key, &[0]].concat().into())),
            KeyRange::Span(_, None) => self.unite(key.clone(), None),
            KeyRange::Span(start, Some(end)) if start < end => {
                self.unite(key.clone(), Some(range_end.clone()))
            }
            KeyRange::Span(..) => {}
        }
    }

    /// Adds a span; those that it touches become one with it.
    fn unite(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        let later = |a: Option<Bytes>, b: Option<Bytes>| a.zip(b).map(|(a, b)| a.max(b));
        if let Some((before, before_end)) = self.0.range::<Bytes, _>(..=&start).next_back()
            && before_end.as_ref().is_none_or(|end| *end >= start)
        {
            (start, end) = (before.clone(), later(end, before_end.clone()));
        }
        while let Some((next, next_end)) = self.0.range::<Bytes, _>(&start..).next()
            && end.as_ref().is_none_or(|end| next <= end)
        {
            let next = next.clone();
            end = later(end, next_end.clone());
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    fn meets(&self, keys: &BTreeSet<Bytes>) -> bool {
        self.0.iter().any(|(start, end)| {
            keys.range::<Bytes, _>(start..).next().is_some_and(|key| end.as_ref().is_none_or(|end| key < end))
        })
    }
}
