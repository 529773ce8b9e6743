//! API tokens: made, looked at, revoked. Who makes or revokes one has to be an administrator of each of its regions.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    audit::{Before, Outbox, Recording, Was},
    auth::{
        principal::Principal,
        role::{ALL, Role},
        token::{NewToken, Record, TOKENS, TOKENS_MAX, Token, key},
    },
    http::{
        condition::etag,
        extract::{Json, Name, Query},
        page::{Page, PageQuery},
        problem::{Kind, Problem},
    },
    store::{Store, delete, is_absent, is_at},
};

pub(crate) const PATH: &str = "/api/v1/tokens";

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    #[serde(flatten)]
    record: Token,
    /// The token itself. It is shown this once.
    token: String,
}

/// Refuses unless the principal administers each region of the token.
fn check(principal: &Principal, token: &Token) -> Result<(), Problem> {
    let missing = token.grants.iter().find(|grant| !principal.grants.allow(Role::Admin, &grant.region));
    missing.map_or(Ok(()), |grant| principal.require(Role::Admin, &grant.region))
}

/// Makes a token, and writes it with its record. Whoever asks has been checked.
pub(crate) async fn make(
    store: &Store,
    outbox: &Outbox,
    recording: &Recording,
    new: NewToken,
    created_by: &str,
) -> Result<(Record, String, i64), Problem> {
    let errors = new.errors();
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    if store.count(TOKENS).await? >= TOKENS_MAX as u64 {
        return Err(Problem::new(Kind::Busy, format!("there are {TOKENS_MAX} tokens; revoke some")));
    }
    let lasts = new.lasts_seconds() as i64;
    let (record, text) = new.made(created_by);
    let recorded = recording.entry(outbox, StatusCode::CREATED, &location(&record.token), Was::Absent)?;
    let lease = store.grant(lasts).await?;
    let compare = vec![is_absent(&key(&record.token.id))];
    let then = vec![record.put(lease), recorded];
    let outcome = store.txn("make token", compare, then, Vec::new()).await?;
    if !outcome.held {
        store.revoke(lease).await;
        return Err(Problem::new(Kind::Busy, "its id is taken; nothing was done"));
    }
    Ok((record, text, outcome.revision))
}

/// Lists tokens
///
/// Those of whose regions the caller is an administrator, without their secrets. What has expired is gone.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "list_tokens", tag = "tokens",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
    ),
    responses((status = 200, body = Page<Token>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Token>>, Problem> {
    let seen = |token: &Token| principal.grants.administer(&token.grants);
    let fit = |_: &str, kv: &_| Record::parsed(kv).map(|record| record.token).filter(seen);
    Ok(axum::Json(query.place()?.read(&app.store, TOKENS, fit).await?))
}

/// Makes a token
///
/// The answer has the token, this once. There is no `Idempotency-Key` for it, since nothing keeps the secret: revoke the token
/// whose answer was lost.
#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "create_token", tag = "tokens",
    request_body = NewToken,
    responses((status = 201, body = Made, headers(("ETag" = String), ("Location" = String)))))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Json { value: new, .. }: Json<NewToken>,
) -> Result<Response, Problem> {
    for grant in &new.grants {
        let region = if grant.is_well_formed() { &grant.region } else { ALL };
        principal.require(Role::Admin, region)?;
    }
    let (record, token, revision) =
        make(&app.store, &app.audit.outbox, &recording, new, &principal.id).await?;
    Ok(created(record.token, token, revision))
}

fn location(token: &Token) -> String {
    format!("{PATH}/{}", token.id)
}

/// What is answered when a token was made.
fn created(record: Token, token: String, revision: i64) -> Response {
    let location = location(&record);
    let made = Made { record, token };
    let mut response =
        (StatusCode::CREATED, [(header::ETAG, etag(revision))], axum::Json(made)).into_response();
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One token
///
/// Without its secret.
#[utoipa::path(get, path = "/api/v1/tokens/{id}", operation_id = "get_token", tag = "tokens",
    params(("id" = String, Path)), responses((status = 200, body = Token, headers(("ETag" = String)))))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(id): Name,
) -> Result<Response, Problem> {
    let (token, revision) = found(&app.store, &id).await?;
    check(&principal, &token)?;
    Ok((StatusCode::OK, [(header::ETAG, etag(revision))], axum::Json(token)).into_response())
}

/// Revokes a token
///
/// It is not valid any more, at no replica after ten seconds. Tokens do not change, so no `If-Match` is needed.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", operation_id = "revoke_token", tag = "tokens",
    params(("id" = String, Path)), responses((status = 204, description = "It is gone")))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Name(id): Name,
) -> Result<Response, Problem> {
    let (token, revision) = found(&app.store, &id).await?;
    check(&principal, &token)?;
    let key = key(&id);
    let record = recording.entry(&app.audit.outbox, StatusCode::NO_CONTENT, "", Was::At(revision))?;
    let then = vec![delete(&key), record];
    let outcome = app.store.txn("revoke token", vec![is_at(&key, revision)], then, Vec::new()).await?;
    if !outcome.held {
        return Err(Problem::not_found("token", &id));
    }
    Ok((StatusCode::NO_CONTENT, Extension(Before(revision))).into_response())
}

async fn found(store: &Store, id: &str) -> Result<(Token, i64), Problem> {
    let kv = store.get(&key(id)).await?.ok_or_else(|| Problem::not_found("token", id))?;
    let record =
        Record::parsed(&kv).ok_or_else(|| Problem::new(Kind::Internal, "its entry cannot be read"))?;
    Ok((record.token, kv.mod_revision))
}
