//! Members of the store.

use std::sync::Arc;

use axum::{Json, extract::State};
use consensus_proto::etcdserverpb::{Member as Listed, MemberListRequest, StatusRequest, StatusResponse};
use serde::Serialize;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use crate::{app::App, http::problem::Problem};

/// The store's members, all of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Members {
    /// In the order of their names.
    items: Vec<Member>,
}

/// A member of the store.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    /// Its id, in hexadecimal digits.
    id: String,
    /// What it is called; empty before it has begun.
    name: String,
    /// Where clients reach it.
    client_urls: Vec<String>,
    /// Where other members reach it.
    peer_urls: Vec<String>,
    /// It does not vote.
    is_learner: bool,
    /// What it says of itself; null if it does not answer.
    status: Option<Status>,
}

/// What a member says of itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// Whether it is the leader.
    is_leader: bool,
    /// Its version of the API.
    version: String,
    /// Its Raft term.
    term: u64,
    /// Index of the last entry of its log that it knows to be committed.
    index: u64,
    /// Index of the last entry that it has applied.
    applied_index: u64,
    /// Size of its data.
    data_bytes: u64,
    /// What is wrong with it, as it says: alarms of the store, and no leader.
    errors: Vec<String>,
}

/// Lists the members of the store
#[utoipa::path(get, path = "/api/v1/consensus/members", operation_id = "list_members", tag = "cluster",
    responses((status = 200, body = Members)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Members>, Problem> {
    let request = MemberListRequest { linearizable: true };
    let ask = app.store.client().read("member list", request, |link, request| async move {
        link.cluster().member_list(request).await
    });
    let mut asking = JoinSet::new();
    // As many as one cluster has.
    for member in ask.await?.members {
        let app = app.clone();
        asking.spawn(async move {
            let status = status(&app, &member).await;
            described(member, status)
        });
    }
    let mut items = asking.join_all().await;
    items.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Json(Members { items }))
}

async fn status(app: &App, member: &Listed) -> Option<StatusResponse> {
    let endpoint = app.store.client().at(member.client_ur_ls.first()?).ok()?;
    let ask = endpoint.ask(StatusRequest::default(), |link, request| async move {
        link.maintenance().status(request).await
    });
    ask.await.inspect_err(|failure| tracing::debug!(%failure, "a member")).ok()
}

fn described(member: Listed, status: Option<StatusResponse>) -> Member {
    let status = status.map(|status| Status {
        is_leader: status.leader == member.id,
        version: status.version,
        term: status.raft_term,
        index: status.raft_index,
        applied_index: status.raft_applied_index,
        data_bytes: status.db_size.unsigned_abs(),
        errors: status.errors,
    });
    Member {
        id: format!("{:x}", member.id),
        name: member.name,
        client_urls: member.client_ur_ls,
        peer_urls: member.peer_ur_ls,
        is_learner: member.is_learner,
        status,
    }
}
