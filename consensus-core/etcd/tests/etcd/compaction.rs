//! Compactions that the leader asks for by itself, and what becomes of one that a stop interrupts.

use std::{ops::ControlFlow, time::Duration};

use crate::support::{Cluster, get, put};
use consensus_disk::{Disk as _, Order, Space};
use consensus_etcd::AutoCompaction;
use consensus_proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, RangeRequest, RequestOp, TxnRequest,
    maintenance_client::MaintenanceClient, request_op::Request,
};
use consensus_rocks::{Kind, RocksDisk};
use tonic::Code;

/// Up to where a member is compacted, and the hash of all that is left up to a revision.
async fn hash(cluster: &Cluster, n: usize, revision: i64) -> (i64, u32) {
    try_hash(cluster, n, revision).await.unwrap()
}

/// Refused if the member does not have this revision, or not any more.
async fn try_hash(cluster: &Cluster, n: usize, revision: i64) -> Result<(i64, u32), tonic::Status> {
    let mut maintenance = MaintenanceClient::new(cluster.channel(n).await);
    let hash = maintenance.hash_kv(HashKvRequest { revision }).await?.into_inner();
    Ok((hash.compact_revision, hash.hash))
}

/// Writes until all members are compacted to a later revision than this; gives that.
async fn write_until_compacted(cluster: &Cluster, after: i64) -> i64 {
    let mut kv = cluster.kv(cluster.leader().await).await;
    for n in 0..600 {
        kv.put(put("key", &n.to_string())).await.unwrap();
        let mut least = i64::MAX;
        for (member, _) in cluster.running() {
            least = least.min(hash(cluster, member, 0).await.0);
        }
        if least > after {
            return least;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not compacted after {after} within 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_compacts_and_so_does_the_next() {
    let cluster = Cluster::start_with(3, |config| {
        config.auto_compaction = Some(AutoCompaction::Periodic(Duration::from_secs(2)));
    })
    .await;
    // Later than 1: revision 0 would be the newest.
    let compacted = write_until_compacted(&cluster, 1).await;
    let leader = cluster.leader().await;
    let mut kv = cluster.kv(leader).await;
    let old = RangeRequest { revision: compacted - 1, ..get("key") };
    assert_eq!(kv.range(old).await.unwrap_err().code(), Code::OutOfRange);
    assert!(crate::support::value(&mut kv, "key").await.is_some(), "the newest version stays");

    let next = cluster.members[(leader + 1) % 3].as_ref().unwrap().server.node().id();
    let node = cluster.members[leader].as_ref().unwrap().server.node();
    assert!(node.transfer_leader(next, Duration::from_secs(10)).await.unwrap());
    write_until_compacted(&cluster, compacted).await;
    // Nothing is written any more: soon all have the same, and are compacted to the same.
    let revision = cluster.members[leader].as_ref().unwrap().server.revision();
    for _ in 0..100 {
        let mut hashes = Vec::new();
        for n in 0..3 {
            hashes.extend(try_hash(&cluster, n, revision).await);
        }
        if hashes.len() == 3 && hashes.iter().all(|(compacted, _)| *compacted == hashes[0].0) {
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("members stay compacted to different revisions");
}

const KEYS: usize = 100;
/// So many that removing them takes a second at least, pauses included.
const VERSIONS: usize = 1000;

/// Versions of keys on the disk of a member that does not run.
fn versions(cluster: &Cluster) -> usize {
    let folder = cluster.folder("m0").join("data").join("1");
    let disk = RocksDisk::open_to_read(&folder, Kind::Data, consensus_store::SPACES).unwrap();
    let mut count = 0;
    disk.scan(Space(0), &[], None, Order::Ascending, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_a_stop_interrupts_is_finished() {
    let mut cluster = Cluster::start(1).await;
    let mut kv = cluster.kv(0).await;
    for version in 0..VERSIONS {
        let puts = (0..KEYS).map(|key| put(&format!("key{key}"), &version.to_string()));
        let success = puts.map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).collect();
        kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    }
    let revision = cluster.members[0].as_ref().unwrap().server.revision();
    let before = hash(&cluster, 0, revision).await;
    kv.compact(CompactionRequest { revision, physical: false }).await.unwrap();
    drop(kv);
    cluster.stop(0).await;
    let left = versions(&cluster);
    assert!(left > KEYS, "it was stopped too late: nothing is left to finish");
    cluster.restart(0).await;
    cluster.leader().await;
    let after = hash(&cluster, 0, revision).await;
    assert_ne!(before, after, "what is compacted counts for nothing");

    let mut kv = cluster.kv(0).await;
    kv.put(put("key0", "last")).await.unwrap();
    let compaction = CompactionRequest { revision: revision + 1, physical: true };
    kv.compact(compaction).await.unwrap();
    for key in 1..KEYS {
        assert_eq!(crate::support::value(&mut kv, &format!("key{key}")).await.unwrap(), "999");
    }
    drop(kv);
    cluster.stop(0).await;
    assert_eq!(versions(&cluster), KEYS, "one of each key, of {left} that were left");
}
