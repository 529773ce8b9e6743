//! DWCP: a WAN transport that makes many TCP connections act as one.
//!
//! An [`Endpoint`] listens and connects; a [`Connection`] carries ordered byte streams
//! ([`SendStream`], [`RecvStream`]) and small prioritised [`Messages`] over 1..N *links*. A link is
//! one TCP connection, or an RDMA queue pair beside one; links are added, retired and lost while data
//! flows.
//!
//! The wire format and the state machine live in `dwcp-proto`, system calls in `dwcp-sys`. This
//! crate owns the tokio driver, TLS, compression and the controllers; it deliberately knows
//! nothing of files (see `dwcp-transfer`), of configuration files or of process signals.

mod accept;
#[doc(hidden)]
pub mod adapt;
mod buffers;
mod busy_poll;
mod closer;
#[doc(hidden)]
pub mod compress;
mod compressor;
mod config;
mod connect;
mod connection;
#[cfg(test)]
mod copies;
mod datagram;
mod dialer;
pub mod dictionary;
mod endpoint;
mod error;
mod handshake;
mod link;
mod message;
mod metrics;
mod monitor;
mod pacing;
mod peer_label;
mod rdma;
mod reach;
mod reader;
#[doc(hidden)]
pub mod sample_data;
pub mod security;
mod shared;
mod socket_options;
mod stats;
mod stream;
mod task;
mod unsent;
mod zerocopy;

pub use config::{
    CompressionAlgorithm, CompressionConfig, CompressionLevel, ConfigError, DatagramConfig, EndpointConfig,
    StreamsConfig, TransportConfig, Zerocopy,
};
pub use connection::{Connection, PeerInfo};
pub use datagram::{DatagramKind, Datagrams, PathStats};
pub use dwcp_proto::{CloseCode, datagram::Rtt};
pub use dwcp_sys::datagram as datagram_socket;
pub use endpoint::Endpoint;
pub use error::{
    BindError, CloseReason, ConnectError, ConnectionError, DatagramError, MessageError, ReadError, WriteError,
};
pub use message::{IncomingMessage, Messages, Priority, Responder};
pub use metrics::{count_integrity_failure, describe as describe_metrics};
pub use rdma::{TrustZone, TrustZoneError};
pub use reach::Reach;
pub use security::TlsConfig;
pub use stats::{ConnectionSnapshot, ConnectionStats, LinkStats};
pub use stream::{RecvStream, SendStream};
