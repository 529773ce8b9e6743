//! The control API: HTTP over a Unix socket, for whoever may open it; [`remote`](crate::remote) brings the same requests.
//!
//! | request | |
//! |---|---|
//! | `GET /v1/node` | [`Node`](novacron_control::schema::Node) |
//! | `GET /v1/peers` | [`Peer`](novacron_control::schema::Peer)s |
//! | `GET /v1/paths` | [`Row`](novacron_control::schema::Row)s: who reaches whom, and how |
//! | `GET /v1/capabilities` | [`Capability`](novacron_control::schema::Capability)s |
//! | `GET /v1/transfers`, `GET /v1/transfers/ID` | [`Transfer`](novacron_control::schema::Transfer)s |
//! | `POST /v1/transfers` | [`NewTransfer`](novacron_control::schema::NewTransfer); 202 and the transfer |
//! | `DELETE /v1/transfers/ID` | cancels one; what has arrived stays |
//! | `GET /v1/xdp` | [`Guarded`](novacron_control::schema::Guarded) |
//! | `POST /v1/xdp/detach` | takes the guards off; the next start attaches them again |
//! | `GET /v1/tunnels` | [`Tunnels`](novacron_control::schema::Tunnels) |
//! | `POST /v1/tunnels/remove` | takes the interfaces of tunnels away; the next start makes them again |
//! | `GET /v1/tune` | [`Tuned`](novacron_control::schema::Tuned): what was set, or would be; MTUs |
//! | `POST /v1/drain` | as SIGTERM |
//!
//! What is refused is answered with [`Refusal`](novacron_control::schema::Refusal) and a status of 400, 404, 408, 409, 413 or 503.

