//! Users, roles and permissions through gRPC, with real disks and sockets.

use std::time::Duration;

use crate::support::{Cluster, get, put};
use consensus_etcd::{ServerConfig, TokenKind};
use consensus_proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::*,
    v3electionpb::{CampaignRequest, LeaderRequest, election_client::ElectionClient},
    v3lockpb::{LockRequest, lock_client::LockClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

const UNKNOWN_USER: &str = "etcdserver: user name is empty";
const DENIED: &str = "etcdserver: permission denied";
const OLD: &str = "etcdserver: revision of auth store is old";
const INVALID_TOKEN: &str = "etcdserver: invalid auth token";

/// The cheapest that bcrypt has: what is tested here is not how long it takes.
fn cheap(config: &mut ServerConfig) {
    config.auth.bcrypt_cost = 4;
}

#[derive(Clone, Default)]
struct Token(Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        Ok(request)
    }
}

/// One user at one member.
struct Client {
    kv: kv_client::KvClient<InterceptedService<Channel, Token>>,
    auth: auth_client::AuthClient<InterceptedService<Channel, Token>>,
    lease: lease_client::LeaseClient<InterceptedService<Channel, Token>>,
    watch: watch_client::WatchClient<InterceptedService<Channel, Token>>,
    cluster: cluster_client::ClusterClient<InterceptedService<Channel, Token>>,
    maintenance: maintenance_client::MaintenanceClient<InterceptedService<Channel, Token>>,
    lock: LockClient<InterceptedService<Channel, Token>>,
    election: ElectionClient<InterceptedService<Channel, Token>>,
}

async fn client(cluster: &Cluster, n: usize, token: &Token) -> Client {
    let service = InterceptedService::new(cluster.channel(n).await, token.clone());
    Client {
        kv: kv_client::KvClient::new(service.clone()),
        auth: auth_client::AuthClient::new(service.clone()),
        lease: lease_client::LeaseClient::new(service.clone()),
        watch: watch_client::WatchClient::new(service.clone()),
        cluster: cluster_client::ClusterClient::new(service.clone()),
        maintenance: maintenance_client::MaintenanceClient::new(service.clone()),
        lock: LockClient::new(service.clone()),
        election: ElectionClient::new(service),
    }
}

async fn log_in(cluster: &Cluster, n: usize, name: &str, password: &str) -> Result<Token, Status> {
    let mut nobody = client(cluster, n, &Token::default()).await;
    let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    nobody.auth.authenticate(request).await.map(|answer| Token(Some(answer.into_inner().token)))
}

async fn add_user(client: &mut Client, name: &str, roles: &[&str]) {
    let user = AuthUserAddRequest { name: name.to_owned(), password: name.to_owned(), ..Default::default() };
    client.auth.user_add(user).await.unwrap();
    for role in roles {
        let grant = AuthUserGrantRoleRequest { user: name.to_owned(), role: (*role).to_owned() };
        client.auth.user_grant_role(grant).await.unwrap();
    }
}

fn permission(role: &str, kind: Type, key: &str, end: &str) -> AuthRoleGrantPermissionRequest {
    let perm =
        Permission { perm_type: kind.into(), key: key.to_owned().into(), range_end: end.to_owned().into() };
    AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) }
}

async fn add_role(client: &mut Client, role: &str, permissions: &[(Type, &str, &str)]) {
    client.auth.role_add(AuthRoleAddRequest { name: role.to_owned() }).await.unwrap();
    for (kind, key, end) in permissions {
        client.auth.role_grant_permission(permission(role, *kind, key, end)).await.unwrap();
    }
}

/// A cluster with root, and with alice, who reads `a..c` and writes `b..d`. Passwords are the names.
async fn with_alice(count: usize, configure: fn(&mut ServerConfig)) -> Cluster {
    let cluster = Cluster::start_with(count, configure).await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    add_role(&mut nobody, "r", &[(Type::Read, "a", "c"), (Type::Write, "b", "d")]).await;
    add_user(&mut nobody, "root", &["root"]).await;
    add_user(&mut nobody, "alice", &["r"]).await;
    nobody.auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    cluster
}

async fn named(cluster: &Cluster, n: usize, name: &str) -> Client {
    client(cluster, n, &log_in(cluster, n, name, name).await.unwrap()).await
}

