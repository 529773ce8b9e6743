//! Schedules: what makes jobs at its times.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use consensus_proto::mvccpb::KeyValue;

use crate::{
    app::{App, now_ms},
    audit::{Before, Recording, Was},
    auth::{principal::Principal, role::Role},
    http::{
        condition::{Condition, etag},
        extract::{Json, Name, Query},
        idempotency::{Answer, Effect, Request},
        page::{Page, PageQuery},
        problem::{FieldError, Kind, Problem},
    },
    schedules::{
        hand_out::{RUNS, SCHEDULES, parsed},
        record::{Kept, Runs, Schedule},
        worker::SCHEDULES_MAX,
    },
    store::{delete, is_absent, is_at, name_of, put},
};

const PATH: &str = "/api/v1/schedules";
/// How often it is tried to change a schedule that somebody else changes, where any state of it will do.
const ATTEMPTS_MAX: usize = 16;

fn key(name: &str) -> String {
    format!("{SCHEDULES}{name}")
}

fn runs_key(name: &str) -> String {
    format!("{RUNS}{name}")
}

fn text(kept: &Kept) -> Vec<u8> {
    serde_json::to_vec(kept).expect("texts and numbers are JSON")
}

/// Refuses unless the principal has the role in each of its regions.
fn check(principal: &Principal, role: Role, schedule: &Schedule) -> Result<(), Problem> {
    schedule.regions.iter().try_for_each(|region| principal.require(role, region))
}

/// Refuses what cannot be.
fn checked(schedule: &Schedule) -> Result<(), Problem> {
    schedule.timing(now_ms()).map(drop).map_err(Problem::invalid)
}

fn answer(status: StatusCode, schedule: &Schedule, revision: i64) -> Response {
    (status, [(header::ETAG, etag(revision))], axum::Json(schedule)).into_response()
}

fn readable(kv: &KeyValue) -> Result<Kept, Problem> {
    parsed(kv).ok_or_else(|| Problem::new(Kind::Internal, "its entry cannot be read"))
}

/// A schedule, the revision of what somebody wrote, and what became of it.
async fn found(app: &App, name: &str) -> Result<(Kept, i64, Runs), Problem> {
    let kv = app.store.get(&key(name)).await?.ok_or_else(|| Problem::not_found("schedule", name))?;
    let runs = app.store.get(&runs_key(name)).await?.and_then(|kv| parsed(&kv)).unwrap_or_default();
    Ok((readable(&kv)?, kv.mod_revision, runs))
}

/// Lists schedules
///
/// Those all of whose regions the caller may look at, in the order of their names. Their `status` is of now, everything else of
/// the moment of the list.
#[utoipa::path(get, path = "/api/v1/schedules", operation_id = "list_schedules", tag = "schedules",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
    ),
    responses((status = 200, body = Page<Schedule>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Schedule>>, Problem> {
    let seen = |kept: &Kept| check(&principal, Role::Viewer, &kept.schedule).is_ok();
    let fit = |_: &str, kv: &KeyValue| parsed::<Kept>(kv).filter(seen);
    let Page { items, next } = query.place()?.read(&app.store, SCHEDULES, fit).await?;
    let mut runs = HashMap::new();
    if let (Some(first), Some(last)) = (items.first(), items.last()) {
        let found = app.store.span(RUNS, &first.schedule.name, &last.schedule.name).await?;
        runs.extend(found.iter().filter_map(|kv| Some((name_of(RUNS, &kv.key)?.to_owned(), parsed(kv)?))));
    }
    let now = now_ms();
    let items = items.into_iter().map(|kept| {
        let runs = runs.remove(&kept.schedule.name).unwrap_or_default();
        kept.shown(runs, now)
    });
    Ok(axum::Json(Page { items: items.collect(), next }))
}

/// Makes a schedule
///
/// From then on it makes a job whenever it is due. Each due instant makes one job, at whichever replica, or none, and then
/// `status` says why. Its jobs are made in its own name: also when who wrote it has lost the role.
#[utoipa::path(post, path = "/api/v1/schedules", operation_id = "create_schedule", tag = "schedules",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated with it, the request is done once and answered alike, for a day")),
    request_body = Schedule,
    responses((status = 201, body = Schedule, headers(("ETag" = String), ("Location" = String)))))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    headers: HeaderMap,
    Json { value: schedule, bytes }: Json<Schedule>,
) -> Result<Response, Problem> {
    checked(&schedule)?;
    check(&principal, Role::Operator, &schedule)?;
    let request = Request::new(&headers, &principal.id, PATH, &bytes)?;
    if let Some(replayed) = request.replayed(&app.store).await? {
        return Ok(replayed);
    }
    let effect = made(&app, &principal, schedule).await?;
    let exists = || Problem::new(Kind::Exists, "there is a schedule of this name");
    request.done(&app, &recording, effect).await?.ok_or_else(exists)
}

/// What makes a schedule, and what is answered then.
async fn made(app: &App, principal: &Principal, schedule: Schedule) -> Result<Effect, Problem> {
    if app.store.count(SCHEDULES).await? >= SCHEDULES_MAX as u64 {
        return Err(Problem::new(Kind::Busy, format!("there are {SCHEDULES_MAX} schedules; remove some")));
    }
    let name = schedule.name.clone();
    let kept = Kept { schedule, since_ms: now_ms(), written_by: principal.id.clone() };
    let shown = kept.clone().shown(Runs::default(), kept.since_ms);
    Ok(Effect {
        compare: vec![is_absent(&key(&name))],
        // What became of one of this name before is of that one.
        then: vec![put(&key(&name), text(&kept), 0), delete(&runs_key(&name))],
        answer: Answer {
            status: StatusCode::CREATED.as_u16(),
            location: format!("{PATH}/{name}"),
            body: serde_json::to_value(&shown).expect("texts and numbers are JSON"),
        },
    })
}

