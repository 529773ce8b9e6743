//! Connections to the control socket: how many at a time, and how long one may be silent in the middle of a request.

use std::{pin::pin, time::Duration};

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
/// After this long a connection takes no further requests.
const KEPT_MAX: Duration = Duration::from_secs(5);
/// For the one that is underway then to be answered, and the answer to be read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
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
    let mut answered = pin!(http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router)));
    let done = match timeout(KEPT_MAX, answered.as_mut()).await {
        Ok(done) => Ok(done),
        Err(_) => {
            answered.as_mut().graceful_shutdown();
            timeout(ANSWER_TIMEOUT, answered).await
        }
    };
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the control socket"),
        Err(_) => tracing::debug!("a connection to the control socket: its answer is not read"),
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// More than the kernel keeps for who does not read.
    const LARGE: usize = 4 << 20;

    async fn request(place: &std::path::Path, path: &str) -> UnixStream {
        let mut client = UnixStream::connect(place).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        client
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_never_read_do_not_keep_others_out_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("agent.sock");
        let router = Router::new()
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/small", get(async || "an answer"));
        let serving = tokio::spawn(serve(UnixListener::bind(&place).expect("a socket"), router));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(request(&place, "/large").await);
        }
        let mut honest = request(&place, "/small").await;
        let mut answer = Vec::new();
        // In the time of the test, which passes while all wait.
        let answered = timeout(Duration::from_secs(3600), honest.read_to_end(&mut answer)).await;
        answered.expect("it is answered").expect("read");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("an answer"), "{answer}");
        serving.abort();
    }
}
