//! What `/status` of a process with a DWCP endpoint says: the schema, for both sides.
//!
//! Fields are added, never given another meaning. Units are last in a name; counters begin with the connection.

use dwcp_core::{ConnectionSnapshot, Endpoint, LinkStats};
use serde::{Deserialize, Serialize};

/// Connections that are told in full; all are counted.
const CONNECTIONS_TOLD_MAX: usize = 64;

/// A process and its connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransportStatus {
    /// What runs, for instance `novacron recv`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Since it began.
    pub uptime_seconds: f64,
    /// What it calls itself to peers.
    pub node_id: String,
    /// Its region, if it has one.
    pub region: Option<String>,
    /// Where it listens for DWCP, if it does.
    pub listen: Option<String>,
    /// Whether it takes on work.
    pub ready: bool,
    /// Connections that have not ended.
    pub connections_total: usize,
    /// At most 64 of them, in the order of the names of their peers.
    pub connections: Vec<ConnectionStatus>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Who is at the other end.
    pub peer: PeerStatus,
    /// Stream payload, before compression.
    pub bytes_sent: u64,
    /// Stream payload, after decompression.
    pub bytes_received: u64,
    /// Frames handed to sockets.
    pub wire_bytes_sent: u64,
    /// Frames read from sockets.
    pub wire_bytes_received: u64,
    /// Payload sent for each byte on the wire; none before the first.
    pub compression_ratio: Option<f64>,
    /// Links lost.
    pub resumes: u64,
    /// Why the link controller last changed something; empty before it has.
    pub link_decision: String,
    /// Why links have the congestion control that they have.
    #[serde(default)]
    pub congestion_control_decision: String,
    /// How frames are compressed, and why.
    pub compression_decision: String,
    /// What all links together are paced to, and why.
    #[serde(default)]
    pub pacing_decision: String,
    /// Links that are up.
    pub links: Vec<LinkStatus>,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// What it calls itself.
    pub node_id: String,
    /// Its region, if it has one.
    pub region: Option<String>,
    /// The names of its certificate; none without TLS.
    pub names: Vec<String>,
    /// Of the first link.
    pub address: String,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Number of the link in its connection.
    pub id: u32,
    /// As read back from the socket.
    pub congestion_control: String,
    /// Smoothed round-trip time.
    pub rtt_ms: f64,
    /// The smallest one seen.
    pub rtt_min_ms: f64,
    /// The kernel's estimate.
    pub delivery_rate_bytes_per_second: u64,
    /// BBR's estimate of the bottleneck; none if the link does not use BBR.
    #[serde(default)]
    pub bbr_bandwidth_bytes_per_second: Option<u64>,
    /// BBR's estimate of the round-trip time without queues; none as above.
    #[serde(default)]
    pub bbr_rtt_min_ms: Option<f64>,
    /// Largest IP packet that the kernel believes to fit the path; none if it does not say.
    #[serde(default)]
    pub path_mtu_bytes: Option<u32>,
    /// Segments sent again.
    pub retransmits: u64,
    /// Bytes sent again for each byte sent, 0.0..=1.0.
    pub loss_ratio: f64,
    /// Frames handed to the socket.
    pub wire_bytes_sent: u64,
    /// Frames read from the socket.
    pub wire_bytes_received: u64,
    /// Whether large payloads go to the kernel by reference or are copied, and why.
    #[serde(default)]
    pub zerocopy: String,
}

impl ConnectionStatus {
    /// The connections of an endpoint as they are told, and how many there are.
    pub fn all(endpoint: &Endpoint) -> (Vec<Self>, usize) {
        let (snapshots, total) = endpoint.connections(CONNECTIONS_TOLD_MAX);
        let mut told: Vec<_> = snapshots.into_iter().map(Self::from).collect();
        told.sort_by(|a, b| (&a.peer.node_id, &a.peer.address).cmp(&(&b.peer.node_id, &b.peer.address)));
        (told, total)
    }
}

impl From<ConnectionSnapshot> for ConnectionStatus {
    fn from(ConnectionSnapshot { peer, stats, .. }: ConnectionSnapshot) -> Self {
        let ratio = stats.bytes_sent as f64 / stats.wire_bytes_sent as f64;
        Self {
            peer: PeerStatus {
                node_id: peer.node_id,
                region: peer.region,
                names: peer.names,
                address: peer.addr.to_string(),
            },
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            wire_bytes_sent: stats.wire_bytes_sent,
            wire_bytes_received: stats.wire_bytes_received,
            compression_ratio: (stats.wire_bytes_sent > 0).then_some(ratio),
            resumes: stats.resumes,
            link_decision: stats.last_decision,
            congestion_control_decision: stats.congestion_control_decision,
            compression_decision: stats.compression_decision,
            pacing_decision: stats.pacing_decision,
            links: stats.links.iter().map(LinkStatus::from).collect(),
        }
    }
}

impl From<&LinkStats> for LinkStatus {
    fn from(link: &LinkStats) -> Self {
        Self {
            id: link.id,
            congestion_control: link.congestion_control.clone(),
            rtt_ms: link.rtt.as_secs_f64() * 1e3,
            rtt_min_ms: link.rtt_min.as_secs_f64() * 1e3,
            delivery_rate_bytes_per_second: link.delivery_rate,
            bbr_bandwidth_bytes_per_second: link.bbr_bandwidth,
            bbr_rtt_min_ms: link.bbr_rtt_min.map(|rtt| rtt.as_secs_f64() * 1e3),
            path_mtu_bytes: link.path_mtu,
            retransmits: link.retransmits,
            loss_ratio: link.loss_ratio,
            wire_bytes_sent: link.wire_bytes_sent,
            wire_bytes_received: link.wire_bytes_received,
            zerocopy: link.zerocopy.to_owned(),
        }
    }
}
