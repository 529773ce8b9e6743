//! Three members in one process, with real disks and sockets, used through gRPC.

use std::time::Duration;

use crate::support::{Cluster, get, put, value};
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
        LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, MoveLeaderRequest, PutRequest,
        RangeRequest, RequestOp, StatusRequest, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
        cluster_client::ClusterClient,
        compare::{CompareResult, CompareTarget, TargetUnion},
        lease_client::LeaseClient,
        maintenance_client::MaintenanceClient,
        request_op,
        watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    v3electionpb::{
        CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest, election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_member_takes_all_have() {
    let cluster = Cluster::start(3).await;
    for n in 0..3 {
        let mut kv = cluster.kv(n).await;
        let key = format!("key{n}");
        let answer = kv.put(put(&key, "value")).await.unwrap().into_inner();
        let header = answer.header.unwrap();
        assert_eq!(header.revision, n as i64 + 2, "a store begins at revision 1");
        assert_eq!(header.cluster_id, cluster.initial.cluster_id());
        for other in 0..3 {
            assert_eq!(value(&mut cluster.kv(other).await, &key).await.as_deref(), Some("value"));
        }
    }
    let mut clients = ClusterClient::new(cluster.channel(0).await);
    // Names are published after the start.
    for _ in 0..500 {
        let list = clients.member_list(MemberListRequest { linearizable: true }).await.unwrap().into_inner();
        let mut names: Vec<_> = list.members.iter().map(|member| member.name.clone()).collect();
        names.sort();
        if names == ["m0", "m1", "m2"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the members did not publish their names");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_has_everything() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.kv(leader).await.put(put("before", "1")).await.unwrap();
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.kv(next).await.put(put("without", "2")).await.unwrap();
    cluster.restart(leader).await;
    let mut kv = cluster.kv(leader).await;
    assert_eq!(value(&mut kv, "before").await.as_deref(), Some("1"));
    assert_eq!(value(&mut kv, "without").await.as_deref(), Some("2"));

    // All at once.
    for n in 0..3 {
        cluster.stop(n).await;
    }
    for n in 0..3 {
        cluster.restart(n).await;
    }
    cluster.leader().await;
    let mut kv = cluster.kv(0).await;
    assert_eq!(value(&mut kv, "without").await.as_deref(), Some("2"));
    let answer = kv.put(put("after", "3")).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for n in (0..3).filter(|n| *n != leader) {
        cluster.stop(n).await;
    }
    let mut kv = cluster.kv(leader).await;
    let mut request = tonic::Request::new(put("lonely", "1"));
    request.set_timeout(Duration::from_secs(3));
    let refused = kv.put(request).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded),
        "{refused}"
    );
    let serializable = RangeRequest { serializable: true, ..get("lonely") };
    assert!(kv.range(serializable).await.unwrap().into_inner().kvs.is_empty(), "nothing was applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_compare_and_swap() {
    let cluster = Cluster::start(1).await;
    let mut kv = cluster.kv(0).await;
    let swap = |version: i64, value: &str| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: "counter".into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put("counter", value))) }],
        failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get("counter"))) }],
    };
    assert!(kv.txn(swap(0, "a")).await.unwrap().into_inner().succeeded);
    let second = kv.txn(swap(0, "b")).await.unwrap().into_inner();
    assert!(!second.succeeded);
    assert_eq!(second.responses.len(), 1);
    assert!(kv.txn(swap(1, "c")).await.unwrap().into_inner().succeeded);
    assert_eq!(value(&mut kv, "counter").await.as_deref(), Some("c"));

    let twice = TxnRequest { success: vec![swap(0, "x").success[0].clone(); 2], ..Default::default() };
    let refused = kv.txn(twice).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
    );
    let long = TxnRequest { success: vec![swap(0, "x").failure[0].clone(); 129], ..Default::default() };
    assert_eq!(kv.txn(long).await.unwrap_err().message(), "etcdserver: too many operations in txn request");
    let large = kv.put(put("large", &"x".repeat(1700 << 10))).await.unwrap_err();
    assert_eq!(large.message(), "etcdserver: request is too large");
}

async fn watch(
    cluster: &Cluster,
    create: WatchCreateRequest,
) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (sender, receiver) = mpsc::channel(8);
    sender.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    let mut client = WatchClient::new(cluster.channel(0).await);
    let mut stream = client.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().created);
    (sender, stream)
}

