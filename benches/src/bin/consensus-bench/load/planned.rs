//! SIGTERM to the leader while a client writes: the longest time between two of its writes that were accepted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{Case, Sizes};
use crate::{
    clients::VALUE_BYTES,
    cluster::Cluster,
    contender::Contender,
    figure::Figure,
    status::{channel, settled},
};

/// Before the signal, for comparison, and after the member has ended.
const AROUND: Duration = Duration::from_secs(1);
/// For one answer, before another member is asked.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Rest when no member accepted a write.
const RETRY: Duration = Duration::from_millis(1);
/// A write that was not accepted for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a table calls it.
pub(crate) const CASE: &str = "1 client that retries";

pub(crate) async fn measure(sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
    let mut cluster = Cluster::start(contender, &sizes.folder, &[])?;
    let (mut gaps, mut usual, mut failed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..sizes.ends {
        let end = end(&mut cluster).await?;
        gaps.push(end.gap.as_secs_f64() * 1000.0);
        usual.push(end.usual.as_secs_f64() * 1000.0);
        failed += end.failed;
    }
    let figures =
        vec![(Figure::GapMs, gaps), (Figure::UsualGapMs, usual), (Figure::Failed, vec![failed as f64])];
    Ok(vec![Case { name: CASE.to_owned(), figures }])
}

/// What the client saw of one end.
struct End {
    gap: Duration,
    usual: Duration,
    failed: usize,
}

async fn end(cluster: &mut Cluster) -> Result<End> {
    let leader = settled(cluster).await?;
    let channels =
        cluster.endpoints().iter().map(|endpoint| channel(endpoint)).collect::<Result<Vec<_>>>()?;
    let clients = channels.into_iter().map(KvClient::new).collect();
    let stop = Arc::new(AtomicBool::new(false));
    // It writes to the leader, as long as there is one: nothing is harder for it.
    let writer = tokio::spawn(Writer { clients, at: leader }.run(stop.clone()));
    sleep(AROUND).await;
    let began = Instant::now();
    sleep(AROUND).await;
    let signalled = Instant::now();
    cluster.terminate(leader)?;
    cluster.ended(leader).await?;
    sleep(AROUND).await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await?;
    cluster.restart(leader)?;
    let usual = longest(&written.accepted, began, signalled);
    Ok(End { gap: longest(&written.accepted, signalled, Instant::now()), usual, failed: written.failed })
}

/// The longest time between two writes of which the second was accepted in this time.
fn longest(accepted: &[Instant], from: Instant, until: Instant) -> Duration {
    let pairs = accepted.windows(2).filter(|pair| pair[1] >= from && pair[1] <= until);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(until - from)
}

/// A client that asks another member when one does not accept its write.
struct Writer {
    clients: Vec<KvClient<Channel>>,
    /// Which one it asks.
    at: usize,
}

/// What it has done.
#[derive(Default)]
struct Written {
    accepted: Vec<Instant>,
    failed: usize,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Written {
        let mut written = Written::default();
        while !stop.load(Ordering::Relaxed) {
            match timeout(PATIENCE, self.put()).await {
                Ok(()) => written.accepted.push(Instant::now()),
                Err(_) => written.failed += 1,
            }
        }
        written
    }

    /// Asks until it is accepted.
    async fn put(&mut self) {
        loop {
            for _ in 0..self.clients.len() {
                let value = vec![b'p'; VALUE_BYTES].into();
                let request = PutRequest { key: "planned".into(), value, ..Default::default() };
                if let Ok(Ok(_)) = timeout(ATTEMPT, self.clients[self.at].put(request)).await {
                    return;
                }
                self.at = (self.at + 1) % self.clients.len();
            }
            sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::longest;

    #[test]
    fn a_gap_is_between_two_writes_that_were_accepted() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let accepted = [0, 10, 60, 61, 62].map(at);
        // It began before that time.
        assert_eq!(longest(&accepted, at(20), at(100)), Duration::from_millis(50));
        assert_eq!(longest(&accepted, at(61), at(100)), Duration::from_millis(1));
        // None at all: the whole time.
        assert_eq!(longest(&accepted, at(70), at(100)), Duration::from_millis(30));
    }
}
