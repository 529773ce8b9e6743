//! Members of the store.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use consensus_proto::etcdserverpb::{Member as Listed, MemberListRequest, StatusRequest, StatusResponse};
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use utoipa::ToSchema;

use crate::{app::App, cache::Question, http::problem::Problem};

/// How old what members say may be.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The store's members, all of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Members {
    /// In the order of their names.
    items: Vec<Member>,
}

/// A member of the store.
#[derive(Serialize, Deserialize, ToSchema)]
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
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    /// Whether it is the leader.
    is_leader: bool,
    /// The id of the member that it takes for the leader, in hexadecimal digits; null if it knows none.
    leader: Option<String>,
    /// Its version of the API.
    version: String,
    /// Its Raft term.
    term: u64,
    /// Index of the last entry of its log that it knows to be committed.
    index: u64,
    /// Index of the last entry that it has applied.
    applied_index: u64,
    /// How many entries that some member knows to be committed it has not applied yet.
    lag_entries: u64,
    /// Size of its data.
    data_bytes: u64,
    /// What is wrong with it, as it says: alarms of the store, and no leader.
    errors: Vec<String>,
}

/// Lists the members of the store
#[utoipa::path(get, path = "/api/v1/consensus/members", operation_id = "list_members", tag = "cluster",
    responses((status = 200, body = Members)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Members>, Problem> {
    let question = Question::new("members", "", AGE_MAX);
    let items = app.cache.answer(&app.store, question, asked(&app)).await?;
    Ok(Json(Members { items }))
}

async fn asked(app: &Arc<App>) -> Result<Vec<Member>, StoreError> {
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
    let committed = items.iter().filter_map(|member| Some(member.status.as_ref()?.index)).max();
    for status in items.iter_mut().filter_map(|member| member.status.as_mut()) {
        status.lag_entries = committed.unwrap_or_default().saturating_sub(status.applied_index);
    }
    items.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(items)
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
        leader: (status.leader != 0).then(|| format!("{:x}", status.leader)),
        version: status.version,
        term: status.raft_term,
        index: status.raft_index,
        applied_index: status.raft_applied_index,
        lag_entries: 0,
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
