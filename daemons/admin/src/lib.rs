//! What a NovaCron process tells about itself over HTTP: metrics, health, readiness and status.
//!
//! | path | |
//! |---|---|
//! | `/metrics` | Prometheus text format: everything that went through the `metrics` facade |
//! | `/healthz` | 200 while the process runs |
//! | `/ready` | 200 while it takes on work, 503 otherwise |
//! | `/startup` | 200 once it has begun, 503 before |
//! | `/status` | JSON; of a process with a DWCP endpoint, [`TransportStatus`] |
//! | others | what [`Observed::page`] gives |
//!
//! It is there to be read: GET and HEAD, nothing changes anything. There is no encryption and no login, so it listens
//! on loopback unless told otherwise. Everything is bounded: connections, their time, the size of a request.
//!
//! Deliberately not here: flags, settings and signals (they belong to each daemon), and what the metrics are.

mod client;
mod error;
mod metrics;
mod server;
mod status;

pub use client::{FetchError, RESPONSE_BYTES_MAX, fetch};
pub use error::AdminError;
pub use metrics::Metrics;
pub use server::{Listener, Observed, Page, Server};
pub use status::{ConnectionStatus, LinkStatus, PeerStatus, TransportStatus};

/// The port by custom.
pub const PORT: u16 = 9101;
