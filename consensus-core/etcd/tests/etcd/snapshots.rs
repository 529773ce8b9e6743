//! Members for which the log is too short: they get a snapshot, and go on from there.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::support::{Cluster, free_addresses, get, put, value};
use consensus_core::{MemberChange, MemberInfo};
use consensus_etcd::MemberFolder;
use consensus_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MoveLeaderRequest, WatchCreateRequest, WatchRequest, cluster_client::ClusterClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

/// Entries after which logs get shorter.
const ENTRIES: u64 = 40;
/// Id of a member that is added.
const ADDED: u64 = 0xadded;

async fn write(cluster: &Cluster, n: usize, keys: std::ops::Range<usize>) {
    let mut kv = cluster.kv(n).await;
    for key in keys {
        // A leader that falls leaves it open what became of a request; these can be repeated.
        while let Err(status) = kv.put(put(&format!("key{key:04}"), &format!("value{key}"))).await {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
    }
}

async fn members(cluster: &Cluster, n: usize) -> ClusterClient<Channel> {
    ClusterClient::new(cluster.channel(n).await)
}

/// Waits until the log of a member begins after this entry.
async fn log_is_shorter(cluster: &Cluster, n: usize, than: u64) {
    let node = cluster.members[n].as_ref().unwrap().server.node();
    let shorter = async { node.watch_status().wait_for(|status| status.first > than).await.map(drop) };
    tokio::time::timeout(Duration::from_secs(20), shorter).await.unwrap().unwrap();
}

/// Waits until the members have said their names: who has not does not count as started.
async fn all_are_named(cluster: &Cluster) {
    let node = cluster.members[0].as_ref().unwrap().server.node();
    while node.membership().members.values().any(|info| info.name.is_empty()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |config| config.node.snapshots.entries = ENTRIES).await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    write(&cluster, leader, 0..3).await;
    cluster.stop(away).await;
    // The leader's: entries may have been on their way to the one that stops until it had stopped.
    let before = cluster.members[leader].as_ref().unwrap().server.node().status().last;
    write(&cluster, leader, 3..200).await;
    log_is_shorter(&cluster, leader, before + 1).await;
    cluster.restart(away).await;

    // A watch from before goes on through the snapshot.
    let mut watches = WatchClient::new(cluster.channel(away).await);
    let (requests, receiver) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: "key".into(),
        range_end: "kez".into(),
        start_revision: 2,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await.unwrap();
    let mut stream = watches.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();

    let mut kv = cluster.kv(away).await;
    assert_eq!(value(&mut kv, "key0199").await.as_deref(), Some("value199"));
    assert_eq!(value(&mut kv, "key0000").await.as_deref(), Some("value0"));
    let node = cluster.members[away].as_ref().unwrap().server.node();
    assert!(node.status().first > before + 1, "it came by a snapshot: {:?}", node.status());
    write(&cluster, away, 200..203).await;
    let mut seen = Vec::new();
    while seen.len() < 203 {
        let response = stream.message().await.unwrap().unwrap();
        assert!(!response.canceled, "{response:?}");
        seen.extend(response.events.into_iter().map(|event| event.kv.unwrap().key));
        seen.dedup();
    }
    let expected: Vec<_> = (0..203).map(|key| format!("key{key:04}")).collect();
    assert_eq!(seen, expected);
    assert!(is_empty(&cluster.folder(&format!("m{away}")).join("snapshots").join("incoming")));

    // It starts again with what it got.
    cluster.stop(away).await;
    cluster.restart(away).await;
    let mut kv = cluster.kv(away).await;
    assert_eq!(value(&mut kv, "key0202").await.as_deref(), Some("value202"));
}

async fn add(cluster: &Cluster, n: usize, at: SocketAddr, is_learner: bool) -> Member {
    let request = MemberAddRequest { peer_ur_ls: vec![format!("http://{at}")], is_learner };
    members(cluster, n).await.member_add(request).await.unwrap().into_inner().member.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_learns_everything_and_gets_a_vote() {
    let mut cluster = Cluster::start_with(3, |config| config.node.snapshots.entries = ENTRIES).await;
    write(&cluster, 0, 0..100).await;
    all_are_named(&cluster).await;
    let at = free_addresses(1)[0];
    let unknown = cluster.join("new", at).await.unwrap_err();
    assert!(unknown.contains("add it first"), "{unknown}");

    let added = add(&cluster, 1, at, true).await;
    assert!(added.is_learner);
    let again = MemberAddRequest { peer_ur_ls: vec![format!("http://{at}")], is_learner: true };
    let refused = members(&cluster, 0).await.member_add(again).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
    );
    let other = MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: true };
    let refused = members(&cluster, 0).await.member_add(other).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many learner members in cluster");
    let early = members(&cluster, 2).await.member_promote(MemberPromoteRequest { id: added.id }).await;
    let early = early.unwrap_err();
    assert_eq!(early.message(), "etcdserver: can only promote a learner member which is in sync with leader");

    let new = cluster.join("new", at).await.unwrap();
    write(&cluster, 0, 100..120).await;
    let mut kv = cluster.kv(new).await;
    assert_eq!(value(&mut kv, "key0000").await.as_deref(), Some("value0"));
    assert_eq!(value(&mut kv, "key0119").await.as_deref(), Some("value119"));
    let promoted =
        members(&cluster, 2).await.member_promote(MemberPromoteRequest { id: added.id }).await.unwrap();
    assert!(promoted.into_inner().members.iter().all(|member| !member.is_learner));

    // Its vote counts: two of four are no majority.
    cluster.stop(0).await;
    write(&cluster, new, 120..122).await;
    cluster.restart(0).await;
    assert_eq!(value(&mut cluster.kv(0).await, "key0121").await.as_deref(), Some("value121"));
    let list = members(&cluster, new).await.member_list(MemberListRequest { linearizable: true }).await;
    assert_eq!(list.unwrap().into_inner().members.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_grows_and_shrinks() {
    let mut cluster = Cluster::start_with(1, |config| config.node.snapshots.entries = ENTRIES).await;
    write(&cluster, 0, 0..60).await;
    all_are_named(&cluster).await;
    let at = free_addresses(1)[0];
    let added = add(&cluster, 0, at, false).await;
    let new = cluster.join("new", at).await.unwrap();
    let mut kv = cluster.kv(new).await;
    assert_eq!(value(&mut kv, "key0059").await.as_deref(), Some("value59"));
    kv.put(put("key0060", "value60")).await.unwrap();

    // It can lead, and give it back.
    let ids = [0, new].map(|n| cluster.members[n].as_ref().unwrap().server.node().id());
    for (from, to, target) in [(0, new, ids[1]), (new, 0, ids[0])] {
        let mut leader = MaintenanceClient::new(cluster.channel(from).await);
        // Whoever takes over says so to the others first, and a slow machine may have it elect once more.
        while cluster.leader().await != to {
            if let Err(status) = leader.move_leader(MoveLeaderRequest { target_id: target }).await {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    let remove = MemberRemoveRequest { id: added.id };
    members(&cluster, 0).await.member_remove(remove).await.unwrap();
    let mut kv = cluster.kv(0).await;
    kv.put(put("alone", "again")).await.unwrap();
    assert_eq!(kv.range(get("key0060")).await.unwrap().into_inner().count, 1);
    let last = members(&cluster, 0).await.member_list(MemberListRequest { linearizable: true }).await;
    let last = last.unwrap().into_inner().members[0].id;
    let refused =
        members(&cluster, 0).await.member_remove(MemberRemoveRequest { id: last }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_folder_is_refused() {
    let mut cluster = Cluster::start(3).await;
    write(&cluster, 0, 0..3).await;
    cluster.stop(0).await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.folder("m1")).unwrap();
    std::fs::rename(cluster.folder("m0"), cluster.folder("m1")).unwrap();
    let path = cluster.folder("m1");
    let folder = MemberFolder::new(&path, path.join("log"));
    let identity = cluster.initial.identity(&folder, "m1", false, None, false).await;
    let refused = identity.unwrap_err().to_string();
    assert!(refused.contains("was it copied?"), "{refused}");
}

/// Whoever was away while a member was added does not know it, and is led by it nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_follows_a_leader_that_it_does_not_know() {
    let mut cluster = Cluster::start(3).await;
    all_are_named(&cluster).await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    let at = free_addresses(1)[0];
    let mut changes = members(&cluster, leader).await;
    // As etcd's, our service adds nobody while a voter is away; whoever embeds a node may.
    let info = MemberInfo { peer_urls: vec![format!("http://{at}")], ..MemberInfo::default() };
    let add = MemberChange::Add { id: ADDED, info, learner: true };
    let node = cluster.members[leader].as_ref().unwrap().server.node().clone();
    node.change_members(add, Duration::from_secs(5)).await.unwrap();
    drop(node);
    let new = cluster.join("m3", at).await.unwrap();
    let promote = MemberPromoteRequest { id: ADDED };
    while let Err(status) = changes.member_promote(promote).await {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while cluster.leader().await != new {
        let old = cluster.members[cluster.leader().await].as_ref().unwrap();
        old.server.node().transfer_leader(ADDED, Duration::from_secs(5)).await.unwrap();
    }
    write(&cluster, new, 0..3).await;

    cluster.restart(away).await;
    let node = cluster.members[away].as_ref().unwrap().server.node().clone();
    let last = cluster.members[new].as_ref().unwrap().server.node().status().last;
    let caught_up = async { node.watch_status().wait_for(|status| status.applied >= last).await.map(drop) };
    tokio::time::timeout(Duration::from_secs(20), caught_up).await.expect("it catches up").unwrap();
    assert_eq!(cluster.leader().await, new, "the leader is the one that it did not know");
    assert!(node.membership().members.contains_key(&ADDED));
}
