//! Why an agent has not answered, or not as was wanted.

use std::{io, path::PathBuf};

use hyper::StatusCode;

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody listens on the socket, or this user may not connect.
    #[error("no agent answers on {}: {source} (--socket names another; root may connect)", .socket.display())]
    Connect {
        /// Which one.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What answers on the socket does not speak HTTP, or stopped in the middle.
    #[error("{}: {reason}", .socket.display())]
    Http {
        /// Which one.
        socket: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The agent cannot be reached over DWCP. It was asked nothing.
    #[error("{node} at {address}: {reason}")]
    Unreachable {
        /// Which one.
        node: String,
        /// Where it should be.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// It was asked over DWCP, and nobody knows what came of it.
    #[error("{node}: {reason}")]
    Lost {
        /// Which one.
        node: String,
        /// What was wrong.
        reason: String,
    },
    /// The agent refuses.
    #[error("{error}")]
    Refused {
        /// In general.
        status: StatusCode,
        /// In words.
        error: String,
    },
}
