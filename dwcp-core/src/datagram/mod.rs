//! Datagrams of connections: unreliable, each encrypted by itself, beside the links.
//!
//! Owns the keys ([`keys`]), an endpoint's sockets and which flow is whose ([`Service`]), one connection's end of it
//! ([`Channel`]), and probing the path ([`probing`]). What is pure of it is in `dwcp-proto`, sockets are `dwcp-sys`'.
//! Specification: `docs/spec/datagram-1.md`.

mod channel;
mod handle;
mod keys;
mod probing;
mod queue;
mod service;
mod stats;

pub use handle::{DatagramKind, Datagrams};
pub use stats::PathStats;

pub(crate) use channel::Channel;
pub(crate) use keys::ConnectionKeys;
pub(crate) use service::Service;
pub(crate) use stats::{PathGauges, describe};
