//! The inventory of virtual machines: what there should be. That they are so is for others to see to.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use consensus_proto::{etcdserverpb::RequestOp, mvccpb::KeyValue};
use serde::Deserialize;

use crate::{
    app::App,
    audit::{Before, Recording, Was},
    auth::{
        principal::Principal,
        role::{ALL, Role},
    },
    http::{
        condition::{Condition, etag, has},
        extract::{Json, Name, Query},
        idempotency::{Answer, Effect, Request},
        page::{Page, Place},
        problem::{FieldError, Kind, Problem},
    },
    store::{delete, is_absent, is_at, is_there, put, read, with_before},
    vm::Vm,
};

/// Entries in the store.
pub(crate) const PREFIX: &str = "/novacron/vms/";
const PATH: &str = "/api/v1/vms";

/// How often it is tried to change a VM that somebody else changes, where any state of it will do.
const ATTEMPTS_MAX: usize = 16;

/// Which VMs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    region: Option<String>,
}

/// An entry as it is in the store; `None`, and a line in the log, for what somebody else wrote there.
pub(crate) fn parsed(kv: &KeyValue) -> Option<Vm> {
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| {
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "an entry in the store");
        })
        .ok()
}

pub(crate) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

pub(crate) fn text(vm: &Vm) -> Vec<u8> {
    serde_json::to_vec(vm).expect("texts and numbers are JSON")
}

fn checked(vm: &Vm) -> Result<(), Problem> {
    let errors = vm.errors();
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}

fn answer(status: StatusCode, vm: &Vm, revision: i64) -> Response {
    (status, [(header::ETAG, etag(revision))], axum::Json(vm)).into_response()
}

/// Lists VMs
///
/// Those of the regions that the caller may look at, by pages, in the order of their names; all pages of a list are of one moment.
#[utoipa::path(get, path = "/api/v1/vms", operation_id = "list_vms", tag = "vms",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
        ("region" = Option<String>, Query, description = "Only those of this region"),
    ),
    responses((status = 200, body = Page<Vm>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Vm>>, Problem> {
    if let Some(region) = &query.region {
        principal.require(Role::Viewer, region)?;
    }
    let place = Place::new(query.limit, query.cursor.as_deref())?;
    let asked = |vm: &Vm| query.region.as_ref().is_none_or(|region| *region == vm.region);
    let fits = |vm: &Vm| asked(vm) && principal.sees(Some(&vm.region));
    let page = place.read(&app.store, PREFIX, |_, kv| parsed(kv).filter(fits));
    Ok(axum::Json(page.await?))
}

/// Makes a VM
#[utoipa::path(post, path = "/api/v1/vms", operation_id = "create_vm", tag = "vms",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated with it, the request is done once and answered alike, for a day")),
    request_body = Vm,
    responses((status = 201, body = Vm, headers(("ETag" = String), ("Location" = String)))))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    headers: HeaderMap,
    Json { value: vm, bytes }: Json<Vm>,
) -> Result<Response, Problem> {
    checked(&vm)?;
    principal.require(Role::Operator, &vm.region)?;
    let request = Request::new(&headers, &principal.id, PATH, &bytes)?;
    if let Some(replayed) = request.replayed(&app.store).await? {
        return Ok(replayed);
    }
    let effect = Effect {
        compare: vec![is_absent(&key(&vm.name))],
        then: vec![put(&key(&vm.name), text(&vm), 0)],
        answer: Answer {
            status: StatusCode::CREATED.as_u16(),
            location: format!("{PATH}/{}", vm.name),
            body: serde_json::to_value(&vm).expect("texts and numbers are JSON"),
        },
    };
    let exists = || Problem::new(Kind::Exists, format!("there is a VM {:?}", vm.name));
    request.done(&app, &recording, effect).await?.ok_or_else(exists)
}

/// One VM
#[utoipa::path(get, path = "/api/v1/vms/{name}", operation_id = "get_vm", tag = "vms",
    params(
        ("name" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "304 if this is its ETag"),
    ),
    responses((status = 200, body = Vm, headers(("ETag" = String))), (status = 304, description = "It has not changed")))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kv = app.store.get(&key(&name)).await?.ok_or_else(|| Problem::not_found("VM", &name))?;
    let vm = readable(&kv)?;
    principal.require(Role::Viewer, &vm.region)?;
    if has(&headers, kv.mod_revision)? {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(kv.mod_revision))]).into_response());
    }
    Ok(answer(StatusCode::OK, &vm, kv.mod_revision))
}

