//! The crate etcd-client, used as its documentation says: `store-clients ENDPOINT...` for three members that are empty.
//!
//! What is not as it has to be ends the program with a panic. Authentication is last: it is off again at the end.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType, GetOptions, LockOptions,
    Permission, PutOptions, Txn, TxnOp, WatchOptions,
};

/// For what a member tells by itself.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let mut client = Client::connect(&endpoints, None).await?;
    keys(&mut client).await?;
    transactions(&mut client).await?;
    leases(&mut client).await?;
    locks(&endpoints, &mut client).await?;
    elections(&mut client).await?;
    watches(&mut client).await?;
    cluster(&endpoints, &mut client).await?;
    users(&endpoints, &mut client).await
}

async fn keys(client: &mut Client) -> Result<(), Error> {
    client.put("kv/a", "1", None).await?;
    let put = client.put("kv/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().expect("what was there").value(), b"1");
    client.put("kv/b", "3", None).await?;
    let found = client.get("kv/", Some(GetOptions::new().with_prefix())).await?;
    let pairs: Vec<_> =
        found.kvs().iter().map(|kv| (kv.key_str().unwrap(), kv.value_str().unwrap())).collect();
    assert_eq!(pairs, [("kv/a", "2"), ("kv/b", "3")]);
    assert_eq!((found.kvs()[0].version(), found.count()), (2, 2));
    let revision = put.header().expect("a header").revision();
    let before = client.get("kv/a", Some(GetOptions::new().with_revision(revision - 1))).await?;
    assert_eq!(before.kvs()[0].value(), b"1");
    let deleted = client.delete("kv/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (2, 2));
    assert_eq!(client.get("kv/a", None).await?.count(), 0);
    client.compact(revision, None).await?;
    let gone = client.get("kv/a", Some(GetOptions::new().with_revision(revision - 1))).await;
    assert!(gone.unwrap_err().to_string().contains("required revision has been compacted"));
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<(), Error> {
    let txn = Txn::new()
        .when([Compare::create_revision("txn/a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("txn/a", "made", None)])
        .or_else([TxnOp::get("txn/a", None)]);
    assert!(client.txn(txn.clone()).await?.succeeded());
    let second = client.txn(txn).await?;
    assert!(!second.succeeded());
    let responses = second.op_responses();
    let etcd_client::TxnOpResponse::Get(found) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!(found.kvs()[0].value(), b"made");
    Ok(())
}

async fn leases(client: &mut Client) -> Result<(), Error> {
    let id = client.lease_grant(2, None).await?.id();
    client.put("lease/a", "x", Some(PutOptions::new().with_lease(id))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.expect("an answer").ttl(), 2);
    let left = client.lease_time_to_live(id, None).await?;
    assert!(left.granted_ttl() == 2 && (0..=2).contains(&left.ttl()), "{left:?}");
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == id));
    // Nobody renews it any more: its key goes with it.
    let gone = async {
        while client.get("lease/a", None).await?.count() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Error>(())
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the lease ends")?;
    let id = client.lease_grant(600, None).await?.id();
    client.lease_revoke(id).await?;
    assert!(client.lease_revoke(id).await.unwrap_err().to_string().contains("requested lease not found"));
    Ok(())
}

async fn locks(endpoints: &[String], client: &mut Client) -> Result<(), Error> {
    let lease = client.lease_grant(60, None).await?.id();
    let options = || Some(LockOptions::new().with_lease(lease));
    let first = client.lock("lock", options()).await?;
    let mut other = Client::connect(endpoints, None).await?;
    let waiting = tokio::spawn(async move { other.lock("lock", None).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    if waiting.is_finished() {
        panic!("the lock is held, and another gets {:?}", waiting.await);
    }
    client.unlock(first.key()).await?;
    let second =
        tokio::time::timeout(PATIENCE, waiting).await.expect("the lock is free").expect("no panic")?;
    assert_ne!(first.key(), second.key());
    client.unlock(second.key()).await?;
    client.lease_revoke(lease).await.map(drop)
}

async fn elections(client: &mut Client) -> Result<(), Error> {
    let lease = client.lease_grant(60, None).await?.id();
    let campaign = client.campaign("election", "me", lease).await?;
    let leader = client.leader("election").await?;
    assert_eq!(leader.kv().expect("a leader").value(), b"me");
    let key = campaign.leader().expect("a key").clone();
    client.resign(Some(etcd_client::ResignOptions::new().with_leader(key))).await?;
    assert!(client.leader("election").await.unwrap_err().to_string().contains("election: no leader"));
    client.lease_revoke(lease).await.map(drop)
}

async fn watches(client: &mut Client) -> Result<(), Error> {
    let mut stream = client.watch("watch/", Some(WatchOptions::new().with_prefix().with_prev_key())).await?;
    client.put("watch/a", "1", None).await?;
    client.put("watch/a", "2", None).await?;
    client.delete("watch/a", None).await?;
    let (mut seen, mut id) = (Vec::new(), 0);
    while seen.len() < 3 {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("events in time")?;
        let message = message.expect("the stream goes on");
        id = message.watch_id();
        for event in message.events() {
            let value = event.kv().expect("a key").value_str()?.to_owned();
            seen.push((event.event_type(), value, event.prev_kv().map(|kv| kv.value().to_vec())));
        }
    }
    let put = |value: &str, before: Option<&str>| {
        (EventType::Put, value.to_owned(), before.map(|value| value.as_bytes().to_vec()))
    };
    assert_eq!(seen[..2], [put("1", None), put("2", Some("1"))]);
    assert_eq!(seen[2], (EventType::Delete, String::new(), Some(b"2".to_vec())));
    stream.cancel(id).await?;
    let cancelled = tokio::time::timeout(PATIENCE, stream.message()).await.expect("an answer in time")?;
    assert!(cancelled.is_none_or(|message| message.canceled()));
    Ok(())
}

async fn cluster(endpoints: &[String], client: &mut Client) -> Result<(), Error> {
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), endpoints.len());
    assert!(members.members().iter().all(|member| !member.name().is_empty() && !member.is_learner()));
    let mut leaders = Vec::new();
    for endpoint in endpoints {
        let mut one = Client::connect([endpoint], None).await?;
        let status = one.status().await?;
        assert!(status.db_size() > 0 && status.raft_applied_index() > 0 && !status.version().is_empty());
        leaders.push(status.leader());
        one.defragment().await?;
    }
    assert!(leaders.iter().all(|leader| *leader != 0 && *leader == leaders[0]), "{leaders:?}");
    let mut snapshot = client.snapshot().await?;
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
    }
    assert!(bytes > 4096, "{bytes}");
    Ok(())
}

async fn users(endpoints: &[String], client: &mut Client) -> Result<(), Error> {
    client.role_add("reader").await?;
    client.role_grant_permission("reader", Permission::read("open/").with_prefix()).await?;
    client.user_add("alice", "secret", None).await?;
    client.user_grant_role("alice", "reader").await?;
    client.user_add("root", "rootpwd", None).await?;
    client.role_add("root").await?;
    client.user_grant_role("root", "root").await?;
    client.put("open/a", "x", None).await?;
    client.auth_enable().await?;
    let user = |name: &str, password: &str| Some(ConnectOptions::new().with_user(name, password));
    let mut root = Client::connect(endpoints, user("root", "rootpwd")).await?;
    let mut alice = Client::connect(endpoints, user("alice", "secret")).await?;
    assert_eq!(alice.get("open/a", None).await?.kvs()[0].value(), b"x");
    for refused in [
        alice.put("open/a", "y", None).await.map(drop),
        alice.get("closed", None).await.map(drop),
        alice.user_list().await.map(drop),
    ] {
        assert!(refused.unwrap_err().to_string().contains("etcdserver: permission denied"));
    }
    let nobody = client.get("open/a", None).await.unwrap_err().to_string();
    assert!(nobody.contains("etcdserver: user name is empty"), "{nobody}");
    let wrong = Client::connect(endpoints, user("alice", "wrong")).await;
    assert!(wrong.err().expect("a refusal").to_string().contains("authentication failed"));
    assert_eq!(root.user_list().await?.users(), ["alice", "root"]);
    root.auth_disable().await?;
    assert_eq!(client.get("open/a", None).await?.count(), 1);
    Ok(())
}
