//! Requests as a peer's log could bring them, and as a client could ask. Any bytes are applied or refused, and the store that
//! was left is one that opens; transactions of any shape are checked in the time that their size allows, and what the checks let
//! pass, every member can read from its log.

use std::sync::Arc;

use bytes::Bytes;
use consensus_disk::MemoryDisk;
use consensus_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare::TargetUnion,
        request_op,
    },
    internal::{InternalRequest, internal_request::Request},
};
use consensus_store::{Store, check, needs_room};
use prost::Message as _;

#[path = "input.rs"]
mod input;

use input::Input;

/// As a server has it unless it is told otherwise.
const TXN_OPS_MAX: usize = 128;
/// Deeper than the checks allow and than protobuf is read.
const DEPTH_MAX: usize = 120;
/// Operations of one transaction.
const OPS_MAX: usize = 400;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(2) {
        0 => apply_all(&mut input),
        _ => check_one(&mut input),
    }
}

/// Entries with requests that are any bytes.
fn apply_all(input: &mut Input<'_>) {
    let disk = Arc::new(MemoryDisk::default());
    let mut store = Store::open(Arc::clone(&disk)).expect("an empty disk");
    let mut index = 0;
    while !input.is_empty() {
        index += 1;
        let requests: Vec<Bytes> =
            (0..1 + input.below(3)).map(|_| Bytes::copy_from_slice(input.bytes(120))).collect();
        let applied = store.apply(index, &requests).expect("no request is a defect of the disk");
        assert_eq!(applied.responses.len(), requests.len());
    }
    let (hash, leases) = (store.reader().hash_of_keys(0), store.leases().collect::<Vec<_>>());
    let again = Store::open(disk).expect("it opens");
    assert_eq!((again.reader().hash_of_keys(0), again.leases().collect::<Vec<_>>()), (hash, leases));
}

fn check_one(input: &mut Input<'_>) {
    let mut ops = OPS_MAX;
    let txn = txn(input, &mut ops, 0);
    let _ = (needs_room(&txn), check::is_read_only(&txn), check::is_serializable(&txn));
    let passed = check::txn(&txn, TXN_OPS_MAX).is_ok();
    let read_only = check::is_read_only(&txn);
    let bytes: Bytes =
        InternalRequest { header: None, request: Some(Request::Txn(txn.clone())) }.encode_to_vec().into();
    let mut store = Store::open(Arc::new(MemoryDisk::default())).expect("an empty disk");
    if passed {
        assert!(InternalRequest::decode(bytes.clone()).is_ok(), "what is proposed can be read");
        if read_only {
            let _ = store.reader().txn(&txn);
        }
    }
    store.apply(1, [&bytes]).expect("no request is a defect of the disk");
}

fn txn(input: &mut Input<'_>, ops: &mut usize, depth: usize) -> TxnRequest {
    let mut list = |input: &mut Input<'_>| {
        let count = if input.one_in(16) { input.below(140) } else { input.below(4) };
        let mut list = Vec::new();
        for _ in 0..count {
            if *ops == 0 {
                break;
            }
            *ops -= 1;
            list.push(op(input, ops, depth));
        }
        list
    };
    let (success, failure) = (list(input), list(input));
    TxnRequest { compare: (0..input.below(3)).map(|_| compare(input)).collect(), success, failure }
}

fn key(input: &mut Input<'_>) -> Bytes {
    Bytes::copy_from_slice(input.bytes(2))
}

fn op(input: &mut Input<'_>, ops: &mut usize, depth: usize) -> RequestOp {
    let request = match input.below(12) {
        0..2 => {
            let value = Bytes::copy_from_slice(input.bytes(1));
            Some(request_op::Request::RequestPut(PutRequest { key: key(input), value, ..Default::default() }))
        }
        2 => Some(request_op::Request::RequestDeleteRange(DeleteRangeRequest {
            key: key(input),
            range_end: key(input),
            prev_kv: false,
        })),
        3 => Some(request_op::Request::RequestRange(RangeRequest {
            key: key(input),
            range_end: key(input),
            revision: i64::from(input.u8() as i8),
            limit: i64::from(input.u8() as i8),
            sort_order: (input.u8() % 5).into(),
            sort_target: (input.u8() % 7).into(),
            ..Default::default()
        })),
        4 => None,
        _ if depth < DEPTH_MAX => Some(request_op::Request::RequestTxn(txn(input, ops, depth + 1))),
        _ => None,
    };
    RequestOp { request }
}

/// One that may ask for what it does not give, or for what does not exist.
fn compare(input: &mut Input<'_>) -> Compare {
    let number = i64::from(input.u8() as i8);
    Compare {
        result: (input.u8() % 5).into(),
        target: (input.u8() % 6).into(),
        key: key(input),
        target_union: match input.below(4) {
            0 => None,
            1 => Some(TargetUnion::Version(number)),
            2 => Some(TargetUnion::Lease(number)),
            _ => Some(TargetUnion::Value(key(input))),
        },
        range_end: key(input),
    }
}
