//! What the agents of nodes say: how nodes reach each other, transfers, what a node can do.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State};
use novacron_control::schema::{Capability, Row, Transfer};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::nodes;
use crate::{
    agents::AskError,
    app::App,
    auth::principal::Principal,
    cache::Question,
    http::{
        extract::Name,
        problem::{Kind, Problem},
    },
};

/// Agents that are asked for what each of them knows, one after the other, before it is said that none answers.
const ASKED_MAX: usize = 5;

/// How old what an agent has said may be: it measures about as often.
const TOLD_AGE_MAX: Duration = Duration::from_secs(1);

/// All that there is of something.
#[derive(Serialize, ToSchema)]
pub(crate) struct All<T> {
    /// In the order in which the agent tells them.
    items: Vec<T>,
}

async fn look<T: Serialize + DeserializeOwned>(
    app: &App,
    principal: &Principal,
    name: &str,
    path: &str,
) -> Result<Vec<T>, Problem> {
    nodes::looked_at(app, principal, name).await?;
    Ok(told(app, name, path).await?)
}

/// What the agent of a node says of something, or has said a moment ago. Whoever may look at the node may look at it.
pub(super) async fn told<T: Serialize + DeserializeOwned>(
    app: &App,
    node: &str,
    path: &str,
) -> Result<T, AskError> {
    app.cache.answer(&app.store, question(node, path), app.agents.look(&app.store, node, path)).await
}

/// What is asked of an agent, for the cache.
pub(super) fn question(node: &str, path: &str) -> Question {
    // The path has no space.
    Question::new("agents", &format!("{path} {node}"), TOLD_AGE_MAX)
}

/// How a node reaches others
///
/// As its agent has measured. 503 if that cannot be reached.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/paths", operation_id = "list_paths_of_node", tag = "cluster",
    params(("name" = String, Path)), responses((status = 200, body = All<Row>)))]
pub(crate) async fn paths(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Json<All<Row>>, Problem> {
    let mut items: Vec<Row> = look(&app, &principal, &name, "/v1/paths").await?;
    items.retain(|row| row.from == name);
    Ok(Json(All { items }))
}

/// Transfers of a node
///
/// As its agent says, from or to it. 503 if that cannot be reached.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/transfers", operation_id = "list_transfers", tag = "cluster",
    params(("name" = String, Path)), responses((status = 200, body = All<Transfer>)))]
pub(crate) async fn transfers(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Json<All<Transfer>>, Problem> {
    Ok(Json(All { items: look(&app, &principal, &name, "/v1/transfers").await? }))
}

/// What a node can do
///
/// As its agent has found, and why not. 503 if that cannot be reached.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/capabilities", operation_id = "list_capabilities", tag = "cluster",
    params(("name" = String, Path)), responses((status = 200, body = All<Capability>)))]
pub(crate) async fn capabilities(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Json<All<Capability>>, Problem> {
    Ok(Json(All { items: look(&app, &principal, &name, "/v1/capabilities").await? }))
}

/// How nodes reach each other
///
/// As their agents have measured, and told each other: of all nodes, the rows of the regions that the caller may look at. 503 if
/// no agent can be reached.
#[utoipa::path(get, path = "/api/v1/paths", operation_id = "list_paths", tag = "cluster",
    responses((status = 200, body = All<Row>)))]
pub(crate) async fn matrix(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Result<Json<All<Row>>, Problem> {
    let mut problem = Problem::new(Kind::AgentUnavailable, "no agent has entered itself into the store");
    for node in nodes::some(&app.store, ASKED_MAX).await? {
        match told::<Vec<Row>>(&app, &node, "/v1/paths").await {
            Ok(mut items) => {
                items.retain(|row| principal.sees(row.region.as_deref()));
                return Ok(Json(All { items }));
            }
            Err(error) => problem = error.into(),
        }
    }
    Err(problem)
}
