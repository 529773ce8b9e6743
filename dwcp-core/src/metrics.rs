//! The `dwcp_*` metrics of a connection, through the `metrics` facade: whoever links this crate chooses the exporter.

use std::sync::atomic::Ordering;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::{
    adapt::Change,
    datagram::{self, PathGauges},
    peer_label::PeerLabel,
    shared::Shared,
    stats::LinkStats,
};

/// Tells the recorder what the metrics mean, and makes those that belong to no peer appear before anything happens.
/// To be called once there is a recorder, and again if it forgets what is idle.
pub fn describe() {
    describe_counter!("dwcp_bytes_sent_total", "Stream payload bytes sent, before compression.");
    describe_counter!("dwcp_bytes_received_total", "Stream payload bytes received, after decompression.");
    describe_counter!("dwcp_wire_bytes_sent_total", "Frame bytes handed to sockets, without TLS and TCP.");
    describe_counter!(
        "dwcp_wire_bytes_received_total",
        "Frame bytes read from sockets, without TLS and TCP."
    );
    describe_counter!("dwcp_resumes_total", "Links that were lost.");
    describe_counter!("dwcp_retransmits_total", "TCP segments sent again, links that are gone included.");
    describe_counter!("dwcp_link_decisions_total", "Changes that the link controller made.");
    describe_counter!("dwcp_compression_errors_total", "Frames received that did not decode.");
    describe_counter!(
        "dwcp_dictionary_frames_total",
        "Frames sent that were compressed with a dictionary of both sides'."
    );
    describe_counter!(
        "dwcp_integrity_failures_total",
        "Frames, TLS records and transferred contents that are not what was sent."
    );
    describe_counter!(
        "dwcp_congestion_control_fallbacks_total",
        "Times that a wanted congestion control was not to be had."
    );
    describe_counter!(
        "dwcp_rdma_fallbacks_total",
        "Links that went or went on over TCP although the peer is in a trust zone."
    );
    describe_gauge!("dwcp_compression_ratio", "Stream payload bytes for each frame byte sent, so far.");
    describe_gauge!("dwcp_active_streams", "Links (TCP streams) that are up.");
    describe_gauge!("dwcp_active_connections", "Connections that have a link.");
    describe_gauge!(
        "dwcp_expected_connections",
        "Connections that have not ended: they have a link or wait for one."
    );
    describe_gauge!("dwcp_packet_loss_ratio", "Lost bytes over sent bytes, of the worst link.");
    describe_gauge!("dwcp_delivery_rate_bytes_per_second", "The kernel's estimate, over all links.");
    describe_gauge!(
        "dwcp_bbr_bandwidth_bytes_per_second",
        "BBR's estimate of the bottleneck, over all links that use BBR; 0: none does."
    );
    describe_gauge!(
        "dwcp_bbr_min_rtt_seconds",
        "BBR's estimate of the round-trip time without queues, of the shortest link; 0: none uses BBR."
    );
    describe_gauge!("dwcp_transport_info", "Kinds of links in use.");
    describe_histogram!("dwcp_rtt_seconds", "Smoothed round-trip time of each link at each sample.");
    datagram::describe();
    for name in ["dwcp_active_connections", "dwcp_expected_connections"] {
        gauge!(name).increment(0.0);
    }
    for name in
        ["dwcp_compression_errors_total", "dwcp_dictionary_frames_total", "dwcp_integrity_failures_total"]
    {
        counter!(name).increment(0);
    }
}

/// The instruments of one connection, labelled with its peer and the peer's region.
#[derive(Debug)]
pub(crate) struct ConnectionMetrics {
    counters: [Counter; 8],
    /// What the counters were told so far: other connections to the same peer count on them too.
    published: [u64; 8],
    compression_ratio: Gauge,
    loss_ratio: Gauge,
    rtt: Histogram,
    links: Part,
    delivery_rate: Part,
    bbr_bandwidth: Part,
    bbr_rtt_min: Gauge,
    /// 1 while the connection has not ended.
    expected: Part,
    /// 1 while it has a link.
    active: Part,
    /// For each kind of change.
    decisions: [Counter; 3],
    transport: Gauge,
    /// Links over RDMA.
    rdma: Part,
    /// Of a connection with datagrams.
    path: Option<PathGauges>,
    /// Dropped last: the label is in use until then.
    _label: PeerLabel,
}

/// This connection's part of a gauge to which other connections add theirs; taken back at the end.
#[derive(Debug)]
struct Part {
    gauge: Gauge,
    /// An integer: sums of integers come back to zero.
    value: u64,
}

