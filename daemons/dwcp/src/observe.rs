//! What an agent tells over HTTP, beside its control API: metrics, health, readiness, status.

use std::sync::Arc;

use novacron_admin::{ConnectionStatus, Observed, TransportStatus};

use crate::agent::Inner;

/// What is observed.
pub(crate) struct Process(pub(crate) Arc<Inner>);

/// Tells the recorder what the metrics mean.
pub fn describe_metrics() {
    dwcp_core::describe_metrics();
    novacron_trace::describe_metrics();
    metrics::describe_counter!(
        "dwcp_xdp_packets_total",
        "Datagrams that a guard in XDP saw, by what became of them, since it was first attached."
    );
    metrics::describe_counter!(
        "dwcp_xdp_peer_packets_total",
        "Those that came from the addresses of connected peers."
    );
    metrics::describe_gauge!("dwcp_tunnels", "Peers with a tunnel, by its kind.");
}

impl Observed for Process {
    type Status = TransportStatus;

    fn is_ready(&self) -> bool {
        !self.0.is_draining()
    }

    fn status(&self) -> TransportStatus {
        let (connections, connections_total) = ConnectionStatus::all(&self.0.hub.endpoint);
        let greeting = self.0.hub.greeting.borrow().clone();
        TransportStatus {
            program: "novacron-dwcp".to_owned(),
            version: greeting.version,
            pid: std::process::id(),
            uptime_seconds: self.0.began.elapsed().as_secs_f64(),
            node_id: greeting.node_id,
            region: greeting.region,
            listen: self.0.hub.endpoint.local_addr().map(|address| address.to_string()),
            ready: !greeting.draining,
            connections_total,
            connections,
        }
    }
}
