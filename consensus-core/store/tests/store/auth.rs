//! Users, roles and permissions in the order of the log.

use std::sync::Arc;

use bytes::Bytes;
use consensus_disk::MemoryDisk;
use consensus_proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::*,
    internal::{AuthenticateRequest, InternalRequest, internal_request::Request},
};
use consensus_store::{Access, AuthError, Caller, Response, Store, StoreError, TokenChange};
use proptest::prelude::*;
use prost::Message as _;

type Outcome = Result<Response, StoreError>;

struct Log {
    disk: Arc<MemoryDisk>,
    store: Store<MemoryDisk>,
}

impl Log {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        Self { store: Store::open(Arc::clone(&disk)).unwrap(), disk }
    }

    /// With root and alice, who may read and write `a`; enabled.
    fn with_alice() -> Self {
        let mut log = Self::new();
        let setup = [
            add_user("root"),
            grant_role("root", "root"),
            add_role("r"),
            grant("r", Type::Readwrite, "a", ""),
            add_user("alice"),
            grant_role("alice", "r"),
            Request::AuthEnable(AuthEnableRequest {}),
        ];
        for request in setup {
            log.one(&Caller::Nobody, request).unwrap();
        }
        log
    }

    fn apply(&mut self, requests: Vec<(Caller, Request)>) -> (Vec<Outcome>, Vec<TokenChange>) {
        let payloads: Vec<Bytes> = requests
            .into_iter()
            .map(|(caller, request)| {
                InternalRequest { header: caller.header(), request: Some(request) }.encode_to_vec().into()
            })
            .collect();
        let applied = self.store.apply(self.store.applied() + 1, &payloads).unwrap();
        (applied.responses, applied.tokens)
    }

    fn one(&mut self, caller: &Caller, request: Request) -> Outcome {
        self.apply(vec![(caller.clone(), request)]).0.remove(0)
    }

    fn root(&mut self, request: Request) -> Outcome {
        self.one(&self.user("root"), request)
    }

    fn user(&self, name: &str) -> Caller {
        Caller::User { name: name.to_owned(), revision: self.store.reader().policy().revision() }
    }

    fn restart(&mut self) {
        self.store = Store::open(Arc::clone(&self.disk)).unwrap();
    }
}

fn add_user(name: &str) -> Request {
    Request::UserAdd(AuthUserAddRequest {
        name: name.to_owned(),
        hashed_password: format!("hash of {name}'s"),
        ..Default::default()
    })
}

fn add_role(name: &str) -> Request {
    Request::RoleAdd(AuthRoleAddRequest { name: name.to_owned() })
}

fn grant_role(user: &str, role: &str) -> Request {
    Request::UserGrantRole(AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn revoke_role(user: &str, role: &str) -> Request {
    Request::UserRevokeRole(AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() })
}

fn grant(role: &str, kind: Type, key: &str, end: &str) -> Request {
    let perm =
        Permission { perm_type: kind.into(), key: key.to_owned().into(), range_end: end.to_owned().into() };
    Request::RoleGrantPermission(AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) })
}

fn revoke(role: &str, key: &str, end: &str) -> Request {
    Request::RoleRevokePermission(AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
    })
}

fn put(key: &str) -> Request {
    Request::Put(PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() })
}

fn refused(outcome: Outcome) -> AuthError {
    match outcome {
        Err(StoreError::Auth(error)) => error,
        other => panic!("it is refused: {other:?}"),
    }
}

