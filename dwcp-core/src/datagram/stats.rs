//! What datagrams count and measure, for people and for metrics.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use dwcp_proto::datagram::Rtt;
use metrics::{Gauge, counter, describe_counter, describe_gauge, gauge};

/// A connection's path, as its datagrams see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathStats {
    /// Where the peer takes datagrams.
    pub peer: SocketAddr,
    /// Round trips of probes; `None` before the first answer.
    pub rtt: Option<Rtt>,
    /// Of the last 128 probes, those without an answer, 0.0..=1.0.
    pub loss_ratio: f64,
    /// Probes sent, those for the MTU among them.
    pub probes_sent: u64,
    /// Probes answered.
    pub probes_answered: u64,
    /// Largest IP packet that the path was found to carry, in bytes.
    pub mtu: u32,
    /// Whether larger ones are still being looked for.
    pub is_searching: bool,
    /// Datagrams handed to sockets, probes and answers among them.
    pub datagrams_sent: u64,
    /// Authentic datagrams received, probes and answers among them.
    pub datagrams_received: u64,
    /// Of those, how many came after one that was sent later.
    pub reordered: u64,
}

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) reordered: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Why a datagram was dropped, as the label `reason` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    /// It breaks section 2 of the specification.
    Malformed,
    /// No connection has this flow.
    UnknownFlow,
    /// Not authentic.
    Forged,
    /// It has arrived before, or is too old to know.
    Replayed,
    /// Optional, or with a content that this version does not know.
    Unknown,
    /// The application did not take it in time.
    QueueFull,
    /// The socket had no room for it.
    SocketFull,
    /// The socket could not send it.
    SocketError,
}

impl DropReason {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Malformed, "malformed"),
        (Self::UnknownFlow, "unknown_flow"),
        (Self::Forged, "forged"),
        (Self::Replayed, "replayed"),
        (Self::Unknown, "unknown"),
        (Self::QueueFull, "queue_full"),
        (Self::SocketFull, "socket_full"),
        (Self::SocketError, "socket_error"),
    ];
}

const DROPPED: &str = "dwcp_datagrams_dropped_total";

/// Dropped datagrams that no metric has heard of yet: metrics are slow, and floods are fast.
#[derive(Debug, Default)]
pub(super) struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    pub(super) fn add(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] += count;
    }

    #[cfg(test)]
    pub(super) fn count(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    pub(super) fn publish(&mut self) {
        for (count, (_, reason)) in self.0.iter_mut().zip(DropReason::ALL) {
            match std::mem::take(count) {
                0 => {}
                count => counter!(DROPPED, "reason" => reason).increment(count),
            }
        }
    }
}

/// Tells the recorder what the metrics mean, and makes the drops appear before there are any.
pub(crate) fn describe() {
    describe_counter!("dwcp_datagrams_sent_total", "Datagrams handed to sockets, probes among them.");
    describe_counter!("dwcp_datagrams_received_total", "Authentic datagrams received, probes among them.");
    describe_counter!(DROPPED, "Datagrams dropped here, by reason.");
    describe_gauge!("dwcp_path_rtt_seconds", "Smoothed round trip of probes by datagram.");
    describe_gauge!("dwcp_path_jitter_seconds", "Mean difference between round trips of probes by datagram.");
    describe_gauge!("dwcp_path_loss_ratio", "Of the last 128 probes by datagram, those without an answer.");
    describe_gauge!("dwcp_path_mtu_bytes", "Largest IP packet that the path was found to carry.");
    for (_, reason) in DropReason::ALL {
        counter!(DROPPED, "reason" => reason).increment(0);
    }
}

/// The gauges of one connection.
#[derive(Debug)]
pub(crate) struct PathGauges {
    rtt: Gauge,
    jitter: Gauge,
    loss_ratio: Gauge,
    mtu: Gauge,
}

impl PathGauges {
    pub(crate) fn new(labels: &[(&'static str, String); 2]) -> Self {
        Self {
            rtt: gauge!("dwcp_path_rtt_seconds", labels),
            jitter: gauge!("dwcp_path_jitter_seconds", labels),
            loss_ratio: gauge!("dwcp_path_loss_ratio", labels),
            mtu: gauge!("dwcp_path_mtu_bytes", labels),
        }
    }

    pub(crate) fn publish(&self, path: &PathStats) {
        if let Some(rtt) = path.rtt {
            self.rtt.set(rtt.smoothed.as_secs_f64());
            self.jitter.set(rtt.jitter.as_secs_f64());
        }
        self.loss_ratio.set(path.loss_ratio);
        self.mtu.set(f64::from(path.mtu));
    }
}
