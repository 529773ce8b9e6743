//! Users, roles and passwords.
//!
//! Changes go through the log; questions are answered from the policy that this member has applied. Passwords are hashed and
//! compared here, on threads that may block, a few at a time: that is meant to take long.
//!
//! Deliberately not here: what users may do, how requests are recognized.

use consensus_proto::{
    etcdserverpb::{
        AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
        AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
        AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
        AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
        AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
        AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
        AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
        AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
        AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
        ResponseHeader, auth_server::Auth,
    },
    internal::{self, internal_request::Request as Internal},
};
use consensus_store::{AuthError, Caller, Policy, Response as Answer, StoreError};
use tonic::{Request, Response, Status};

use crate::{
    TokenKind,
    identity::{Credential, since_1970},
    kv::mismatch,
    server::Server,
    status, token,
};

/// Passwords that are hashed or compared at a time.
pub(crate) const HASHES_AT_ONCE: usize = 4;
/// How often a password is compared again because users or roles changed meanwhile.
const ATTEMPTS: usize = 8;
/// bcrypt looks at no more bytes of a password.
const PASSWORD_BYTES_MAX: usize = 72;

fn cannot_sign() -> Status {
    Status::unknown("auth: token signing attempted with verify-only key")
}

fn password_too_long() -> Status {
    Status::invalid_argument("bcrypt: password length exceeds 72 bytes")
}

impl Server {
    /// Does something slow with a password where that disturbs nobody.
    async fn with_bcrypt<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.shared.hashes.take(self.shared.request_timeout, work).await
    }

    async fn hash(&self, password: String) -> Result<String, Status> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(password_too_long());
        }
        let cost = self.shared.config.auth.bcrypt_cost;
        let hashed = self.with_bcrypt(move || bcrypt::hash(password, cost)).await?;
        hashed.map_err(|error| Status::internal(format!("etcdserver: hashing a password: {error}")))
    }

    /// Compares a password. It takes as long if there is no such user, so that nobody learns who there is.
    async fn check_password(&self, policy: &Policy, name: &str, password: &str) -> Result<(), Status> {
        let (hash, password) = (policy.password_hash(name), password.to_owned());
        if hash == Err(AuthError::NoPasswordUser) {
            return Err(status::auth(AuthError::NoPasswordUser));
        }
        let hash = hash.ok().and_then(|hash| String::from_utf8(hash.to_vec()).ok());
        let cost = self.shared.config.auth.bcrypt_cost;
        let compare = move || match hash {
            Some(hash) => {
                password.len() <= PASSWORD_BYTES_MAX && bcrypt::verify(password, &hash).unwrap_or(false)
            }
            None => bcrypt::hash(password, cost).is_err(),
        };
        if self.with_bcrypt(compare).await? { Ok(()) } else { Err(status::auth(AuthError::AuthFailed)) }
    }

    /// A token for a user whose password this is.
    async fn token_for(&self, name: &str, password: &str) -> Result<String, Status> {
        self.linearize().await?;
        for _ in 0..ATTEMPTS {
            let policy = self.shared.reader.policy();
            if !policy.is_enabled() {
                return Err(status::auth(AuthError::NotEnabled));
            }
            self.check_password(&policy, name, password).await?;
            if let TokenKind::Jwt(jwt) = &self.shared.config.auth.token {
                let token = jwt.sign(name, policy.revision(), since_1970());
                return token.ok_or_else(cannot_sign);
            }
            let token = token::random(self.shared.node.status().applied)?;
            let assigned = internal::AuthenticateRequest {
                name: name.to_owned(),
                token: token.clone(),
                auth_revision: policy.revision(),
            };
            match self.commit(&Caller::Nobody, Internal::Authenticate(assigned)).await? {
                Ok(Answer::Auth) => return Ok(token),
                Ok(_) => return Err(mismatch()),
                // The password may be another one by now.
                Err(StoreError::Auth(AuthError::OldRevision)) => {}
                Err(error) => return Err(status::store(&error)),
            }
        }
        Err(status::auth(AuthError::OldRevision))
    }

    async fn administer(
        &self,
        credential: &Credential,
        change: Internal,
    ) -> Result<Option<ResponseHeader>, Status> {
        let Answer::Auth = self.propose_as(credential, change).await? else { return Err(mismatch()) };
        Ok(self.header_now())
    }

    /// What the policy says, with everything that was acknowledged before.
    async fn ask_policy<T>(
        &self,
        credential: &Credential,
        ask: impl Fn(&Policy, &Caller) -> Result<T, AuthError>,
    ) -> Result<T, Status> {
        self.linearize().await?;
        self.consult(credential, ask).await.map(|(said, _)| said)
    }
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

