//! What a connection has measured.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{PeerInfo, shared::Shared};

/// A snapshot of one connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Stream payload bytes accepted from the caller, before compression.
    pub bytes_sent: u64,
    /// Stream payload bytes received, after decompression.
    pub bytes_received: u64,
    /// Frame bytes handed to sockets (headers, compressed payload; without TLS and TCP overhead).
    pub wire_bytes_sent: u64,
    /// Frame bytes read from sockets.
    pub wire_bytes_received: u64,
    /// Links lost and replaced.
    pub resumes: u64,
    /// Why there are as many links as there are: what the controller last changed. Empty before it has.
    pub last_decision: String,
    /// Why links have the congestion control that they have.
    pub congestion_control_decision: String,
    /// How frames are compressed now, and why.
    pub compression_decision: String,
    /// What all links together are paced to, and why.
    pub pacing_decision: String,
    /// One entry for each live link.
    pub links: Vec<LinkStats>,
}

/// A connection of an endpoint and what it has measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// Who the peer is.
    pub peer: PeerInfo,
    /// What was measured so far.
    pub stats: ConnectionStats,
}

/// A snapshot of one link.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LinkStats {
    /// Number of the link in its connection.
    pub id: u32,
    /// Congestion control in force, as read back from the socket.
    pub congestion_control: String,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Smallest round-trip time seen.
    pub rtt_min: Duration,
    /// The kernel's delivery rate estimate, bytes per second.
    pub delivery_rate: u64,
    /// BBR's estimate of the bottleneck, bytes per second; `None` if the link does not use BBR.
    pub bbr_bandwidth: Option<u64>,
    /// BBR's estimate of the round-trip time without queues; `None` as above.
    pub bbr_rtt_min: Option<Duration>,
    /// Largest IP packet that the kernel believes to fit the path, bytes; `None` if it does not say.
    pub path_mtu: Option<u32>,
    /// Segments retransmitted so far.
    pub retransmits: u64,
    /// Lost bytes over sent bytes since the link was made, 0.0..=1.0.
    pub loss_ratio: f64,
    /// Frame bytes handed to the socket.
    pub wire_bytes_sent: u64,
    /// Frame bytes read from the socket.
    pub wire_bytes_received: u64,
    /// Whether large payloads go to the kernel by reference (`on: ...`) or are copied (`off: ...`), and why.
    pub zerocopy: &'static str,
    /// What carries its frames: `tcp`, or `rdma`: then what is said of TCP here is of the silent connection beside it.
    pub transport: &'static str,
}

impl Shared {
    pub(crate) fn stats(&self) -> ConnectionStats {
        let (wire_bytes_sent, wire_bytes_received) = self.wire_bytes();
        // Before the state is locked: a sender locks it while it holds the compressor.
        let compression_decision = match &self.compressor {
            Some(compressor) => compressor.decision(),
            None => "none: switched off".to_owned(),
        };
        let state = self.lock();
        ConnectionStats {
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            wire_bytes_sent,
            wire_bytes_received,
            resumes: self.resumes.load(Ordering::Relaxed),
            last_decision: state.last_decision.clone(),
            congestion_control_decision: state.congestion_control_decision.clone(),
            compression_decision,
            pacing_decision: state.pacing.decision(),
            links: state.link_stats.clone(),
        }
    }
}
