//! Connections: how many, their handshakes, how long their heads may take, and their end.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use novacron_process::CurrentTls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    app::told,
    auth::{certificate::Certificate, login::Peer},
    settings::Limits,
};

/// Bytes of a request's head, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answers until `stop`; then takes no connections any more, and returns when those that are there have ended with the
/// request that they were at.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<CurrentTls>,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let active = metrics::gauge!("active_connections");
    loop {
        active.set(connections.len() as f64);
        tokio::select! {
            accepted = listener.accept(), if connections.len() < limits.connections_max => match accepted {
                Ok((socket, address)) => {
                    let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.get()));
                    let answer = Answer { router: router.clone(), head_timeout: limits.head_timeout, stop: stop.clone() };
                    connections.spawn(answer.connection(socket, address, acceptor));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = told(&mut stop) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {
        active.set(connections.len() as f64);
    }
}

/// Answers one connection.
struct Answer {
    router: Router,
    head_timeout: Duration,
    stop: watch::Receiver<bool>,
}

impl Answer {
    async fn connection(mut self, socket: TcpStream, address: SocketAddr, acceptor: Option<TlsAcceptor>) {
        // Answers are small, and each is written at once.
        let _ = socket.set_nodelay(true);
        let mut peer = Peer { address: address.ip(), certificate: None };
        let Some(acceptor) = acceptor else { return self.http(socket, peer).await };
        let stream = tokio::select! {
            accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)) => match accepted {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake"),
                Err(_) => return tracing::debug!(%address, "TLS handshake: no end in time"),
            },
            () = told(&mut self.stop) => return,
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        peer.certificate = shown.and_then(|der| Certificate::parse(der)).map(Arc::new);
        self.http(stream, peer).await;
    }

    async fn http(mut self, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.head_timeout);
        http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        let router = TowerToHyperService::new(self.router);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(socket), service));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection");
        }
    }
}
