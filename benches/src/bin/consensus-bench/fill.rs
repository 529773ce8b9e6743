//! Data that is there before something is measured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use consensus_proto::etcdserverpb::{
    PutRequest, RequestOp, TxnRequest, kv_client::KvClient, request_op::Request,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::Channel;

use crate::{clients::key, random::Random, status::connect};

const WRITERS: usize = 32;
/// Of one write, with a rest between them.
const ATTEMPTS: usize = 10;
const RETRY: Duration = Duration::from_millis(500);
/// A transaction's: below what members take, and so that a large state has many entries.
const PUTS_MAX: u64 = 100;
const BYTES_MAX: u64 = 128 << 10;

/// Puts the first `keys` keys with values of random bytes.
pub(crate) async fn fill(endpoints: &[String], keys: u64, value_bytes: usize) -> Result<()> {
    let at_once = (BYTES_MAX / value_bytes as u64).clamp(1, PUTS_MAX);
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for (n, connection) in connect(endpoints, WRITERS).await?.into_iter().enumerate() {
        let next = next.clone();
        let mut random = Random::new(n as u64);
        writers.spawn(async move {
            let mut kv = KvClient::new(connection);
            loop {
                let first = next.fetch_add(at_once, Ordering::Relaxed);
                if first >= keys {
                    return anyhow::Ok(());
                }
                let some = first..keys.min(first + at_once);
                let puts = some.map(|n| put(n, &mut random, value_bytes)).collect();
                write(&mut kv, TxnRequest { success: puts, ..Default::default() }).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Members may be too busy with what the others write. It can be written twice.
async fn write(kv: &mut KvClient<Channel>, transaction: TxnRequest) -> Result<()> {
    for _ in 1..ATTEMPTS {
        if kv.txn(transaction.clone()).await.is_ok() {
            return Ok(());
        }
        sleep(RETRY).await;
    }
    kv.txn(transaction).await?;
    Ok(())
}

fn put(n: u64, random: &mut Random, value_bytes: usize) -> RequestOp {
    let request = PutRequest { key: key(n), value: random.bytes(value_bytes), ..Default::default() };
    RequestOp { request: Some(Request::RequestPut(request)) }
}
