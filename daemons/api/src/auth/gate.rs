//! What stands before every operation: who asks, how often, and whether the table lets them.

use std::sync::Arc;

use axum::{
    extract::MatchedPath,
    http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts},
    response::{IntoResponse as _, Response},
};

use super::{
    login::{Effort, LoginError, Peer},
    principal::Principal,
    rules::Rule,
};
use crate::{
    app::App,
    http::{
        problem::{Kind, Problem},
        rate::Taken,
    },
};

/// A request that may go on.
pub(crate) struct Admitted {
    /// `None`: the operation is for everybody.
    pub(crate) principal: Option<Arc<Principal>>,
    /// What its bucket has left, where there is one.
    pub(crate) taken: Option<Taken>,
}

/// A request that may not.
pub(crate) struct Refused {
    pub(crate) response: Response,
    /// Who asked, as far as that is known.
    pub(crate) principal: Option<Arc<Principal>>,
}

impl From<Response> for Refused {
    fn from(response: Response) -> Self {
        Self { response, principal: None }
    }
}

/// Lets a request on, or not.
pub(crate) async fn admit(app: &App, parts: &Parts) -> Result<Admitted, Refused> {
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let rule = path.and_then(|path| app.rules.find(&parts.method, path));
    if rule == Some(Rule::Public) {
        return Ok(Admitted { principal: None, taken: None });
    }
    if app.login.is_open() && !is_of_this_machine(&parts.headers, &parts.uri) {
        let detail = "without a login only names of this machine are answered: localhost, 127.0.0.1, [::1]";
        return Err(Problem::new(Kind::Misdirected, detail).into_response().into());
    }
    let peer = parts.extensions.get::<Peer>().expect("every connection has an end");
    let principal = logged_in(app, parts, peer).await?;
    let taken = app.rates.take(&principal.id);
    if let Some(Taken { wait: Some(_), .. }) = taken {
        return Err(limited(taken).into());
    }
    let refused = |response| Refused { response, principal: Some(principal.clone()) };
    let Some(rule) = rule else { return Err(refused(no_operation(app, &parts.method, path, &parts.uri))) };
    rule.check(&principal).map_err(|problem| refused(with_rate(problem.into_response(), taken)))?;
    Ok(Admitted { principal: Some(principal), taken })
}

/// Who asks. Whoever fails to prove it does so only so often.
async fn logged_in(app: &App, parts: &Parts, peer: &Peer) -> Result<Arc<Principal>, Response> {
    let address = crate::http::rate::client(peer.address);
    // Of an address that has failed too often, nothing is checked that costs more than an answer. It may be a proxy's, and others
    // that are behind it know what they show to be right: that passes.
    let effort = if app.rates.is_exhausted(&address) { Effort::Small } else { Effort::Full };
    let login = app.login.principal(&app.store, &app.changes, &parts.headers, peer, effort);
    let error = match login.await {
        Ok(principal) => return Ok(principal),
        Err(error) => error,
    };
    let (problem, challenge) = match error {
        LoginError::Problem(problem) => return Err(problem.into_response()),
        LoginError::Unavailable => {
            return Err(Problem::new(Kind::LoginUnavailable, "nothing was done").into_response());
        }
        LoginError::Unchecked => return Err(limited(app.rates.take(&address))),
        LoginError::Missing => {
            (Problem::new(Kind::Unauthenticated, "this needs a login"), CHALLENGE.to_owned())
        }
        LoginError::Invalid(why) => {
            let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{why}\"");
            (Problem::new(Kind::Unauthenticated, why), challenge)
        }
    };
    metrics::counter!("http_logins_refused_total").increment(1);
    tracing::debug!(address = %peer.address, "a login was refused");
    let taken = app.rates.take(&address);
    if let Some(Taken { wait: Some(_), .. }) = taken {
        return Err(limited(taken));
    }
    let mut response = problem.into_response();
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    Err(response)
}

/// RFC 6750.
const CHALLENGE: &str = "Bearer realm=\"novacron\"";

fn limited(taken: Option<Taken>) -> Response {
    let problem = Problem::new(Kind::RateLimited, "more requests than this principal or address may make");
    with_rate(problem.into_response(), taken)
}

/// Puts onto an answer how many more requests there may be.
pub(crate) fn with_rate(mut response: Response, taken: Option<Taken>) -> Response {
    if let Some(taken) = taken {
        taken.write(response.headers_mut());
    }
    response
}

/// There is no such path, or it does not have this method.
fn no_operation(app: &App, method: &Method, path: Option<&str>, uri: &Uri) -> Response {
    let Some(path) = path else { return Problem::new(Kind::NoRoute, uri.path()).into_response() };
    let detail = format!("it has no {method}; the header Allow says which it has");
    let mut response = Problem::new(Kind::MethodNotAllowed, detail).into_response();
    if let Ok(allow) = HeaderValue::from_str(&app.rules.methods(path)) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// Whether a request is meant for a name of this machine. A page of another site can give its own name the address 127.0.0.1
/// (DNS rebinding), and then it is of the same site as this server; only the name that it asked for gives it away.
fn is_of_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    });
    name.is_some_and(|name| {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:8080", true),
            ("127.0.0.2", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1:8080", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_of_this_machine(&headers, &Uri::from_static("/api/v1/vms")), expected, "{host:?}");
        }
        assert!(!is_of_this_machine(&HeaderMap::new(), &Uri::from_static("/")));
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        assert!(!is_of_this_machine(&headers, &Uri::from_static("http://evil.example/")));
    }
}