mod connections;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Extension, Json, Router,
    extract::{
        Path as Segment, Request, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use novacron_control::schema::{Guarded, NewTransfer, Node, Peer, Refusal, Row, Transfer, Tunnels};
use novacron_trace::{TRACEPARENT, follow};
use tokio::net::{UnixListener, UnixStream};
use tracing::Instrument as _;

use crate::{
    agent::Inner,
    doctor,
    remote::FromAfar,
    transfers::{Origin, TransferRefused},
};

/// Only the owner, which is root in a pod.
const MODE: u32 = 0o600;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another agent answers there.
    #[error("{}: another agent answers here; control.socket names another place", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket.
    #[error("{}: there is something that is no socket; control.socket names another place", .path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{call} {}: {source}; control.socket names another place", .path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that is removed when it is dropped, unless another agent's has taken its place.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens. What an agent has left that was killed is replaced.
    pub(crate) async fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |call| move |source| SocketError::Io { call, path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(io("mkdir for"))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // It answers, or is too busy to.
                _ => return Err(SocketError::InUse { path: path.to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("lstat")(error)),
        }
        // It has its name only when nobody else may open it any more.
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let _ = fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed).map_err(io("bind"))?;
        let named = fs::set_permissions(&unnamed, fs::Permissions::from_mode(MODE))
            .map_err(io("chmod"))
            .and_then(|()| fs::symlink_metadata(&unnamed).map_err(io("lstat")))
            .and_then(|metadata| fs::rename(&unnamed, path).map(|()| metadata.ino()).map_err(io("rename")));
        match named {
            Ok(inode) => Ok(Self { listener: Some(listener), path: path.to_owned(), inode }),
            Err(error) => {
                let _ = fs::remove_file(&unnamed);
                Err(error)
            }
        }
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(mut self, agent: Arc<Inner>) {
        let Some(listener) = self.listener.take() else { return };
        connections::serve(listener, router(agent)).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(crate) fn router(agent: Arc<Inner>) -> Router {
    Router::new()
        .route("/v1/node", get(node))
        .route("/v1/peers", get(peers))
        .route("/v1/paths", get(paths))
        .route("/v1/capabilities", get(capabilities))
        .route("/v1/transfers", get(transfers).post(begin))
        .route("/v1/transfers/{id}", get(transfer).delete(cancel))
        .route("/v1/xdp", get(xdp))
        .route("/v1/xdp/detach", post(detach))
        .route("/v1/tunnels", get(tunnels))
        .route("/v1/tunnels/remove", post(remove))
        .route("/v1/tune", get(tune))
        .route("/v1/drain", post(drain))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "there is nothing here; the paths begin with /v1/"))
        .method_not_allowed_fallback(async || {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .layer(middleware::from_fn(connections::whole))
        .layer(middleware::from_fn(in_span))
        .with_state(agent)
}

/// A request is a span, of the trace that it says it belongs to.
async fn in_span(request: Request, next: Next) -> Response {
    let span = tracing::info_span!("request", method = %request.method(), path = request.uri().path());
    if let Some(traceparent) = request.headers().get(TRACEPARENT).and_then(|text| text.to_str().ok()) {
        follow(&span, traceparent);
    }
    next.run(request).instrument(span).await
}

fn refusal(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(Refusal { error: error.to_string() })).into_response()
}

async fn node(State(agent): State<Arc<Inner>>) -> Json<Node> {
    Json(agent.view())
}

async fn peers(State(agent): State<Arc<Inner>>) -> Json<Vec<Peer>> {
    Json(agent.hub.view())
}

async fn paths(State(agent): State<Arc<Inner>>) -> Json<Vec<Row>> {
    Json(agent.hub.rows())
}

async fn capabilities(State(agent): State<Arc<Inner>>) -> Response {
    let guarded = agent.guards.view();
    // It reads files, and devices.
    let found = tokio::task::spawn_blocking(move || {
        let mut found = doctor::examine(&guarded, &agent.settings.xdp.pins);
        found.extend(agent.mtus.capabilities());
        found
    });
    match found.await {
        Ok(found) => Json(found).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn transfers(State(agent): State<Arc<Inner>>) -> Json<Vec<Transfer>> {
    Json(agent.transfers.views())
}

async fn transfer(State(agent): State<Arc<Inner>>, id: Result<Segment<u64>, PathRejection>) -> Response {
    let Ok(Segment(id)) = id else { return no_id() };
    match agent.transfers.view(id) {
        Some(transfer) => Json(transfer).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no transfer {id}")),
    }
}

fn no_id() -> Response {
    refusal(StatusCode::NOT_FOUND, "there is no such transfer: their ids are numbers")
}

async fn begin(
    State(agent): State<Arc<Inner>>,
    afar: Option<Extension<FromAfar>>,
    new: Result<Json<NewTransfer>, JsonRejection>,
) -> Response {
    let new = match new {
        Ok(Json(new)) => new,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    // It looks at files.
    let begun = tokio::task::spawn_blocking({
        let (agent, runtime) = (agent.clone(), tokio::runtime::Handle::current());
        let span = tracing::Span::current();
        move || {
            let (_entered, _of_request) = (runtime.enter(), span.entered());
            let from = Origin::of(&new.from, afar.is_some(), &agent.settings.transfers_from)?;
            agent.transfers.send(&agent.hub, new, from)
        }
    });
    let refused = match begun.await {
        Ok(Ok(id)) => {
            return match agent.transfers.view(id) {
                Some(transfer) => (StatusCode::ACCEPTED, Json(transfer)).into_response(),
                None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the transfer has ended already"),
            };
        }
        Ok(Err(refused)) => refused,
        Err(error) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let status = match refused {
        TransferRefused::Peer { .. } => StatusCode::NOT_FOUND,
        TransferRefused::Bad { .. } | TransferRefused::Source(_) => StatusCode::BAD_REQUEST,
        TransferRefused::NotBelow { .. } => StatusCode::FORBIDDEN,
        TransferRefused::NotTaken { .. } | TransferRefused::OtherContent { .. } => StatusCode::CONFLICT,
        TransferRefused::Draining | TransferRefused::TooMany => StatusCode::SERVICE_UNAVAILABLE,
    };
    refusal(status, refused)
}

async fn cancel(State(agent): State<Arc<Inner>>, id: Result<Segment<u64>, PathRejection>) -> Response {
    let Ok(Segment(id)) = id else { return no_id() };
    match agent.transfers.cancel(id) {
        Some(true) => StatusCode::ACCEPTED.into_response(),
        Some(false) => refusal(StatusCode::CONFLICT, format!("transfer {id} has ended")),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no transfer {id}")),
    }
}

async fn xdp(State(agent): State<Arc<Inner>>) -> Json<Vec<Guarded>> {
    Json(agent.guards.view())
}

async fn detach(State(agent): State<Arc<Inner>>) -> Response {
    match tokio::task::spawn_blocking(move || agent.guards.detach()).await {
        Ok(true) => StatusCode::ACCEPTED.into_response(),
        Ok(false) => refusal(StatusCode::CONFLICT, "no interface has a guard of this agent"),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn tunnels(State(agent): State<Arc<Inner>>) -> Json<Tunnels> {
    Json(agent.tunnels.view())
}

async fn remove(State(agent): State<Arc<Inner>>) -> Response {
    match tokio::task::spawn_blocking(move || agent.tunnels.remove()).await {
        Ok(true) => StatusCode::ACCEPTED.into_response(),
        Ok(false) => refusal(StatusCode::CONFLICT, "this agent has no tunnels"),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn tune(State(agent): State<Arc<Inner>>) -> Response {
    let told = tokio::task::spawn_blocking(move || {
        let mut told = agent.tuning.view(&agent.settings);
        told.extend(agent.mtus.view());
        told
    });
    match told.await {
        Ok(told) => Json(told).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn drain(State(agent): State<Arc<Inner>>) -> StatusCode {
    agent.drain_asked.notify_one();
    StatusCode::ACCEPTED
}
