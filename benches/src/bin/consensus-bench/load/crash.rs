//! `kill -9` of the leader: how long until a write is accepted again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tokio::{sync::mpsc, task::JoinSet, time};
use tonic::transport::Channel;

use super::{Case, Sizes};
use crate::{
    cluster::Cluster,
    contender::Contender,
    figure::Figure,
    status::{channel, settled},
};

/// Heartbeat and election timeout, as a table calls them: the default, and that of members far from each other.
pub(crate) const CASES: [&str; 2] = ["100 ms / 1 s", "1 s / 5 s"];
/// The same in milliseconds.
const TIMINGS: [(u32, u32); 2] = [(100, 1000), (1000, 5000)];
/// Each member that is left is asked as often as this, whether it has answered or not: a question that the dead leader
/// should have had may be answered late or never.
const ASK_INTERVAL: Duration = Duration::from_millis(10);
/// Then a question is given up. So 100 are on their way on a connection: some servers take no more than 200.
const ANSWER: Duration = Duration::from_secs(1);
/// For a write to be accepted.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, (heartbeat_ms, election_ms)) in CASES.into_iter().zip(TIMINGS) {
        let heartbeat = format!("--heartbeat-interval={heartbeat_ms}");
        let election = format!("--election-timeout={election_ms}");
        let mut cluster = Cluster::start(contender, &sizes.folder, &[&heartbeat, &election])?;
        let mut gaps = Vec::new();
        for _ in 0..sizes.ends {
            gaps.push(gap(&mut cluster).await?.as_secs_f64() * 1000.0);
        }
        cases.push(Case { name: name.to_owned(), figures: vec![(Figure::GapMs, gaps)] });
    }
    Ok(cases)
}

async fn gap(cluster: &mut Cluster) -> Result<Duration> {
    let leader = settled(cluster).await?;
    let mut left = cluster.endpoints();
    left.remove(leader);
    let mut clients = Vec::new();
    for endpoint in &left {
        let mut client = KvClient::new(channel(endpoint)?);
        // The connection is there before the leader is not.
        client.put(question()).await?;
        clients.push(client);
    }
    cluster.kill(leader)?;
    let killed = Instant::now();
    let accepted = time::timeout(PATIENCE, first_accepted(&clients)).await;
    let gap = accepted.with_context(|| format!("no write is accepted {PATIENCE:?} after a crash"))? - killed;
    cluster.restart(leader)?;
    Ok(gap)
}

/// When the first of the writes that begin now is accepted.
async fn first_accepted(clients: &[KvClient<Channel>]) -> Instant {
    let (accepted, mut first) = mpsc::channel(1);
    let mut questions = JoinSet::new();
    let mut ticks = time::interval(ASK_INTERVAL);
    loop {
        tokio::select! {
            Some(at) = first.recv() => return at,
            _ = ticks.tick() => {}
        }
        while questions.try_join_next().is_some() {}
        for client in clients {
            let (mut client, accepted) = (client.clone(), accepted.clone());
            questions.spawn(async move {
                if let Ok(Ok(_)) = time::timeout(ANSWER, client.put(question())).await {
                    // Full: another was first.
                    let _ = accepted.try_send(Instant::now());
                }
            });
        }
    }
}

fn question() -> PutRequest {
    PutRequest { key: "accepted".into(), value: "?".into(), ..Default::default() }
}
