//! Jobs: made, looked at, cancelled.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use consensus_proto::mvccpb::KeyValue;

use crate::{
    app::{App, now_ms, random},
    audit::{Before, Recording, Was},
    auth::{principal::Principal, role::Role},
    http::{
        condition::{etag, has},
        extract::{Json, Name, Query},
        idempotency::{Answer, Effect, Request},
        page::{Page, PageQuery},
        problem::{FieldError, Kind, Problem},
    },
    jobs::{
        queue,
        record::{Job, Work},
    },
    store::Store,
    vm::{LABEL, is_label},
};

const PATH: &str = "/api/v1/jobs";
/// How often it is tried to cancel a job that changes meanwhile.
const CANCEL_ATTEMPTS_MAX: usize = 16;

fn checked(work: &Work) -> Result<(), Problem> {
    let Work::MoveRegion { from, to } = work else {
        let detail = "expected another kind: migrations are made at /api/v1/dwcp/migrations".to_owned();
        return Err(Problem::invalid(vec![FieldError { field: "kind".to_owned(), detail }]));
    };
    let wrong = |field: &str, detail: &str| FieldError { field: field.to_owned(), detail: detail.to_owned() };
    let mut errors = Vec::new();
    for (field, region) in [("from", from), ("to", to)] {
        if !is_label(region) {
            errors.push(wrong(field, LABEL));
        }
    }
    if from == to {
        errors.push(wrong("to", "expected another region"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}

/// Refuses unless the principal has the role in each region that the job is about.
pub(super) fn check(principal: &Principal, role: Role, job: &Job) -> Result<(), Problem> {
    job.work.regions().into_iter().try_for_each(|region| principal.require(role, region))
}

/// A job, and its entry.
pub(super) async fn found(store: &Store, id: &str) -> Result<(KeyValue, Job), Problem> {
    let kv = store.get(&format!("{}{id}", queue::JOBS)).await?;
    let kv = kv.ok_or_else(|| Problem::not_found("job", id))?;
    let job = queue::parsed(&kv).ok_or_else(|| Problem::new(Kind::Internal, "its record cannot be read"))?;
    Ok((kv, job))
}

/// Lists jobs
///
/// Those all of whose regions the caller may look at, in the order in which they were made. Jobs that have ended are kept for a week.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
    ),
    responses((status = 200, body = Page<Job>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Job>>, Problem> {
    let seen = |job: &Job| check(&principal, Role::Viewer, job).is_ok();
    let page = query.place()?.read(&app.store, queue::JOBS, |_, kv| queue::parsed(kv).filter(seen));
    Ok(axum::Json(page.await?))
}

/// Makes a job
#[utoipa::path(post, path = "/api/v1/jobs", operation_id = "create_job", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated with it, the request is done once and answered alike, for a day")),
    request_body = Work,
    responses((status = 202, body = Job, headers(("ETag" = String), ("Location" = String)))))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    headers: HeaderMap,
    Json { value: work, bytes }: Json<Work>,
) -> Result<Response, Problem> {
    checked(&work)?;
    for region in work.regions() {
        principal.require(Role::Operator, region)?;
    }
    let request = Request::new(&headers, &principal.id, PATH, &bytes)?;
    if let Some(replayed) = request.replayed(&app.store).await? {
        return Ok(replayed);
    }
    begin(&app, &recording, request, PATH, work).await
}

/// Puts a job into the queue.
pub(super) async fn begin(
    app: &App,
    recording: &Recording,
    request: Request,
    path: &str,
    work: Work,
) -> Result<Response, Problem> {
    if queue::depth(&app.store).await? >= queue::OPEN_MAX as u64 {
        let detail = format!("{} jobs have not come to their end", queue::OPEN_MAX);
        return Err(Problem::new(Kind::Busy, detail));
    }
    let traceparent = novacron_trace::traceparent();
    let job = Job { traceparent, ..Job::new(work, now_ms(), random()) };
    let queue::Change { compare, then } = queue::made(&job);
    let answer = Answer {
        status: StatusCode::ACCEPTED.as_u16(),
        location: format!("{path}/{}", job.id),
        body: serde_json::to_value(&job).expect("texts and numbers are JSON"),
    };
    let done = request.done(app, recording, Effect { compare, then, answer }).await?;
    app.jobs_wake.notify_one();
    done.ok_or_else(|| Problem::new(Kind::Busy, "another of its kind was made meanwhile; nothing was done"))
}

/// One job
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(
        ("id" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "304 if this is its ETag"),
    ),
    responses((status = 200, body = Job, headers(("ETag" = String))), (status = 304, description = "It has not changed")))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (kv, job) = found(&app.store, &id).await?;
    check(&principal, Role::Viewer, &job)?;
    if has(&headers, kv.mod_revision)? {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(kv.mod_revision))]).into_response());
    }
    Ok((StatusCode::OK, [(header::ETAG, etag(kv.mod_revision))], axum::Json(job)).into_response())
}

/// Cancels a job
///
/// One that waits has ended then (200), one that runs will soon (202). Cancelling it again changes nothing.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = 202, body = Job)))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Name(id): Name,
) -> Result<Response, Problem> {
    for _ in 0..CANCEL_ATTEMPTS_MAX {
        let (kv, found) = found(&app.store, &id).await?;
        check(&principal, Role::Operator, &found)?;
        let mut job = found.clone();
        if !job.cancel(now_ms()) {
            return Err(Problem::new(Kind::Ended, format!("it is {:?}", job.state).to_lowercase()));
        }
        let status = if job.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let revision = if job == found {
            Some(kv.mod_revision)
        } else {
            let record = recording.entry(&app.audit.outbox, status, "", Was::At(kv.mod_revision))?;
            queue::cancel(&app.store, &kv, &job, record).await?
        };
        if let Some(revision) = revision {
            let before = Extension(Before(kv.mod_revision));
            return Ok((status, before, [(header::ETAG, etag(revision))], axum::Json(job)).into_response());
        }
    }
    Err(Problem::new(Kind::Busy, "the job changes all the time; nothing was done"))
}
