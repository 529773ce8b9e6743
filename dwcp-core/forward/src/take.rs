//! The node that listens: sockets that it accepts become streams of one connection, which is made anew when it has ended.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use dwcp_core::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use crate::{
    Address, FORWARDED_MAX, opening, pump,
    socket::{Listener, Socket},
};

/// Between attempts to accept when the process has too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long the other node may take to connect to the target.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes connections to the node that connects to the target.
pub trait Dial: Send + Sync + 'static {
    /// One attempt.
    fn dial(&self) -> impl Future<Output = io::Result<Connection>> + Send;
}

/// Listens, and forwards each socket to `target` as the other node knows it. Says where it listens, once it does; ends only
/// if it cannot listen.
pub async fn take<D: Dial>(
    listen: &Address,
    target: Address,
    dial: Arc<Dialing<D>>,
    mut listening: impl FnMut(Option<SocketAddr>),
) -> io::Result<()> {
    let listener = Listener::bind(listen).await?;
    listening(listener.address()?);
    let room = Arc::new(Semaphore::new(FORWARDED_MAX));
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        let place = room.clone().acquire_owned().await.expect("it is never closed");
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let (target, dial) = (target.clone(), dial.clone());
        streams.spawn(async move {
            forward(socket, &target, &dial).await;
            drop(place);
        });
    }
}

/// One connection for all that is forwarded to a node.
pub struct Dialing<D> {
    dial: D,
    connection: Mutex<Option<Connection>>,
}

impl<D: Dial> Dialing<D> {
    /// Dials when something is to be forwarded.
    pub fn new(dial: D) -> Self {
        Self { dial, connection: Mutex::new(None) }
    }

    /// The connection that there is, or a new one.
    async fn open_stream(&self) -> io::Result<(SendStream, RecvStream)> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection
            && let Ok(stream) = connection.open_stream().await
        {
            return Ok(stream);
        }
        let made = self.dial.dial().await?;
        let stream = made.open_stream().await.map_err(io::Error::other)?;
        *connection = Some(made);
        Ok(stream)
    }
}

async fn forward<D: Dial>(socket: Socket, target: &Address, dial: &Dialing<D>) {
    let opened = match dial.open_stream().await {
        Ok(stream) => open(stream, target).await,
        Err(error) => Err(error),
    };
    let (send, recv) = match opened {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%target, %error, "not forwarded");
            metrics::counter!("dwcp_forward_refused_total").increment(1);
            return socket.reset();
        }
    };
    metrics::counter!("dwcp_forward_streams_total").increment(1);
    if let Err(error) = pump::carry(socket, send, recv).await {
        tracing::debug!(%target, %error, "a forwarded stream broke");
    }
}

/// Says where the stream goes. Nothing of the socket is read before the other node has connected: whoever waits for an error
/// gets it before anything was taken.
async fn open(
    (mut send, mut recv): (SendStream, RecvStream),
    target: &Address,
) -> io::Result<(SendStream, RecvStream)> {
    use tokio::io::AsyncReadExt as _;
    send.write_bytes(opening::encode(target).into()).await.map_err(io::Error::other)?;
    let mut answer = [0];
    tokio::time::timeout(ANSWER_TIMEOUT, recv.read_exact(&mut answer)).await??;
    opening::read_answer(answer[0]).map_err(io::Error::other)?;
    Ok((send, recv))
}
