//! A new member takes over a large state while clients write: how fast, and what the clients notice.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use consensus_proto::etcdserverpb::{
    MemberAddRequest, RangeRequest, cluster_client::ClusterClient, kv_client::KvClient,
};
use tokio::time::sleep;

use super::{Case, Sizes};
use crate::{
    clients::{Clients, Operation},
    cluster::Cluster,
    contender::Contender,
    figure::Figure,
    fill::fill,
    random::Random,
    status::{channel, settled, status},
};

/// Of the state: as many keys as there is room for.
const VALUE_BYTES: usize = 32 << 10;
const WRITERS: usize = 64;
/// More than all states that are measured.
const QUOTA: &str = "--quota-backend-bytes=8589934592";
/// Small beside the entries of the state, so that these are in no log any more and a new member needs a copy.
const SNAPSHOT_ENTRIES: &str = "--snapshot-count=500";
const POLL: Duration = Duration::from_millis(10);
const ADDED_WITHIN: Duration = Duration::from_secs(30);
/// For the new member to have it all.
const PATIENCE: Duration = Duration::from_secs(900);
const BLOCK_BYTES: usize = 1 << 20;
const MIB: f64 = (1 << 20) as f64;

pub(crate) async fn measure(sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
    let mut cluster = Cluster::start(contender, &sizes.folder, &[QUOTA, SNAPSHOT_ENTRIES])?;
    let keys = sizes.state_bytes / VALUE_BYTES as u64;
    fill(&cluster.endpoints(), keys, VALUE_BYTES).await?;
    let disk_s = write_and_sync(&sizes.folder, sizes.state_bytes)?;
    let leader = settled(&mut cluster).await?;
    let leader = cluster.endpoints()[leader..=leader].to_vec();

    let clients = Clients::start(&leader, Operation::Put, WRITERS).await?;
    sleep(sizes.time).await;
    let before = clients.finish().await?;

    let (joiner, url) = cluster.prepare()?;
    add_learner(&leader[0], &url).await?;
    let clients = Clients::start(&leader, Operation::Put, WRITERS).await?;
    let start = Instant::now();
    cluster.join(joiner)?;
    caught_up(&mut cluster, joiner, &leader[0], keys).await?;
    let join_s = start.elapsed().as_secs_f64();
    let during = clients.finish().await?;

    let mib = (keys * VALUE_BYTES as u64) as f64 / MIB;
    let (p99_before, p99_during) = (before.quantile_us(0.99), during.quantile_us(0.99));
    let figures = [
        (Figure::JoinS, join_s),
        (Figure::JoinMibPerSecond, mib / join_s),
        (Figure::DiskMibPerSecond, mib / disk_s),
        (Figure::OfDisk, disk_s / join_s),
        (Figure::P99BeforeUs, p99_before),
        (Figure::P99DuringUs, p99_during),
        (Figure::P99Ratio, p99_during / p99_before),
        (Figure::Failed, (before.failed + during.failed) as f64),
    ];
    Ok(vec![Case {
        name: format!("{mib:.0} MiB, {WRITERS} clients put"),
        figures: figures.map(|(figure, value)| (figure, vec![value])).to_vec(),
    }])
}

/// Asks again while it is refused: etcd takes no member before its own have been connected for five seconds.
async fn add_learner(leader: &str, url: &str) -> Result<()> {
    let mut client = ClusterClient::new(channel(leader)?);
    let until = Instant::now() + ADDED_WITHIN;
    loop {
        let add = MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: true };
        match client.member_add(add).await {
            Ok(_) => return Ok(()),
            Err(refused) if Instant::now() > until => return Err(refused).context("no member is added"),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// How long the disk takes for a file of this size, in seconds.
fn write_and_sync(folder: &Path, bytes: u64) -> Result<f64> {
    let block = Random::new(0).bytes(BLOCK_BYTES);
    // Without a name: it is gone however this ends.
    let mut file: File = tempfile::tempfile_in(folder).with_context(|| folder.display().to_string())?;
    let start = Instant::now();
    let mut rest = bytes as usize;
    while rest > 0 {
        let part = rest.min(block.len());
        file.write_all(&block[..part])?;
        rest -= part;
    }
    file.sync_all()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until the new member has applied all that the leader had applied when this began, and itself has the state.
async fn caught_up(cluster: &mut Cluster, joiner: usize, leader: &str, keys: u64) -> Result<()> {
    let goal = status(leader).await?.raft_applied_index;
    let endpoint = cluster.endpoints()[joiner].clone();
    let until = Instant::now() + PATIENCE;
    loop {
        // It serves nobody in the beginning.
        let applied = status(&endpoint).await.map_or(0, |status| status.raft_applied_index);
        if applied >= goal && count(&endpoint).await? >= keys {
            return Ok(());
        }
        cluster.check()?;
        ensure!(Instant::now() < until, "the new member is at {applied} of {goal} after {PATIENCE:?}");
        sleep(POLL).await;
    }
}

/// How many keys a member has, without asking another.
async fn count(endpoint: &str) -> Result<u64> {
    let all = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        count_only: true,
        serializable: true,
        ..Default::default()
    };
    Ok(KvClient::new(channel(endpoint)?).range(all).await?.into_inner().count as u64)
}
