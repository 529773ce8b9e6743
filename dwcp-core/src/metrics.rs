//! The `dwcp_*` metrics of a connection, through the `metrics` facade: whoever links this crate chooses the exporter.
//!
//! What is counted per connection is published by its monitor, so that the data path only counts in atomics.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::{PeerInfo, shared::Shared, stats::LinkStats};

const COUNTERS: usize = 7;

/// The instruments of one connection, labelled with its peer and the peer's region.
#[derive(Debug)]
pub(crate) struct ConnectionMetrics {
    counters: [Counter; COUNTERS],
    /// What the counters were told so far: other connections to the same peer count on them too.
    published: [u64; COUNTERS],
    compression_ratio: Gauge,
    loss_ratio: Gauge,
    rtt: Histogram,
    links: Part,
    delivery_rate: Part,
    /// 1 while the connection lives, with links or waiting for one.
    expected: Part,
    /// 1 while it has a link.
    active: Part,
}

/// This connection's part of a gauge that other connections to the same peer add to; taken back at the end.
#[derive(Debug)]
struct Part {
    gauge: Gauge,
    /// An integer: sums of integers come back to zero.
    value: u64,
}

impl Part {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(0.0); // it is there, with nothing in it
        Self { gauge, value: 0 }
    }

    fn set(&mut self, value: u64) {
        self.gauge.increment(value as f64 - self.value as f64);
        self.value = value;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl ConnectionMetrics {
    pub(crate) fn new(peer: &PeerInfo) -> Self {
        let region = peer.region.clone().unwrap_or_default();
        let labels = [("peer", peer.node_id.clone()), ("region", region)];
        gauge!("dwcp_transport_info", "kind" => "tcp").set(1.0);
        let mut expected = Part::new(gauge!("dwcp_expected_connections", &labels));
        expected.set(1);
        Self {
            counters: [
                counter!("dwcp_bytes_sent_total", &labels),
                counter!("dwcp_bytes_received_total", &labels),
                counter!("dwcp_wire_bytes_sent_total", &labels),
                counter!("dwcp_wire_bytes_received_total", &labels),
                counter!("dwcp_resumes_total", &labels),
                counter!("dwcp_integrity_failures_total", &labels),
                counter!("dwcp_compression_errors_total", &labels),
            ],
            published: [0; COUNTERS],
            compression_ratio: gauge!("dwcp_compression_ratio", &labels),
            loss_ratio: gauge!("dwcp_packet_loss_ratio", &labels),
            rtt: histogram!("dwcp_rtt_seconds", &labels),
            links: Part::new(gauge!("dwcp_active_streams", &labels)),
            delivery_rate: Part::new(gauge!("dwcp_delivery_rate_bytes_per_second", &labels)),
            expected,
            active: Part::new(gauge!("dwcp_active_connections", &labels)),
        }
    }

    pub(crate) fn publish(&mut self, shared: &Shared, links: &[LinkStats]) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let raw = read(&shared.bytes_sent);
        let (wire_sent, wire_received) = shared.wire_bytes();
        let totals = [
            raw,
            read(&shared.bytes_received),
            wire_sent,
            wire_received,
            read(&shared.resumes),
            read(&shared.integrity_failures),
            read(&shared.compression_errors),
        ];
        for ((counter, published), total) in self.counters.iter().zip(&mut self.published).zip(totals) {
            counter.increment(total.saturating_sub(*published));
            *published = total;
        }
        if raw > 0 && wire_sent > 0 {
            self.compression_ratio.set(raw as f64 / wire_sent as f64);
        }
        self.expected.set((!shared.is_closed()).into());
        self.active.set((!links.is_empty()).into());
        self.links.set(links.len() as u64);
        let worst_loss = links.iter().map(|link| link.loss_ratio).fold(0.0, f64::max);
        self.loss_ratio.set(worst_loss);
        self.delivery_rate.set(links.iter().map(|link| link.delivery_rate).sum());
        for link in links {
            self.rtt.record(link.rtt.as_secs_f64());
        }
    }
}

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    use Unit::{Bytes, Count, Seconds};
    describe_counter!(
        "dwcp_bytes_sent_total",
        Bytes,
        "Stream payload taken from applications, before compression."
    );
    describe_counter!(
        "dwcp_bytes_received_total",
        Bytes,
        "Stream payload given to applications, decompressed."
    );
    describe_counter!("dwcp_wire_bytes_sent_total", Bytes, "Frame bytes handed to sockets.");
    describe_counter!("dwcp_wire_bytes_received_total", Bytes, "Frame bytes read from sockets.");
    describe_counter!("dwcp_resumes_total", Count, "Links whose socket failed or ended.");
    describe_counter!(
        "dwcp_integrity_failures_total",
        Count,
        "Frames or TLS records that were altered on the way."
    );
    describe_counter!("dwcp_compression_errors_total", Count, "Compressed frames that did not decode.");
    describe_gauge!("dwcp_active_streams", Count, "Links (TCP connections) that are open.");
    describe_gauge!("dwcp_active_connections", Count, "Connections that have a link.");
    describe_gauge!(
        "dwcp_expected_connections",
        Count,
        "Connections that live, with a link or waiting for one."
    );
    describe_gauge!("dwcp_compression_ratio", Count, "Stream payload over frame bytes sent.");
    describe_gauge!("dwcp_packet_loss_ratio", Count, "Lost over sent bytes of the worst link, 0 to 1.");
    describe_gauge!(
        "dwcp_delivery_rate_bytes_per_second",
        Bytes,
        "The kernel's estimate, all links together."
    );
    describe_gauge!("dwcp_transport_info", Count, "1 for each kind of transport in use.");
    describe_histogram!("dwcp_rtt_seconds", Seconds, "Smoothed round-trip time of links, sampled.");
}
