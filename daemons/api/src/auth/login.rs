//! From a request's head and connection to who asks.

use std::{net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, header};
use novacron_process::ServerTlsError;

use super::{
    certificate::Certificate,
    jwt::Jwt,
    principal::Principal,
    role::Grants,
    token::{self, Tokens},
};
use crate::{
    app::now_ms,
    changes::Changes,
    http::problem::{Kind, Problem},
    settings::{AuthSettings, NamedGrant},
    store::Store,
};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// What it has shown.
    pub(crate) certificate: Option<Arc<Certificate>>,
}

/// Why nobody is logged in.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// Nothing proves who asks.
    Missing,
    /// What should prove it does not.
    Invalid(&'static str),
    /// It cannot be checked now.
    Unavailable,
    /// It was not, as that takes more than [`Effort::Small`].
    Unchecked,
    /// Another problem.
    Problem(Problem),
}

/// What is done to find out who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// The store is asked for tokens that are not remembered, and keys that are not known are looked for.
    Full,
    /// What this replica knows by itself decides, and what there is of tokens at a look each second at most.
    Small,
}

/// The ways to log in that are set up.
pub(crate) struct Login {
    /// None are, and only this machine can ask.
    is_open: bool,
    tokens: Option<Tokens>,
    certificates: Vec<NamedGrant>,
    pub(crate) jwt: Option<Arc<Jwt>>,
}

impl Login {
    /// Reads what the settings name.
    pub(crate) fn new(settings: &AuthSettings) -> Result<Self, ServerTlsError> {
        Ok(Self {
            is_open: !settings.is_set_up(),
            tokens: settings.tokens.then(Tokens::default),
            certificates: settings.certificates.clone(),
            jwt: settings.jwt.is_set_up().then(|| Jwt::new(&settings.jwt)).transpose()?.map(Arc::new),
        })
    }

    /// Whoever reaches it may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Who asks.
    pub(crate) async fn principal(
        &self,
        store: &Store,
        changes: &Changes,
        headers: &HeaderMap,
        peer: &Peer,
        effort: Effort,
    ) -> Result<Arc<Principal>, LoginError> {
        if self.is_open {
            return Ok(Arc::new(Principal::local()));
        }
        match bearer(headers)? {
            Some(text) if text.starts_with(token::PREFIX) => match &self.tokens {
                Some(tokens) => tokens.principal(store, changes, text, effort).await,
                None => Err(LoginError::Invalid("API tokens are not taken here")),
            },
            Some(text) => match &self.jwt {
                Some(jwt) => jwt.principal(text, effort).await,
                None => Err(LoginError::Invalid("the token is not known")),
            },
            None => self.by_certificate(peer),
        }
    }

    fn by_certificate(&self, peer: &Peer) -> Result<Arc<Principal>, LoginError> {
        let Some(certificate) = &peer.certificate else { return Err(LoginError::Missing) };
        if certificate.expires_ms <= now_ms() {
            return Err(LoginError::Invalid("the certificate has expired"));
        }
        let is_shown = |named: &&NamedGrant| certificate.names.contains(&named.name);
        let fits: Vec<_> = self.certificates.iter().filter(is_shown).collect();
        let name = fits.first().map(|named| &named.name).or(certificate.names.first());
        let Some(name) = name else { return Err(LoginError::Invalid("the certificate has no name")) };
        let grants = Grants(fits.iter().map(|named| named.grant.clone()).collect());
        Ok(Arc::new(Principal { id: format!("certificate:{name}"), name: name.clone(), grants }))
    }
}

/// What the one `Authorization` header has.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, LoginError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if more.is_some() {
        let detail = "Authorization: expected it once";
        return Err(LoginError::Problem(Problem::new(Kind::Malformed, detail)));
    }
    let text = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    text.filter(|text| !text.is_empty())
        .map(Some)
        .ok_or(LoginError::Invalid("Authorization: expected Bearer and a token"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_header_with_a_bearer() {
        for (given, expected) in [
            (&[][..], Ok(None)),
            (&["Bearer abc"], Ok(Some("abc"))),
            (&["bearer  abc "], Ok(Some("abc"))),
            (&["Basic abc"], Err(())),
            (&["Bearer"], Err(())),
            (&["Bearer "], Err(())),
            (&["abc"], Err(())),
            (&["Bearer a", "Bearer b"], Err(())),
            (&["Bearer a", ""], Err(())),
        ] {
            let headers: HeaderMap = given
                .iter()
                .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()))
                .collect();
            assert_eq!(bearer(&headers).map_err(drop), expected, "{given:?}");
        }
    }
}