fn text<T>(answer: Result<Response<T>, Status>) -> Result<T, String> {
    answer.map(Response::into_inner).map_err(|refused| refused.message().to_owned())
}

fn refused<T>(answer: Result<Response<T>, Status>) -> (Code, String) {
    let refused = answer.err().expect("it is refused");
    (refused.code(), refused.message().to_owned())
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_granted_is_allowed() {
    use request_op::Request as Op;
    let cluster = with_alice(1, cheap).await;
    let mut alice = named(&cluster, 0, "alice").await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    assert_eq!(refused(nobody.kv.range(get("a")).await), (Code::InvalidArgument, UNKNOWN_USER.to_owned()));
    assert_eq!(refused(nobody.kv.put(put("b", "")).await), (Code::InvalidArgument, UNKNOWN_USER.to_owned()));
    assert_eq!(refused(alice.kv.put(put("a", "")).await), (Code::PermissionDenied, DENIED.to_owned()));

    let range = |key: &str, end: &str| RangeRequest { range_end: end.to_owned().into(), ..get(key) };
    for (key, end, allowed) in [
        ("a", "", true),
        ("a", "c", true),
        ("b", "c", true),
        ("a", "d", false),
        ("c", "", false),
        ("a", "\0", false),
    ] {
        let serializable = RangeRequest { serializable: true, ..range(key, end) };
        assert_eq!(alice.kv.range(range(key, end)).await.is_ok(), allowed, "{key} {end}");
        assert_eq!(alice.kv.range(serializable).await.is_ok(), allowed, "{key} {end}");
    }
    let with_previous = |key: &str| PutRequest { prev_kv: true, ..put(key, "1") };
    let delete = |key: &str, end: &str, prev_kv| DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv,
    };
    let writes = [
        (Op::RequestPut(put("b", "1")), true),
        (Op::RequestPut(put("c", "1")), true),
        (Op::RequestPut(put("d", "1")), false),
        (Op::RequestPut(with_previous("b")), true),
        (Op::RequestPut(with_previous("c")), false),
        (Op::RequestDeleteRange(delete("b", "d", false)), true),
        (Op::RequestDeleteRange(delete("b", "d", true)), false),
        (Op::RequestDeleteRange(delete("b", "c", true)), true),
        (Op::RequestDeleteRange(delete("a", "c", false)), false),
        (Op::RequestRange(range("a", "c")), true),
        (Op::RequestRange(range("a", "d")), false),
    ];
    for (request, allowed) in writes {
        let alone = match request.clone() {
            Op::RequestPut(request) => alice.kv.put(request).await.map(drop),
            Op::RequestDeleteRange(request) => alice.kv.delete_range(request).await.map(drop),
            Op::RequestRange(request) => alice.kv.range(request).await.map(drop),
            Op::RequestTxn(_) => unreachable!("none above"),
        };
        assert_eq!(alone.is_ok(), allowed, "{request:?}: {alone:?}");
        // In either branch, and further inside.
        let success = TxnRequest { success: vec![op(request.clone())], ..Default::default() };
        let failure = TxnRequest { failure: vec![op(request.clone())], ..Default::default() };
        let inside = TxnRequest { failure: vec![op(Op::RequestTxn(success.clone()))], ..Default::default() };
        for txn in [success, failure, inside] {
            assert_eq!(alice.kv.txn(txn.clone()).await.is_ok(), allowed, "{txn:?}");
        }
    }
    let compare = |key: &str| TxnRequest {
        compare: vec![Compare { key: key.to_owned().into(), ..Default::default() }],
        ..Default::default()
    };
    assert!(alice.kv.txn(compare("a")).await.is_ok());
    assert_eq!(refused(alice.kv.txn(compare("c")).await).1, DENIED, "its outcome would tell of it");

    let mut root = named(&cluster, 0, "root").await;
    root.kv.put(put("zzz", "1")).await.unwrap();
    assert_eq!(root.kv.range(range("\0", "\0")).await.unwrap().into_inner().kvs.last().unwrap().key, "zzz");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_root_is_refused_to_others() {
    let cluster = with_alice(1, cheap).await;
    let mut alice = named(&cluster, 0, "alice").await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    let name = || "alice".to_owned();
    macro_rules! refused_to_both {
        ($($service:ident.$method:ident($request:expr)),* $(,)?) => {$(
            assert_eq!(text(nobody.$service.$method($request).await).err().as_deref(), Some(UNKNOWN_USER), stringify!($method));
            assert_eq!(text(alice.$service.$method($request).await).err().as_deref(), Some(DENIED), stringify!($method));
        )*};
    }
    refused_to_both!(
        auth.auth_enable(AuthEnableRequest {}),
        auth.auth_disable(AuthDisableRequest {}),
        auth.auth_status(AuthStatusRequest {}),
        auth.user_add(AuthUserAddRequest { name: "eve".to_owned(), ..Default::default() }),
        auth.user_delete(AuthUserDeleteRequest { name: name() }),
        auth.user_list(AuthUserListRequest {}),
        auth.user_get(AuthUserGetRequest { name: "root".to_owned() }),
        auth.user_change_password(AuthUserChangePasswordRequest { name: name(), ..Default::default() }),
        auth.user_grant_role(AuthUserGrantRoleRequest { user: name(), role: "root".to_owned() }),
        auth.user_revoke_role(AuthUserRevokeRoleRequest { name: name(), role: "r".to_owned() }),
        auth.role_add(AuthRoleAddRequest { name: "more".to_owned() }),
        auth.role_delete(AuthRoleDeleteRequest { role: "r".to_owned() }),
        auth.role_list(AuthRoleListRequest {}),
        auth.role_get(AuthRoleGetRequest { role: "root".to_owned() }),
        auth.role_grant_permission(permission("r", Type::Readwrite, "a", "z")),
        auth.role_revoke_permission(AuthRoleRevokePermissionRequest {
            role: "r".to_owned(),
            ..Default::default()
        }),
        cluster.member_add(MemberAddRequest::default()),
        cluster.member_remove(MemberRemoveRequest { id: 1 }),
        cluster.member_update(MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://h:1".to_owned()] }),
        cluster.member_promote(MemberPromoteRequest { id: 1 }),
        maintenance.defragment(DefragmentRequest {}),
        maintenance.hash(HashRequest {}),
        maintenance.hash_kv(HashKvRequest { revision: 0 }),
        maintenance.snapshot(SnapshotRequest {}),
        maintenance.move_leader(MoveLeaderRequest { target_id: 1 }),
        maintenance.downgrade(DowngradeRequest::default()),
        maintenance.alarm(AlarmRequest { action: 1, ..Default::default() }),
        kv.compact(CompactionRequest { revision: 1, physical: false }),
    );
    // About oneself.
    let own = alice.auth.user_get(AuthUserGetRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!(own.roles, ["r"]);
    let role = alice.auth.role_get(AuthRoleGetRequest { role: "r".to_owned() }).await.unwrap().into_inner();
    assert_eq!(role.perm.len(), 2);
    // Who is somebody learns who the members are; how they are doing is told to all.
    assert_eq!(
        text(nobody.cluster.member_list(MemberListRequest::default()).await).err().as_deref(),
        Some(UNKNOWN_USER)
    );
    assert!(alice.cluster.member_list(MemberListRequest::default()).await.is_ok());
    assert!(nobody.maintenance.status(StatusRequest {}).await.is_ok());

    let mut root = named(&cluster, 0, "root").await;
    let status = root.auth.auth_status(AuthStatusRequest {}).await.unwrap().into_inner();
    // One, and one for each change: a role, two permissions, two users, two grants.
    assert_eq!((status.enabled, status.auth_revision), (true, 8));
    let own = AuthUserRevokeRoleRequest { name: "root".to_owned(), role: "root".to_owned() };
    assert_eq!(
        refused(root.auth.user_revoke_role(own).await),
        (Code::InvalidArgument, "etcdserver: invalid auth management".to_owned())
    );
    root.auth.auth_disable(AuthDisableRequest {}).await.unwrap();
    assert!(nobody.kv.range(get("zzz")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_counts_for_all_that_comes_after_it() {
    let cluster = with_alice(3, cheap).await;
    let mut root = named(&cluster, 0, "root").await;
    let mut writers: Vec<_> = Vec::new();
    for n in 0..3 {
        writers.push(named(&cluster, n, "alice").await);
    }
    for round in 0..20 {
        // What is acknowledged here, every member knows.
        for writer in &mut writers {
            // A member that has not applied the grant yet may know of an older revision.
            let mut answer = writer.kv.put(put("b", "allowed")).await;
            while answer.as_ref().is_err_and(|refused| refused.message() == OLD) {
                answer = writer.kv.put(put("b", "allowed")).await;
            }
            answer.unwrap();
        }
        let mut busy = writers[round % 3].kv.clone();
        let writing = tokio::spawn(async move {
            let mut written = 0;
            loop {
                match busy.put(put("b", "allowed")).await {
                    Ok(answer) => written = answer.into_inner().header.unwrap().revision,
                    Err(refused) if refused.message() == DENIED => return written,
                    Err(refused) => assert_eq!(refused.message(), OLD),
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        let revoke = AuthUserRevokeRoleRequest { name: "alice".to_owned(), role: "r".to_owned() };
        root.auth.user_revoke_role(revoke).await.unwrap();
        let revoked = root.kv.put(put("mark", "x")).await.unwrap().into_inner().header.unwrap().revision;
        for writer in &mut writers {
            let (code, message) = refused(writer.kv.put(put("b", "too late")).await);
            assert!(
                (code, &*message) == (Code::PermissionDenied, DENIED)
                    || (code, &*message) == (Code::InvalidArgument, OLD),
                "{message}"
            );
            assert_eq!(refused(writer.kv.range(get("a")).await).1, DENIED);
        }
        let written = writing.await.unwrap();
        assert!(written < revoked, "{written} came after the revocation, which was before {revoked}");
        assert_eq!(root.kv.range(get("b")).await.unwrap().into_inner().kvs[0].value, "allowed");
        let grant = AuthUserGrantRoleRequest { user: "alice".to_owned(), role: "r".to_owned() };
        root.auth.user_grant_role(grant).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_known_everywhere_and_end_with_the_password() {
    let mut cluster = with_alice(3, cheap).await;
    let token = log_in(&cluster, 0, "alice", "alice").await.unwrap();
    for n in 0..3 {
        client(&cluster, n, &token).await.kv.range(get("a")).await.unwrap();
    }
    let forged =
        client(&cluster, 1, &Token(Some("abcdefghijklmnop.1".to_owned()))).await.kv.range(get("a")).await;
    assert_eq!(refused(forged), (Code::Unauthenticated, INVALID_TOKEN.to_owned()));
    for (name, password, code, message) in [
        (
            "alice",
            "wrong",
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        (
            "alice",
            "",
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        (
            "nobody",
            "x",
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
    ] {
        let refused = log_in(&cluster, 0, name, password).await.err().unwrap();
        assert_eq!((refused.code(), refused.message()), (code, message), "{name} {password}");
    }
    let mut root = named(&cluster, 0, "root").await;
    let options = Some(UserAddOptions { no_password: true });
    let card = AuthUserAddRequest { name: "card".to_owned(), options, ..Default::default() };
    root.auth.user_add(card).await.unwrap();
    let no_password = log_in(&cluster, 0, "card", "").await.err().unwrap();
    assert_eq!(
        (no_password.code(), no_password.message()),
        (Code::Unknown, "auth: authentication failed, password was given for no password user")
    );
    let long = AuthUserAddRequest { name: "long".to_owned(), password: "x".repeat(73), ..Default::default() };
    assert_eq!(refused(root.auth.user_add(long).await).1, "bcrypt: password length exceeds 72 bytes");

    let change = AuthUserChangePasswordRequest {
        name: "alice".to_owned(),
        password: "new".to_owned(),
        ..Default::default()
    };
    root.auth.user_change_password(change).await.unwrap();
    for n in 0..3 {
        assert_eq!(refused(client(&cluster, n, &token).await.kv.range(get("a")).await).1, INVALID_TOKEN);
    }
    assert!(log_in(&cluster, 0, "alice", "alice").await.is_err());
    let token = log_in(&cluster, 2, "alice", "new").await.unwrap();
    root.auth.user_delete(AuthUserDeleteRequest { name: "alice".to_owned() }).await.unwrap();
    assert_eq!(refused(client(&cluster, 0, &token).await.kv.range(get("a")).await).1, INVALID_TOKEN);

    // What is on the disks is all that is left: users, but no tokens.

    for n in 0..3 {
        cluster.stop(n).await;
    }
    for n in 0..3 {
        cluster.restart(n).await;
    }
    cluster.leader().await;
    let mut nobody = client(&cluster, 1, &Token::default()).await;
    assert_eq!(refused(nobody.kv.range(get("a")).await).1, UNKNOWN_USER);
    let mut root = named(&cluster, 1, "root").await;
    let users = root.auth.user_list(AuthUserListRequest {}).await.unwrap().into_inner().users;
    assert_eq!(users, ["card", "root"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_used_ends() {
    let cluster = with_alice(1, |config| {
        cheap(config);
        config.auth.token_ttl = Duration::from_secs(2);
    })
    .await;
    let mut alice = named(&cluster, 0, "alice").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        alice.kv.range(get("a")).await.expect("it is in use");
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(refused(alice.kv.range(get("a")).await).1, INVALID_TOKEN);
}

async fn watch(
    client: &mut Client,
    key: &str,
) -> (mpsc::Sender<WatchRequest>, tonic::Streaming<WatchResponse>) {
    let (sender, receiver) = mpsc::channel(1);
    let create = WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    sender.send(request).await.unwrap();
    (sender, client.watch.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_only_of_what_its_user_may_read() {
    let cluster = with_alice(1, cheap).await;
    let mut alice = named(&cluster, 0, "alice").await;
    let mut root = named(&cluster, 0, "root").await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    for (client, key, reason) in [
        (&mut alice, "c", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        (&mut nobody, "a", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
    ] {
        let (_keep, mut stream) = watch(client, key).await;
        let answer = stream.message().await.unwrap().unwrap();
        assert!(answer.created && answer.canceled);
        assert_eq!(answer.cancel_reason, reason);
    }
    let (_keep, mut stream) = watch(&mut alice, "a").await;
    assert!(stream.message().await.unwrap().unwrap().created);
    root.kv.put(put("a", "1")).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().events[0].kv.as_ref().unwrap().value, "1");
    // A change that leaves it its permission.
    root.auth.role_add(AuthRoleAddRequest { name: "other".to_owned() }).await.unwrap();
    root.kv.put(put("a", "2")).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().events[0].kv.as_ref().unwrap().value, "2");
    let revoke =
        AuthRoleRevokePermissionRequest { role: "r".to_owned(), key: "a".into(), range_end: "c".into() };
    root.auth.role_revoke_permission(revoke).await.unwrap();
    root.kv.put(put("a", "secret")).await.unwrap();
    let end = stream.message().await.unwrap().unwrap();
    assert!(end.canceled && end.events.is_empty(), "{end:?}");
    assert_eq!(end.cancel_reason, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_write_a_key_does_not_decide_how_long_it_lives() {
    let cluster = with_alice(3, cheap).await;
    let mut alice = named(&cluster, 1, "alice").await;
    let mut root = named(&cluster, 0, "root").await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    assert_eq!(refused(nobody.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 9 }).await).1, UNKNOWN_USER);
    assert_eq!(refused(nobody.lease.lease_leases(LeaseLeasesRequest {}).await).1, UNKNOWN_USER);
    alice.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 1 }).await.unwrap();
    root.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 2 }).await.unwrap();
    alice.kv.put(PutRequest { lease: 1, ..put("b", "1") }).await.unwrap();
    alice.kv.put(PutRequest { lease: 1, ..put("c", "1") }).await.unwrap();
    root.kv.put(PutRequest { lease: 2, ..put("x", "1") }).await.unwrap();

    let left = |id, keys| LeaseTimeToLiveRequest { id, keys };
    assert_eq!(refused(alice.lease.lease_time_to_live(left(1, true)).await).1, DENIED, "it may not read c");
    assert_eq!(alice.lease.lease_time_to_live(left(2, false)).await.unwrap().into_inner().granted_ttl, 60);
    assert_eq!(refused(nobody.lease.lease_time_to_live(left(2, false)).await).1, UNKNOWN_USER);
    assert_eq!(root.lease.lease_time_to_live(left(1, true)).await.unwrap().into_inner().keys, ["b", "c"]);
    assert_eq!(refused(alice.kv.put(PutRequest { lease: 2, ..put("b", "2") }).await).1, DENIED);
    let txn = TxnRequest {
        success: vec![op(request_op::Request::RequestPut(PutRequest { lease: 2, ..put("b", "2") }))],
        ..Default::default()
    };
    assert_eq!(refused(alice.kv.txn(txn).await).1, DENIED);
    assert_eq!(refused(alice.lease.lease_revoke(LeaseRevokeRequest { id: 2 }).await).1, DENIED);
    for (id, allowed) in [(1, true), (2, false)] {
        let (sender, receiver) = mpsc::channel(1);
        sender.send(LeaseKeepAliveRequest { id }).await.unwrap();
        let mut alive =
            alice.lease.lease_keep_alive(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let answer = alive.message().await;
        assert_eq!(answer.map(|answer| answer.unwrap().ttl).ok(), allowed.then_some(60));
    }
    alice.lease.lease_revoke(LeaseRevokeRequest { id: 1 }).await.unwrap();

    // Time ends leases whoever may write their keys.
    root.lease.lease_grant(LeaseGrantRequest { ttl: 1, id: 3 }).await.unwrap();
    root.kv.put(PutRequest { lease: 3, ..put("short", "1") }).await.unwrap();
    for _ in 0..400 {
        if root.kv.range(get("short")).await.unwrap().into_inner().kvs.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the key outlived its lease by far");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_are_made_of_their_users_keys() {
    let cluster = with_alice(1, cheap).await;
    let mut root = named(&cluster, 0, "root").await;
    root.auth.role_grant_permission(permission("r", Type::Readwrite, "lock/", "lock0")).await.unwrap();
    let mut alice = named(&cluster, 0, "alice").await;
    let mut nobody = client(&cluster, 0, &Token::default()).await;
    alice.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 1 }).await.unwrap();
    let lock = |name: &'static str| LockRequest { name: name.into(), lease: 1 };
    assert!(alice.lock.lock(lock("lock")).await.is_ok());
    assert_eq!(refused(alice.lock.lock(lock("other")).await).1, DENIED);
    assert_eq!(refused(nobody.lock.lock(lock("lock")).await).1, UNKNOWN_USER);
    let campaign = |name: &'static str| CampaignRequest { name: name.into(), lease: 1, value: "v".into() };
    assert_eq!(refused(alice.election.campaign(campaign("other")).await).1, DENIED);
    let leader = alice.election.campaign(campaign("lock")).await.unwrap().into_inner().leader.unwrap();
    let ask = LeaderRequest { name: "lock".into() };
    assert_eq!(refused(nobody.election.leader(ask.clone()).await).1, UNKNOWN_USER);
    assert!(alice.election.leader(ask.clone()).await.is_ok());
    let mut observed = nobody.election.observe(ask).await.unwrap().into_inner();
    assert_eq!(observed.message().await.unwrap_err().message(), UNKNOWN_USER);
    let resign = consensus_proto::v3electionpb::ResignRequest { leader: Some(leader) };
    assert_eq!(refused(nobody.election.resign(resign.clone()).await).1, UNKNOWN_USER);
    assert!(alice.election.resign(resign).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_tokens_end_with_the_next_change() {
    let mut cluster = with_alice(3, |config| {
        cheap(config);
        let secret = |_: &str| Ok(b"a secret of all members".to_vec());
        config.auth.token = TokenKind::parse("jwt,sign-method=HS256,priv-key=file,ttl=10m", secret).unwrap();
    })
    .await;
    let token = log_in(&cluster, 0, "alice", "alice").await.unwrap();
    for n in 0..3 {
        client(&cluster, n, &token).await.kv.put(put("b", "1")).await.unwrap();
    }
    // Nobody has to know it: it outlives the members.
    cluster.stop(1).await;
    cluster.restart(1).await;
    client(&cluster, 1, &token).await.kv.range(get("b")).await.unwrap();
    let mut root = named(&cluster, 0, "root").await;
    root.auth.role_add(AuthRoleAddRequest { name: "more".to_owned() }).await.unwrap();
    for n in 0..3 {
        let mut old = client(&cluster, n, &token).await;
        assert_eq!(refused(old.kv.put(put("b", "2")).await), (Code::InvalidArgument, OLD.to_owned()));
        assert_eq!(refused(old.kv.range(get("b")).await), (Code::InvalidArgument, OLD.to_owned()));
    }
    let forged = Token(token.0.map(|token| token.replace('.', ".x")));
    assert_eq!(refused(client(&cluster, 0, &forged).await.kv.range(get("b")).await).1, INVALID_TOKEN);
    named(&cluster, 2, "alice").await.kv.put(put("b", "2")).await.unwrap();
}
