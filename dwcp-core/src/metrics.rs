//! The `dwcp_*` metrics of a connection, through the `metrics` facade: whoever links this crate chooses the exporter.

use std::sync::atomic::Ordering;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{PeerInfo, shared::Shared, stats::LinkStats};

/// The instruments of one connection, labelled with its peer and the peer's region.
#[derive(Debug)]
pub(crate) struct ConnectionMetrics {
    counters: [Counter; 5],
    /// What the counters were told so far: other connections to the same peer count on them too.
    published: [u64; 5],
    compression_ratio: Gauge,
    links: Gauge,
    loss_ratio: Gauge,
    delivery_rate: Gauge,
    rtt: Histogram,
    connections: Gauge,
}

impl ConnectionMetrics {
    pub(crate) fn new(peer: &PeerInfo) -> Self {
        let region = peer.region.clone().unwrap_or_default();
        let labels = [("peer", peer.node_id.clone()), ("region", region)];
        let connections = gauge!("dwcp_active_connections");
        connections.increment(1.0);
        gauge!("dwcp_transport_info", "kind" => "tcp").set(1.0);
        Self {
            counters: [
                counter!("dwcp_bytes_sent_total", &labels),
                counter!("dwcp_bytes_received_total", &labels),
                counter!("dwcp_wire_bytes_sent_total", &labels),
                counter!("dwcp_wire_bytes_received_total", &labels),
                counter!("dwcp_resumes_total", &labels),
            ],
            published: [0; 5],
            compression_ratio: gauge!("dwcp_compression_ratio", &labels),
            links: gauge!("dwcp_active_streams", &labels),
            loss_ratio: gauge!("dwcp_packet_loss_ratio", &labels),
            delivery_rate: gauge!("dwcp_delivery_rate_bytes_per_second", &labels),
            rtt: histogram!("dwcp_rtt_seconds", &labels),
            connections,
        }
    }

    pub(crate) fn publish(&mut self, shared: &Shared, links: &[LinkStats]) {
        let raw = shared.bytes_sent.load(Ordering::Relaxed);
        let (wire_sent, wire_received) = shared.wire_bytes();
        let totals = [
            raw,
            shared.bytes_received.load(Ordering::Relaxed),
            wire_sent,
            wire_received,
            shared.resumes.load(Ordering::Relaxed),
        ];
        for ((counter, published), total) in self.counters.iter().zip(&mut self.published).zip(totals) {
            counter.increment(total.saturating_sub(*published));
            *published = total;
        }
        if wire_sent > 0 {
            self.compression_ratio.set(raw as f64 / wire_sent as f64);
        }
        self.links.set(links.len() as f64);
        let worst_loss = links.iter().map(|link| link.loss_ratio).fold(0.0, f64::max);
        self.loss_ratio.set(worst_loss);
        self.delivery_rate.set(links.iter().map(|link| link.delivery_rate as f64).sum::<f64>());
        for link in links {
            self.rtt.record(link.rtt.as_secs_f64());
        }
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.decrement(1.0);
        self.links.set(0.0);
    }
}
