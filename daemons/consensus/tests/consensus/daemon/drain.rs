//! Members that are told to end while clients write.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use consensus_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use rustix::process::Signal;
use tonic::{Code, transport::Endpoint};

use crate::daemon::process::{Cluster, PATIENCE, get, is_there, wait_until};

const WRITERS: u64 = 8;
/// Longest time that a write may take, attempts included, while leadership moves.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Writes `writer/0`, `writer/1`... until told to end, each as often as it takes; gives back how many.
async fn write(writer: u64, clients: Vec<u16>, done: Arc<AtomicBool>, written: Arc<AtomicU64>) -> u64 {
    let mut channels: Vec<_> = clients
        .iter()
        .map(|port| Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap())
        .map(|endpoint| KvClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()))
        .collect();
    let (mut n, mut turn) = (0, writer as usize);
    while !done.load(Relaxed) {
        let put = PutRequest { key: format!("{writer}/{n}").into(), value: "x".into(), ..Default::default() };
        let began = Instant::now();
        loop {
            let at = turn % channels.len();
            match channels[at].put(put.clone()).await {
                Ok(_) => break,
                // What etcd's clients take for "try again, elsewhere".
                Err(error) if error.code() == Code::Unavailable => turn += 1,
                // A connection that ended under a request is said with other codes by tonic's client.
                Err(error) if std::error::Error::source(&error).is_some() => turn += 1,
                Err(error) => panic!("{writer}/{n}: {error:?}"),
            }
            assert!(began.elapsed() < WRITE_MAX, "{writer}/{n} takes too long");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        n += 1;
        written.fetch_add(1, Relaxed);
    }
    n
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_under_load_loses_no_write() {
    let mut cluster = Cluster::start(3, &[]);
    let (done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, cluster.clients.clone(), done.clone(), written.clone())))
        .collect();
    let progress = |more: u64| {
        let goal = written.load(Relaxed) + more;
        wait_until("writes", || (written.load(Relaxed) >= goal).then_some(()));
    };
    progress(200);
    let leader = cluster.leader();
    let term = |cluster: &Cluster, n: usize| cluster.status(n)["member"]["term"].as_u64().unwrap();
    let before = term(&cluster, leader);
    let began = Instant::now();
    cluster.members[leader].signal(Signal::TERM);
    assert_eq!(cluster.members[leader].exit_code(), Some(0), "{}", cluster.members[leader].log());
    assert!(began.elapsed() < Duration::from_secs(10), "a drain of {:?}", began.elapsed());
    progress(200);
    let other = (leader + 1) % 3;
    let after = term(&cluster, other);
    assert_eq!(after, before + 1, "leadership was handed over, not lost: that is one term");
    done.store(true, Relaxed);

    let mut client = KvClient::connect(format!("http://127.0.0.1:{}", cluster.clients[other])).await.unwrap();
    for (writer, task) in writers.into_iter().enumerate() {
        let n = task.await.expect("no write fails");
        let range = RangeRequest {
            key: format!("{writer}/").into(),
            range_end: format!("{writer}0").into(),
            count_only: true,
            ..Default::default()
        };
        let found = client.range(range).await.unwrap().into_inner();
        assert_eq!(found.count as u64, n, "acknowledged writes of {writer}");
    }
    // A member that does not lead drains as well, at the other signal.
    cluster.members[other].signal(Signal::USR1);
    assert_eq!(cluster.members[other].exit_code(), Some(0), "{}", cluster.members[other].log());
}

/// A leader without followers, and a write that waits for them.
fn with_a_write_that_waits(more: &[&str]) -> (Cluster, usize, std::process::Child) {
    let mut cluster = Cluster::start(2, more);
    let leader = cluster.leader();
    cluster.members[1 - leader].kill();
    let put = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--command-timeout=30s", &format!("--endpoints=127.0.0.1:{}", cluster.clients[leader])])
        .args(["put", "a", "b"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("write that waits", || {
        (cluster.status(leader)["member"]["proposals_pending"].as_u64() > Some(0)).then_some(())
    });
    (cluster, leader, put)
}

#[test]
fn a_second_signal_stops_now() {
    if !is_there("etcdctl") {
        return;
    }
    let (mut cluster, leader, mut put) = with_a_write_that_waits(&["--election-timeout=10000"]);
    cluster.members[leader].signal(Signal::USR1);
    cluster.members[leader].signal(Signal::TERM);
    wait_until("503 of /ready", || (get(cluster.metrics[leader], "/ready").0 == 503).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert!(cluster.members[leader].ended().is_none(), "it waits for what it accepted");
    let began = Instant::now();
    cluster.members[leader].signal(Signal::TERM);
    assert_eq!(cluster.members[leader].exit_code(), Some(3), "{}", cluster.members[leader].log());
    assert!(began.elapsed() < PATIENCE / 3, "now means now: {:?}", began.elapsed());
    put.kill().unwrap();
    put.wait().unwrap();
}

#[test]
fn a_drain_has_an_end() {
    if !is_there("etcdctl") {
        return;
    }
    let (mut cluster, leader, mut put) =
        with_a_write_that_waits(&["--election-timeout=10000", "--drain-timeout=1s"]);
    let began = Instant::now();
    cluster.members[leader].signal(Signal::TERM);
    assert_eq!(cluster.members[leader].exit_code(), Some(3), "{}", cluster.members[leader].log());
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..PATIENCE / 3).contains(&took), "{took:?}");
    put.kill().unwrap();
    put.wait().unwrap();
}
