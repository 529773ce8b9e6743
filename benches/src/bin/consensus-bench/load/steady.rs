//! Clients that all ask the same, for a time.

use anyhow::Result;
use consensus_proto::etcdserverpb::kv_client::KvClient;

use super::{Case, Sizes};
use crate::{
    clients::{Clients, KEYS, Operation, VALUE_BYTES},
    cluster::Cluster,
    contender::{Contender, Kind},
    figure::Figure,
    fill::fill,
    status::channel,
    swap,
};

/// All keys are put so often before anything is measured: 25 MB, after which a member's log does not grow into new files any
/// more, which is what a member that runs for longer does.
const FILLS: usize = 10;

/// One after the other on the same cluster, in which all keys exist.
pub(crate) async fn measure(
    sizes: &Sizes,
    contender: &Contender,
    loads: &[(Operation, usize)],
) -> Result<Vec<Case>> {
    let cluster = Cluster::start(contender, &sizes.folder, &[])?;
    let fills = if contender.kind == Kind::Floor { 0 } else { FILLS };
    for _ in 0..fills {
        fill(&cluster.endpoints(), KEYS, VALUE_BYTES).await?;
    }
    let mut cases = Vec::new();
    for (operation, count) in loads {
        cases.push(run(&cluster, sizes, *operation, *count).await?);
    }
    Ok(cases)
}

/// What a table calls it.
pub(crate) fn case(operation: Operation, count: usize) -> String {
    let clients = if count == 1 { "1 client".to_owned() } else { format!("{count} clients") };
    match operation {
        Operation::LinearizableRead => format!("linearizable, {clients}"),
        Operation::SerializableRead => format!("serializable, {clients}"),
        Operation::Put | Operation::Mixed | Operation::Swap => clients,
    }
}

async fn run(cluster: &Cluster, sizes: &Sizes, operation: Operation, count: usize) -> Result<Case> {
    tokio::time::sleep(sizes.rest).await;
    let clients = Clients::start(&cluster.endpoints(), operation, count).await?;
    let before = cluster.usage()?;
    tokio::time::sleep(sizes.time).await;
    let used = cluster.usage()?.since(&before);
    let measured = clients.finish().await?;
    let operations = measured.operations();
    let mut figures = vec![
        (Figure::PerSecond, measured.per_second()),
        (Figure::P50Us, measured.quantile_us(0.5)),
        (Figure::P99Us, measured.quantile_us(0.99)),
        (Figure::CpuSeconds, used.cpu_s * 1e5 / operations),
        (Figure::WrittenBytes, used.written_bytes / operations),
        (Figure::RssMib, used.rss_kib_max / 1024.0),
        (Figure::Failed, measured.failed as f64),
    ];
    if operation == Operation::Swap {
        figures.push((Figure::SwapsPerSecond, measured.swapped as f64 / measured.seconds));
        if measured.failed == 0 {
            let mut kv = KvClient::new(channel(&cluster.endpoints()[0])?);
            swap::check(&mut kv, measured.swapped_ever).await?;
        }
    }
    let figures = figures.into_iter().map(|(figure, value)| (figure, vec![value])).collect();
    Ok(Case { name: case(operation, count), figures })
}
