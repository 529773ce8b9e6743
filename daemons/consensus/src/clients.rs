//! Listeners for clients: plaintext and TLS, each served by the same member.

use std::{io, time::Duration};

use anyhow::{Context as _, Result};
use consensus_etcd::{Server, ServerError};
use novacron_process::CurrentTls;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use crate::plan::ClientListen;

/// TLS handshakes at a time on one address; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// For one of them.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and which are not served yet.
const ACCEPTED: usize = 16;
/// Rest after a failed `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Sockets that are held, and not served yet.
pub(crate) struct Listeners(Vec<(TcpListener, bool)>);

impl Listeners {
    pub(crate) async fn bind(listens: &[ClientListen]) -> Result<Self> {
        let mut listeners = Vec::new();
        for listen in listens {
            let address = listen.address;
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("listening for clients on {address}"))?;
            listeners.push((listener, listen.tls));
        }
        Ok(Self(listeners))
    }

    /// Serves clients on all of them until `stop` says true.
    pub(crate) fn serve(
        self,
        server: &Server,
        tls: Option<&CurrentTls>,
        stop: &watch::Receiver<bool>,
    ) -> JoinSet<Result<(), ServerError>> {
        let mut serving = JoinSet::new();
        for (listener, wants_tls) in self.0 {
            let (server, mut stop) = (server.clone(), stop.clone());
            // The sender is gone: the member ends.
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            match tls.filter(|_| wants_tls) {
                Some(tls) => {
                    let incoming = with_tls(listener, tls.clone());
                    serving.spawn(async move { server.serve_incoming(incoming, stopped).await });
                }
                None => {
                    serving.spawn(async move { server.serve(listener, stopped).await });
                }
            }
        }
        serving
    }
}

/// Connections whose TLS handshake is done. Slow ones keep nobody waiting.
fn with_tls(listener: TcpListener, tls: CurrentTls) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (accepted, incoming) = mpsc::channel(ACCEPTED);
    tokio::spawn(accept(listener, tls, accepted));
    ReceiverStream::new(incoming)
}

async fn accept(
    listener: TcpListener,
    tls: CurrentTls,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            // Nobody serves any more: the port is to be free at once.
            () = accepted.closed() => return,
            connected = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match connected {
                Ok((socket, _)) => {
                    let (acceptor, accepted) = (TlsAcceptor::from(tls.get()), accepted.clone());
                    handshakes.spawn(handshake(socket, acceptor, accepted));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn handshake(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let address = socket.peer_addr().ok();
    // Without it, answers wait for acknowledgements.
    let _ = socket.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
        Ok(Err(error)) => tracing::debug!(?address, %error, "TLS handshake of a client"),
        Err(_) => tracing::debug!(?address, "TLS handshake of a client: no end in time"),
    }
}
