//! What can be set of the transport and of consensus, under the names that DWCP's parts have: AMST (streams), HDE (compression)
//! and ACP (consensus).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of DWCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Dwcp {
    /// Adaptive multi-stream transport.
    pub amst: Amst,
    /// Hierarchical delta encoding: what compresses on the way.
    pub hde: Hde,
    /// Adaptive consensus protocol.
    pub acp: Acp,
}

/// Streams of a connection between nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.minStreams <= self.maxStreams", "message": "minStreams is at most maxStreams" },
    { "rule": "self.minStreams <= self.initialStreams && self.initialStreams <= self.maxStreams", "message": "initialStreams is between minStreams and maxStreams" }
]))]
pub struct Amst {
    /// Fewest TCP connections to a peer.
    #[schemars(range(min = 1, max = 1024))]
    pub min_streams: u16,
    /// Most TCP connections to a peer.
    #[schemars(range(min = 1, max = 1024))]
    pub max_streams: u16,
    /// How many there are at first.
    #[schemars(range(min = 1, max = 1024))]
    pub initial_streams: u16,
    /// Congestion control of the kernel; `auto` leaves it to the agent.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,15}$"))]
    pub congestion_control: String,
    /// Bytes per second over all streams to a peer; without it, as much as there is room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_000_000_000_000_i64))]
    pub pacing_bytes_per_second: Option<u64>,
}

impl Default for Amst {
    fn default() -> Self {
        Self {
            min_streams: 1,
            max_streams: 256,
            initial_streams: 2,
            congestion_control: "auto".to_owned(),
            pacing_bytes_per_second: None,
        }
    }
}

/// What compresses data between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Zstandard.
    #[default]
    Zstd,
    /// LZ4.
    Lz4,
    /// Nothing.
    None,
}

impl Compression {
    /// As the agent's settings call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }
}

/// Compression between nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Hde {
    /// What compresses.
    pub algorithm: Compression,
    /// How hard it tries; without it, as hard as the link leaves time for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<u8>,
}

/// Times of consensus that fit a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Heartbeats each 100 ms, elections after 1 s.
    Lan,
    /// Heartbeats each 1 s, elections after 5 s.
    #[default]
    Wan,
}

impl Profile {
    /// The interval of heartbeats and the election timeout, in milliseconds.
    pub fn times_ms(self) -> (u32, u32) {
        match self {
            Self::Lan => (100, 1000),
            Self::Wan => (1000, 5000),
        }
    }
}

/// Consensus between the members of a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Acp {
    /// Heartbeats and elections.
    pub profile: Profile,
    /// Longest time between two snapshots, in seconds.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub snapshot_interval_seconds: u32,
    /// Most log entries between two snapshots.
    #[schemars(range(min = 10, max = 100_000_000))]
    pub snapshot_entries: u32,
}

impl Default for Acp {
    fn default() -> Self {
        Self { profile: Profile::default(), snapshot_interval_seconds: 3600, snapshot_entries: 10_000 }
    }
}
