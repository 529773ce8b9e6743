//! A leader that is killed: its links are reset, and nobody waits for the election timeout.

use std::time::{Duration, Instant};

use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tonic::transport::Endpoint;

use crate::daemon::process::{Cluster, PATIENCE, get};

/// Between two attempts to write.
const RETRY: Duration = Duration::from_millis(5);
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// Writes by way of these members, one after the other, until one says that it is done.
async fn write(clients: &[u16]) {
    let began = Instant::now();
    let mut members: Vec<_> = clients
        .iter()
        .map(|port| Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap())
        .map(|endpoint| KvClient::new(endpoint.timeout(ATTEMPT_MAX).connect_lazy()))
        .collect();
    let count = members.len();
    for turn in 0.. {
        let put = PutRequest { key: "a".into(), value: "b".into(), ..Default::default() };
        match members[turn % count].put(put).await {
            Ok(_) => return,
            Err(error) => assert!(began.elapsed() < PATIENCE, "no write is taken: {error:?}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn hinted_elections(metrics: u16) -> u64 {
    let text = get(metrics, "/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix("consensus_hinted_elections_total "));
    line.expect("the counter is there from the start").parse().unwrap()
}

async fn kill_the_leader(heartbeat_ms: u64, election_timeout_ms: u64) {
    let heartbeat = format!("--heartbeat-interval={heartbeat_ms}");
    let timeout = format!("--election-timeout={election_timeout_ms}");
    let mut cluster = Cluster::start(3, &[&heartbeat, &timeout]);
    let leader = cluster.leader();
    write(&cluster.clients).await;
    let survivors: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let hinted =
        |cluster: &Cluster| survivors.iter().map(|n| hinted_elections(cluster.metrics[*n])).sum::<u64>();
    assert_eq!(hinted(&cluster), 0, "the first election is not because of a leader that is lost");

    cluster.members[leader].kill();
    let began = Instant::now();
    write(&survivors.iter().map(|n| cluster.clients[*n]).collect::<Vec<_>>()).await;
    println!(
        "{heartbeat_ms} ms / {election_timeout_ms} ms: first write after {} ms",
        began.elapsed().as_millis()
    );

    assert!(hinted(&cluster) >= 1, "somebody campaigned because the links of the leader were reset");
    let logs = survivors.iter().map(|n| cluster.members[*n].log());
    assert!(logs.into_iter().any(|log| log.contains("campaigning without waiting for the timer")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_followed_without_waiting_for_the_timer() {
    kill_the_leader(1000, 5000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_a_shorter_timer_matter() {
    kill_the_leader(100, 1000).await;
}
