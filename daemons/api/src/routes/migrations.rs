//! Migrations: jobs that move a VM's data from one node to another.

use std::sync::Arc;

use axum::{Extension, extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{events, jobs, nodes, vms};
use crate::{
    app::App,
    audit::Recording,
    auth::{principal::Principal, role::Role},
    http::{
        extract::{Json, Name, Query},
        idempotency::Request,
        page::Page,
        problem::{FieldError, Kind, Problem},
    },
    jobs::record::{Job, MIGRATE, Migration, Moves, Work},
    vm::{LABEL, NODE, is_label, is_node},
};

const PATH: &str = "/api/v1/dwcp/migrations";

/// Which VM goes where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMigration {
    /// Its name.
    #[schema(max_length = 63, example = "db-1")]
    vm: String,
    /// The node that has its data; the VM's `node` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, example = "node-a")]
    from: Option<String>,
    /// The node that gets it.
    #[schema(min_length = 1, max_length = 255, example = "node-b")]
    to: String,
}

fn wrong(field: &str, detail: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError { field: field.to_owned(), detail: detail.into() }])
}

impl NewMigration {
    /// What of it cannot be, whatever there is.
    pub(crate) fn errors(&self) -> Vec<(&'static str, &'static str)> {
        let nodes = [("from", self.from.as_ref()), ("to", Some(&self.to))];
        let mut errors: Vec<_> = nodes
            .into_iter()
            .filter(|(_, node)| node.is_some_and(|node| !is_node(node)))
            .map(|(field, _)| (field, NODE))
            .collect();
        if !is_label(&self.vm) {
            errors.push(("vm", LABEL));
        }
        errors
    }

    /// The job, of what the inventory and the register of nodes say now.
    pub(crate) async fn migration(self, app: &App) -> Result<Migration, Problem> {
        let Self { vm, from, to } = self;
        let kv = app.store.get(&vms::key(&vm)).await?;
        let found = kv.as_ref().and_then(|kv| Some((kv.create_revision, vms::parsed(kv)?)));
        let (made_at, found) =
            found.ok_or_else(|| wrong("vm", format!("expected a VM: there is no {vm:?}")))?;
        let moves = Some(Moves { made_at, node: found.node.clone() });
        let from = from.or(found.node).ok_or_else(|| {
            wrong("from", "expected a node, since the VM does not say which one has its data")
        })?;
        for (field, node) in [("from", &from), ("to", &to)] {
            if !is_node(node) {
                return Err(wrong(field, NODE));
            }
        }
        if from == to {
            return Err(wrong("to", "expected another node than the one that has the data"));
        }
        let running = async |field: &str, node: &str| {
            let entry = nodes::found(&app.store, node).await?;
            entry.ok_or_else(|| wrong(field, format!("expected a node whose agent runs, not {node:?}")))
        };
        let (source, target) = (running("from", &from).await?, running("to", &to).await?);
        let (from_region, to_region) = (source.region, target.region);
        Ok(Migration { vm, from, to, moves, region: found.region, from_region, to_region })
    }
}

/// Migrates a VM
///
/// The folder of its name goes from one node's `transfers.from` to the other's `transfers.into`, verified; what is there
/// already is not sent again. When all has arrived, the VM gets the node, and its region. What the first node has stays there.
#[utoipa::path(post, path = "/api/v1/dwcp/migrations", operation_id = "create_migration", tag = "migrations",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated with it, the request is done once and answered alike, for a day")),
    request_body = NewMigration,
    responses((status = 202, body = Job, headers(("ETag" = String), ("Location" = String)))))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    headers: HeaderMap,
    Json { value: new, bytes }: Json<NewMigration>,
) -> Result<Response, Problem> {
    let request = Request::new(&headers, &principal.id, PATH, &bytes)?;
    if let Some(replayed) = request.replayed(&app.store).await? {
        return Ok(replayed);
    }
    let migration = new.migration(&app).await?;
    let work = Work::Migrate(migration);
    for region in work.regions() {
        principal.require(Role::Operator, region)?;
    }
    if let Some(lock) = work.lock()
        && let Some(kv) = app.store.get(&lock).await?
    {
        let id = String::from_utf8_lossy(&kv.value);
        return Err(Problem::new(Kind::Exists, format!("the VM is being migrated by job {id}")));
    }
    jobs::begin(&app, &recording, &principal, request, PATH, work).await
}

/// Lists migrations
///
/// Those all of whose regions the caller may look at, in the order in which they were made, with those that have ended long ago.
#[utoipa::path(get, path = "/api/v1/dwcp/migrations", operation_id = "list_migrations", tag = "migrations",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
        ("history" = Option<bool>, Query, description = "`false`: without those that are in the database alone"),
    ),
    responses((status = 200, body = Page<Job>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<jobs::JobsQuery>,
) -> Result<axum::Json<Page<Job>>, Problem> {
    jobs::listed(&app, query, MIGRATE, |job| jobs::check(&principal, Role::Viewer, job).is_ok()).await
}

/// One migration
#[utoipa::path(get, path = "/api/v1/dwcp/migrations/{id}", operation_id = "get_migration", tag = "migrations",
    params(
        ("id" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "304 if this is its ETag"),
    ),
    responses((status = 200, body = Job, headers(("ETag" = String))), (status = 304, description = "It has not changed")))]
pub(crate) async fn get(
    app: State<Arc<App>>,
    principal: Extension<Arc<Principal>>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check(&app, &id).await?;
    jobs::get(app, principal, Name(id), headers).await
}

/// A migration's progress
///
/// As the events of any job.
#[utoipa::path(get, path = "/api/v1/dwcp/migrations/{id}/events", operation_id = "follow_migration", tag = "migrations",
    params(
        ("id" = String, Path),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was taken"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The migration has ended, and its end was told"),
    ))]
pub(crate) async fn follow(
    app: State<Arc<App>>,
    principal: Extension<Arc<Principal>>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check(&app, &id).await?;
    events::follow(app, principal, Name(id), headers).await
}

/// Cancels a migration
///
/// What has arrived stays where it is, and another migration goes on from there. The VM stays on the node that it was on.
#[utoipa::path(post, path = "/api/v1/dwcp/migrations/{id}/cancel", operation_id = "cancel_migration", tag = "migrations",
    params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = 202, body = Job)))]
pub(crate) async fn cancel(
    app: State<Arc<App>>,
    principal: Extension<Arc<Principal>>,
    recording: Extension<Arc<Recording>>,
    Name(id): Name,
) -> Result<Response, Problem> {
    check(&app, &id).await?;
    jobs::cancel(app, principal, recording, Name(id)).await
}

/// Other jobs are not here.
async fn check(app: &App, id: &str) -> Result<(), Problem> {
    match jobs::found(app, id).await {
        Ok((_, Job { work: Work::Migrate(_), .. })) => Ok(()),
        Err(problem) if problem.kind != Kind::NotFound => Err(problem),
        _ => Err(Problem::not_found("migration", id)),
    }
}
