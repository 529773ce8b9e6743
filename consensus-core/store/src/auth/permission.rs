//! Who asks, and whether that is allowed.
//!
//! Deliberately not here: how a caller was recognized.

use bytes::Bytes;
use consensus_proto::{
    authpb::{self, permission::Type},
    etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
    },
    internal::{RequestHeader, internal_request::Request},
};

use super::{AuthError, Policy, intervals::KeySet};

/// Who asks. Travels in the log with what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody said.
    #[default]
    Nobody,
    /// A user, recognized at an auth revision.
    User {
        /// The user's name.
        name: String,
        /// Users and roles were as of this revision when the user was recognized.
        revision: u64,
    },
    /// A member on its own, which may do everything.
    Member,
}

impl From<Option<RequestHeader>> for Caller {
    fn from(header: Option<RequestHeader>) -> Self {
        match header {
            Some(header) if header.member => Self::Member,
            Some(header) if !header.username.is_empty() => {
                Self::User { name: header.username, revision: header.auth_revision }
            }
            _ => Self::Nobody,
        }
    }
}

impl Caller {
    /// As it travels in the log.
    pub fn header(&self) -> Option<RequestHeader> {
        match self {
            Self::Nobody => None,
            Self::User { name, revision } => Some(RequestHeader {
                username: name.clone(),
                auth_revision: *revision,
                ..RequestHeader::default()
            }),
            Self::Member => Some(RequestHeader { member: true, ..RequestHeader::default() }),
        }
    }

    /// The same, recognized again at another revision.
    pub fn known_at(self, revision: u64) -> Self {
        match self {
            Self::User { name, .. } => Self::User { name, revision },
            other => other,
        }
    }

    /// The user's name.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// What is to be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Their values are told.
    Read,
    /// They are put or deleted.
    Write,
}

/// The keys that a user may read and write, by all of its roles together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    read: KeySet,
    write: KeySet,
}

const NO_END: Bytes = Bytes::new();
/// With this as its end a range has all keys that follow; with it as its beginning, all.
const ALL: Bytes = Bytes::from_static(&[0]);

impl Grants {
    fn new(permissions: &[&authpb::Permission]) -> Self {
        let keys = |other: Type| {
            let allowed = permissions.iter().filter(|permission| permission.perm_type() != other);
            KeySet::new(allowed.map(|permission| (&permission.key, &permission.range_end)))
        };
        Self { read: keys(Type::Write), write: keys(Type::Read) }
    }