impl Part {
    fn new(gauge: Gauge, value: u64) -> Self {
        gauge.increment(value as f64);
        Self { gauge, value }
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
    pub(crate) fn new(shared: &Shared) -> Self {
        let label = PeerLabel::of(&shared.peer);
        let labels = label.pairs();
        let decision = |change: &'static str| {
            let [peer, region] = label.pairs();
            counter!("dwcp_link_decisions_total", &[peer, region, ("change", change.to_owned())])
        };
        Self {
            counters: [
                counter!("dwcp_bytes_sent_total", &labels),
                counter!("dwcp_bytes_received_total", &labels),
                counter!("dwcp_wire_bytes_sent_total", &labels),
                counter!("dwcp_wire_bytes_received_total", &labels),
                counter!("dwcp_resumes_total", &labels),
                counter!("dwcp_retransmits_total", &labels),
                counter!("dwcp_datagrams_sent_total", &labels),
                counter!("dwcp_datagrams_received_total", &labels),
            ],
            published: [0; 8],
            compression_ratio: gauge!("dwcp_compression_ratio", &labels),
            loss_ratio: gauge!("dwcp_packet_loss_ratio", &labels),
            rtt: histogram!("dwcp_rtt_seconds", &labels),
            links: Part::new(gauge!("dwcp_active_streams", &labels), 0),
            delivery_rate: Part::new(gauge!("dwcp_delivery_rate_bytes_per_second", &labels), 0),
            bbr_bandwidth: Part::new(gauge!("dwcp_bbr_bandwidth_bytes_per_second", &labels), 0),
            bbr_rtt_min: gauge!("dwcp_bbr_min_rtt_seconds", &labels),
            expected: Part::new(gauge!("dwcp_expected_connections"), 1),
            active: Part::new(gauge!("dwcp_active_connections"), 0),
            decisions: ["add_links", "retire_link", "congestion_control"].map(decision),
            transport: gauge!("dwcp_transport_info", "kind" => "tcp"),
            rdma: Part::new(gauge!("dwcp_transport_info", "kind" => "rdma"), 0),
            path: shared.datagrams.get().map(|_| PathGauges::new(&labels)),
            _label: label,
        }
    }

    /// `retransmits`: of all links so far.
    pub(crate) fn publish(&mut self, shared: &Shared, links: &[LinkStats], retransmits: u64) {
        let raw = shared.bytes_sent.load(Ordering::Relaxed);
        let (wire_sent, wire_received) = shared.wire_bytes();
        let datagrams = shared.datagrams.get();
        let (datagrams_sent, datagrams_received) =
            datagrams.map(|channel| channel.totals()).unwrap_or_default();
        let totals = [
            raw,
            shared.bytes_received.load(Ordering::Relaxed),
            wire_sent,
            wire_received,
            shared.resumes.load(Ordering::Relaxed),
            retransmits,
            datagrams_sent,
            datagrams_received,
        ];
        for ((counter, published), total) in self.counters.iter().zip(&mut self.published).zip(totals) {
            counter.increment(total.saturating_sub(*published));
            *published = total.max(*published);
        }
        // A recorder may forget what is not touched for long: everything is, with each sample.
        self.transport.set(1.0);
        self.rdma.set(links.iter().filter(|link| link.transport == "rdma").count() as u64);
        self.decisions.iter().for_each(|counter| counter.increment(0));
        if raw > 0 && wire_sent > 0 {
            self.compression_ratio.set(raw as f64 / wire_sent as f64);
        }
        self.expected.set((!shared.is_closed()).into());
        self.active.set((!links.is_empty()).into());
        self.links.set(links.len() as u64);
        let worst_loss = links.iter().map(|link| link.loss_ratio).fold(0.0, f64::max);
        self.loss_ratio.set(worst_loss);
        self.delivery_rate.set(links.iter().map(|link| link.delivery_rate).sum());
        self.bbr_bandwidth.set(links.iter().filter_map(|link| link.bbr_bandwidth).sum());
        let bbr_rtt_min = links.iter().filter_map(|link| link.bbr_rtt_min).min();
        self.bbr_rtt_min.set(bbr_rtt_min.unwrap_or_default().as_secs_f64());
        if let (Some(gauges), Some(path)) = (&self.path, datagrams.and_then(|channel| channel.stats())) {
            gauges.publish(&path);
        }
        for link in links {
            self.rtt.record(link.rtt.as_secs_f64());
        }
    }

    pub(crate) fn decided(&self, change: &Change) {
        let [add, retire, congestion_control] = &self.decisions;
        let counter = match change {
            Change::AddLinks(_) => add,
            Change::RetireLink(_) => retire,
            Change::SetCongestionControl(_) => congestion_control,
        };
        counter.increment(1);
    }
}

/// What came is not what was sent. Also for protocols on top that check what they carry themselves.
pub fn count_integrity_failure() {
    counter!("dwcp_integrity_failures_total").increment(1);
}
