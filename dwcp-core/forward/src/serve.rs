//! The node that connects: streams of a connection to sockets that its operator has allowed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use dwcp_core::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Address, FORWARDED_MAX, Refusal,
    opening::{self, HEAD_BYTES},
    pump::{self, RESET},
    socket::Socket,
};

/// How long a peer may take to say where a stream goes.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);

/// Where streams of peers may go: exactly these.
#[derive(Clone, Debug)]
pub struct Allowed {
    targets: Arc<HashSet<Address>>,
    /// Of all connections together.
    room: Arc<Semaphore>,
}

impl Allowed {
    /// Nothing but these.
    pub fn new(targets: impl IntoIterator<Item = Address>) -> Self {
        let targets = Arc::new(targets.into_iter().collect());
        Self { targets, room: Arc::new(Semaphore::new(FORWARDED_MAX)) }
    }
}

/// Carries the streams that a peer opens, until the connection ends.
pub async fn serve(connection: &Connection, allowed: &Allowed) -> ConnectionError {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_stream() => match accepted {
                Ok((send, recv)) => {
                    streams.spawn(one(send, recv, allowed.clone(), connection.peer().node_id.clone()));
                }
                Err(error) => {
                    // Their sockets are reset: the connection tells each of them.
                    while streams.join_next().await.is_some() {}
                    return error;
                }
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn one(mut send: SendStream, mut recv: RecvStream, allowed: Allowed, peer: String) {
    let opened = open(&mut recv, &allowed).await;
    let answer = opening::answer(opened.as_ref().map(|_| ()).map_err(|(refusal, _)| *refusal));
    let told = send.write_bytes(Bytes::copy_from_slice(&[answer])).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err((refusal, target)) => {
            tracing::warn!(peer, target, %refusal, "not forwarded");
            metrics::counter!("dwcp_forward_refused_total").increment(1);
            let _ = send.finish();
            recv.stop(RESET);
            // Dropped before it has arrived, the answer would be lost with the stream.
            let _ = tokio::time::timeout(OPENING_TIMEOUT, send.acknowledged()).await;
            return;
        }
    };
    if told.is_err() {
        return opened.socket.reset();
    }
    metrics::counter!("dwcp_forward_streams_total").increment(1);
    if let Err(error) = pump::carry(opened.socket, send, recv).await {
        tracing::debug!(peer, target = %opened.target, %error, "a forwarded stream broke");
    }
}

struct Opened {
    socket: Socket,
    target: Address,
    /// Given back when the socket is closed.
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// Reads where a stream goes and connects to it; else why not, and to what.
async fn open(recv: &mut RecvStream, allowed: &Allowed) -> Result<Opened, (Refusal, String)> {
    let read = tokio::time::timeout(OPENING_TIMEOUT, target(recv)).await;
    let target = read.unwrap_or(Err(Refusal::NotUnderstood)).map_err(|refusal| (refusal, String::new()))?;
    let refused = |refusal| (refusal, target.to_string());
    if !allowed.targets.contains(&target) {
        return Err(refused(Refusal::NotAllowed));
    }
    let room = allowed.room.clone().try_acquire_owned().map_err(|_| refused(Refusal::Busy))?;
    let socket = Socket::connect(&target).await.map_err(|error| {
        tracing::info!(%target, %error, "cannot connect");
        refused(Refusal::Unreachable)
    })?;
    Ok(Opened { socket, target, _room: room })
}

/// What came behind the opening stays in the stream.
async fn target(recv: &mut RecvStream) -> Result<Address, Refusal> {
    use tokio::io::AsyncReadExt as _;
    let mut head = [0; HEAD_BYTES];
    recv.read_exact(&mut head).await.map_err(|_| Refusal::NotUnderstood)?;
    let mut text = BytesMut::zeroed(opening::address_len(head)?);
    recv.read_exact(&mut text).await.map_err(|_| Refusal::NotUnderstood)?;
    opening::address(&text)
}
