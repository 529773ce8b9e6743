//! Fetches what a [`Server`](crate::Server) tells.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer that is read.
pub const RESPONSE_BYTES_MAX: usize = 32 << 20;
/// For everything, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody listens, or the name has no address.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot stand in a request.
    #[error("{address} is not HOST:PORT")]
    Address {
        /// As given.
        address: String,
    },
    /// What answers does not speak HTTP, or stopped in the middle.
    #[error("{address}: {source}")]
    Http {
        /// As given.
        address: String,
        /// What was wrong.
        source: hyper::Error,
    },
    /// Another status than 200.
    #[error("{address} answers {status}")]
    Status {
        /// As given.
        address: String,
        /// Which one.
        status: StatusCode,
    },
    /// The answer broke off, or is longer than [`RESPONSE_BYTES_MAX`].
    #[error("{address}: reading the answer: {reason}")]
    Body {
        /// As given.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// No whole answer in time.
    #[error("{address} did not answer within {timeout:?}")]
    TimedOut {
        /// As given.
        address: String,
        /// The bound.
        timeout: Duration,
    },
}

/// The body of `http://ADDRESS/PATH`, ADDRESS being `HOST:PORT`.
pub async fn fetch(address: &str, path: &str) -> Result<Bytes, FetchError> {
    let address_owned = || address.to_owned();
    tokio::time::timeout(TIMEOUT, fetch_patiently(address, path))
        .await
        .unwrap_or_else(|_| Err(FetchError::TimedOut { address: address_owned(), timeout: TIMEOUT }))
}

async fn fetch_patiently(address: &str, path: &str) -> Result<Bytes, FetchError> {
    let http = |source| FetchError::Http { address: address.to_owned(), source };
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new());
    let request = request.map_err(|_| FetchError::Address { address: address.to_owned() })?;
    let socket = TcpStream::connect(address)
        .await
        .map_err(|source| FetchError::Connect { address: address.to_owned(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { address: address.to_owned(), status: response.status() });
        }
        let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
        let body = body
            .map_err(|reason| FetchError::Body { address: address.to_owned(), reason: reason.to_string() })?;
        Ok(body.to_bytes())
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection moves the bytes; when it has ended, what it delivered may still have to be taken.
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}
