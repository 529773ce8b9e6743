//! What an endpoint can be told. Defaults and ranges of the settings are listed in `ARCHITECTURE.md`, with the reasons
//! of those that were decided otherwise than first planned.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dwcp_proto::hello::DICTIONARIES_MAX;

use crate::{TrustZone, dictionary::Dictionary};

/// Everything an [`Endpoint`](crate::Endpoint) needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// Name of this node, sent to the peer (1..=255 bytes of UTF-8).
    pub node_id: String,
    /// Region of this node, if any (1..=255 bytes of UTF-8).
    pub region: Option<String>,
    /// Links, windows, timeouts.
    pub transport: TransportConfig,
    /// Frame compression.
    pub compression: CompressionConfig,
    /// For small payloads: of these, the one that gains most is used with a peer that has it too. At most 16.
    pub dictionaries: Vec<Arc<Dictionary>>,
    /// TLS, or `None` for plaintext (loopback only unless `allow_plaintext`).
    pub tls: Option<Arc<crate::TlsConfig>>,
    /// Allows plaintext on addresses other than loopback.
    pub allow_plaintext: bool,
    /// Datagrams beside the links.
    pub datagrams: DatagramConfig,
}

/// Datagrams of the connections of an endpoint. A connection has them if both of its ends take them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramConfig {
    /// Where an endpoint that listens takes datagrams (UDP; port 0: any free one); `None`: nowhere. One that only connects
    /// is given its socket by [`Endpoint::add_datagram_socket`](crate::Endpoint::add_datagram_socket).
    pub listen: Option<SocketAddr>,
    /// Between two probes of a path, give or take a tenth; 10 ms..=60 s.
    pub probe_interval: Duration,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self { listen: None, probe_interval: Duration::from_secs(1) }
    }
}

/// Links, windows and timeouts of the connections of an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransportConfig {
    /// Bounds of the number of links.
    pub streams: StreamsConfig,
    /// TCP congestion control. `None`: begin with `bbr`, or `cubic` on a path below 2 ms, and let the controller
    /// choose by measured result; `Some`: that one, always.
    pub congestion_control: Option<String>,
    /// Largest payload of a frame in bytes, 4 KiB..=4 MiB.
    pub frame_bytes_max: u32,
    /// Aggregate pacing limit over all links, bytes per second.
    pub pacing_bytes_per_second: Option<u64>,
    /// Whether large payloads go to the kernel by reference.
    pub zerocopy: Zerocopy,
    /// Bytes a peer may have in flight to us over all streams.
    pub connection_window_bytes: u64,
    /// Streams the peer may have open at once.
    pub streams_open_max: u32,
    /// How long a connection without any link waits for one to return.
    pub resume_timeout: Duration,
    /// A connection without stream or message traffic for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Silence on a link after which it is probed.
    pub keepalive_interval: Duration,
    /// Bound on TCP connect, TLS and DWCP handshake together.
    pub handshake_timeout: Duration,
    /// Peers with addresses in these get links over RDMA where both sides have it. Verbs do not encrypt, even on a
    /// connection with TLS: name only networks whose wire is trusted. None: RDMA is off.
    pub rdma_zones: Vec<TrustZone>,
}

impl TransportConfig {
    /// Whether RDMA is allowed with the peer at this address.
    pub(crate) fn trusts_wire_to(&self, peer: IpAddr) -> bool {
        self.rdma_zones.iter().any(|zone| zone.contains(peer))
    }
}

/// Bounds of the number of links of a connection, 1..=1024, min <= initial <= max.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Never fewer links than this.
    pub min: u16,
    /// Never more links than this.
    pub max: u16,
    /// Links opened at first.
    pub initial: u16,
}

/// When payloads of links without TLS are sent with `MSG_ZEROCOPY` (Linux 4.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zerocopy {
    /// Where it is measured to be cheaper than copying; never within one machine, where the kernel copies anyway.
    Auto,
    /// Always, even where the kernel copies.
    On,
    /// Never.
    Off,
}

/// Frame compression of outgoing stream data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionConfig {
    /// Which algorithm.
    pub algorithm: CompressionAlgorithm,
    /// Which level; only zstd has levels.
    pub level: CompressionLevel,
}

