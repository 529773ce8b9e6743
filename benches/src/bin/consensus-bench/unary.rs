//! A gRPC client of a few lines, for unary calls: headers and message of a call leave in one write, where tonic's client makes
//! three. Whoever measures members should take as little of the machine as can be; it is the same for all of them.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message;
use tokio::net::TcpStream;

/// Credit for answers, of a call and of a connection.
const WINDOW_BYTES: u32 = 4 << 20;
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection to one member. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    /// `endpoint` is `http://host:port`.
    pub(crate) async fn open(endpoint: &str) -> Result<Self> {
        let authority =
            endpoint.strip_prefix("http://").context("an endpoint begins with http://")?.to_owned();
        let socket = TcpStream::connect(&authority).await.with_context(|| endpoint.to_owned())?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await?;
        tokio::spawn(async move {
            // An error is seen by the calls.
            let _ = connection.await;
        });
        Ok(Self { requests, authority })
    }

    /// One call, `path` as in `/etcdserverpb.KV/Put`.
    pub(crate) async fn call<A: Message + Default>(&self, path: &str, question: &impl Message) -> Result<A> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = self.requests.clone().ready().await?.send_request(request, false)?;
        body.send_data(framed(question)?, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == StatusCode::OK, "HTTP status {}", answer.status());
        check(answer.headers())?;
        let mut body = answer.into_body();
        let mut received = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        if let Some(trailers) = body.trailers().await? {
            check(&trailers)?;
        }
        ensure!(received.len() >= PREFIX_BYTES, "an answer without a message");
        Ok(A::decode(&received[PREFIX_BYTES..])?)
    }
}

fn framed(message: &impl Message) -> Result<Bytes> {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    out.put_u8(0);
    out.put_u32(message.encoded_len().try_into()?);
    message.encode(&mut out)?;
    Ok(out.freeze())
}

fn check(headers: &HeaderMap) -> Result<()> {
    let Some(status) = headers.get("grpc-status").filter(|status| *status != "0") else { return Ok(()) };
    bail!("gRPC status {status:?}: {:?}", headers.get("grpc-message"))
}