#[test]
fn what_was_proposed_before_a_revocation_does_not_come_after_it() {
    let mut log = Log::with_alice();
    let before = log.user("alice");
    let (outcomes, _) = log.apply(vec![
        (before.clone(), put("a")),
        (log.user("root"), revoke("r", "a", "")),
        (before.clone(), put("a")),
    ]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(refused(outcomes[2].clone()), AuthError::OldRevision);
    assert_eq!(refused(log.one(&log.user("alice"), put("a"))), AuthError::PermissionDenied);
    // A change that does not touch it: it has to be recognized again nevertheless.
    let before = log.user("root");
    log.root(add_role("other")).unwrap();
    assert_eq!(refused(log.one(&before, put("a"))), AuthError::OldRevision);
    assert!(log.one(&log.user("root"), put("a")).is_ok());
    assert!(
        log.one(&before, add_role("another")).is_ok(),
        "whoever administers is not asked for the revision"
    );
    assert_eq!(refused(log.one(&Caller::Nobody, put("a"))), AuthError::UserEmpty);
    assert!(log.one(&Caller::Member, put("a")).is_ok());
}

#[test]
fn a_token_is_for_the_password_that_was_compared() {
    let mut log = Log::with_alice();
    let authenticate = |revision| {
        let request =
            AuthenticateRequest { name: "alice".to_owned(), token: "t".to_owned(), auth_revision: revision };
        (Caller::Nobody, Request::Authenticate(request))
    };
    let revision = log.store.reader().policy().revision();
    let (outcomes, tokens) = log.apply(vec![authenticate(revision)]);
    assert!(outcomes[0].is_ok());
    assert_eq!(tokens, [TokenChange::Assigned { token: "t".to_owned(), user: "alice".to_owned() }]);
    let change = AuthUserChangePasswordRequest {
        name: "alice".to_owned(),
        hashed_password: "another".to_owned(),
        ..Default::default()
    };
    let (outcomes, tokens) =
        log.apply(vec![(log.user("root"), Request::UserChangePassword(change)), authenticate(revision)]);
    assert_eq!(refused(outcomes[1].clone()), AuthError::OldRevision);
    assert_eq!(tokens, [TokenChange::UserGone("alice".to_owned())]);
    assert_eq!(log.store.reader().policy().password_hash("alice"), Ok(&b"another"[..]));

    let card = AuthUserAddRequest {
        name: "card".to_owned(),
        hashed_password: "not taken".to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    log.root(Request::UserAdd(card)).unwrap();
    assert_eq!(log.store.reader().policy().password_hash("card"), Err(AuthError::NoPasswordUser));
}

#[test]
fn changes_that_make_no_sense_change_nothing() {
    let mut log = Log::new();
    let enable = || Request::AuthEnable(AuthEnableRequest {});
    assert_eq!(refused(log.one(&Caller::Nobody, enable())), AuthError::NoRootUser);
    log.one(&Caller::Nobody, add_user("root")).unwrap();
    assert_eq!(refused(log.one(&Caller::Nobody, enable())), AuthError::NoRootRole);

    let mut log = Log::with_alice();
    let delete_user = |name: &str| Request::UserDelete(AuthUserDeleteRequest { name: name.to_owned() });
    let delete_role = |role: &str| Request::RoleDelete(AuthRoleDeleteRequest { role: role.to_owned() });
    let no_permission = AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: None };
    let before = format!("{:?}", log.store.reader().policy());
    for (request, error) in [
        (add_user("alice"), AuthError::UserExists),
        (add_user(""), AuthError::UserEmpty),
        (add_role("r"), AuthError::RoleExists),
        (add_role(""), AuthError::RoleEmpty),
        (grant_role("eve", "r"), AuthError::UserNotFound),
        (grant_role("alice", "s"), AuthError::RoleNotFound),
        (revoke_role("alice", "s"), AuthError::RoleNotGranted),
        (revoke_role("root", "root"), AuthError::InvalidManagement),
        (delete_user("root"), AuthError::InvalidManagement),
        (delete_user("eve"), AuthError::UserNotFound),
        (delete_role("root"), AuthError::InvalidManagement),
        (delete_role("s"), AuthError::RoleNotFound),
        (grant("s", Type::Read, "a", ""), AuthError::RoleNotFound),
        (grant("r", Type::Read, "b", "a"), AuthError::InvalidManagement),
        (grant("r", Type::Read, "", ""), AuthError::InvalidManagement),
        (Request::RoleGrantPermission(no_permission), AuthError::PermissionNotGiven),
        (revoke("r", "a", "b"), AuthError::PermissionNotGranted),
    ] {
        let text = format!("{request:?}");
        assert_eq!(refused(log.root(request)), error, "{text}");
    }
    assert_eq!(format!("{:?}", log.store.reader().policy()), before);
    // Granted twice is granted once.
    log.root(grant_role("alice", "r")).unwrap();
    assert_eq!(format!("{:?}", log.store.reader().policy()), before);
}

#[test]
fn a_user_may_what_its_roles_may_together() {
    let mut log = Log::with_alice();
    for request in [
        add_role("s"),
        grant("r", Type::Read, "k", "m"),
        grant("s", Type::Read, "m", "p"),
        grant("s", Type::Write, "z", "\0"),
        grant_role("alice", "s"),
    ] {
        log.root(request).unwrap();
    }
    let may = |log: &Log, access, key: &'static str, end: &'static str| {
        let policy = log.store.reader().policy();
        policy.check_keys(&log.user("alice"), access, &key.into(), &end.into()).is_ok()
    };
    for (access, key, end, allowed) in [
        (Access::Read, "a", "", true),
        (Access::Write, "a", "", true),
        (Access::Read, "k", "p", true),
        (Access::Write, "k", "p", false),
        (Access::Read, "k", "p\0", false),
        (Access::Write, "z", "\0", true),
        (Access::Write, "zz", "", true),
        (Access::Read, "zz", "", false),
    ] {
        assert_eq!(may(&log, access, key, end), allowed, "{access:?} {key:?} {end:?}");
    }
    // The same keys with another permission: it takes the old one's place.
    log.root(grant("r", Type::Read, "a", "")).unwrap();
    assert!(!may(&log, Access::Write, "a", ""));
    log.root(Request::RoleDelete(AuthRoleDeleteRequest { role: "s".to_owned() })).unwrap();
    assert!(!may(&log, Access::Read, "k", "p") && may(&log, Access::Read, "k", "m"));
    assert_eq!(log.store.reader().policy().user_roles("alice"), Ok(&["r".to_owned()][..]));
}

/// Any change, of few names and keys.
fn change() -> impl Strategy<Value = Request> {
    let name = || prop_oneof![Just("root"), Just("alice"), Just("bob")];
    let role = || prop_oneof![Just("root"), Just("r"), Just("s")];
    let key = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let end = || prop_oneof![Just(""), Just("c"), Just("\0")];
    let kind = || prop_oneof![Just(Type::Read), Just(Type::Write), Just(Type::Readwrite)];
    prop_oneof![
        name().prop_map(add_user),
        role().prop_map(add_role),
        (name(), role()).prop_map(|(user, role)| grant_role(user, role)),
        (name(), role()).prop_map(|(user, role)| revoke_role(user, role)),
        (role(), kind(), key(), end()).prop_map(|(role, kind, key, end)| grant(role, kind, key, end)),
        (role(), key(), end()).prop_map(|(role, key, end)| revoke(role, key, end)),
        name().prop_map(|name| Request::UserDelete(AuthUserDeleteRequest { name: name.to_owned() })),
        role().prop_map(|role| Request::RoleDelete(AuthRoleDeleteRequest { role: role.to_owned() })),
        Just(Request::AuthEnable(AuthEnableRequest {})),
        Just(Request::AuthDisable(AuthDisableRequest {})),
    ]
}

proptest! {
    /// Whatever becomes of it: what is in memory is what the disk gives back, and the same on every member.
    #[test]
    fn members_agree_whether_or_not_they_restart(changes in prop::collection::vec(change(), 0..40)) {
        let (mut one, mut other) = (Log::new(), Log::new());
        for change in changes {
            let before = one.store.reader().policy();
            let outcome = one.one(&Caller::Member, change.clone());
            prop_assert_eq!(&outcome, &other.one(&Caller::Member, change));
            other.restart();
            let (policy, loaded) = (one.store.reader().policy(), other.store.reader().policy());
            prop_assert_eq!(format!("{policy:?}"), format!("{loaded:?}"));
            prop_assert!(policy.revision() >= before.revision());
            for (user, key) in [("alice", "a"), ("alice", "b"), ("bob", "b"), ("root", "c")] {
                let key = Bytes::from_static(key.as_bytes());
                for access in [Access::Read, Access::Write] {
                    prop_assert_eq!(
                        policy.check_keys(&one.user(user), access, &key, &Bytes::new()),
                        loaded.check_keys(&other.user(user), access, &key, &Bytes::new())
                    );
                }
            }
        }
    }
}
