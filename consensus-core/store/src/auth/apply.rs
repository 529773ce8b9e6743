//! Changes of users and roles, in the order of the log.
//!
//! Deliberately not here: whether the caller may make them.

use std::sync::Arc;

use bytes::Bytes;
use consensus_disk::Batch;
use consensus_proto::{
    authpb::{self, permission::Type},
    etcdserverpb::{
        AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
        AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    },
    internal::{AuthenticateRequest, internal_request::Request},
};
use prost::Message as _;

use super::{AuthError, Policy, ROLE, ROOT, USER, User, put_state};
use crate::keys::AUTH;

/// Tokens that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A token now stands for a user.
    Assigned {
        /// As the member chose it that compared the password.
        token: String,
        /// The user.
        user: String,
    },
    /// All of a user's are gone.
    UserGone(String),
    /// All are gone.
    AllGone,
}

impl Policy {
    /// A token for a user, if nothing changed since the password was compared.
    pub(crate) fn authenticate(&self, request: &AuthenticateRequest) -> Result<TokenChange, AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        if request.auth_revision != self.revision {
            return Err(AuthError::OldRevision);
        }
        self.password_hash(&request.name)?;
        Ok(TokenChange::Assigned { token: request.token.clone(), user: request.name.clone() })
    }

    /// Makes a change; an error leaves everything as it was. What goes to the disk is added to `batch`.
    pub(crate) fn apply(
        &mut self,
        request: &Request,
        batch: &mut Batch,
    ) -> Result<Option<TokenChange>, AuthError> {
        match request {
            Request::AuthEnable(_) => self.enable(batch).map(|()| None),
            Request::AuthDisable(_) => Ok(self.disable(batch)),
            Request::UserAdd(request) => self.add_user(request, batch).map(|()| None),
            Request::UserDelete(request) => self.delete_user(&request.name, batch).map(Some),
            Request::UserChangePassword(request) => self.change_password(request, batch).map(Some),
            Request::UserGrantRole(request) => self.grant_role(request, batch).map(|()| None),
            Request::UserRevokeRole(request) => self.revoke_role(request, batch).map(|()| None),
            Request::RoleAdd(request) => self.add_role(&request.name, batch).map(|()| None),
            Request::RoleDelete(request) => self.delete_role(&request.role, batch).map(|()| None),
            Request::RoleGrantPermission(request) => self.grant_permission(request, batch).map(|()| None),
            Request::RoleRevokePermission(request) => self.revoke_permission(request, batch).map(|()| None),
            _ => Err(AuthError::InvalidManagement),
        }
    }

    fn enable(&mut self, batch: &mut Batch) -> Result<(), AuthError> {
        let root = self.users.get(ROOT).ok_or(AuthError::NoRootUser)?;
        if !root.is_root() {
            return Err(AuthError::NoRootRole);
        }
        self.enabled = true;
        self.write_state(batch);
        Ok(())
    }

    fn disable(&mut self, batch: &mut Batch) -> Option<TokenChange> {
        if !self.enabled {
            return None;
        }
        self.enabled = false;
        self.changed(batch);
        Some(TokenChange::AllGone)
    }

    fn add_user(&mut self, request: &AuthUserAddRequest, batch: &mut Batch) -> Result<(), AuthError> {
        if request.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(AuthError::UserExists);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password { "" } else { &request.hashed_password };
        let record = authpb::User {
            name: request.name.clone().into(),
            password: Bytes::copy_from_slice(password.as_bytes()),
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(&request.name, record, batch);
        self.changed(batch);
        Ok(())
    }

    fn delete_user(&mut self, name: &str, batch: &mut Batch) -> Result<TokenChange, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        batch.delete(AUTH, [USER, name.as_bytes()].concat());
        self.changed(batch);
        Ok(TokenChange::UserGone(name.to_owned()))
    }

    fn change_password(
        &mut self,
        request: &AuthUserChangePasswordRequest,
        batch: &mut Batch,
    ) -> Result<TokenChange, AuthError> {
        let user = self.user(&request.name)?;
        let mut record = user.record.clone();
        // As in etcd it counts as a change, and such a user still has no password.
        if !user.has_no_password() {
            record.password = request.hashed_password.clone().into();
        }
        self.put_user(&request.name, record, batch);
        self.changed(batch);
        Ok(TokenChange::UserGone(request.name.clone()))
    }

    fn grant_role(&mut self, request: &AuthUserGrantRoleRequest, batch: &mut Batch) -> Result<(), AuthError> {
        let mut record = self.user(&request.user)?.record.clone();
        // The root role needs no record: it has no permissions of its own.
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(AuthError::RoleNotFound);
        }
        let Err(at) = record.roles.binary_search(&request.role) else { return Ok(()) };
        record.roles.insert(at, request.role.clone());
        self.put_user(&request.user, record, batch);
        self.changed(batch);
        Ok(())
    }

    fn revoke_role(
        &mut self,
        request: &AuthUserRevokeRoleRequest,
        batch: &mut Batch,
    ) -> Result<(), AuthError> {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut record = self.user(&request.name)?.record.clone();
        let at = record.roles.binary_search(&request.role).map_err(|_| AuthError::RoleNotGranted)?;
        record.roles.remove(at);
        self.put_user(&request.name, record, batch);
        self.changed(batch);
        Ok(())
    }

    fn add_role(&mut self, name: &str, batch: &mut Batch) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        let role = authpb::Role { name: name.to_owned().into(), key_permission: Vec::new() };
        self.put_role(name, role, batch);
        self.changed(batch);
        Ok(())
    }

    fn delete_role(&mut self, name: &str, batch: &mut Batch) -> Result<(), AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        batch.delete(AUTH, [ROLE, name.as_bytes()].concat());
        for user in self.users_with(name) {
            let mut record = self.users[&user].record.clone();
            record.roles.retain(|role| role != name);
            self.put_user(&user, record, batch);
        }
        self.changed(batch);
        Ok(())
    }

    fn grant_permission(
        &mut self,
        request: &AuthRoleGrantPermissionRequest,
        batch: &mut Batch,
    ) -> Result<(), AuthError> {
        let granted = request.perm.as_ref().ok_or(AuthError::PermissionNotGiven)?;
        let empty = !matches!(&granted.range_end[..], [] | [0]) && granted.range_end <= granted.key;
        if granted.key.is_empty() || empty || Type::try_from(granted.perm_type).is_err() {
            return Err(AuthError::InvalidManagement);
        }
        let mut role = self.role(&request.name)?;
        let of_same_keys = |other: &&mut authpb::Permission| {
            other.key == granted.key && other.range_end == granted.range_end
        };
        match role.key_permission.iter_mut().find(of_same_keys) {
            Some(permission) => permission.perm_type = granted.perm_type,
            None => {
                let at = role.key_permission.partition_point(|other| other.key <= granted.key);
                role.key_permission.insert(at, granted.clone());
            }
        }
        self.change_role(&request.name, role, batch);
        Ok(())
    }

    fn revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
        batch: &mut Batch,
    ) -> Result<(), AuthError> {
        let mut role = self.role(&request.role)?;
        let before = role.key_permission.len();
        role.key_permission.retain(|other| other.key != request.key || other.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.change_role(&request.role, role, batch);
        Ok(())
    }

    fn user(&self, name: &str) -> Result<&User, AuthError> {
        self.users.get(name).map(|user| &**user).ok_or(AuthError::UserNotFound)
    }

    fn role(&self, name: &str) -> Result<authpb::Role, AuthError> {
        self.roles.get(name).map(|role| authpb::Role::clone(role)).ok_or(AuthError::RoleNotFound)
    }

    fn users_with(&self, role: &str) -> Vec<String> {
        let with = self.users.iter().filter(|(_, user)| user.record.roles.iter().any(|other| other == role));
        with.map(|(name, _)| name.clone()).collect()
    }

    fn put_user(&mut self, name: &str, record: authpb::User, batch: &mut Batch) {
        batch.put(AUTH, [USER, name.as_bytes()].concat(), record.encode_to_vec());
        let grants = self.grants_of_roles(&record.roles);
        self.users.insert(name.to_owned(), Arc::new(User { record, grants }));
    }

    fn put_role(&mut self, name: &str, role: authpb::Role, batch: &mut Batch) {
        batch.put(AUTH, [ROLE, name.as_bytes()].concat(), role.encode_to_vec());
        self.roles.insert(name.to_owned(), Arc::new(role));
    }

    /// A role's permissions are others: so are those of all who have it.
    fn change_role(&mut self, name: &str, role: authpb::Role, batch: &mut Batch) {
        self.put_role(name, role, batch);
        for user in self.users_with(name) {
            let record = self.users[&user].record.clone();
            let grants = self.grants_of_roles(&record.roles);
            self.users.insert(user, Arc::new(User { record, grants }));
        }
        self.changed(batch);
    }

    fn changed(&mut self, batch: &mut Batch) {
        self.revision += 1;
        self.write_state(batch);
    }

    fn write_state(&self, batch: &mut Batch) {
        put_state(self.enabled, self.revision, batch);
    }
}
