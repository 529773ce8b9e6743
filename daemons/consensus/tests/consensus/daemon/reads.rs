//! Reads from a lease: they see what was acknowledged, whoever leads, and whatever a process that stands still believes.

use std::time::Duration;

use consensus_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use rustix::process::Signal;
use tonic::{Request, transport::Channel};

use crate::daemon::process::{Cluster, PATIENCE, path};

type Kv = KvClient<Channel>;

/// Three members that read from leases, and a client of each.
async fn with_leases() -> (Cluster, Vec<Kv>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lease.yaml");
    std::fs::write(&file, "consensus:\n  reads: lease\n").unwrap();
    let cluster = Cluster::start(3, &[&format!("--config={}", path(&file))]);
    let mut clients = Vec::new();
    for port in &cluster.clients {
        clients.push(KvClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap());
    }
    (cluster, clients, folder)
}

async fn put(client: &mut Kv, value: u64) -> Result<(), tonic::Status> {
    let put = PutRequest { key: "k".into(), value: value.to_string().into(), ..Default::default() };
    client.put(with_patience(put)).await.map(drop)
}

async fn get(client: &mut Kv) -> u64 {
    let range = RangeRequest { key: "k".into(), ..Default::default() };
    let found = client.range(with_patience(range)).await.unwrap().into_inner();
    String::from_utf8(found.kvs[0].value.to_vec()).unwrap().parse().unwrap()
}

fn with_patience<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_from_a_lease_see_what_was_acknowledged() {
    let (_cluster, mut clients, _folder) = with_leases().await;
    for value in 0..300 {
        put(&mut clients[value as usize % 3], value).await.unwrap();
        for client in &mut clients {
            assert_eq!(get(client).await, value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_has_no_lease() {
    let (cluster, mut clients, _folder) = with_leases().await;
    put(&mut clients[0], 1).await.unwrap();
    for round in 2..5 {
        let leader = cluster.leader();
        let other = (leader + 1) % 3;
        // It has a lease when it stops.
        assert_eq!(get(&mut clients[leader]).await, round - 1);
        assert_eq!(get(&mut clients[leader]).await, round - 1);
        cluster.members[leader].signal(Signal::STOP);
        while put(&mut clients[other], round).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut client = clients[leader].clone();
        let asked = tokio::spawn(async move { get(&mut client).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.members[leader].signal(Signal::CONT);
        assert_eq!(asked.await.unwrap(), round, "it was asked after that was acknowledged");
    }
}
