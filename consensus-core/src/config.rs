//! What a node is told when it starts.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use consensus_raft::Membership;

/// Settings of a [`Node`](crate::Node).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Which cluster; members of different clusters refuse each other.
    pub cluster: u64,
    /// This member's id, not 0.
    pub id: u64,
    /// Where its log is.
    pub log_dir: PathBuf,
    /// Where it listens for its peers.
    pub listen: SocketAddr,
    /// The first members of a new cluster, the same on all of them. Used only if `log_dir` is new.
    pub bootstrap: Option<Membership>,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// TLS to peers, or `None`: plaintext.
    pub tls: Option<Arc<dwcp_core::TlsConfig>>,
    /// Allows plaintext on other addresses than loopback.
    pub allow_plaintext: bool,
}

/// Heartbeats and elections. The same on all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Without a heartbeat, a follower campaigns after this to twice this.
    pub election_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(100), election_timeout: Duration::from_secs(1) }
    }
}

impl NodeConfig {
    /// A member of a cluster, with its log in a folder.
    pub fn new(cluster: u64, id: u64, log_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            cluster,
            id,
            log_dir,
            listen,
            bootstrap: None,
            timing: Timing::default(),
            tls: None,
            allow_plaintext: false,
        }
    }
}
