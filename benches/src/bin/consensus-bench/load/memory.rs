//! What members hold in memory after many puts of many clients.

use std::time::Duration;

use anyhow::Result;
use consensus_proto::etcdserverpb::{RangeRequest, kv_client::KvClient};

use super::{Case, Sizes};
use crate::{
    clients::{Clients, KEYS, Operation, VALUE_BYTES, key},
    cluster::Cluster,
    contender::Contender,
    figure::Figure,
    fill::fill,
    status::channel,
};

/// Between two looks at how far the members are.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// At the last of them, with the clients still at work.
pub(crate) async fn measure(sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
    let cluster = Cluster::start(contender, &sizes.folder, &[])?;
    let endpoints = cluster.endpoints();
    fill(&endpoints, KEYS, VALUE_BYTES).await?;
    let count = sizes.clients.iter().copied().max().unwrap_or(1);
    let clients = Clients::start(&endpoints, Operation::Put, count).await?;
    let mut kv = KvClient::new(channel(&endpoints[0])?);
    loop {
        let question = RangeRequest { key: key(0), serializable: true, ..Default::default() };
        let header = kv.range(question).await?.into_inner().header.unwrap_or_default();
        // Each put is a revision.
        if header.revision as u64 >= sizes.puts {
            break;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let used = cluster.usage()?;
    let failed = clients.finish().await?.failed;
    let figures =
        vec![(Figure::RssMib, vec![used.rss_kib_max / 1024.0]), (Figure::Failed, vec![failed as f64])];
    Ok(vec![Case { name: format!("{} puts of {count} clients", sizes.puts), figures }])
}
