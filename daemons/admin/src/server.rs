//! The server: one request a connection, read only.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{AdminError, Metrics};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// Longest life of a connection.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Rest after a failed `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// What is observed.
pub trait Observed: Send + Sync + 'static {
    /// What `/status` says.
    type Status: Serialize;

    /// Whether work is taken on.
    fn is_ready(&self) -> bool;

    /// Whether it has begun. What takes long at a start is not to be taken for a hang.
    fn is_started(&self) -> bool {
        true
    }

    /// How things are. Called for each request: the answer's size is for the implementation to bound.
    fn status(&self) -> Self::Status;

    /// What another path says; `None`: there is none like it.
    fn page(&self, _path: &str) -> impl Future<Output = Option<Page>> + Send {
        std::future::ready(None)
    }
}

/// An answer in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// 200, or 503.
    pub ok: bool,
    /// The body.
    pub json: String,
}

/// An address that is held, and not served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Ends with the value.
    _accepting: JoinSet<()>,
}

impl Listener {
    /// Listens on an address (port 0: any free one). Others than loopback have to be allowed.
    pub async fn bind(address: SocketAddr, allow_plaintext: bool) -> Result<Self, AdminError> {
        if !address.ip().is_loopback() && !allow_plaintext {
            return Err(AdminError::PlaintextNotAllowed { address });
        }
        let io = |call| move |source| AdminError::Io { call, address, source };
        let listener = TcpListener::bind(address).await.map_err(io("bind"))?;
        let address = listener.local_addr().map_err(io("getsockname"))?;
        Ok(Self { listener, address })
    }

    /// Answers from now on.
    pub fn serve(self, metrics: Metrics, observed: impl Observed) -> Server {
        let site = Arc::new(Site { metrics, observed });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(self.listener, site));
        Server { address: self.address, _accepting: accepting }
    }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Site<O> {
    metrics: Metrics,
    observed: O,
}

async fn accept<O: Observed>(listener: TcpListener, site: Arc<Site<O>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(answer(socket, Arc::clone(&site)));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request, its answer, and the end.
async fn answer<O: Observed>(socket: TcpStream, site: Arc<Site<O>>) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(site.response(request).await) });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let connection = http.serve_connection(TokioIo::new(socket), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
        tracing::debug!(%error, "request for metrics or status");
    }
}

impl<O: Observed> Site<O> {
    async fn response(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/metrics" => response(StatusCode::OK, PROMETHEUS, self.metrics.render()),
            "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
            "/ready" if self.observed.is_ready() => response(StatusCode::OK, TEXT, "ready\n"),
            "/ready" => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not taking on work\n"),
            "/status" => match serde_json::to_vec(&self.observed.status()) {
                Ok(json) => response(StatusCode::OK, JSON, json),
                Err(error) => {
                    tracing::error!(%error, "status is not JSON");
                    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no status\n")
                }
            },
            "/startup" if self.observed.is_started() => response(StatusCode::OK, TEXT, "started\n"),
            "/startup" => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "starting\n"),
            path => match self.observed.page(path).await {
                Some(Page { ok: true, json }) => response(StatusCode::OK, JSON, json),
                Some(Page { ok: false, json }) => response(StatusCode::SERVICE_UNAVAILABLE, JSON, json),
                None => {
                    response(StatusCode::NOT_FOUND, TEXT, "/metrics, /healthz, /ready, /startup, /status\n")
                }
            },
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
