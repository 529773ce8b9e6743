//! Users, roles and permissions, as etcd has them.
//!
//! A [`Policy`] is all of them at one *auth revision*, which grows with every change. The store changes it in the order of the
//! log and writes it to its own space of the disk; everyone else reads the last one that is on the disk. Passwords come here as
//! bcrypt's text: they are hashed before they are proposed.
//!
//! Deliberately not here: bcrypt, tokens' texts and times, certificates, gRPC.

mod apply;
mod intervals;
mod permission;

use std::{
    collections::BTreeMap,
    fmt,
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk, Order};
use consensus_proto::authpb;
use prost::Message as _;

pub use apply::TokenChange;
pub(crate) use permission::leases_of;
pub use permission::{Access, Caller};

use crate::{StoreError, keys::AUTH};
use permission::Grants;

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";
/// Where it begins, as in etcd.
const FIRST_REVISION: u64 = 1;

const STATE: &[u8] = b"state";
const USER: &[u8] = b"user/";
const ROLE: &[u8] = b"role/";

/// A request that users, roles or permissions stand against. The texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum AuthError {
    #[error("etcdserver: root user does not exist")]
    NoRootUser,
    #[error("etcdserver: root user does not have root role")]
    NoRootRole,
    #[error("etcdserver: user name already exists")]
    UserExists,
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    #[error("etcdserver: user name not found")]
    UserNotFound,
    #[error("etcdserver: role name already exists")]
    RoleExists,
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    #[error("etcdserver: authentication is not enabled")]
    NotEnabled,
    #[error("etcdserver: invalid auth token")]
    InvalidToken,
    #[error("etcdserver: invalid auth management")]
    InvalidManagement,
    #[error("etcdserver: revision of auth store is old")]
    OldRevision,
}

/// A user as stored, and what follows from its roles.
#[derive(Clone)]
struct User {
    record: authpb::User,
    grants: Grants,
}

/// Without the password's hash.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("roles", &self.record.roles).finish_non_exhaustive()
    }
}

impl User {
    fn is_root(&self) -> bool {
        self.record.roles.iter().any(|role| role == ROOT)
    }

    fn has_no_password(&self) -> bool {
        self.record.options.as_ref().is_some_and(|options| options.no_password)
    }
}

/// All users and roles at one auth revision. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    roles: BTreeMap<String, Arc<authpb::Role>>,
}

impl Policy {
    /// What is on the disk.
    pub(crate) fn load(disk: &dyn Disk) -> Result<Self, StoreError> {
        let mut policy =
            Self { enabled: false, revision: FIRST_REVISION, users: BTreeMap::new(), roles: BTreeMap::new() };
        if let Some(state) = disk.get(AUTH, STATE)? {
            let (enabled, revision) =
                state.split_first().ok_or(StoreError::Damaged { what: "state of users and roles" })?;
            policy.enabled = *enabled != 0;
            policy.revision = u64::from_le_bytes(
                revision.try_into().map_err(|_| StoreError::Damaged { what: "state of users and roles" })?,
            );
        }
        for (name, role) in records::<authpb::Role>(disk, ROLE)? {
            policy.roles.insert(name, Arc::new(role));
        }
        for (name, record) in records::<authpb::User>(disk, USER)? {
            let grants = policy.grants_of_roles(&record.roles);
            policy.users.insert(name, Arc::new(User { record, grants }));
        }
        Ok(policy)
    }

    /// Whether anything is refused.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Grows with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Names the policy in one number.
    pub fn epoch(&self) -> AuthEpoch {
        AuthEpoch(self.revision << 1 | u64::from(self.enabled))
    }

    /// The users in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The roles in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// A user's roles in order.
    pub fn user_roles(&self, name: &str) -> Result<&[String], AuthError> {
        self.users.get(name).map(|user| &user.record.roles[..]).ok_or(AuthError::UserNotFound)
    }

    /// What a role may do, in the order of keys.
    pub fn role_permissions(&self, name: &str) -> Result<Vec<authpb::Permission>, AuthError> {
        let role = self.roles.get(name).ok_or(AuthError::RoleNotFound)?;
        if name == ROOT {
            let everything = authpb::Permission {
                perm_type: authpb::permission::Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            };
            return Ok(vec![everything]);
        }
        Ok(role.key_permission.clone())
    }

    /// The bcrypt text that a user's password must match.
    pub fn password_hash(&self, name: &str) -> Result<&[u8], AuthError> {
        let user = self.users.get(name).ok_or(AuthError::AuthFailed)?;
        if user.has_no_password() { Err(AuthError::NoPasswordUser) } else { Ok(&user.record.password) }
    }
}

/// A policy as etcd's database has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyRecords {
    /// Whether anything is refused.
    pub enabled: bool,
    /// Grows with every change.
    pub revision: u64,
    /// `authpb.User` by name.
    pub users: Vec<(String, authpb::User)>,
    /// `authpb.Role` by name.
    pub roles: Vec<(String, authpb::Role)>,
}

impl PolicyRecords {
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let Policy { enabled, revision, .. } = Policy::load(disk)?;
        Ok(Self { enabled, revision, users: records(disk, USER)?, roles: records(disk, ROLE)? })
    }

    pub(crate) fn put(&self, batch: &mut Batch) {
        for (name, user) in &self.users {
            batch.put(AUTH, [USER, name.as_bytes()].concat(), user.encode_to_vec());
        }
        for (name, role) in &self.roles {
            batch.put(AUTH, [ROLE, name.as_bytes()].concat(), role.encode_to_vec());
        }
        put_state(self.enabled, self.revision, batch);
    }
}

fn put_state(enabled: bool, revision: u64, batch: &mut Batch) {
    batch.put(AUTH, STATE, [&[u8::from(enabled)][..], &revision.to_le_bytes()].concat());
}

/// The records under a prefix, by the rest of their keys.
fn records<T: prost::Message + Default>(
    disk: &dyn Disk,
    prefix: &[u8],
) -> Result<Vec<(String, T)>, StoreError> {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("prefixes are not empty") += 1;
    let mut found = Ok(Vec::new());
    disk.scan(AUTH, prefix, Some(&end), Order::Ascending, &mut |key, stored| {
        let name = String::from_utf8(key[prefix.len()..].to_vec());
        match (name, T::decode(stored), &mut found) {
            (Ok(name), Ok(record), Ok(found)) => {
                found.push((name, record));
                ControlFlow::Continue(())
            }
            _ => {
                found = Err(StoreError::Damaged { what: "user or role" });
                ControlFlow::Break(())
            }
        }
    })?;
    found
}

/// Which policy it is: auth revision, and whether it is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthEpoch(u64);

impl AuthEpoch {
    /// Whether anything is refused.
    pub fn is_enabled(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The policy that everything on the disk was applied under.
#[derive(Debug)]
pub(crate) struct PublishedPolicy {
    epoch: AtomicU64,
    policy: RwLock<Arc<Policy>>,
}

impl PublishedPolicy {
    pub(crate) fn new(policy: &Arc<Policy>) -> Self {
        Self { epoch: policy.epoch().0.into(), policy: RwLock::new(Arc::clone(policy)) }
    }

    /// Everyone sees it before the epoch that names it.
    pub(crate) fn publish(&self, policy: &Arc<Policy>) {
        if self.epoch() != policy.epoch() {
            *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(policy);
            self.epoch.store(policy.epoch().0, SeqCst);
        }
    }

    pub(crate) fn epoch(&self) -> AuthEpoch {
        AuthEpoch(self.epoch.load(SeqCst))
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}
