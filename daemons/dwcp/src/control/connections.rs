//! Connections to the control socket: how many at a time, and how long one may be silent in the middle of a request.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::refusal;

/// At a time. Whoever comes beyond that waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request to come, the next one of a connection that is kept, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For its body to come after that.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest body in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Before somebody is taken again after the kernel refused, for instance because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped, and all connections with it.
pub(super) async fn serve(listener: UnixListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() == CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(answer(socket, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept of the control socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(socket: UnixStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let answered = http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    if let Err(error) = answered.await {
        tracing::debug!(%error, "a connection to the control socket");
    }
}

/// Takes the body as a whole, before anything is done.
pub(super) async fn whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        // Whoever went away in the middle reads no answer.
        Ok(Err(_)) => refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a request may have {BODY_BYTES_MAX} bytes and no more"),
        ),
        Err(_) => refusal(StatusCode::REQUEST_TIMEOUT, "the request has no end"),
    }
}
