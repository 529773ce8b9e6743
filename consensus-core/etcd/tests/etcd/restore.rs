//! A snapshot that a client saves, and a new cluster out of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Cluster, get, put, value};
use consensus_etcd::{Restore, RestoreError};
use consensus_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, MemberListRequest,
    PutRequest, RangeRequest, SnapshotRequest, cluster_client::ClusterClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient,
};
use tonic::Code;

async fn save(cluster: &Cluster, n: usize, file: &Path) {
    // A snapshot is of what its member has applied; a read waits until that is all that was acknowledged.
    cluster.kv(n).await.range(get("last")).await.unwrap();
    let mut admin = MaintenanceClient::new(cluster.channel(n).await);
    let mut stream = admin.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    let mut left = u64::MAX;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.remaining_bytes <= left, "less and less is left");
        left = message.remaining_bytes;
        bytes.extend_from_slice(&message.blob);
    }
    assert_eq!((left, bytes.len() % 512), (0, 32), "pages and a digest");
    fs::write(file, bytes).unwrap();
}

fn restore(cluster: &Cluster, n: usize, file: &Path) -> Restore {
    Restore {
        file: file.to_owned(),
        skip_digest: false,
        data_dir: cluster.folder(&format!("m{n}")),
        cluster: cluster.initial.clone(),
        name: format!("m{n}"),
    }
}

async fn fill(cluster: &Cluster) {
    let mut kv = cluster.kv(0).await;
    for n in 0..200 {
        kv.put(put(&format!("key{}", n % 50), &format!("{n}"))).await.unwrap();
    }
    let mut leases = LeaseClient::new(cluster.channel(0).await);
    leases.lease_grant(LeaseGrantRequest { ttl: 300, id: 7 }).await.unwrap();
    kv.put(PutRequest { lease: 7, ..put("leased", "1") }).await.unwrap();
    kv.delete_range(DeleteRangeRequest { key: "key7".into(), ..Default::default() }).await.unwrap();
    kv.compact(CompactionRequest { revision: 170, physical: true }).await.unwrap();
    kv.put(put("last", &"v".repeat(100_000))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_becomes_a_new_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("snapshot.db");
    let old = Cluster::start(3).await;
    fill(&old).await;
    save(&old, 1, &file).await;
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let before = old.kv(0).await.range(all.clone()).await.unwrap().into_inner();
    let past = RangeRequest { revision: 180, ..all.clone() };
    let before_past = old.kv(0).await.range(past.clone()).await.unwrap().into_inner();

    let mut new = Cluster::prepare(3).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let restored = restore(&new, n, &file).run().unwrap();
        assert_eq!(restored.revision, before.header.unwrap().revision);
        ids.push(restored.cluster);
        assert!(matches!(restore(&new, n, &file).run(), Err(RestoreError::Exists { .. })));
    }
    assert!(ids.iter().all(|id| *id == ids[0] && *id != new.initial.cluster_id()), "{ids:x?}");
    new.start_all().await;
    for n in 0..3 {
        let mut kv = new.kv(n).await;
        let after = kv.range(all.clone()).await.unwrap().into_inner();
        assert_eq!((&after.kvs, after.count), (&before.kvs, before.count));
        assert_eq!(after.header.unwrap().revision, before.header.unwrap().revision);
        assert_eq!(kv.range(past.clone()).await.unwrap().into_inner().kvs, before_past.kvs);
        let compacted = kv.range(RangeRequest { revision: 100, ..get("key1") }).await.unwrap_err();
        assert_eq!(compacted.code(), Code::OutOfRange, "{compacted}");
    }
    let mut leases = LeaseClient::new(new.channel(1).await);
    let lease = LeaseTimeToLiveRequest { id: 7, keys: true };
    let lease = leases.lease_time_to_live(lease).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, lease.keys), (300, vec![b"leased".to_vec().into()]));
    let mut kv = new.kv(2).await;
    let put = kv.put(put("key1", "new")).await.unwrap().into_inner();
    assert_eq!(put.header.unwrap().revision, before.header.unwrap().revision + 1);
    assert_eq!(value(&mut new.kv(0).await, "key1").await.as_deref(), Some("new"));
    let list =
        ClusterClient::new(new.channel(0).await).member_list(MemberListRequest { linearizable: true }).await;
    assert_eq!(list.unwrap().into_inner().header.unwrap().cluster_id, ids[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_is_found_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("snapshot.db");
    let old = Cluster::start(1).await;
    fill(&old).await;
    save(&old, 0, &file).await;
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let new = Cluster::prepare(1).await;
    let refused = restore(&new, 0, &file).run().unwrap_err();
    assert!(matches!(refused, RestoreError::Digest { .. }), "{refused}");
    bytes.truncate(middle);
    fs::write(&file, &bytes).unwrap();
    assert!(restore(&new, 0, &file).run().is_err());
    assert!(fs::read_dir(new.folder("m0").parent().unwrap()).unwrap().next().is_none(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_goes_on_alone_when_the_others_are_gone_for_ever() {
    let mut cluster = Cluster::start(3).await;
    cluster.kv(0).await.put(put("key", "1")).await.unwrap();
    cluster.kv(1).await.put(put("key", "2")).await.unwrap();
    for n in 0..3 {
        cluster.stop(n).await;
    }
    cluster.configure = |config| config.node.force_new_cluster = true;
    cluster.restart(1).await;
    cluster.leader().await;
    let mut kv = cluster.kv(1).await;
    assert_eq!(value(&mut kv, "key").await.as_deref(), Some("2"));
    kv.put(put("key", "3")).await.unwrap();
    let mut members = ClusterClient::new(cluster.channel(1).await);
    let list = members.member_list(MemberListRequest { linearizable: true }).await.unwrap();
    assert_eq!(list.into_inner().members.len(), 1);
    // Once is enough.
    cluster.stop(1).await;
    cluster.configure = |_| ();
    cluster.restart(1).await;
    cluster.leader().await;
    assert_eq!(value(&mut cluster.kv(1).await, "key").await.as_deref(), Some("3"));
}
