//! One member from its start to a signal.

use std::time::Duration;

use anyhow::{Context as _, Result};
use consensus_etcd::Server;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::args::Settings;

/// For another member to take over.
const HAND_OVER: Duration = Duration::from_secs(2);
/// For answers that are on their way when everything else has stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs a member until SIGTERM or SIGINT.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("sigaction")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("sigaction")?;
    let listener = TcpListener::bind(settings.listen_clients)
        .await
        .with_context(|| format!("listening for clients on {}", settings.listen_clients))?;
    let mut config = settings.server;
    let node = &mut config.node;
    let (tls, plaintext) = (node.tls.as_ref(), node.allow_plaintext);
    let identity =
        settings.cluster.identity(&node.log_dir, &config.name, settings.joins, tls, plaintext).await?;
    (node.cluster, node.id, node.start) = (identity.cluster, identity.id, identity.start);
    let server = Server::start(config).await?;
    let id = server.node().id();
    tracing::info!(
        member = format!("{id:x}"),
        cluster = format!("{:x}", server.node().cluster()),
        "member started"
    );

    // etcd's line: what waits for etcd waits for it.
    let mut status = server.node().watch_status();
    let announce = tokio::spawn(async move {
        if status.wait_for(|status| status.leader.is_some()).await.is_ok() {
            tracing::info!("ready to serve client requests");
        }
    });
    let mut failed = false;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let served = server.serve(listener, std::future::pending());
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = &mut served => ended?,
        () = server.node().stopped() => failed = true,
        () = signalled() => {
            // Another takes over first, so nobody waits for an election.
            server.node().hand_over(HAND_OVER).await;
            server.stop().await;
            // Clients that keep their connections are not waited for much longer; nor is anything at another signal.
            tokio::select! {
                ended = tokio::time::timeout(LAST_ANSWERS, &mut served) => ended.unwrap_or(Ok(()))?,
                () = signalled() => {}
            }
        }
    }
    announce.abort();
    server.stop().await;
    anyhow::ensure!(!failed, "the member cannot go on: the log says why");
    Ok(())
}