    fn check(&self, access: Access, key: &Bytes, range_end: &Bytes) -> Result<(), AuthError> {
        let keys = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        if keys.contains(key, range_end) { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    fn range(&self, request: &RangeRequest) -> Result<(), AuthError> {
        self.check(Access::Read, &request.key, &request.range_end)
    }

    fn put(&self, request: &PutRequest) -> Result<(), AuthError> {
        self.check(Access::Write, &request.key, &NO_END)?;
        if request.prev_kv { self.check(Access::Read, &request.key, &NO_END) } else { Ok(()) }
    }

    fn delete_range(&self, request: &DeleteRangeRequest) -> Result<(), AuthError> {
        self.check(Access::Write, &request.key, &request.range_end)?;
        if request.prev_kv { self.check(Access::Read, &request.key, &request.range_end) } else { Ok(()) }
    }

    /// Both branches: which one is taken would tell of keys as well.
    fn txn(&self, request: &TxnRequest) -> Result<(), AuthError> {
        for compare in &request.compare {
            self.check(Access::Read, &compare.key, &compare.range_end)?;
        }
        ops(request).try_for_each(|op| match op {
            Op::RequestRange(request) => self.range(request),
            Op::RequestPut(request) => self.put(request),
            Op::RequestDeleteRange(request) => self.delete_range(request),
            Op::RequestTxn(request) => self.txn(request),
        })
    }
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &Op> {
    request.success.iter().chain(&request.failure).filter_map(|RequestOp { request }| request.as_ref())
}

/// Leases whose keys a request may end, or make live longer or shorter.
pub(crate) fn leases_of(request: &Request) -> Vec<i64> {
    fn of_txn(request: &TxnRequest, leases: &mut Vec<i64>) {
        for op in ops(request) {
            match op {
                Op::RequestPut(request) => leases.push(request.lease),
                Op::RequestTxn(request) => of_txn(request, leases),
                Op::RequestRange(_) | Op::RequestDeleteRange(_) => {}
            }
        }
    }
    let mut leases = Vec::new();
    match request {
        Request::Put(request) => leases.push(request.lease),
        Request::LeaseRevoke(request) => leases.push(request.id),
        Request::Txn(request) => of_txn(request, &mut leases),
        _ => {}
    }
    leases
}

impl Policy {
    pub(super) fn grants_of_roles(&self, roles: &[String]) -> Grants {
        let roles = roles.iter().filter_map(|role| self.roles.get(role));
        let permissions: Vec<_> = roles.flat_map(|role| &role.key_permission).collect();
        Grants::new(&permissions)
    }

    /// What a caller may do with keys; `None`: everything. Who was recognized before the last change has to be recognized
    /// again.
    fn grants(&self, caller: &Caller) -> Result<Option<&Grants>, AuthError> {
        if !self.enabled {
            return Ok(None);
        }
        let (name, revision) = match caller {
            Caller::Member => return Ok(None),
            Caller::Nobody => return Err(AuthError::UserEmpty),
            Caller::User { name, revision } => (name, *revision),
        };
        if revision < self.revision {
            return Err(AuthError::OldRevision);
        }
        let user = self.users.get(name).ok_or(AuthError::PermissionDenied)?;
        Ok((!user.is_root()).then_some(&user.grants))
    }

    /// Somebody who is known.
    pub fn check_user(&self, caller: &Caller) -> Result<(), AuthError> {
        match caller {
            _ if !self.enabled => Ok(()),
            Caller::Member => Ok(()),
            Caller::Nobody => Err(AuthError::UserEmpty),
            Caller::User { name, .. } if self.users.contains_key(name) => Ok(()),
            Caller::User { .. } => Err(AuthError::PermissionDenied),
        }
    }

    /// Somebody who may do everything. As in etcd the revision does not matter here: whoever changes several things in a row
    /// would have to be recognized again after each.
    pub fn check_root(&self, caller: &Caller) -> Result<(), AuthError> {
        self.check_user(caller)?;
        match caller {
            Caller::User { name, .. }
                if self.enabled && !self.users.get(name).is_some_and(|user| user.is_root()) =>
            {
                Err(AuthError::PermissionDenied)
            }
            _ => Ok(()),
        }
    }

    /// Somebody who asks about a user: itself, or any if it may do everything.
    pub fn check_about_user(&self, caller: &Caller, name: &str) -> Result<(), AuthError> {
        let root = self.check_root(caller);
        if caller.user() == Some(name) { self.check_user(caller) } else { root }
    }

    /// Somebody who asks about a role: one of its own, or any if it may do everything.
    pub fn check_about_role(&self, caller: &Caller, role: &str) -> Result<(), AuthError> {
        let has = |user| self.user_roles(user).is_ok_and(|roles| roles.iter().any(|other| other == role));
        if caller.user().is_some_and(has) { Ok(()) } else { self.check_root(caller) }
    }

    /// One key, or a range as requests say it.
    pub fn check_keys(
        &self,
        caller: &Caller,
        access: Access,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), AuthError> {
        self.grants(caller)?.map_or(Ok(()), |grants| grants.check(access, key, range_end))
    }

    /// Each of some keys.
    pub fn check_each_key<'a>(
        &self,
        caller: &Caller,
        access: Access,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<(), AuthError> {
        let Some(grants) = self.grants(caller)? else { return Ok(()) };
        keys.into_iter().try_for_each(|key| grants.check(access, key, &NO_END))
    }

    /// A range.
    pub fn check_range(&self, caller: &Caller, request: &RangeRequest) -> Result<(), AuthError> {
        self.grants(caller)?.map_or(Ok(()), |grants| grants.range(request))
    }

    /// A transaction.
    pub fn check_txn(&self, caller: &Caller, request: &TxnRequest) -> Result<(), AuthError> {
        self.grants(caller)?.map_or(Ok(()), |grants| grants.txn(request))
    }

    /// A request for the log. The keys of leases that it touches are for the store to check, which knows them.
    pub fn check_request(&self, caller: &Caller, request: &Request) -> Result<(), AuthError> {
        match request {
            Request::Put(request) => self.grants(caller)?.map_or(Ok(()), |grants| grants.put(request)),
            Request::DeleteRange(request) => {
                self.grants(caller)?.map_or(Ok(()), |grants| grants.delete_range(request))
            }
            Request::Txn(request) => self.check_txn(caller, request),
            Request::RegionChange(request) => self.check_keys(caller, Access::Write, &request.key, &NO_END),
            // It takes the past of all keys.
            Request::Compaction(_) => self.check_keys(caller, Access::Write, &ALL, &ALL),
            Request::LeaseGrant(_) | Request::LeaseRevoke(_) => self.check_user(caller),
            // Whoever asks for a token is nobody yet.
            Request::Authenticate(_) => Ok(()),
            Request::Alarm(_)
            | Request::AuthEnable(_)
            | Request::AuthDisable(_)
            | Request::UserAdd(_)
            | Request::UserDelete(_)
            | Request::UserChangePassword(_)
            | Request::UserGrantRole(_)
            | Request::UserRevokeRole(_)
            | Request::RoleAdd(_)
            | Request::RoleDelete(_)
            | Request::RoleGrantPermission(_)
            | Request::RoleRevokePermission(_)
            | Request::RegionBegin(_)
            | Request::RegionCommand(_) => self.check_root(caller),
        }
    }
}
