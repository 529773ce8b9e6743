//! A short read is the read, or nothing: never a part of it.

use std::sync::Arc;

use consensus_disk::MemoryDisk;
use consensus_proto::{
    etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op},
    internal::{InternalRequest, internal_request::Request},
};
use consensus_store::Store;
use prost::Message as _;

fn store(keys: usize, value_bytes: usize) -> Store<MemoryDisk> {
    let mut store = Store::open(Arc::new(MemoryDisk::default())).unwrap();
    let put = |n: usize| {
        let put = PutRequest {
            key: format!("key{n:05}").into(),
            value: vec![7; value_bytes].into(),
            ..Default::default()
        };
        InternalRequest { header: None, request: Some(Request::Put(put)) }.encode_to_vec().into()
    };
    store.apply(1, &(0..keys).map(put).collect::<Vec<_>>()).unwrap();
    store
}

fn range(keys: usize) -> RangeRequest {
    RangeRequest { key: "key".into(), range_end: format!("key{keys:05}").into(), ..Default::default() }
}

fn txn(ranges: &[usize]) -> TxnRequest {
    let op = |keys: &usize| RequestOp { request: Some(request_op::Request::RequestRange(range(*keys))) };
    TxnRequest { success: ranges.iter().map(op).collect(), ..Default::default() }
}

#[test]
fn few_keys_are_read_shortly_and_many_are_not() {
    let reader = store(3000, 100).reader();
    for keys in [0, 1, 500, 1000] {
        let response = reader.short_range(&range(keys)).unwrap().expect("it is short");
        assert_eq!(response.count, keys as i64);
        assert_eq!(response, reader.range(&range(keys)).unwrap());
    }
    // With a limit as well: all keys are counted.
    for request in [range(2000), RangeRequest { limit: 1, ..range(2000) }] {
        assert_eq!(reader.short_range(&request).unwrap(), None);
    }
    assert_eq!(reader.range(&range(2000)).unwrap().count, 2000);
}

#[test]
fn large_values_make_a_read_long_but_one_alone_does_not() {
    let reader = store(50, 50_000).reader();
    assert!(reader.short_range(&range(10)).unwrap().is_some());
    assert!(reader.short_range(&range(40)).unwrap().is_none());
    let one = RangeRequest { key: "key00042".into(), ..Default::default() };
    assert_eq!(reader.short_range(&one).unwrap().unwrap().count, 1);
}

#[test]
fn all_that_a_transaction_reads_counts_together() {
    let reader = store(3000, 100).reader();
    let few = txn(&[100, 200]);
    assert_eq!(reader.short_txn(&few).unwrap(), Some(reader.txn(&few).unwrap()));
    assert_eq!(reader.short_txn(&txn(&[600, 600])).unwrap(), None);
    assert_eq!(reader.txn(&txn(&[600, 600])).unwrap().responses.len(), 2);
}
