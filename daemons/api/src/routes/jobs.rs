//! Jobs: made, looked at, cancelled.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use consensus_proto::mvccpb::KeyValue;
use serde::Deserialize;

use crate::{
    app::{App, now_ms, random},
    audit::{Before, Recording, Was},
    auth::{principal::Principal, role::Role},
    database::Database,
    http::{
        condition::{etag, has},
        extract::{Json, Name, Query},
        idempotency::{Answer, Effect, Request},
        page::{Page, Place, Rest},
        problem::{FieldError, Kind, Problem},
    },
    jobs::{
        history::{self, Ended},
        queue,
        record::{Job, Work},
    },
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

/// A job, and the revision at which it was written last.
pub(super) async fn found(app: &App, id: &str) -> Result<(i64, Job), Problem> {
    // In this order: it goes from the store when the database has it.
    let Some(kv) = app.store.get(&format!("{}{id}", queue::JOBS)).await? else {
        let ended = history::find(&app.database, id).await?;
        let Ended { revision, job } = ended.ok_or_else(|| Problem::not_found("job", id))?;
        return Ok((revision, job));
    };
    let job = queue::parsed(&kv).ok_or_else(|| Problem::new(Kind::Internal, "its record cannot be read"))?;
    Ok((kv.mod_revision, job))
}

/// Which page of which jobs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobsQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    history: Option<bool>,
}

/// Which jobs are listed: of this kind, if it is not empty, and those that fit.
struct Listed<'a, F> {
    database: &'a Database,
    kind: &'a str,
    fits: F,
}

impl<F: Fn(&Job) -> bool> Listed<'_, F> {
    fn has(&self, job: &Job) -> bool {
        (self.kind.is_empty() || job.work.kind() == self.kind) && (self.fits)(job)
    }
}

impl<F: Fn(&Job) -> bool + Sync> Rest<Job> for Listed<'_, F> {
    async fn behind(&self, after: &str, limit: usize) -> Result<Vec<(String, Option<Job>)>, Problem> {
        let jobs = history::list(self.database, after, self.kind, limit).await?;
        Ok(jobs.into_iter().map(|(id, job)| (id, job.filter(|job| self.has(job)))).collect())
    }
}

/// A page of jobs.
pub(super) async fn listed(
    app: &App,
    query: JobsQuery,
    kind: &str,
    fits: impl Fn(&Job) -> bool + Sync,
) -> Result<axum::Json<Page<Job>>, Problem> {
    let place = Place::new(query.limit, query.cursor.as_deref())?;
    let listed = Listed { database: &app.database, kind, fits };
    let in_store = |_: &str, kv: &KeyValue| queue::parsed(kv).filter(|job| listed.has(job));
    let page = match query.history {
        Some(false) => place.read(&app.store, queue::JOBS, in_store).await?,
        _ => place.read_both(&app.store, queue::JOBS, in_store, &listed).await?,
    };
    Ok(axum::Json(page))
}

/// Lists jobs
///
/// Those all of whose regions the caller may look at, in the order in which they were made, with those that have ended long ago.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
        ("history" = Option<bool>, Query, description = "`false`: without those that are in the database alone"),
    ),
    responses((status = 200, body = Page<Job>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<JobsQuery>,
) -> Result<axum::Json<Page<Job>>, Problem> {
    listed(&app, query, "", |job| check(&principal, Role::Viewer, job).is_ok()).await
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
    begin(&app, &recording, &principal, request, PATH, work).await
}

/// Puts a job into the queue.
pub(super) async fn begin(
    app: &App,
    recording: &Recording,
    principal: &Principal,
    request: Request,
    path: &str,
    work: Work,
) -> Result<Response, Problem> {
    if let Some(detail) = queue::is_full(&app.store).await? {
        return Err(Problem::new(Kind::Busy, detail));
    }
    let traceparent = novacron_trace::traceparent();
    let created_by = Some(principal.id.clone());
    let job = Job { traceparent, created_by, ..Job::new(work, now_ms(), random()) };
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
    let (revision, job) = found(&app, &id).await?;
    check(&principal, Role::Viewer, &job)?;
    if has(&headers, revision)? {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(revision))]).into_response());
    }
    Ok((StatusCode::OK, [(header::ETAG, etag(revision))], axum::Json(job)).into_response())
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
        let (before, found) = found(&app, &id).await?;
        check(&principal, Role::Operator, &found)?;
        let mut job = found.clone();
        if !job.cancel(now_ms()) {
            return Err(Problem::new(Kind::Ended, format!("it is {:?}", job.state).to_lowercase()));
        }
        let status = if job.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let revision = if job == found {
            Some(before)
        } else {
            let record = recording.entry(&app.audit.outbox, status, "", Was::At(before))?;
            queue::cancel(&app.store, before, &job, record).await?
        };
        if let Some(revision) = revision {
            return Ok((
                status,
                Extension(Before(before)),
                [(header::ETAG, etag(revision))],
                axum::Json(job),
            )
                .into_response());
        }
    }
    Err(Problem::new(Kind::Busy, "the job changes all the time; nothing was done"))
}
