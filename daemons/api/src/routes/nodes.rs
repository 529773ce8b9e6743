//! Nodes: what their agents enter into the store while they run.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use consensus_proto::mvccpb::KeyValue;
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{
        principal::Principal,
        role::{ALL, Role},
    },
    http::{
        extract::{Name, Query},
        page::{Page, PageQuery},
        problem::Problem,
    },
    store::{Store, name_of},
};

/// Where agents enter themselves, with a lease.
pub(crate) const PREFIX: &str = "/novacron/nodes/";

/// What an agent enters; later versions may enter more.
#[derive(Deserialize)]
pub(crate) struct Entry {
    pub(crate) address: String,
    pub(crate) region: Option<String>,
}

/// What the agent of a node has entered.
pub(crate) async fn found(store: &Store, name: &str) -> Result<Option<Entry>, StoreError> {
    let kv = store.get(&format!("{PREFIX}{name}")).await?;
    Ok(kv.and_then(|kv| serde_json::from_slice(&kv.value).ok()))
}

/// A node whose agent runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Node {
    /// What it is called.
    name: String,
    /// `HOST:PORT` at which other agents reach its agent.
    address: String,
    /// Its region, if it has one.
    pub(crate) region: Option<String>,
}

pub(crate) fn parsed(name: &str, kv: &KeyValue) -> Option<Node> {
    let read = serde_json::from_slice::<Entry>(&kv.value).inspect_err(|error| {
        tracing::warn!(name, %error, "an agent's entry in the store");
    });
    let Entry { address, region } = read.ok()?;
    Some(Node { name: name.to_owned(), address, region })
}

/// Lists nodes
///
/// Those of the regions that the caller may look at; those without a region are for who may look at all of them.
#[utoipa::path(get, path = "/api/v1/nodes", operation_id = "list_nodes", tag = "cluster",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
    ),
    responses((status = 200, body = Page<Node>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Node>>, Problem> {
    let seen = |node: &Node| principal.sees(node.region.as_deref());
    let page = query.place()?.read(&app.store, PREFIX, |name, kv| parsed(name, kv).filter(seen));
    Ok(Json(page.await?))
}

/// One node
#[utoipa::path(get, path = "/api/v1/nodes/{name}", operation_id = "get_node", tag = "cluster",
    params(("name" = String, Path)), responses((status = 200, body = Node)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Json<Node>, Problem> {
    Ok(Json(looked_at(&app, &principal, &name).await?))
}

/// A node, for somebody who may look at it.
pub(crate) async fn looked_at(app: &App, principal: &Principal, name: &str) -> Result<Node, Problem> {
    let kv = app.store.get(&format!("{PREFIX}{name}")).await?;
    let found = kv.and_then(|kv| parsed(name_of(PREFIX, &kv.key)?, &kv));
    let node = found.ok_or_else(|| Problem::not_found("node", name))?;
    principal.require(Role::Viewer, node.region.as_deref().unwrap_or(ALL))?;
    Ok(node)
}

/// The first nodes that there are, as many as this.
pub(crate) async fn some(store: &Store, limit: usize) -> Result<Vec<String>, StoreError> {
    let found = store.list(PREFIX, "", limit, 0).await?;
    Ok(found.kvs.iter().filter_map(|kv| name_of(PREFIX, &kv.key).map(str::to_owned)).collect())
}