/// Compression algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionAlgorithm {
    /// Send as it is.
    None,
    /// LZ4 block format.
    Lz4,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionLevel {
    /// Chosen per frame from link rate, CPU cost and an entropy probe; may be "not at all".
    Auto,
    /// Always this zstd level, 1..=19.
    Fixed(u8),
}

/// A setting out of range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key}: {value} is out of range, expected {expected}")]
pub struct ConfigError {
    /// The setting's name as in the configuration file.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl EndpointConfig {
    /// The defaults, for a node of this name.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            region: None,
            transport: TransportConfig::default(),
            compression: CompressionConfig::default(),
            dictionaries: Vec::new(),
            tls: None,
            allow_plaintext: false,
            datagrams: DatagramConfig::default(),
        }
    }

    /// Checks every range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        fn check(
            ok: bool,
            key: &'static str,
            value: impl ToString,
            expected: &'static str,
        ) -> Result<(), ConfigError> {
            if ok {
                return Ok(());
            }
            Err(ConfigError { key, value: value.to_string(), expected })
        }
        let t = &self.transport;
        check((1..=255).contains(&self.node_id.len()), "node_id", &self.node_id, "1..=255 bytes")?;
        if let Some(region) = &self.region {
            check((1..=255).contains(&region.len()), "region", region, "1..=255 bytes")?;
        }
        let s = t.streams;
        check((1..=1024).contains(&s.min), "transport.streams.min", s.min, "1..=1024")?;
        check((s.min..=1024).contains(&s.max), "transport.streams.max", s.max, "min..=1024")?;
        let initial_ok = (s.min..=s.max).contains(&s.initial);
        check(initial_ok, "transport.streams.initial", s.initial, "min..=max")?;
        let frame_ok = (4 << 10..=4 << 20).contains(&t.frame_bytes_max);
        check(frame_ok, "transport.frame_bytes_max", t.frame_bytes_max, "4 KiB..=4 MiB")?;
        let window_ok = t.connection_window_bytes >= 4 * u64::from(t.frame_bytes_max);
        check(
            window_ok,
            "transport.connection_window_bytes",
            t.connection_window_bytes,
            "at least 4 frames",
        )?;
        check(
            t.pacing_bytes_per_second.is_none_or(|p| p >= 1024),
            "transport.pacing_bytes_per_second",
            t.pacing_bytes_per_second.unwrap_or(0),
            "at least 1 KiB",
        )?;
        let interval = self.datagrams.probe_interval;
        check(
            (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&interval),
            "datagrams.probe_interval",
            format!("{interval:?}"),
            "10 ms..=60 s",
        )?;
        let count = self.dictionaries.len();
        check(count <= DICTIONARIES_MAX, "compression.dictionaries", count, "at most 16")?;
        for (at, one) in self.dictionaries.iter().enumerate() {
            // Frames say no more than the id.
            let is_only = self.dictionaries[..at].iter().all(|other| other.id() != one.id());
            check(is_only, "compression.dictionaries", one.id(), "an id that no other has")?;
        }
        if let CompressionLevel::Fixed(level) = self.compression.level {
            check((1..=19).contains(&level), "compression.level", level, "auto or 1..=19")?;
        }
        Ok(())
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            streams: StreamsConfig::default(),
            congestion_control: None,
            frame_bytes_max: 256 << 10,
            pacing_bytes_per_second: None,
            zerocopy: Zerocopy::Auto,
            connection_window_bytes: 64 << 20,
            streams_open_max: 1024,
            resume_timeout: Duration::from_secs(30),
            idle_timeout: None,
            keepalive_interval: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            rdma_zones: Vec::new(),
        }
    }
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self { min: 1, max: 256, initial: 2 }
    }
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { algorithm: CompressionAlgorithm::Zstd, level: CompressionLevel::Auto }
    }
}

impl CompressionConfig {
    /// No compression at all.
    pub const NONE: Self = Self { algorithm: CompressionAlgorithm::None, level: CompressionLevel::Auto };
}