/// The values of all puts, until `count` were seen.
async fn values(stream: &mut Streaming<WatchResponse>, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        let response =
            tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("an event in time");
        for event in response.unwrap().unwrap().events {
            values.push(String::from_utf8(event.kv.unwrap().value.to_vec()).unwrap());
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_miss_nothing_and_say_nothing_twice() {
    const COUNT: usize = 3000;
    let cluster = Cluster::start(1).await;
    let mut kv = cluster.kv(0).await;
    for n in 0..COUNT / 2 {
        kv.put(put(&format!("k{}", n % 7), &n.to_string())).await.unwrap();
    }
    let from_the_past = WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision: 2,
        ..Default::default()
    };
    let (_keep, mut stream) = watch(&cluster, from_the_past).await;
    // Read only at the end: the queues of this stream fill up meanwhile.
    for n in COUNT / 2..COUNT {
        kv.put(put(&format!("k{}", n % 7), &n.to_string())).await.unwrap();
    }
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(values(&mut stream, COUNT).await, expected);

    // What is compacted cannot be watched.
    kv.compact(CompactionRequest { revision: 100, physical: true }).await.unwrap();
    let compacted = WatchCreateRequest { key: "k1".into(), start_revision: 2, ..Default::default() };
    let (_keep, mut stream) = watch(&cluster, compacted).await;
    let end = stream.message().await.unwrap().unwrap();
    assert!(end.canceled);
    assert_eq!(end.compact_revision, 100);
    let old = RangeRequest { revision: 99, ..get("k1") };
    assert_eq!(
        kv.range(old).await.unwrap_err().message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_keep_keys_as_long_as_they_are_renewed() {
    let cluster = Cluster::start(3).await;
    let follower = (cluster.leader().await + 1) % 3;
    let mut leases = LeaseClient::new(cluster.channel(follower).await);
    let mut kv = cluster.kv(follower).await;
    let refused = kv.put(PutRequest { lease: 7, ..put("held", "1") }).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    leases.lease_grant(LeaseGrantRequest { ttl: 3, id: 7 }).await.unwrap();
    kv.put(PutRequest { lease: 7, ..put("held", "1") }).await.unwrap();

    let (sender, receiver) = mpsc::channel(1);
    let mut alive = leases.lease_keep_alive(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for _ in 0..15 {
        sender.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
        assert_eq!(alive.message().await.unwrap().unwrap().ttl, 3);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let left = LeaseTimeToLiveRequest { id: 7, keys: true };
    let left = leases.lease_time_to_live(left).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, left.keys), (3, vec!["held".into()]));
    assert_eq!(value(&mut kv, "held").await.as_deref(), Some("1"));

    // Nobody renews it any more.
    for _ in 0..400 {
        if value(&mut kv, "held").await.is_none() {
            let left =
                leases.lease_time_to_live(LeaseTimeToLiveRequest { id: 7, keys: false }).await.unwrap();
            assert_eq!(left.into_inner().ttl, -1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the key outlived its lease by far");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let target = (leader + 1) % 3;
    let target_id = cluster.members[target].as_ref().unwrap().server.node().id();
    let mut maintenance = MaintenanceClient::new(cluster.channel(leader).await);
    maintenance.move_leader(MoveLeaderRequest { target_id }).await.unwrap();
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, target_id);
    let refused = maintenance.move_leader(MoveLeaderRequest { target_id }).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: not leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_say_what_was_there() {
    let cluster = Cluster::start(1).await;
    let mut kv = cluster.kv(0).await;
    for key in ["a", "b", "c"] {
        kv.put(put(key, key)).await.unwrap();
    }
    let request = DeleteRangeRequest { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let deleted = kv.delete_range(request).await.unwrap().into_inner();
    assert_eq!(deleted.deleted, 2);
    assert_eq!(deleted.prev_kvs.iter().map(|kv| kv.value.clone()).collect::<Vec<_>>(), ["a", "b"]);
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    assert_eq!(kv.range(all).await.unwrap().into_inner().count, 1);
    let before = RangeRequest { revision: 4, ..get("a") };
    assert_eq!(kv.range(before).await.unwrap().into_inner().kvs.len(), 1, "the past is still there");
    assert_eq!(kv.put(put("", "x")).await.unwrap_err().message(), "etcdserver: key is not provided");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_go_from_one_to_the_next() {
    let cluster = Cluster::start(3).await;
    let mut leases = LeaseClient::new(cluster.channel(0).await);
    for id in [1, 2, 3] {
        leases.lease_grant(LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    let lock = |n: usize, lease: i64| {
        let channel = cluster.channel(n);
        async move {
            let mut locks = LockClient::new(channel.await);
            locks
                .lock(LockRequest { name: "the lock".into(), lease })
                .await
                .map(|locked| locked.into_inner().key)
        }
    };
    let first = lock(0, 1).await.unwrap();
    assert_eq!(lock(0, 1).await.unwrap(), first, "who holds it has it");
    let mut second = Box::pin(lock(1, 2));
    let waits = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(waits.is_err(), "it is held");
    let mut third = Box::pin(lock(2, 3));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut third).await.is_err());
    let mut locks = LockClient::new(cluster.channel(2).await);
    locks.unlock(UnlockRequest { key: first }).await.unwrap();
    let second = second.await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut third).await.is_err(), "in their order");
    // Its holder's lease ends.
    leases.lease_revoke(LeaseRevokeRequest { id: 2 }).await.unwrap();
    assert_ne!(third.await.unwrap(), second);
    assert_eq!(lock(0, 9).await.unwrap_err().message(), "etcdserver: requested lease not found");
    // Without a lease it is held for as long as one that it is given.
    leases.lease_revoke(LeaseRevokeRequest { id: 3 }).await.unwrap();
    let key = lock(0, 0).await.unwrap();
    let held = cluster.kv(0).await.range(RangeRequest { key, ..Default::default() }).await.unwrap();
    let id = held.into_inner().kvs[0].lease;
    let request = LeaseTimeToLiveRequest { id, keys: false };
    assert_eq!(leases.lease_time_to_live(request).await.unwrap().into_inner().granted_ttl, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_those_who_campaign_leads() {
    let cluster = Cluster::start(1).await;
    let mut leases = LeaseClient::new(cluster.channel(0).await);
    for id in [1, 2] {
        leases.lease_grant(LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    let mut elections = ElectionClient::new(cluster.channel(0).await);
    let name = LeaderRequest { name: "office".into() };
    assert_eq!(elections.leader(name.clone()).await.unwrap_err().message(), "election: no leader");
    let mut observed = elections.observe(name.clone()).await.unwrap().into_inner();
    let campaign =
        |lease, value: &'static str| CampaignRequest { name: "office".into(), lease, value: value.into() };
    let first = elections.campaign(campaign(1, "one")).await.unwrap().into_inner().leader.unwrap();
    assert_eq!(observed.message().await.unwrap().unwrap().kv.unwrap().value, "one");
    elections.proclaim(ProclaimRequest { leader: Some(first.clone()), value: "uno".into() }).await.unwrap();
    assert_eq!(observed.message().await.unwrap().unwrap().kv.unwrap().value, "uno");
    let mut other = elections.clone();
    let second = tokio::spawn(async move { other.campaign(campaign(2, "two")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(elections.leader(name).await.unwrap().into_inner().kv.unwrap().value, "uno");
    elections.resign(ResignRequest { leader: Some(first.clone()) }).await.unwrap();
    assert_eq!(observed.message().await.unwrap().unwrap().kv.unwrap().value, "two");
    assert!(second.await.unwrap().is_ok());
    let late = ProclaimRequest { leader: Some(first), value: "late".into() };
    assert_eq!(elections.proclaim(late).await.unwrap_err().message(), "election: not leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_only_read_are_not_in_the_log() {
    let cluster = Cluster::start(1).await;
    let mut kv = cluster.kv(0).await;
    kv.put(put("a", "1")).await.unwrap();
    let before = cluster.members[0].as_ref().unwrap().server.node().status().last;
    let nested = TxnRequest {
        success: vec![RequestOp { request: Some(request_op::Request::RequestRange(get("a"))) }],
        ..Default::default()
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: "a".into(),
            target_union: Some(TargetUnion::Version(0)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestTxn(nested)) }],
        ..Default::default()
    };
    let answer = kv.txn(txn).await.unwrap().into_inner();
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 2);
    assert_eq!(cluster.members[0].as_ref().unwrap().server.node().status().last, before);
}
