//! Why a process cannot be observed.

use std::{io, net::SocketAddr};

/// The listener or the recorder could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// An address that others can reach, and no leave to use it.
    #[error(
        "refusing to tell metrics and status to everybody who reaches {address}: listen on loopback, or allow it \
         with --metrics-allow-plaintext (setting metrics.allow_plaintext)"
    )]
    PlaintextNotAllowed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A system call failed.
    #[error("metrics.listen: {call} {address}: {source}")]
    Io {
        /// Which one.
        call: &'static str,
        /// On which address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// The process has a recorder of metrics already.
    #[error("metrics are recorded elsewhere already")]
    RecorderTaken,
}
