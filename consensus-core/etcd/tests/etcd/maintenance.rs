//! What operators ask of members: room, alarms, hashes, defragmentation.

use std::time::Duration;

use crate::support::{Cluster, get, put};
use consensus_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DeleteRangeRequest, HashKvRequest,
    LeaseGrantRequest, StatusRequest, alarm_request::AlarmAction, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient,
};
use tonic::{Code, Status, transport::Channel};

async fn maintenance(cluster: &Cluster, n: usize) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(cluster.channel(n).await)
}

/// Puts until that is refused by a cluster that has a leader.
async fn refusal(kv: &mut KvClient<Channel>, value: &str) -> Status {
    loop {
        match kv.put(put("key", value)).await {
            Err(refused) if refused.code() != Code::Unavailable => return refused,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn alarms(action: AlarmAction, member_id: u64) -> AlarmRequest {
    AlarmRequest { action: action.into(), member_id, alarm: AlarmType::Nospace.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_room_stops_all_from_growing() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(1).await;
    cluster.configure = |config| config.quota_bytes = 1 << 20;
    cluster.restart(1).await;
    let mut kv = cluster.kv(1).await;
    let large = "v".repeat(64 << 10);
    let refused = refusal(&mut kv, &large).await;
    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    assert_eq!((refused.code(), refused.message()), no_space);
    // The others refuse it too, and read on.
    let mut other = cluster.kv(0).await;
    let refused = other.put(put("key", "small")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), no_space);
    let mut leases = LeaseClient::new(cluster.channel(2).await);
    let refused = leases.lease_grant(LeaseGrantRequest { ttl: 10, id: 0 }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), no_space);
    let found = other.range(get("key")).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value.len(), large.len());
    let mut admin = maintenance(&cluster, 2).await;
    let raised = admin.alarm(alarms(AlarmAction::Get, 0)).await.unwrap().into_inner().alarms;
    assert_eq!(raised.len(), 1);
    assert_eq!(raised[0].member_id, cluster.members[1].as_ref().unwrap().server.node().id());
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.errors[0].contains("NOSPACE"), "{:?}", status.errors);

    // Deletion, compaction and defragmentation make room, and then the alarm can end.
    let revision = found.header.unwrap().revision;
    other.delete_range(DeleteRangeRequest { key: "key".into(), ..Default::default() }).await.unwrap();
    other.compact(CompactionRequest { revision: revision + 1, physical: true }).await.unwrap();
    let mut full = maintenance(&cluster, 1).await;
    let before = full.status(StatusRequest {}).await.unwrap().into_inner().db_size;
    full.defragment(DefragmentRequest {}).await.unwrap();
    let after = full.status(StatusRequest {}).await.unwrap().into_inner().db_size;
    assert!(after < before / 2, "{before} bytes are {after} now");
    admin.alarm(alarms(AlarmAction::Deactivate, raised[0].member_id)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.kv(1).await.put(put("key", "small")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_is_an_alarm() {
    let mut cluster = Cluster::start(1).await;
    cluster.kv(0).await.put(put("key", "1")).await.unwrap();
    cluster.stop(0).await;
    cluster.configure = |config| config.reserve_bytes = u64::MAX / 4;
    cluster.restart(0).await;
    let mut kv = cluster.kv(0).await;
    let refused = refusal(&mut kv, "2").await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // What was put before the disk was looked at is there, and can be read.
    assert_eq!(kv.range(get("key")).await.unwrap().into_inner().kvs.len(), 1);
    let mut admin = maintenance(&cluster, 0).await;
    assert_eq!(admin.alarm(alarms(AlarmAction::Get, 0)).await.unwrap().into_inner().alarms.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_the_same_hash_at_a_revision() {
    let cluster = Cluster::start(3).await;
    let mut kv = cluster.kv(0).await;
    for n in 0..50 {
        kv.put(put(&format!("key{}", n % 7), &format!("{n}"))).await.unwrap();
    }
    kv.compact(CompactionRequest { revision: 20, physical: true }).await.unwrap();
    for revision in [0, 30, 51] {
        let mut hashes = Vec::new();
        for n in 0..3 {
            cluster.kv(n).await.range(get("key0")).await.unwrap();
            let hash = maintenance(&cluster, n).await.hash_kv(HashKvRequest { revision }).await.unwrap();
            let hash = hash.into_inner();
            assert_eq!(hash.compact_revision, 20);
            hashes.push(hash.hash);
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "at {revision}: {hashes:?}");
    }
    let mut admin = maintenance(&cluster, 0).await;
    let at = async |admin: &mut MaintenanceClient<Channel>, revision| {
        admin.hash_kv(HashKvRequest { revision }).await.map(|hash| hash.into_inner().hash)
    };
    assert_ne!(at(&mut admin, 30).await.unwrap(), at(&mut admin, 31).await.unwrap());
    assert_eq!(at(&mut admin, 19).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(at(&mut admin, 99).await.unwrap_err().code(), Code::OutOfRange);
}