#[tonic::async_trait]
impl Auth for Server {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::AuthEnable(request.into_inner())).await?;
        tracing::info!("authentication is enabled");
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::AuthDisable(request.into_inner())).await?;
        tracing::info!("authentication is disabled");
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let ask = |policy: &Policy, caller: &Caller| {
            policy.check_root(caller)?;
            Ok((policy.is_enabled(), policy.revision()))
        };
        let (enabled, auth_revision) = self.ask_policy(&self.credential(&request), ask).await?;
        Ok(Response::new(AuthStatusResponse { header: self.header_now(), enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let token = self.token_for(&name, &password).await.inspect_err(|refused| {
            tracing::warn!(user = name, reason = refused.message(), "authentication refused");
        })?;
        Ok(Response::new(AuthenticateResponse { header: self.header_now(), token }))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        // Before its password costs anything.
        self.require_root(&request).await?;
        let credential = self.credential(&request);
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        request.hashed_password = match request.options {
            Some(options) if options.no_password => String::new(),
            _ => self.hash(password).await?,
        };
        let header = self.administer(&credential, Internal::UserAdd(request)).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let credential = self.credential(&request);
        let name = request.into_inner().name;
        let ask = |policy: &Policy, caller: &Caller| {
            policy.check_about_user(caller, &name)?;
            policy.user_roles(&name).map(<[String]>::to_vec)
        };
        let roles = self.ask_policy(&credential, ask).await?;
        Ok(Response::new(AuthUserGetResponse { header: self.header_now(), roles }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let ask = |policy: &Policy, caller: &Caller| {
            policy.check_root(caller)?;
            Ok(owned(policy.users()))
        };
        let users = self.ask_policy(&self.credential(&request), ask).await?;
        Ok(Response::new(AuthUserListResponse { header: self.header_now(), users }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::UserDelete(request.into_inner())).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        self.require_root(&request).await?;
        let credential = self.credential(&request);
        let mut request = request.into_inner();
        request.hashed_password = self.hash(std::mem::take(&mut request.password)).await?;
        let header = self.administer(&credential, Internal::UserChangePassword(request)).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::UserGrantRole(request.into_inner())).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::UserRevokeRole(request.into_inner())).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::RoleAdd(request.into_inner())).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let credential = self.credential(&request);
        let role = request.into_inner().role;
        let ask = |policy: &Policy, caller: &Caller| {
            policy.check_about_role(caller, &role)?;
            policy.role_permissions(&role)
        };
        let perm = self.ask_policy(&credential, ask).await?;
        Ok(Response::new(AuthRoleGetResponse { header: self.header_now(), perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let ask = |policy: &Policy, caller: &Caller| {
            policy.check_root(caller)?;
            Ok(owned(policy.roles()))
        };
        let roles = self.ask_policy(&self.credential(&request), ask).await?;
        Ok(Response::new(AuthRoleListResponse { header: self.header_now(), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.administer(&credential, Internal::RoleDelete(request.into_inner())).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let credential = self.credential(&request);
        let header =
            self.administer(&credential, Internal::RoleGrantPermission(request.into_inner())).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let credential = self.credential(&request);
        let header =
            self.administer(&credential, Internal::RoleRevokePermission(request.into_inner())).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}
