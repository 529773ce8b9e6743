//! The store against a model that keeps every version of everything in plain maps.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use consensus_disk::MemoryDisk;
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
    },
    internal::{InternalRequest, internal_request::Request},
};
use consensus_store::{Response, Store, StoreError};
use proptest::prelude::*;
use prost::Message as _;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8, u8),
    /// Puts that belong together.
    Both(u8, u8),
    Compact(u8),
    /// What is applied so far becomes one batch.
    Batch,
    /// Everything that was not synced is lost but a few batches, and the log brings it again.
    Crash(u8),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6_u8, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        3 => (0..6_u8, 0..6_u8).prop_map(|(from, to)| Op::Delete(from, to)),
        2 => (0..6_u8, 0..6_u8).prop_map(|(a, b)| Op::Both(a, b)),
        1 => any::<u8>().prop_map(Op::Compact),
        4 => Just(Op::Batch),
        1 => any::<u8>().prop_map(Op::Crash),
        1 => Just(Op::Restart),
    ]
}

/// Keys that the escaping of zero bytes could confuse.
fn key(n: u8) -> Bytes {
    [&b"a"[..], b"a\0", b"a\0\xff", b"a\0\x01", b"a\x01", b"b"][usize::from(n)].into()
}

type State = BTreeMap<Bytes, (Bytes, i64, i64, i64)>;

/// (value, create revision, mod revision, version) of every key at every revision.
struct Model {
    revisions: BTreeMap<i64, State>,
    revision: i64,
    compacted: i64,
}

impl Model {
    fn now(&self) -> State {
        self.revisions[&self.revision].clone()
    }

    fn put(state: &mut State, revision: i64, key: Bytes, value: Bytes) {
        let (create, version) = state.get(&key).map_or((revision, 0), |known| (known.1, known.3));
        state.insert(key, (value, create, revision, version + 1));
    }

    fn commit(&mut self, state: State) {
        self.revision += 1;
        self.revisions.insert(self.revision, state);
    }

    /// Applies a request; what it should answer, in short.
    fn apply(&mut self, request: &Request) -> Result<(i64, i64), StoreError> {
        let mut state = self.now();
        match request {
            Request::Put(put) => {
                Self::put(&mut state, self.revision + 1, put.key.clone(), put.value.clone());
                self.commit(state);
                Ok((self.revision, 0))
            }
            Request::DeleteRange(delete) => {
                let before = state.len();
                state.retain(|key, _| !(*key >= delete.key && *key < delete.range_end));
                let deleted = (before - state.len()) as i64;
                if deleted > 0 {
                    self.commit(state);
                }
                Ok((self.revision, deleted))
            }
            Request::Txn(txn) => {
                for op in &txn.success {
                    let Some(request_op::Request::RequestPut(put)) = &op.request else { unreachable!() };
                    Self::put(&mut state, self.revision + 1, put.key.clone(), put.value.clone());
                }
                self.commit(state);
                Ok((self.revision, 0))
            }
            Request::Compaction(compaction) => {
                if compaction.revision <= self.compacted {
                    return Err(StoreError::Compacted);
                }
                if compaction.revision > self.revision {
                    return Err(StoreError::FutureRevision);
                }
                self.compacted = compaction.revision;
                Ok((self.revision, 0))
            }
            _ => unreachable!(),
        }
    }
}

fn put(n: u8, value: u8) -> PutRequest {
    PutRequest { key: key(n), value: vec![value].into(), ..Default::default() }
}

fn short(response: Result<Response, StoreError>) -> Result<(i64, i64), StoreError> {
    let revision = |header: Option<consensus_proto::etcdserverpb::ResponseHeader>| header.unwrap().revision;
    Ok(match response? {
        Response::Put(response) => (revision(response.header), 0),
        Response::DeleteRange(response) => (revision(response.header), response.deleted),
        Response::Txn(response) => (revision(response.header), 0),
        Response::Compact(response) => (revision(response.header), 0),
        _ => unreachable!(),
    })
}

fn check(store: &Store<MemoryDisk>, model: &Model) {
    let reader = store.reader();
    assert_eq!(reader.revision(), model.revision);
    for revision in 1..=model.revision {
        let request = RangeRequest { key: key(0), range_end: vec![0].into(), revision, ..Default::default() };
        let read = reader.range(&request);
        if revision < model.compacted {
            assert_eq!(read.unwrap_err(), StoreError::Compacted);
            continue;
        }
        let read: Vec<_> = read
            .unwrap()
            .kvs
            .into_iter()
            .map(|kv| (kv.key, (kv.value, kv.create_revision, kv.mod_revision, kv.version)))
            .collect();
        let expected: Vec<_> = model.revisions[&revision].clone().into_iter().collect();
        assert_eq!(read, expected, "at revision {revision}");
        for n in 0..6 {
            let one = reader.range(&RangeRequest { key: key(n), revision, ..Default::default() }).unwrap();
            assert_eq!(one.count == 1, model.revisions[&revision].contains_key(&key(n)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let disk = Arc::new(MemoryDisk::default());
        let mut store = Store::open(Arc::clone(&disk)).unwrap();
        let mut model = Model { revisions: BTreeMap::from([(1, State::new())]), revision: 1, compacted: 0 };
        // The log: index and requests of each entry.
        let mut log: Vec<Vec<Bytes>> = Vec::new();
        let mut batch: Vec<Bytes> = Vec::new();
        let mut expected = Vec::new();
        for op in ops.into_iter().chain([Op::Batch]) {
            let request = match op {
                Op::Put(n, value) => Request::Put(put(n, value)),
                Op::Delete(from, to) => Request::DeleteRange(DeleteRangeRequest {
                    key: key(from), range_end: key(to), ..Default::default()
                }),
                Op::Both(a, b) if a != b => {
                    let op = |n| RequestOp { request: Some(request_op::Request::RequestPut(put(n, 7))) };
                    Request::Txn(TxnRequest { success: vec![op(a), op(b)], ..Default::default() })
                }
                Op::Both(..) => continue,
                Op::Compact(share) => {
                    let revision = model.revision * i64::from(share) / 200;
                    Request::Compaction(CompactionRequest { revision, physical: false })
                }
                Op::Batch => {
                    log.push(std::mem::take(&mut batch));
                    let applied = store.apply(log.len() as u64, log.last().unwrap()).unwrap();
                    let answers: Vec<_> = applied.responses.into_iter().map(short).collect();
                    prop_assert_eq!(&answers, &std::mem::take(&mut expected));
                    check(&store, &model);
                    continue;
                }
                Op::Crash(_) | Op::Restart => {
                    if let Op::Crash(survivors) = op {
                        disk.crash(usize::from(survivors) % (disk.unsynced() + 1));
                    }
                    store = Store::open(Arc::clone(&disk)).unwrap();
                    for index in store.applied()..log.len() as u64 {
                        store.apply(index + 1, &log[index as usize]).unwrap();
                    }
                    continue;
                }
            };
            expected.push(model.apply(&request));
            batch.push(InternalRequest { header: None, request: Some(request) }.encode_to_vec().into());
        }
    }
}
