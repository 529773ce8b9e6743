//! Transfers of all nodes, as their agents tell of them, and the end of one.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use novacron_control::{ControlError, Method, schema::Transfer};
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet};
use utoipa::ToSchema;

use super::{agents, nodes};
use crate::{
    agents::AskError,
    app::App,
    audit::Recording,
    auth::{
        principal::Principal,
        role::{ALL, Role},
    },
    http::{
        extract::{Query, Two},
        page::{LIMIT, Page, PageQuery},
        problem::{Kind, Problem},
    },
};

const TRANSFERS: &str = "/v1/transfers";
/// Agents that are asked at a time.
const ASKED_AT_ONCE: usize = 32;

/// Transfers of some nodes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Transfers {
    /// In the order of the nodes' names, and of each as its agent tells them. What goes from one node to another is told by both.
    items: Vec<NodeTransfer>,
    /// Nodes whose agents have not answered.
    unanswered: Vec<Unanswered>,
    /// For the next nodes, which there are exactly if this is not null.
    next: Option<String>,
}

/// A transfer of a node.
#[derive(Serialize, ToSchema)]
pub(crate) struct NodeTransfer {
    /// The node.
    node: String,
    /// What its agent says.
    transfer: Transfer,
}

/// A node whose agent has not answered.
#[derive(Serialize, ToSchema)]
pub(crate) struct Unanswered {
    /// The node.
    node: String,
    /// Why, as far as is known.
    why: String,
}

/// Lists transfers
///
/// Of the nodes that the caller may look at, by pages of nodes. Agents that do not answer are named.
#[utoipa::path(get, path = "/api/v1/transfers", operation_id = "list_all_transfers", tag = "cluster",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Nodes that are asked; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
    ),
    responses((status = 200, body = Transfers)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Transfers>, Problem> {
    if query.limit.is_some_and(|limit| limit > LIMIT) {
        return Err(Problem::new(Kind::Malformed, format!("limit: expected 1..={LIMIT}")));
    }
    let seen = |name: &str, kv: &_| {
        nodes::parsed(name, kv).filter(|node| principal.sees(node.region.as_deref())).map(|_| name.to_owned())
    };
    let Page { items: names, next } = query.place()?.read(&app.store, nodes::PREFIX, seen).await?;
    let at_once = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut asking = JoinSet::new();
    for node in names {
        let (app, at_once) = (app.clone(), at_once.clone());
        asking.spawn(async move {
            let _turn = at_once.acquire_owned().await;
            let answer = agents::told::<Vec<Transfer>>(&app, &node, TRANSFERS).await;
            (node, answer)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (mut items, mut unanswered) = (Vec::new(), Vec::new());
    for (node, answer) in answers {
        match answer {
            Ok(transfers) => {
                items.extend(
                    transfers.into_iter().map(|transfer| NodeTransfer { node: node.clone(), transfer }),
                );
            }
            Err(error) => unanswered.push(Unanswered { node, why: Problem::from(error).detail().to_owned() }),
        }
    }
    Ok(Json(Transfers { items, unanswered, next }))
}

/// Cancels a transfer
///
/// What has arrived stays. It takes the role in the regions of both nodes. A migration whose transfer is cancelled has failed;
/// cancel the migration instead.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/transfers/{id}/cancel", operation_id = "cancel_transfer", tag = "cluster",
    params(("name" = String, Path), ("id" = String, Path, description = "As the agent of the node counts")),
    responses((status = 202, description = "It will have ended soon")))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(recording): Extension<Arc<Recording>>,
    Two(name, id): Two,
) -> Result<StatusCode, Problem> {
    let node = nodes::looked_at(&app, &principal, &name).await?;
    principal.require(Role::Operator, node.region.as_deref().unwrap_or(ALL))?;
    let absent = || Problem::not_found("transfer", &id);
    let number: u64 = id.parse().map_err(|_| absent())?;
    let path = format!("/v1/transfers/{number}");
    let refused = |error: AskError| match &error {
        AskError::Control(ControlError::Refused { status, .. }) => match status.as_u16() {
            404 => absent(),
            409 => Problem::new(Kind::Ended, "the transfer has ended"),
            _ => error.into(),
        },
        _ => error.into(),
    };
    let transfer: Transfer = app.agents.look(&app.store, &name, &path).await.map_err(refused)?;
    // A peer that is not there now could be of any region.
    let peer = nodes::found(&app.store, &transfer.peer).await?.and_then(|peer| peer.region);
    principal.require(Role::Operator, peer.as_deref().unwrap_or(ALL))?;
    recording.begin(&app.audit).await?;
    app.agents.ask(&app.store, &name, Method::DELETE, &path, None).await.map_err(refused)?;
    app.cache.forget(&app.store, &agents::question(&name, TRANSFERS)).await;
    Ok(StatusCode::ACCEPTED)
}
