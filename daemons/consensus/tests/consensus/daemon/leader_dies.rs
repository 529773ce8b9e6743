//! Writes that are on their way to a leader that is killed, or come while nobody leads: each is answered soon, one way or the
//! other, even if nobody writes afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use consensus_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};

use crate::daemon::process::{Cluster, PATIENCE, path, wait_until};

/// How long a member goes on with a request: 5 seconds and two election timeouts. What takes as long was not answered, but
/// given up.
const GIVEN_UP: Duration = Duration::from_secs(7);
const WRITERS: usize = 8;

async fn channel(cluster: &Cluster, n: usize) -> Channel {
    let endpoint = Channel::from_shared(format!("http://127.0.0.1:{}", cluster.clients[n])).unwrap();
    endpoint.connect().await.unwrap()
}

fn put(key: &str) -> Request<PutRequest> {
    let mut put =
        Request::new(PutRequest { key: key.to_owned().into(), value: "x".into(), ..Default::default() });
    put.set_timeout(PATIENCE);
    put
}

/// Says whether it was written; any error that clients do not try again is wrong.
fn written<T>(answer: Result<T, Status>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) if error.code() == Code::Unavailable => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Writes until told to end, each only once; gives back the longest that one took, and how many were not written.
async fn write(channel: Channel, writer: String, done: Arc<AtomicBool>) -> (Duration, u64) {
    let mut kv = KvClient::new(channel);
    let (mut longest, mut failed) = (Duration::ZERO, 0);
    for n in 0.. {
        if done.load(Relaxed) {
            break;
        }
        let began = Instant::now();
        failed += u64::from(!written(kv.put(put(&format!("{writer}/{n}"))).await));
        longest = longest.max(began.elapsed());
    }
    (longest, failed)
}

fn followers(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

/// Waits for another leader than the one that was killed.
fn next_leader(cluster: &Cluster, survivors: [usize; 2]) -> usize {
    wait_until("another leader", || {
        survivors.into_iter().find(|n| cluster.status(*n)["member"]["role"] == "leader")
    })
}

/// Kills the leader several times under writers at the followers, and lets nobody write any more as soon as another leads.
async fn kill_leaders(more: &[&str], kills: usize) {
    let mut cluster = Cluster::start(3, more);
    for kill in 0..kills {
        let leader = cluster.leader();
        let done = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for n in followers(leader) {
            let channel = channel(&cluster, n).await;
            writers.extend((0..WRITERS).map(|writer| {
                tokio::spawn(write(channel.clone(), format!("{kill}/{n}/{writer}"), done.clone()))
            }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.members[leader].kill();
        next_leader(&cluster, followers(leader));
        done.store(true, Relaxed);
        let mut lost = 0;
        for writer in writers {
            let (longest, failed) = writer.await.unwrap();
            assert!(longest < GIVEN_UP, "a write that took {longest:?}");
            println!("longest {longest:?}, {failed} failed");
            lost += failed;
        }
        println!("kill {kill}: {lost} writes were not answered by this leader");
        cluster.restart(leader);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_had_when_it_was_killed_is_answered() {
    kill_leaders(&[], 5).await;
}

/// With leases nobody is elected before the timer, so that writes come all the time while nobody leads.
#[tokio::test(flavor = "multi_thread")]
async fn nor_do_writes_wait_for_ever_when_the_timer_decides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lease.yaml");
    std::fs::write(&file, "consensus:\n  reads: lease\n").unwrap();
    kill_leaders(&[&format!("--config={}", path(&file))], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_requests_wait_for_one() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let [here, gone] = followers(leader);
    cluster.members[leader].kill();
    cluster.members[gone].kill();
    wait_until("loss of the leader", || cluster.status(here)["member"]["leader"].is_null().then_some(()));
    let channel = channel(&cluster, here).await;

    let mut hasty = put("hasty");
    hasty.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let refused = KvClient::new(channel.clone()).put(hasty).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));

    let began = Instant::now();
    let mut kv = KvClient::new(channel);
    let write = tokio::spawn(async move { kv.put(put("patient")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!write.is_finished(), "it waits");
    cluster.restart(gone);
    write.await.unwrap().expect("there is a leader in time");
    assert!(began.elapsed() < GIVEN_UP, "{:?}", began.elapsed());
}