/// One schedule
///
/// Its ETag is of what somebody wrote: `status` changes without it.
#[utoipa::path(get, path = "/api/v1/schedules/{name}", operation_id = "get_schedule", tag = "schedules",
    params(("name" = String, Path)),
    responses((status = 200, body = Schedule, headers(("ETag" = String)))))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Response, Problem> {
    let (kept, revision, runs) = found(&app, &name).await?;
    check(&principal, Role::Viewer, &kept.schedule)?;
    Ok(answer(StatusCode::OK, &kept.shown(runs, now_ms()), revision))
}

/// Replaces a schedule, or makes it
///
/// `If-Match` with its ETag (or `*`) replaces it, `If-None-Match: *` makes it; 428 without either, 412 if it is not so. With other
/// times, or if it was suspended and is not any more, it is due from then on: what was before is not made up for.
#[utoipa::path(put, path = "/api/v1/schedules/{name}", operation_id = "replace_schedule", tag = "schedules",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "Its ETag, or *"),
        ("If-None-Match" = Option<String>, Header, description = "*"),
    ),
    request_body = Schedule,
    responses(
        (status = 200, body = Schedule, headers(("ETag" = String))),
        (status = 201, body = Schedule, headers(("ETag" = String), ("Location" = String))),
    ))]
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Name(name): Name,
    headers: HeaderMap,
    Json { value: schedule, .. }: Json<Schedule>,
) -> Result<Response, Problem> {
    if schedule.name != name {
        let detail = "expected the name of the path: a schedule has one name for its life".to_owned();
        return Err(Problem::invalid(vec![FieldError { field: "name".to_owned(), detail }]));
    }
    checked(&schedule)?;
    check(&principal, Role::Operator, &schedule)?;
    let condition = Condition::of(&headers)?;
    if condition == Condition::Absent {
        let request = Request::new(&HeaderMap::new(), &principal.id, PATH, b"")?;
        let effect = made(&app, &principal, schedule).await?;
        let exists = || Problem::new(Kind::ConditionFailed, "there is a schedule of this name");
        return request.done(&app, &recording, effect).await?.ok_or_else(exists);
    }
    for _ in 0..ATTEMPTS_MAX {
        let (before, revision, runs) = at(&app, &principal, &name, condition).await?;
        let begins_anew = schedule.begins_anew(&before.schedule);
        let since_ms = if begins_anew { now_ms() } else { before.since_ms };
        let kept = Kept { schedule: schedule.clone(), since_ms, written_by: principal.id.clone() };
        let compare = vec![is_at(&key(&name), revision)];
        let record = recording.entry(&app.audit.outbox, StatusCode::OK, "", Was::At(revision))?;
        let then = vec![put(&key(&name), text(&kept), 0), record];
        let outcome = app.store.txn("put", compare, then, Vec::new()).await?;
        if outcome.held {
            let shown = kept.shown(runs, now_ms());
            return Ok((Extension(Before(revision)), answer(StatusCode::OK, &shown, outcome.revision))
                .into_response());
        }
    }
    Err(busy())
}

/// Removes a schedule
///
/// `If-Match` with its ETag (or `*`); 428 without, 412 if it is not so. Jobs that it has made stay.
#[utoipa::path(delete, path = "/api/v1/schedules/{name}", operation_id = "remove_schedule", tag = "schedules",
    params(("name" = String, Path), ("If-Match" = String, Header, description = "Its ETag, or *")),
    responses((status = 204, description = "It is gone")))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let condition = Condition::of(&headers)?;
    if condition == Condition::Absent {
        return Err(Problem::new(Kind::Malformed, "expected If-Match with the ETag, or *"));
    }
    for _ in 0..ATTEMPTS_MAX {
        let (_, revision, _) = at(&app, &principal, &name, condition).await?;
        let compare = vec![is_at(&key(&name), revision)];
        let record = recording.entry(&app.audit.outbox, StatusCode::NO_CONTENT, "", Was::At(revision))?;
        let then = vec![delete(&key(&name)), delete(&runs_key(&name)), record];
        if app.store.txn("remove schedule", compare, then, Vec::new()).await?.held {
            return Ok((StatusCode::NO_CONTENT, Extension(Before(revision))).into_response());
        }
    }
    Err(busy())
}

/// A schedule that the principal may change, and that is as the condition says.
async fn at(
    app: &App,
    principal: &Principal,
    name: &str,
    condition: Condition,
) -> Result<(Kept, i64, Runs), Problem> {
    let found = found(app, name).await?;
    check(principal, Role::Operator, &found.0.schedule)?;
    match condition {
        Condition::At(revision) if revision != found.1 => {
            Err(Problem::new(Kind::ConditionFailed, format!("its ETag is \"{}\" by now", found.1)))
        }
        _ => Ok(found),
    }
}

fn busy() -> Problem {
    Problem::new(Kind::Busy, "the schedule changes all the time; nothing was done")
}
