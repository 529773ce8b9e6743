//! JSON web tokens of an OpenID Connect provider (RFC 7519, RFC 8725): who somebody is, and what that provider says of them.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use novacron_process::{ServerTlsError, pem_certificates};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_rustls::rustls::RootCertStore;

use super::{
    jwks::{Found, Jwks, JwksSource},
    login::{Effort, LoginError},
    principal::Principal,
    role::{GRANTS_MAX, Grant, Grants},
    signatures,
};
use crate::settings::JwtSettings;

/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest subject in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// How far clocks may differ, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Checks tokens of one provider.
pub(crate) struct Jwt {
    settings: JwtSettings,
    pub(crate) keys: Jwks,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    // One, not a list of them.
    #[serde(rename = "iss")]
    _issuer: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Jwt {
    /// Reads the authorities of the URL, if there are any; keys are looked at later.
    pub(crate) fn new(settings: &JwtSettings) -> Result<Self, ServerTlsError> {
        signatures::install();
        let mut roots = None;
        if !settings.ca.as_os_str().is_empty() {
            let mut store = RootCertStore::empty();
            // A bundle of the system has some that are too old to be understood.
            store.add_parsable_certificates(pem_certificates(&settings.ca)?);
            roots = Some(store);
        }
        let source = match settings.jwks.contains("://") {
            true => JwksSource::Url(settings.jwks.clone()),
            false => JwksSource::File(settings.jwks.clone().into()),
        };
        Ok(Self { settings: settings.clone(), keys: Jwks::new(source, roots) })
    }

    /// Who a token is of.
    pub(crate) async fn principal(&self, token: &str, effort: Effort) -> Result<Arc<Principal>, LoginError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(LoginError::Invalid("the token is too long"));
        }
        // `none` is no algorithm, and what is none makes no header.
        let header = decode_header(token).map_err(|_| LoginError::Invalid("the token is malformed"))?;
        if !self.settings.algorithms.contains(&header.alg) {
            return Err(LoginError::Invalid("the token's algorithm is not allowed"));
        }
        let key = match self.keys.find(header.kid.as_deref(), header.alg, effort).await {
            Found::Key(key) => key,
            _ if effort == Effort::Small => return Err(LoginError::Unchecked),
            Found::Unknown => return Err(LoginError::Invalid("the token's key is not known")),
            Found::Unavailable => return Err(LoginError::Unavailable),
        };
        let claims = decode::<Claims>(token, &key, &self.validation(header.alg)).map_err(|error| {
            tracing::debug!(%error, "a JSON web token");
            LoginError::Invalid("the token is not valid")
        })?;
        let Claims { sub, others, .. } = claims.claims;
        if !(1..=SUBJECT_BYTES_MAX).contains(&sub.len()) || sub.contains(char::is_control) {
            return Err(LoginError::Invalid("the token's subject is not valid"));
        }
        let grants = Grants(self.grants(&others));
        Ok(Arc::new(Principal { id: format!("jwt:{sub}"), name: sub, grants }))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation
    }

    /// What the claim says: of the values that are mapped, what they are mapped to; if none are, the values themselves.
    fn grants(&self, claims: &Map<String, Value>) -> Vec<Grant> {
        let named = &self.settings.roles_claim;
        let claim = match named.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((first, rest)) => claims.get(first).and_then(|value| value.pointer(&format!("/{rest}"))),
            None => claims.get(named.trim_start_matches('/')),
        };
        let values: Vec<&str> = match claim {
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mapped = &self.settings.roles;
        let grants: Vec<Grant> = if mapped.is_empty() {
            values.iter().filter_map(|value| value.parse().ok()).take(GRANTS_MAX).collect()
        } else {
            let fits = mapped.iter().filter(|mapping| values.contains(&mapping.name.as_str()));
            fits.map(|mapping| mapping.grant.clone()).take(GRANTS_MAX).collect()
        };
        grants
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grants(claim: &str, roles: &[&str], claims: Value) -> String {
        let settings = JwtSettings {
            roles_claim: claim.to_owned(),
            roles: roles.iter().map(|mapping| mapping.parse().unwrap()).collect(),
            ..JwtSettings::default()
        };
        let jwt = Jwt::new(&settings).unwrap();
        let grants = jwt.grants(claims.as_object().unwrap());
        grants.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_claim_gives_roles() {
        for (claim, roles, claims, expected) in [
            (
                "roles",
                &[][..],
                json!({ "roles": ["viewer@eu", "admin@*", "nonsense", 1] }),
                "viewer@eu admin@*",
            ),
            ("roles", &[], json!({ "roles": "viewer@eu operator@us" }), "viewer@eu operator@us"),
            ("roles", &[], json!({ "other": ["admin@*"] }), ""),
            ("roles", &[], json!({ "roles": { "admin@*": true } }), ""),
            ("https://x/roles", &[], json!({ "https://x/roles": ["admin@*"] }), "admin@*"),
            ("/realm/roles", &[], json!({ "realm": { "roles": ["admin@eu"] } }), "admin@eu"),
            ("groups", &["ops=operator@eu"], json!({ "groups": ["ops", "admin@*"] }), "operator@eu"),
            (
                "groups",
                &["ops=operator@eu", "ops=viewer@*"],
                json!({ "groups": "ops" }),
                "operator@eu viewer@*",
            ),
        ] {
            assert_eq!(grants(claim, roles, claims.clone()), expected, "{claim} {roles:?} {claims}");
        }
    }
}
