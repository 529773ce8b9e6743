//! What can be set of logins.

use std::{fmt, path::PathBuf, str::FromStr};

use hyper::Uri;
use jsonwebtoken::Algorithm;
use novacron_settings::{
    Key, SettingsError, Sources, set,
    value::{items, parsed, printed},
};

use super::Settings;
use crate::auth::role::{Grant, NoGrant};

/// Ways to log in. Without any, whoever reaches the port, which is one of loopback then, may do everything.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuthSettings {
    /// API tokens, which are kept in the store.
    pub tokens: bool,
    /// What names of clients' certificates give.
    pub certificates: Vec<NamedGrant>,
    /// Tokens of an OpenID Connect provider.
    pub jwt: JwtSettings,
}

/// Tokens of an OpenID Connect provider. Empty texts mean "not set".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JwtSettings {
    /// Who signs them (`iss`).
    pub issuer: String,
    /// Whom they are for (`aud`).
    pub audience: String,
    /// Its keys: a path, or a URL.
    pub jwks: String,
    /// The authorities that sign the certificate of that URL's server.
    pub ca: PathBuf,
    /// Which signatures are taken.
    pub algorithms: Vec<Algorithm>,
    /// The claim that gives roles: its name, or a JSON pointer.
    pub roles_claim: String,
    /// What values of that claim give; none: they are grants themselves.
    pub roles: Vec<NamedGrant>,
}

/// What somebody of this name may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedGrant {
    /// A name of a certificate, or a value of a claim.
    pub name: String,
    /// What it gives.
    pub grant: Grant,
}

impl FromStr for NamedGrant {
    type Err = NoGrant;

    fn from_str(text: &str) -> Result<Self, NoGrant> {
        let (name, grant) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(NoGrant)?;
        Ok(Self { name: name.to_owned(), grant: grant.parse()? })
    }
}

impl fmt::Display for NamedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.grant)
    }
}

impl AuthSettings {
    /// There is a way to log in.
    pub fn is_set_up(&self) -> bool {
        self.tokens || !self.certificates.is_empty() || self.jwt.is_set_up()
    }
}

impl JwtSettings {
    /// They are taken.
    pub fn is_set_up(&self) -> bool {
        !self.issuer.is_empty()
    }
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            jwks: String::new(),
            ca: PathBuf::new(),
            algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
            roles_claim: "novacron_roles".to_owned(),
            roles: Vec::new(),
        }
    }
}

/// Those whose keys can be made public.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub(super) const KEYS: &[Key<Settings>] = &[
    Key::one("auth.tokens", "true or false", set!(auth.tokens, parsed), |s| printed(s.auth.tokens)),
    Key::list(
        "auth.certificates",
        "NAME=ROLE@REGION, any number; names are DNS names or URIs of certificates, regions may be *",
        set!(auth.certificates, |t| all(t)),
        |s| joined(&s.auth.certificates),
    ),
    Key::one("auth.jwt.issuer", "a text, or empty", set!(auth.jwt.issuer, parsed), |s| {
        s.auth.jwt.issuer.clone()
    }),
    Key::one("auth.jwt.audience", "a text, or empty", set!(auth.jwt.audience, parsed), |s| {
        s.auth.jwt.audience.clone()
    }),
    Key::login("auth.jwt.jwks", JWKS, set!(auth.jwt.jwks, |t| is_place(t).then(|| t.to_owned())), |s| {
        s.auth.jwt.jwks.clone()
    }),
    Key::one("auth.jwt.ca", "a path, or empty", set!(auth.jwt.ca, super::path), |s| {
        s.auth.jwt.ca.display().to_string()
    }),
    Key::list(
        "auth.jwt.algorithms",
        "of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA one at least",
        set!(auth.jwt.algorithms, |t| {
            let algorithms: Vec<Algorithm> = all(t)?;
            let fits = !algorithms.is_empty() && algorithms.iter().all(|a| ALGORITHMS.contains(a));
            fits.then_some(algorithms)
        }),
        |s| s.auth.jwt.algorithms.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(","),
    ),
    Key::one(
        "auth.jwt.roles_claim",
        "the name of a claim, or a JSON pointer to one, which begins with /",
        set!(auth.jwt.roles_claim, |t| (!t.is_empty()).then(|| t.to_owned())),
        |s| s.auth.jwt.roles_claim.clone(),
    ),
    Key::list(
        "auth.jwt.roles",
        "VALUE=ROLE@REGION, any number; without any, values of the claim are ROLE@REGION themselves",
        set!(auth.jwt.roles, |t| all(t)),
        |s| joined(&s.auth.jwt.roles),
    ),
];

const JWKS: &str = "a path, a URL of https, or one of http at a loopback address";

/// Keys that come over a network in plaintext are anybody's.
fn is_place(text: &str) -> bool {
    if !text.contains("://") {
        return true;
    }
    let Ok(url) = text.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        _ => false,
    }
}

/// Checks what depends on more than one setting.
pub(super) fn finish(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let Settings { auth, tls, .. } = &sources.values;
    if !auth.certificates.is_empty() && tls.ca.as_os_str().is_empty() {
        let expected = "none without tls.ca, the authority that signs certificates of clients";
        return Err(sources.invalid("auth.certificates", joined(&auth.certificates), expected));
    }
    let jwt = &auth.jwt;
    for (key, value) in
        [("auth.jwt.issuer", &jwt.issuer), ("auth.jwt.audience", &jwt.audience), ("auth.jwt.jwks", &jwt.jwks)]
    {
        if value.is_empty() && [&jwt.issuer, &jwt.audience, &jwt.jwks].iter().any(|text| !text.is_empty()) {
            return Err(sources.invalid(key, String::new(), "a value, since others of auth.jwt are there"));
        }
    }
    if jwt.jwks.starts_with("https://") && jwt.ca.as_os_str().is_empty() {
        let expected = "the authorities that sign the certificate of auth.jwt.jwks";
        return Err(sources.invalid("auth.jwt.ca", String::new(), expected));
    }
    Ok(())
}

fn all<T: FromStr>(text: &str) -> Option<Vec<T>> {
    items(text).map(|item| item.parse().ok()).collect()
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
