//! The handler: an entry of the store is read, or written if it is there, and that is all.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use consensus_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use novacron_store::{Client, Options, StoreError};
use serde::{Deserialize, Serialize};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    /// Members of the store.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
}

/// What the API has in its inventory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    name: String,
    cpus: u32,
    memory_bytes: u64,
    image: String,
    region: String,
    desired_state: String,
}

enum Failure {
    Absent,
    Store(StoreError),
    Entry(serde_json::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Absent => StatusCode::NOT_FOUND.into_response(),
            Self::Store(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
            Self::Entry(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Entry(error)
    }
}

fn key(name: &str) -> Vec<u8> {
    format!("/novacron/vms/{name}").into_bytes()
}

fn answer(vm: Vm, revision: i64) -> Response {
    ([(header::ETAG, format!("\"{revision}\""))], Json(vm)).into_response()
}

async fn read(State(store): State<Arc<Client>>, Path(name): Path<String>) -> Result<Response, Failure> {
    let range = RangeRequest { key: key(&name).into(), ..RangeRequest::default() };
    let got = store.read("get", range, |link, range| async move { link.kv().range(range).await }).await?;
    let kv = got.kvs.first().ok_or(Failure::Absent)?;
    Ok(answer(serde_json::from_slice(&kv.value)?, kv.mod_revision))
}

async fn write(
    State(store): State<Arc<Client>>,
    Path(name): Path<String>,
    Json(vm): Json<Vm>,
) -> Result<Response, Failure> {
    let is_there = Compare {
        key: key(&name).into(),
        target: CompareTarget::Version as i32,
        result: CompareResult::Greater as i32,
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let value = serde_json::to_vec(&vm)?.into();
    let put = PutRequest { key: key(&name).into(), value, ..PutRequest::default() };
    let put = RequestOp { request: Some(Request::RequestPut(put)) };
    let txn = TxnRequest { compare: vec![is_there], success: vec![put], failure: Vec::new() };
    let done = store.write("put", txn, |link, txn| async move { link.kv().txn(txn).await }).await?;
    if !done.succeeded {
        return Err(Failure::Absent);
    }
    Ok(answer(vm, done.header.map_or(0, |header| header.revision)))
}

pub(crate) async fn serve(args: Args) -> Result<()> {
    let options = Options { tls: None, user: None, timeout: std::time::Duration::from_secs(5) };
    let store = Arc::new(Client::new(args.endpoints.iter().map(String::as_str), options)?);
    let app = Router::new().route("/api/v1/vms/{name}", get(read).put(write)).with_state(store);
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    Ok(axum::serve(listener, app).await?)
}