/// Replaces a VM, or makes it
///
/// `If-Match` with its ETag (or `*`) replaces it, `If-None-Match: *` makes it; 428 without either, 412 if it is not so.
#[utoipa::path(put, path = "/api/v1/vms/{name}", operation_id = "replace_vm", tag = "vms",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "Its ETag, or *"),
        ("If-None-Match" = Option<String>, Header, description = "*"),
    ),
    request_body = Vm,
    responses(
        (status = 200, body = Vm, headers(("ETag" = String))),
        (status = 201, body = Vm, headers(("ETag" = String), ("Location" = String))),
    ))]
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Name(name): Name,
    headers: HeaderMap,
    Json { value: vm, .. }: Json<Vm>,
) -> Result<Response, Problem> {
    if vm.name != name {
        let detail = "expected the name of the path: a VM has one name for its life".to_owned();
        return Err(Problem::invalid(vec![FieldError { field: "name".to_owned(), detail }]));
    }
    checked(&vm)?;
    principal.require(Role::Operator, &vm.region)?;
    let condition = Condition::of(&headers)?;
    let key = key(&name);
    if condition != Condition::Absent {
        let change = Change {
            name: &name,
            condition,
            then: put(&key, text(&vm), 0),
            recording: &recording,
            status: StatusCode::OK,
        };
        let (before, revision) = changed(&app, &principal, change).await?;
        return Ok((Extension(Before(before)), answer(StatusCode::OK, &vm, revision)).into_response());
    }
    let location = format!("{PATH}/{name}");
    let record = recording.entry(&app.audit.outbox, StatusCode::CREATED, &location, Was::Absent)?;
    let then = vec![put(&key, text(&vm), 0), record];
    let mut outcome = app.store.txn("put", vec![is_absent(&key)], then, vec![read(&key)]).await?;
    if !outcome.held {
        return Err(failed(condition, &name, outcome.read(0)));
    }
    let mut response = answer(StatusCode::CREATED, &vm, outcome.revision);
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Removes a VM
///
/// `If-Match` with its ETag (or `*`); 428 without, 412 if it is not so.
#[utoipa::path(delete, path = "/api/v1/vms/{name}", operation_id = "remove_vm", tag = "vms",
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
    let change = Change {
        name: &name,
        condition,
        then: delete(&key(&name)),
        recording: &recording,
        status: StatusCode::NO_CONTENT,
    };
    let (before, _) = changed(&app, &principal, change).await?;
    Ok((StatusCode::NO_CONTENT, Extension(Before(before))).into_response())
}

/// What is to be done to a VM that is there.
struct Change<'a> {
    name: &'a str,
    condition: Condition,
    then: RequestOp,
    recording: &'a Recording,
    /// What is answered then.
    status: StatusCode,
}

impl Change<'_> {
    fn record(&self, app: &App, was: Was<'_>) -> Result<RequestOp, Problem> {
        Ok(self.recording.entry(&app.audit.outbox, self.status, "", was)?)
    }
}

/// Does something to a VM that is there, if the principal may in the region that it is in. The revisions before and after.
async fn changed(app: &App, principal: &Principal, change: Change<'_>) -> Result<(i64, i64), Problem> {
    match principal.require(Role::Operator, ALL) {
        Ok(()) => changed_wherever(app, change).await,
        Err(_) => changed_in_region(app, principal, change).await,
    }
}

/// For who may in all regions: nothing has to be known of it first.
async fn changed_wherever(app: &App, change: Change<'_>) -> Result<(i64, i64), Problem> {
    let key = key(change.name);
    // To the store, what is not there is at revision 0.
    let mut compare = vec![is_there(&key)];
    if let Condition::At(revision) = change.condition {
        compare.push(is_at(&key, revision));
    }
    let record = change.record(app, Was::Read(&key))?;
    let then = vec![with_before(change.then), record];
    let mut outcome = app.store.txn("change", compare, then, vec![read(&key)]).await?;
    match (outcome.held, outcome.read(0)) {
        (true, before) => Ok((before.map_or(0, |kv| kv.mod_revision), outcome.revision)),
        (false, found) => Err(failed(change.condition, change.name, found)),
    }
}

/// For who may in some: it is done to the state that was looked at, or not at all.
async fn changed_in_region(
    app: &App,
    principal: &Principal,
    change: Change<'_>,
) -> Result<(i64, i64), Problem> {
    let (key, name, condition) = (key(change.name), change.name, change.condition);
    for _ in 0..ATTEMPTS_MAX {
        let kv = app.store.get(&key).await?.ok_or_else(|| Problem::not_found("VM", name))?;
        principal.require(Role::Operator, &readable(&kv)?.region)?;
        if let Condition::At(revision) = condition
            && revision != kv.mod_revision
        {
            return Err(failed(condition, name, Some(kv)));
        }
        let compare = vec![is_at(&key, kv.mod_revision)];
        let then = vec![change.then.clone(), change.record(app, Was::At(kv.mod_revision))?];
        let outcome = app.store.txn("change", compare, then, Vec::new()).await?;
        if outcome.held {
            return Ok((kv.mod_revision, outcome.revision));
        }
    }
    Err(Problem::new(Kind::Busy, "the VM changes all the time; nothing was done"))
}

fn readable(kv: &KeyValue) -> Result<Vm, Problem> {
    parsed(kv).ok_or_else(|| Problem::new(Kind::Internal, "its entry cannot be read"))
}

/// Why a condition does not hold.
fn failed(condition: Condition, name: &str, found: Option<KeyValue>) -> Problem {
    match (condition, found) {
        (Condition::Absent, _) => Problem::new(Kind::ConditionFailed, format!("there is a VM {name:?}")),
        (_, None) => Problem::not_found("VM", name),
        (_, Some(kv)) => {
            Problem::new(Kind::ConditionFailed, format!("its ETag is \"{}\" by now", kv.mod_revision))
        }
    }
}
