//! What every request goes through: an id, bounds, the gate, a record if it changes something, a problem document if need be,
//! metrics.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use novacron_trace::{TRACEPARENT, follow};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::Instrument as _;

use super::problem::{Kind, Problem};
use crate::{
    app::App,
    audit::{Record, Recording},
    auth::{
        gate::{Admitted, Refused, admit, with_rate},
        login::Peer,
        principal::Principal,
    },
};

/// The id of a request: taken if it is well-formed, else made.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Longest id that is taken, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// What requests that no route is for are counted as.
const NO_ROUTE: &str = "none";

/// All of it, around a route.
pub(crate) async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = counted(request.method());
    let span = tracing::info_span!("request", id, method, path, status = tracing::field::Empty);
    if let Some(traceparent) = request.headers().get(TRACEPARENT).and_then(|text| text.to_str().ok()) {
        follow(&span, traceparent);
    }
    let mut response = bounded(&app, &id, request, next).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(&path, &id, response);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if app.health.is_draining() {
        // Clients go to another replica with their next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, took) = (response.status().as_u16(), began.elapsed().as_secs_f64());
    span.record("status", status);
    tracing::debug!(parent: &span, took, "answered");
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &[labels[0].clone(), labels[1].clone()])
        .record(took);
    response
}

/// A request within the bounds of number, size and time.
async fn bounded(app: &Arc<App>, id: &str, request: Request, next: Next) -> Response {
    if is_cross_site(&request) {
        return Problem::new(Kind::CrossSite, "Sec-Fetch-Site says cross-site").into_response();
    }
    // Whoever asks whether it is alive is answered always.
    if request.uri().path() == "/healthz" && request.method().is_safe() {
        return next.run(request).await;
    }
    let limits = &app.settings.limits;
    let Ok(permit) = app.requests.clone().try_acquire_owned() else {
        return Problem::new(Kind::Busy, format!("more than {} requests at a time", limits.requests_max))
            .into_response();
    };
    let is_safe = request.method().is_safe();
    let (mut parts, body) = request.into_parts();
    let Admitted { principal, taken } = match timeout(limits.request_timeout, admit(app, &parts)).await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(refused)) => return left_out(app, id, &parts, refused).await,
        Err(_) => return Problem::new(Kind::TimedOut, "nothing was done").into_response(),
    };
    let recording = principal
        .as_ref()
        .filter(|_| !is_safe)
        .map(|principal| Arc::new(Recording::new(begun(app, id, &parts, principal))));
    if let Some(recording) = &recording {
        parts.extensions.insert(recording.clone());
    }
    if let Some(principal) = principal {
        parts.extensions.insert(principal);
    }
    with_rate(admitted(app, permit, recording, Request::from_parts(parts, body), next).await, taken)
}

/// A request that was let on.
async fn admitted(
    app: &Arc<App>,
    permit: OwnedSemaphorePermit,
    recording: Option<Arc<Recording>>,
    request: Request,
    next: Next,
) -> Response {
    let limits = &app.settings.limits;
    let is_safe = request.method().is_safe();
    let (parts, body) = request.into_parts();
    let read = timeout(limits.request_timeout, whole(&parts.headers, body, limits.body_bytes_max));
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) => return problem.into_response(),
        Err(_) => {
            return Problem::new(Kind::BodyTimeout, format!("not within {:?}", limits.request_timeout))
                .into_response();
        }
    };
    let request = Request::from_parts(parts, Body::from(body));
    if is_safe {
        // Of what is only looked at nothing has to come to its end: it ends with its client.
        let work = AssertUnwindSafe(next.run(request)).catch_unwind();
        return match timeout(limits.request_timeout, work).await {
            Ok(Ok(response)) => response,
            // The panic's message is in the log.
            Ok(Err(_)) => Problem::new(Kind::Internal, "the log says more").into_response(),
            Err(_) => Problem::new(Kind::TimedOut, format!("not within {:?}", limits.request_timeout))
                .into_response(),
        };
    }
    let room = match recording {
        Some(_) => app.audit.outbox.room().await,
        None => None,
    };
    // A task of its own: what has begun comes to its end though the client goes, and a panic ends nothing else.
    let app = app.clone();
    let work = async move {
        let response = next.run(request).await;
        if let Some(recording) = recording {
            let ended = recording.ended(&response);
            recording.end(&app.audit, &app.store, ended, room).await;
        }
        drop(permit);
        response
    };
    match timeout(limits.request_timeout, tokio::spawn(work.in_current_span())).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request");
            Problem::new(Kind::Internal, "the log says more").into_response()
        }
        Err(_) => Problem::new(
            Kind::EffectUnknown,
            "no end in time: it may still be done; look before you repeat it",
        )
        .into_response(),
    }
}

fn begun(app: &App, id: &str, parts: &Parts, principal: &Principal) -> Record {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.address.to_string());
    let route = parts.extensions.get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str);
    Record {
        principal: principal.id.clone(),
        name: principal.name.clone(),
        address: peer.unwrap_or_default(),
        method: counted(&parts.method).to_owned(),
        route: route.to_owned(),
        resource: parts.uri.path().to_owned(),
        request_id: id.to_owned(),
        replica: app.settings.replica.clone(),
        ..Record::begun()
    }
}

/// A request that was not let on; recorded, if somebody wanted to change what they may not. Nothing depends on that record.
async fn left_out(app: &App, id: &str, parts: &Parts, refused: Refused) -> Response {
    let Refused { response, principal } = refused;
    if let Some(principal) = principal.filter(|_| !parts.method.is_safe()) {
        let record = begun(app, id, parts, &principal).ended(&response);
        if let Err(error) = app.audit.write(record).await {
            tracing::warn!(%error, "the record of a change that was refused");
        }
    }
    response
}

/// All of a body.
async fn whole(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::BodyTooLarge, format!("more than {max} bytes"));
    let told =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|told| told > max as u64) {
        return Err(too_large());
    }
    to_bytes(body, max).await.map_err(|error| {
        // The only other reason is a connection that broke off, and then nobody reads this.
        tracing::debug!(%error, "a body");
        too_large()
    })
}

/// Something that a page of another site has a browser do. Such a page cannot read answers, as nothing allows it (CORS),
/// and must not cause anything either.
fn is_cross_site(request: &Request) -> bool {
    !request.method().is_safe()
        && request.headers().get(FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

fn request_id(headers: &HeaderMap) -> String {
    let is_good = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_good);
    given.map_or_else(|| format!("{:016x}", crate::app::random()), str::to_owned)
}

/// As it is counted: clients can invent methods.
fn counted(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_if_they_are_well_formed() {
        let long = "a".repeat(65);
        for (given, taken) in [("a-1_b.C", true), ("", false), ("a b", false), ("\"", false), (&long, false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
            let id = request_id(&headers);
            assert_eq!(id == given, taken, "{given:?}");
            assert!(!id.is_empty());
        }
    }

    #[test]
    fn other_sites_may_look_and_not_touch() {
        for (method, site, refused) in [
            ("POST", Some("cross-site"), true),
            ("DELETE", Some("same-site"), true),
            ("GET", Some("cross-site"), false),
            ("POST", Some("same-origin"), false),
            ("POST", None, false),
        ] {
            let mut request = Request::builder().method(method);
            if let Some(site) = site {
                request = request.header(FETCH_SITE, site);
            }
            assert_eq!(is_cross_site(&request.body(Body::empty()).unwrap()), refused, "{method} {site:?}");
        }
    }
}
