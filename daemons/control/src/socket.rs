//! Asks an agent on this machine, over its Unix socket.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, client::conn::http1, header::CONTENT_TYPE, header::HOST};
use hyper_util::rt::TokioIo;
use novacron_trace::{TRACEPARENT, traceparent};
use tokio::net::UnixStream;

use crate::{ControlError, schema::Refusal};

/// Largest answer that is read: what a thousand nodes tell of their paths to each other.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// For everything, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks; returns the body of the answer.
///
/// # Errors
/// [`ControlError`] if there is no answer, or one that is not of success.
pub async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Bytes, ControlError> {
    let late =
        || ControlError::Http { socket: socket.to_owned(), reason: format!("no answer within {TIMEOUT:?}") };
    tokio::time::timeout(TIMEOUT, ask_patiently(socket, method, path, body)).await.map_err(|_| late())?
}

async fn ask_patiently(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Bytes, ControlError> {
    let http = |reason: String| ControlError::Http { socket: socket.to_owned(), reason };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ControlError::Connect { socket: socket.to_owned(), source })?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json");
    if let Some(traceparent) = traceparent() {
        request = request.header(TRACEPARENT, traceparent);
    }
    let request =
        request.body(Full::new(body.unwrap_or_default())).map_err(|error| http(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| http(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| http(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| http(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
        Err(ControlError::Refused { status, error: refusal.unwrap_or_else(|_| status.to_string()) })
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection moves the bytes; when it has ended, what it delivered may still have to be taken.
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}
