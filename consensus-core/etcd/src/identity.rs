//! Who a client is: from what its requests carry to a user, and from there to an answer or a refusal.
//!
//! While authentication is disabled nothing is looked at, which costs a load of an atomic number.
//!
//! Deliberately not here: what users may do, how they get tokens.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use consensus_proto::internal::internal_request::Request as Internal;
use consensus_store::{AuthEpoch, AuthError, Caller, Policy, Response as Answer};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{TokenKind, server::Server, status};

/// Where etcd's clients put their token: by gRPC, and by the HTTP gateway.
const TOKEN_NAMES: [&str; 2] = ["token", "authorization"];
/// What the HTTP gateway adds. Its certificate is its own, not its client's.
const GATEWAY: &str = "grpcgateway-accept";

/// What a request says of who sends it.
#[derive(Clone, Default)]
pub(crate) enum Credential {
    #[default]
    None,
    Token(String),
    /// The common name of a client's certificate, which TLS has verified.
    Certificate(String),
}

/// Without the token.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token"),
            Self::Certificate(name) => f.debug_tuple("Certificate").field(name).finish(),
        }
    }
}

/// A caller, and the policy that it was recognized under.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) caller: Caller,
    pub(crate) epoch: AuthEpoch,
}

/// The common name of a certificate's owner.
fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Server {
    /// What a request carries, if that matters now.
    pub(crate) fn credential<T>(&self, request: &Request<T>) -> Credential {
        if self.shared.reader.auth_epoch().is_enabled() {
            self.credential_of_stream(request)
        } else {
            Credential::None
        }
    }

    /// What a request carries, for one that lives longer than what matters now.
    pub(crate) fn credential_of_stream<T>(&self, request: &Request<T>) -> Credential {
        let metadata = request.metadata();
        if let Some(token) = TOKEN_NAMES.iter().find_map(|name| metadata.get(*name)) {
            // What is no text is no token of ours.
            return Credential::Token(token.to_str().unwrap_or_default().to_owned());
        }
        if !self.shared.config.auth.client_cert_auth || metadata.contains_key(GATEWAY) {
            return Credential::None;
        }
        // The first is the client's own.
        let certificates = request.peer_certs().unwrap_or_default();
        let name = certificates.first().and_then(|certificate| common_name(certificate));
        name.map_or(Credential::None, Credential::Certificate)
    }

    fn recognize(&self, credential: &Credential, policy: &Policy) -> Result<Caller, AuthError> {
        let (name, revision) = match credential {
            Credential::None => return Ok(Caller::Nobody),
            Credential::Certificate(name) => (name.clone(), policy.revision()),
            Credential::Token(token) => match &self.shared.config.auth.token {
                TokenKind::Simple => {
                    let news = &self.shared.news;
                    let name = news.tokens().user_of(token, news.now()).ok_or(AuthError::InvalidToken)?;
                    (name, policy.revision())
                }
                TokenKind::Jwt(jwt) => jwt.verify(token, since_1970()).ok_or(AuthError::InvalidToken)?,
            },
        };
        Ok(Caller::User { name, revision })
    }

    /// What `ask` says of the caller, whether or not authentication is enabled.
    pub(crate) async fn consult<T>(
        &self,
        credential: &Credential,
        ask: impl Fn(&Policy, &Caller) -> Result<T, AuthError>,
    ) -> Result<(T, Permit), Status> {
        let now = || {
            // In this order: a token that is there is of a user of this policy, or of a later one's, and that is noticed.
            let policy = self.shared.reader.policy();
            let caller = match policy.is_enabled() {
                true => self.recognize(credential, &policy)?,
                false => Caller::Nobody,
            };
            let said = ask(&policy, &caller)?;
            Ok((said, Permit { caller, epoch: policy.epoch() }))
        };
        match now() {
            Ok(permitted) => Ok(permitted),
            // Others may have told the client of a token or a grant that this member has not applied yet.
            Err(_) => {
                self.linearize().await?;
                now().map_err(status::auth)
            }
        }
    }

    /// Refuses what `check` refuses, if authentication is enabled.
    pub(crate) async fn authorize(
        &self,
        credential: &Credential,
        check: impl Fn(&Policy, &Caller) -> Result<(), AuthError>,
    ) -> Result<Permit, Status> {
        let epoch = self.shared.reader.auth_epoch();
        if !epoch.is_enabled() {
            return Ok(Permit { caller: Caller::Nobody, epoch });
        }
        self.consult(credential, check).await.map(|((), permit)| permit)
    }

    /// Refuses all who may not do everything.
    pub(crate) async fn require_root<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.authorize(&self.credential(request), Policy::check_root).await.map(drop)
    }

    /// Refuses all who are nobody.
    pub(crate) async fn require_user<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.authorize(&self.credential(request), Policy::check_user).await.map(drop)
    }

    /// Reads what the caller may read, if that still holds when it has been read.
    pub(crate) async fn read_as<T>(
        &self,
        credential: &Credential,
        check: impl Fn(&Policy, &Caller) -> Result<(), AuthError>,
        read: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let permit = self.authorize(credential, check).await?;
        let found = read.await?;
        if permit.epoch.is_enabled() && permit.epoch != self.shared.reader.auth_epoch() {
            return Err(status::auth(AuthError::OldRevision));
        }
        Ok(found)
    }

    /// Has a request committed and applied, if the caller may ask for it: now, so that nobody fills the log with what will be
    /// refused, and again when it is applied.
    pub(crate) async fn propose_as(
        &self,
        credential: &Credential,
        request: Internal,
    ) -> Result<Answer, Status> {
        let permit =
            self.authorize(credential, |policy, caller| policy.check_request(caller, &request)).await?;
        self.propose(&permit.caller, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_owner() {
        let certificate = |name: Option<&str>| {
            let mut params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = name {
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
            }
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
        };
        assert_eq!(common_name(&certificate(Some("alice"))).as_deref(), Some("alice"));
        assert_eq!(common_name(&certificate(Some(""))), None);
        assert_eq!(common_name(&certificate(None)), None);
        assert_eq!(common_name(b"nonsense"), None);
    }

    #[test]
    fn credentials_do_not_show_their_secrets() {
        let shown = format!("{:?}", Credential::Token("secret".to_owned()));
        assert_eq!(shown, "Token");
    }
}
