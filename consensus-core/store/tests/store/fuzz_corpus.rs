//! Replays the fuzz corpora that are kept in git through the same bodies that the fuzz targets run, and random bytes as well;
//! `store_ops` has its random bytes in `model.rs`.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p consensus-store --test fuzz_corpus` writes the `seed-*` files again: real
//! requests and records, and the same with a byte changed.

#![allow(clippy::duplicate_mod)] // each body is a crate of its own in `fuzz`, and brings its reader of input along

use consensus_proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
        PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
    },
    internal::{InternalRequest, internal_request::Request},
};
use proptest::prelude::*;
use prost::Message as _;

#[path = "../../../../fuzz/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/bodies/store_ops.rs"]
mod ops;
#[path = "../../../../fuzz/bodies/store_records.rs"]
mod records;
#[path = "../../../../fuzz/bodies/store_requests.rs"]
mod requests;

#[test]
fn store_ops_corpus() {
    corpus::replay("store_ops", ops_seeds, ops::run);
}

#[test]
fn store_records_corpus() {
    corpus::replay("store_records", records_seeds, records::run);
}

#[test]
fn store_requests_corpus() {
    corpus::replay("store_requests", requests_seeds, requests::run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_are_typed_errors(data in prop::collection::vec(any::<u8>(), 0..200)) {
        records::run(&data);
    }

    #[test]
    fn any_requests_are_applied_or_refused(data in prop::collection::vec(any::<u8>(), 0..1000)) {
        requests::run(&data);
    }
}

/// Operations by their numbers: below 9 a request follows, 9 writes the batch, 12 reads, 13 reads the history, 14 crashes, 15
/// goes on with a copy.
fn ops_seeds() -> Vec<Vec<u8>> {
    let put = |key: u8, lease: bool| {
        if lease { vec![0, 0, key, 8, 1, b'v', 0] } else { vec![0, 0, key, 1, 1, b'v'] }
    };
    let (grant, revoke, write): (&[u8], &[u8], &[u8]) = (&[0, 12, 0, 0, 0], &[0, 14, 0], &[9]);
    let delete: &[u8] = &[0, 6, 0, 1, 1];
    vec![
        [&put(0, false)[..], write, delete, write, &put(0, false), write].concat(),
        [grant, &put(0, true), &put(5, true), write, &put(0, false), write, revoke, write].concat(),
        [&put(0, false)[..], write, &put(0, false), write, &[0, 11, 1], write, &[14, 0], &[13, 0, 1, 3]]
            .concat(),
        [&put(0, false)[..], &put(5, false), write, &[15, 0], delete, write, &[15, 1]].concat(),
        [&[0, 15, 1, 0, 1][..], &put(0, false), write, &[0, 15, 2, 0, 1], &put(0, false), write].concat(),
    ]
}

/// Records over a good store by their kinds: 0 a version, 2 a change, 3 the state, 4 a lease, 5 an attachment.
fn records_seeds() -> Vec<Vec<u8>> {
    let state = |numbers: [u8; 3]| [&[0, 0, 3][..], &numbers, &[0]].concat();
    vec![
        state([1, 7, 0]),
        state([1, 7, 7]),
        state([1, 3, 9]),
        state([1, 200, 0]),
        vec![0, 0, 0, 3, 2, 1, 0, 0, 0],
        vec![0, 0, 0, 3, 2, 220, 0, 0, 0],
        vec![0, 2, 2, 5, 1, 0],
        vec![0, 0, 4, 2, 60, 0, 0],
        vec![0, 0, 4, 2, 220, 0, 0, 0],
        vec![0, 0, 5, 9, 0],
    ]
}

/// One of each, in an entry of its own, and damaged.
fn requests_seeds() -> Vec<Vec<u8>> {
    let put = |lease| PutRequest { key: "a".into(), value: "v".into(), lease, ..Default::default() };
    let delete = DeleteRangeRequest { key: "a".into(), range_end: vec![0].into(), prev_kv: true };
    let op = |request| RequestOp { request: Some(request) };
    let range = RangeRequest { key: "a".into(), ..Default::default() };
    let inner =
        TxnRequest { success: vec![op(request_op::Request::RequestRange(range))], ..Default::default() };
    let success =
        vec![op(request_op::Request::RequestTxn(inner)), op(request_op::Request::RequestPut(put(0)))];
    let all = [
        Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 }),
        Request::Put(put(7)),
        Request::Txn(TxnRequest { success, ..Default::default() }),
        Request::DeleteRange(delete),
        Request::LeaseRevoke(LeaseRevokeRequest { id: 7 }),
        Request::Compaction(CompactionRequest { revision: 2, physical: true }),
        Request::Alarm(AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
    ];
    let encoded = all.map(|request| InternalRequest { header: None, request: Some(request) }.encode_to_vec());
    let entry = |bytes: &[u8]| [&[0, bytes.len() as u8][..], bytes].concat();
    let mut seeds =
        vec![[&[0][..], &encoded.iter().flat_map(|bytes| entry(bytes)).collect::<Vec<_>>()].concat()];
    for (number, bytes) in encoded.iter().enumerate() {
        seeds.push([&[0][..], &entry(bytes)].concat());
        let mut changed = bytes.clone();
        changed[number % bytes.len()] ^= 1 << number;
        seeds.push([&[0][..], &entry(&changed)].concat());
    }
    // Transactions within transactions, a few and too many.
    for depth in [2, 30, 40, 120] {
        let deeper: &[u8] = &[1, 11];
        seeds.push([&[1][..], &deeper.repeat(depth)].concat());
    }
    seeds
}
