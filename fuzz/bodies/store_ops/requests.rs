//! Requests made of a fuzzer's bytes: few keys, leases and revisions, so that they meet.

use bytes::Bytes;
use consensus_proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
        PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareTarget, TargetUnion},
        request_op,
    },
    internal::internal_request::Request,
};

use super::input::Input;

/// Keys that the escaping of zero bytes could confuse.
const KEYS: [&[u8]; 8] = [b"a", b"a\0", b"a\0\xff", b"a\0\x01", b"a\x01", b"b", b"\xff\xff", b"c"];
/// Leases at both ends of the numbers among them, because they are kept in the order of their bytes.
const LEASES: [i64; 5] = [1, 2, -1, i64::MAX, i64::MIN];
/// Transactions within transactions.
const DEPTH_MAX: usize = 3;

pub(crate) fn key(input: &mut Input<'_>) -> Bytes {
    Bytes::from_static(input.pick(&KEYS))
}

/// One key, all that follow, or those up to another, which may be before it.
pub(crate) fn range_end(input: &mut Input<'_>) -> Bytes {
    match input.below(4) {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0]),
        _ => key(input),
    }
}

pub(crate) fn lease(input: &mut Input<'_>) -> i64 {
    input.pick(&LEASES)
}

/// A revision that is there, was there, or is to come.
pub(crate) fn revision(input: &mut Input<'_>, newest: i64) -> i64 {
    newest + 1 - i64::from(input.u8() % 24)
}

pub(crate) fn request(input: &mut Input<'_>, newest: i64) -> Request {
    match input.below(16) {
        0..6 => Request::Put(put(input)),
        6..8 => Request::DeleteRange(delete(input)),
        8..11 => Request::Txn(txn(input, newest, 0)),
        11 => Request::Compaction(CompactionRequest { revision: revision(input, newest), physical: false }),
        12 | 13 => {
            let ttl = input.pick(&[60, 1, 0, -5, 9_000_000_000, 9_000_000_001]);
            Request::LeaseGrant(LeaseGrantRequest {
                id: if input.one_in(16) { 0 } else { lease(input) },
                ttl,
            })
        }
        14 => Request::LeaseRevoke(LeaseRevokeRequest { id: lease(input) }),
        _ => Request::Alarm(alarm(input)),
    }
}

/// Mostly alarms end, or nothing else would be tried.
fn alarm(input: &mut Input<'_>) -> AlarmRequest {
    AlarmRequest {
        action: input.pick(&[0, 1, 2, 2, 2]),
        member_id: input.pick(&[1, u64::MAX]),
        alarm: input.below(3) as i32,
    }
}

fn put(input: &mut Input<'_>) -> PutRequest {
    let (key, flags) = (key(input), input.u8());
    let (ignore_value, ignore_lease) = (flags.is_multiple_of(7), flags.is_multiple_of(5));
    PutRequest {
        key,
        value: if ignore_value { Bytes::new() } else { Bytes::copy_from_slice(input.bytes(2)) },
        lease: if !ignore_lease && flags & 8 != 0 { lease(input) } else { 0 },
        prev_kv: flags & 16 != 0,
        ignore_value,
        ignore_lease,
    }
}

fn delete(input: &mut Input<'_>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key(input), range_end: range_end(input), prev_kv: input.one_in(2) }
}

pub(crate) fn range(input: &mut Input<'_>, newest: i64) -> RangeRequest {
    let bound = |input: &mut Input<'_>| if input.one_in(4) { revision(input, newest).max(0) } else { 0 };
    RangeRequest {
        key: key(input),
        range_end: range_end(input),
        limit: if input.one_in(2) { input.below(5) as i64 } else { 0 },
        revision: if input.one_in(2) { revision(input, newest).max(0) } else { 0 },
        sort_order: input.below(3) as i32,
        sort_target: input.below(5) as i32,
        serializable: false,
        keys_only: input.one_in(8),
        count_only: input.one_in(8),
        min_mod_revision: bound(input),
        max_mod_revision: bound(input),
        min_create_revision: bound(input),
        max_create_revision: bound(input),
        uncounted: input.one_in(4),
    }
}

fn txn(input: &mut Input<'_>, newest: i64, depth: usize) -> TxnRequest {
    TxnRequest {
        compare: (0..input.below(3)).map(|_| compare(input, newest)).collect(),
        success: (0..input.below(4)).map(|_| op(input, newest, depth)).collect(),
        failure: (0..input.below(4)).map(|_| op(input, newest, depth)).collect(),
    }
}

fn op(input: &mut Input<'_>, newest: i64, depth: usize) -> RequestOp {
    let request = match input.below(8) {
        0..3 => request_op::Request::RequestPut(put(input)),
        3 => request_op::Request::RequestDeleteRange(delete(input)),
        4 | 5 if depth < DEPTH_MAX => request_op::Request::RequestTxn(txn(input, newest, depth + 1)),
        _ => request_op::Request::RequestRange(range(input, newest)),
    };
    RequestOp { request: Some(request) }
}

fn compare(input: &mut Input<'_>, newest: i64) -> Compare {
    let (target, union) = match input.below(5) {
        0 => (CompareTarget::Version, TargetUnion::Version(input.below(4) as i64)),
        1 => (CompareTarget::Create, TargetUnion::CreateRevision(revision(input, newest))),
        2 => (CompareTarget::Mod, TargetUnion::ModRevision(revision(input, newest))),
        3 => (CompareTarget::Value, TargetUnion::Value(Bytes::copy_from_slice(input.bytes(2)))),
        _ => (CompareTarget::Lease, TargetUnion::Lease(lease(input))),
    };
    Compare {
        result: input.below(4) as i32,
        target: target.into(),
        key: key(input),
        target_union: Some(union),
        range_end: range_end(input),
    }
}
