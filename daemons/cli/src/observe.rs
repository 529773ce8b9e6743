//! Lets others see how a running command does: `--metrics-listen`.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use dwcp_core::Endpoint;
use novacron_admin::{ConnectionStatus, Listener, Metrics, Observed, Server, TransportStatus};
use novacron_process::Draining;
use novacron_settings::{MetricsSettings, Settings};

use crate::settings::Flag;

/// Where metrics and status can be fetched.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct MetricsArgs {
    /// Serves /metrics, /healthz, /ready and /status over HTTP on this address; port 0 takes a free one.
    #[arg(long, value_name = "ADDR|off")]
    metrics_listen: Option<String>,
    /// Allows that on addresses other than loopback: whoever reaches one can read.
    #[arg(long)]
    metrics_allow_plaintext: bool,
}

impl MetricsArgs {
    pub(crate) fn flags(&self) -> [Flag; 2] {
        let allowed = self.metrics_allow_plaintext.then(|| "true".to_owned());
        [
            ("--metrics-listen", "metrics.listen", self.metrics_listen.clone()),
            ("--metrics-allow-plaintext", "metrics.allow_plaintext", allowed),
        ]
    }
}

/// A listener and a recorder, if they are wanted. To be made before the endpoint, whose first connection would
/// otherwise not be recorded.
pub(crate) struct Observable(Option<(Listener, Metrics)>);

/// What a command with an endpoint tells.
struct Process {
    program: &'static str,
    began: Instant,
    node_id: String,
    region: Option<String>,
    endpoint: Endpoint,
    draining: Draining,
}

impl Observable {
    pub(crate) async fn prepare(settings: &MetricsSettings) -> Result<Self> {
        let Some(address) = settings.listen else { return Ok(Self(None)) };
        let listener = Listener::bind(address, settings.allow_plaintext).await?;
        Ok(Self(Some((listener, Metrics::install(dwcp_core::describe_metrics)?))))
    }

    /// Answers until the result is dropped, and says where.
    pub(crate) fn serve(
        self,
        program: &'static str,
        settings: &Settings,
        endpoint: &Endpoint,
        draining: Draining,
    ) -> Option<Server> {
        let (listener, metrics) = self.0?;
        let process = Process {
            program,
            began: Instant::now(),
            node_id: settings.endpoint.node_id.clone(),
            region: settings.endpoint.region.clone(),
            endpoint: endpoint.clone(),
            draining,
        };
        let server = listener.serve(metrics, process);
        eprintln!("metrics on http://{}/metrics", server.address());
        Some(server)
    }
}

impl Observed for Process {
    type Status = TransportStatus;

    fn is_ready(&self) -> bool {
        !self.draining.is_set()
    }

    fn status(&self) -> TransportStatus {
        let (connections, connections_total) = ConnectionStatus::all(&self.endpoint);
        TransportStatus {
            program: self.program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            node_id: self.node_id.clone(),
            region: self.region.clone(),
            listen: self.endpoint.local_addr().map(|address| address.to_string()),
            ready: self.is_ready(),
            connections_total,
            connections,
        }
    }
}
