//! How two ends agree: the client's HELLO offers, the server's answers, and one byte of the client decides.
//!
//! Making a queue pair registers memory and may resolve addresses: it is done on a thread that may block.

use std::{io, net::IpAddr};

use dwcp_sys::rdma::{ConnectionData, Port, Prepared, RdmaError, RdmaStream};
use tokio::net::TcpStream;

use super::{RdmaSocket, count_fallback};
use crate::{
    handshake::{self, HandshakeError},
    security::LinkSocket,
};

/// The client's decisions.
const STAYS: u8 = 0;
const GOES_OVER: u8 = 1;

/// What the client offers in its HELLO.
#[derive(Debug)]
pub(crate) struct Offer(Prepared);

/// What the server has answered to an offer. Its queue pair is ready.
#[derive(Debug)]
pub(crate) struct Answer {
    stream: RdmaStream,
    data: Vec<u8>,
}

impl Offer {
    /// For a link that speaks from this socket; `None` if there is no RDMA here.
    pub(crate) async fn make(tcp: &TcpStream) -> Option<Self> {
        let local = tcp.local_addr().ok()?.ip();
        blocking(move || prepare(local)).await.map(Self)
    }

    /// What the HELLO carries.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.0.connection_data().encode().to_vec()
    }

    /// Goes over to RDMA if the server's answer allows it, and tells it so. An error is the socket's.
    pub(crate) async fn decide(self, socket: &mut LinkSocket, theirs: Vec<u8>) -> io::Result<()> {
        if theirs.is_empty() {
            count_fallback("refused");
            return Ok(()); // the server waits for nothing
        }
        let prepared = self.0;
        let stream = blocking(move || prepared.connect(&ConnectionData::decode(&theirs)?)).await;
        let rdma = stream.and_then(|stream| RdmaSocket::new(stream).inspect_err(report).ok());
        let decision = if rdma.is_some() { GOES_OVER } else { STAYS };
        handshake::write_all(socket, &[decision]).await?;
        if let Some(rdma) = rdma {
            socket.go_over(rdma);
        }
        Ok(())
    }
}

impl Answer {
    pub(crate) fn data(&self) -> Vec<u8> {
        self.data.clone()
    }
}

/// The server's answer to a client's offer; `None`: the link stays with TCP.
pub(crate) async fn answer(tcp: &TcpStream, theirs: &[u8]) -> Option<Answer> {
    let (local, theirs) = (tcp.local_addr().ok()?.ip(), theirs.to_vec());
    blocking(move || {
        let peer = ConnectionData::decode(&theirs)?;
        let prepared = prepare(local)?;
        let data = prepared.connection_data().encode().to_vec();
        Ok(Answer { stream: prepared.connect(&peer)?, data })
    })
    .await
}

/// The server's end of an agreement: the client says which way it goes.
pub(crate) async fn conclude(socket: &mut LinkSocket, answer: Option<Answer>) -> Result<(), HandshakeError> {
    let Some(Answer { stream, .. }) = answer else { return Ok(()) };
    let mut decision = [STAYS];
    handshake::read_exact(socket, &mut decision).await?;
    if decision == [GOES_OVER] {
        socket.go_over(RdmaSocket::new(stream)?);
    } else {
        count_fallback("refused");
    }
    Ok(())
}

/// Registers memory at the port with this address; for two ends on one machine at any.
fn prepare(local: IpAddr) -> Result<Prepared, RdmaError> {
    let port = Port::find((!local.is_loopback()).then_some(local))?;
    let mut psn = [0; 4];
    // Without randomness packets of a former queue pair are the likelier to be taken for new ones, and fail a checksum.
    let _ = getrandom::fill(&mut psn);
    Prepared::new(&port, u32::from_le_bytes(psn))
}

async fn blocking<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, RdmaError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made.inspect_err(report).ok(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None, // the runtime ends
        },
    }
}

fn report(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "no RDMA on this link: it stays with TCP");
    count_fallback("unavailable");
}
