//! What transactions may put and delete, against a comparison of every operation with every other; and the largest that fit
//! into a request.

use bytes::Bytes;
use consensus_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
};
use consensus_store::{StoreError, check};
use proptest::prelude::*;

fn put(key: impl Into<Bytes>) -> RequestOp {
    let put = PutRequest { key: key.into(), ..Default::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    RequestOp { request: Some(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure })) }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![(0..8_u8).prop_map(|n| vec![b'a' + n].into()), (0..3_u8).prop_map(|n| vec![b'b', n].into())]
}

fn op() -> impl Strategy<Value = RequestOp> {
    let end = prop_oneof![4 => Just(Bytes::new()), 3 => key(), 1 => Just(Bytes::from_static(&[0]))];
    let leaf =
        prop_oneof![3 => key().prop_map(put), 1 => (key(), end).prop_map(|(key, end)| delete(key, end))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let branch = || prop::collection::vec(inner.clone(), 0..3);
        (branch(), branch()).prop_map(|(success, failure)| nested(success, failure))
    })
}

/// One operation that writes, and the way to it: which transaction within the branch, and which of its branches.
struct Write<'a> {
    way: Vec<(usize, bool)>,
    request: &'a Request,
}

fn flatten<'a>(ops: &'a [RequestOp], way: &[(usize, bool)], writes: &mut Vec<Write<'a>>) {
    for (number, op) in ops.iter().enumerate() {
        match op.request.as_ref().expect("a request") {
            Request::RequestTxn(txn) => {
                for (branch, success) in [(&txn.success, true), (&txn.failure, false)] {
                    flatten(branch, &[way, &[(number, success)]].concat(), writes);
                }
            }
            request => writes.push(Write { way: way.to_vec(), request }),
        }
    }
}

fn exclude_each_other(a: &Write<'_>, b: &Write<'_>) -> bool {
    let parting = a.way.iter().zip(&b.way).find(|(a, b)| a != b);
    parting.is_some_and(|(a, b)| a.0 == b.0)
}

fn conflict(a: &Request, b: &Request) -> bool {
    match (a, b) {
        (Request::RequestPut(a), Request::RequestPut(b)) => a.key == b.key,
        (Request::RequestPut(put), Request::RequestDeleteRange(delete))
        | (Request::RequestDeleteRange(delete), Request::RequestPut(put)) => match &delete.range_end[..] {
            [] => put.key == delete.key,
            [0] => put.key >= delete.key,
            end => put.key >= delete.key && put.key[..] < *end,
        },
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_key_is_written_once_on_every_way(ops in prop::collection::vec(op(), 0..6)) {
        let txn = TxnRequest { success: ops, ..Default::default() };
        let mut writes = Vec::new();
        flatten(&txn.success, &[], &mut writes);
        let twice = writes.iter().enumerate().any(|(n, a)| {
            writes[..n].iter().any(|b| !exclude_each_other(a, b) && conflict(a.request, b.request))
        });
        let expected = if twice { Err(StoreError::DuplicateKey) } else { Ok(()) };
        prop_assert_eq!(check::txn(&txn, 128), expected);
    }
}

/// Some hundred thousand operations: comparing each put with each deletion takes minutes.
#[test]
fn the_largest_transaction_is_checked_in_the_time_of_its_size() {
    let mut number = 0_u32;
    let mut leaf = || {
        number += 1;
        match number % 2 {
            0 => put(number.to_be_bytes().to_vec()),
            _ => delete(number.to_be_bytes().to_vec(), ""),
        }
    };
    let inner: Vec<RequestOp> =
        (0..32 * 32 * 32).map(|_| nested((0..8).map(|_| leaf()).collect(), vec![])).collect();
    let middle: Vec<RequestOp> = inner.chunks(32).map(|ops| nested(ops.to_vec(), vec![])).collect();
    let mut outer: Vec<RequestOp> = middle.chunks(32).map(|ops| nested(ops.to_vec(), vec![])).collect();
    let txn = |success| TxnRequest { success, ..Default::default() };
    assert_eq!(check::txn(&txn(outer.clone()), 128), Ok(()));
    outer.push(put(1_u32.to_be_bytes().to_vec()));
    assert_eq!(check::txn(&txn(outer), 128), Err(StoreError::DuplicateKey));
}
