//! Data that is there before something is measured.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tokio::task::JoinSet;

use crate::{
    clients::{connect, key},
    random::Random,
};

const WRITERS: usize = 32;

/// Puts the first `keys` keys with values of random bytes.
pub(crate) async fn fill(endpoints: &[String], keys: u64, value_bytes: usize) -> Result<()> {
    let connections = connect(endpoints, WRITERS).await?;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for (n, connection) in connections.into_iter().enumerate() {
        let next = next.clone();
        let mut random = Random::new(n as u64);
        writers.spawn(async move {
            let mut kv = KvClient::new(connection);
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= keys {
                    return anyhow::Ok(());
                }
                let value = random.bytes(value_bytes);
                kv.put(PutRequest { key: key(n), value, ..Default::default() }).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}
