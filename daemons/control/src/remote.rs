//! Asks an agent elsewhere, over DWCP.

use std::time::Duration;

use bytes::Bytes;
use dwcp_core::{Connection, Endpoint, Priority, RecvStream};
use hyper::{Method, StatusCode};

use crate::{Answer, Call, Control, ControlError, Target, schema::Refusal};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// For the connection and the agent's word that it lets itself be controlled.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer, to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the first address of the name that answers.
///
/// # Errors
/// In words: what became of the last one.
pub async fn connect(endpoint: &Endpoint, target: &Target) -> Result<Connection, String> {
    let addresses = tokio::net::lookup_host((&*target.host, target.port))
        .await
        .map_err(|error| format!("resolving {}: {error}", target.host))?;
    let mut failed = format!("{} has no address", target.host);
    for address in addresses.take(ADDRESSES_MAX) {
        match endpoint.connect(address, target.server_name()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = error.to_string(),
        }
    }
    Err(failed)
}

/// A connection to an agent that lets itself be controlled over it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    node: String,
    connection: Connection,
}

impl Remote {
    /// Connects, and asks whether that is allowed.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`], also if another node is there; [`ControlError::Refused`].
    pub async fn connect(endpoint: &Endpoint, target: &Target, node: &str) -> Result<Self, ControlError> {
        let late = || Err(format!("no answer within {CONNECT_TIMEOUT:?}"));
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, greeted(endpoint, target, node));
        let (connection, answer) = connecting.await.unwrap_or_else(|_| late()).map_err(|reason| {
            ControlError::Unreachable { node: node.to_owned(), address: target.to_string(), reason }
        })?;
        if let Ok(Refusal { error }) = serde_json::from_slice(&answer) {
            connection.close(0, "refused");
            return Err(ControlError::Refused { status: StatusCode::FORBIDDEN, error });
        }
        Ok(Self { node: node.to_owned(), connection })
    }

    /// Asks; returns the body of the answer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if the answer is not of success; [`ControlError::Lost`] if there is none.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<serde_json::Value, ControlError> {
        let (method, path) = (method.to_string(), path.to_owned());
        let call = Call { method, path, body, traceparent: novacron_trace::traceparent() };
        let late = || Err(format!("no answer within {ANSWER_TIMEOUT:?}"));
        let exchange = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(&call)).await;
        let answer = exchange
            .unwrap_or_else(|_| late())
            .map_err(|reason| ControlError::Lost { node: self.node.clone(), reason })?;
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        if status.is_success() {
            return Ok(answer.body);
        }
        let refusal = serde_json::from_value::<Refusal>(answer.body).map(|refusal| refusal.error);
        Err(ControlError::Refused { status, error: refusal.unwrap_or_else(|_| status.to_string()) })
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let call = serde_json::to_vec(call).map_err(|error| words(&error))?;
        let (mut asking, mut answering) =
            self.connection.open_stream().await.map_err(|error| words(&error))?;
        asking.write_bytes(Bytes::from(call)).await.map_err(|error| words(&error))?;
        asking.finish().map_err(|error| words(&error))?;
        let answer = read_to_end(&mut answering, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&answer).map_err(|error| format!("its answer: {error}"))
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.connection.close(0, "done");
    }
}

async fn greeted(endpoint: &Endpoint, target: &Target, node: &str) -> Result<(Connection, Bytes), String> {
    let connection = connect(endpoint, target).await?;
    let found = &connection.peer().node_id;
    if found != node {
        let why = format!("{found} is there");
        connection.close(0, "another node is meant");
        return Err(why);
    }
    let asked = serde_json::to_vec(&Control { control: 1 }).map_err(|error| error.to_string())?;
    let asking = connection.messages();
    let answer = asking.request(Priority::Control, Bytes::from(asked), CONNECT_TIMEOUT).await;
    Ok((connection, answer.map_err(|error| error.to_string())?))
}

/// All that a stream brings.
///
/// # Errors
/// In words: it is longer than that, or was lost.
pub async fn read_to_end(stream: &mut RecvStream, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.read_chunk().await.map_err(|error| error.to_string())? {
        if all.len() + chunk.len() > bytes_max {
            return Err(format!("more than {bytes_max} bytes"));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
