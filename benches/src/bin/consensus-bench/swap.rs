//! Compare and swap: a counter of each key that clients change one after the other, as the store's locks and queues do.

use anyhow::{Result, ensure};
use bytes::Bytes;
use consensus_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op::Request,
    response_op::Response,
};
use tonic::transport::Channel;

use crate::{clients::VALUE_BYTES, random::Random, unary::Connection};

/// Four clients compete for each, if there are 64.
const KEYS: u64 = 16;
const PREFIX: &str = "swap";

/// What became of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    Done,
    /// Someone else was first.
    Refused,
    Failed,
}

/// One client's attempt at one key, until it succeeds.
#[derive(Default)]
pub(crate) struct Swapper {
    /// The key, and the revision at which it was last changed as far as this client knows.
    at: Option<(Bytes, i64)>,
}

impl Swapper {
    pub(crate) async fn swap(&mut self, connection: &Connection, random: &mut Random) -> Swap {
        let (key, seen) =
            self.at.take().unwrap_or_else(|| (format!("{PREFIX}{:02}", random.below(KEYS)).into(), 0));
        let question = transaction(&key, seen);
        let Ok(answer) = connection.call::<TxnResponse>("/etcdserverpb.KV/Txn", &question).await else {
            return Swap::Failed;
        };
        if answer.succeeded {
            return Swap::Done;
        }
        let now = answer.responses.into_iter().find_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.first().map(|kv| kv.mod_revision),
            _ => None,
        });
        self.at = now.map(|revision| (key, revision));
        Swap::Refused
    }
}

/// Puts if the key was last changed at this revision, and reads it otherwise.
fn transaction(key: &Bytes, revision: i64) -> TxnRequest {
    let operation = |request| RequestOp { request: Some(request) };
    let put = PutRequest { key: key.clone(), value: vec![b's'; VALUE_BYTES].into(), ..Default::default() };
    let read = RangeRequest { key: key.clone(), ..Default::default() };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        }],
        success: vec![operation(Request::RequestPut(put))],
        failure: vec![operation(Request::RequestRange(read))],
    }
}

/// An error unless the store has counted as many swaps as the clients.
pub(crate) async fn check(kv: &mut KvClient<Channel>, swapped: u64) -> Result<()> {
    let range_end = format!("{PREFIX}\u{7f}").into();
    let read = RangeRequest { key: PREFIX.into(), range_end, keys_only: true, ..Default::default() };
    let counted: i64 = kv.range(read).await?.into_inner().kvs.iter().map(|kv| kv.version).sum();
    ensure!(counted as u64 == swapped, "clients were told of {swapped} swaps, the store has {counted}");
    Ok(())
}
