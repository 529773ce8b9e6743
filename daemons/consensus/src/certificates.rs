//! Certificates that change while the member runs: of clients' and of members' connections.

use std::time::Duration;

use anyhow::{Context as _, Result};
use consensus_etcd::Server;
use dwcp_core::security::TlsFiles;
use novacron_process::{CurrentTls, ServerFiles, Watched};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

/// How often the files are looked at, beside SIGHUP.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// All files of this member.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) client: Option<ServerFiles>,
    pub(crate) peer: Option<TlsFiles>,
    pub(crate) region: Option<TlsFiles>,
    watched: Watched,
}

impl Certificates {
    /// What is in the files now is taken as known: to be made before they are loaded.
    pub(crate) fn new(client: Option<ServerFiles>, peer: Option<TlsFiles>, region: Option<TlsFiles>) -> Self {
        let mut paths = client.as_ref().map(ServerFiles::paths).unwrap_or_default();
        let dwcp = peer.iter().chain(&region);
        paths.extend(dwcp.flat_map(|files| [&files.cert, &files.key, &files.ca]).cloned());
        Self { client, peer, region, watched: Watched::new(paths) }
    }

    /// Keeps what new connections use like the files. A file that is no good is said, and what was before stays in force.
    pub(crate) async fn keep_fresh(mut self, current: Option<CurrentTls>, server: Server) -> Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("sigaction")?;
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                _ = hangup.recv() => true,
            };
            // Files may be on a disk that hangs.
            let (current, server) = (current.clone(), server.clone());
            let looked = tokio::task::spawn_blocking(move || {
                if self.watched.have_changed() || asked {
                    self.reload(current.as_ref(), &server);
                }
                self
            });
            // An error: the runtime shuts down.
            self = looked.await.context("looking at certificates")?;
        }
    }

    fn reload(&self, current: Option<&CurrentTls>, server: &Server) {
        if let (Some(files), Some(current)) = (&self.client, current) {
            match files.load() {
                Ok(config) => {
                    current.replace(config);
                    tracing::info!(cert = %files.cert.display(), "certificates for clients read again");
                }
                Err(error) => {
                    tracing::error!("new certificates are no good, the old ones stay in force: {error}")
                }
            }
        }
        for (files, whose) in [(&self.peer, "members"), (&self.region, "regions")] {
            let Some(files) = files else { continue };
            match files.load() {
                Ok(config) if whose == "members" => server.node().reload_tls(config.into()),
                Ok(config) => server.reload_region_tls(config.into()),
                Err(error) => {
                    tracing::error!(%error, "new certificates are no good, the old ones stay in force");
                    continue;
                }
            }
            tracing::info!(cert = %files.cert.display(), "certificates for {whose} read again");
        }
    }
}
