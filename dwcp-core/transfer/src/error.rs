//! Why a transfer as a whole ended early. Failures of single files are in the [`Summary`](crate::Summary).

use std::{io, path::PathBuf};

use crate::{DecodeError, Failure};

/// Why a transfer could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The connection or one of its streams failed. Running the same transfer again resumes it.
    #[error("connection lost while {doing}: {source}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// What the transport said.
        source: io::Error,
    },
    /// The peer sent bytes that do not decode.
    #[error("the peer sent an invalid {what}: {source}")]
    Decode {
        /// Which message.
        what: &'static str,
        /// Why not.
        source: DecodeError,
    },
    /// The peer sent something about a baseline that does not decode.
    #[error("the peer sent an invalid {what}: {source}")]
    Delta {
        /// What.
        what: &'static str,
        /// Why not.
        source: dwcp_delta::DeltaError,
    },
    /// The peer broke a rule of the protocol.
    #[error("the peer broke the transfer protocol: {rule}")]
    Protocol {
        /// Which rule, with its clause.
        rule: &'static str,
    },
    /// The peer does not speak our version.
    #[error("the peer speaks transfer protocol version {theirs}, this is version {ours}")]
    Version {
        /// Ours.
        ours: u16,
        /// Theirs.
        theirs: u16,
    },
    /// The peer gave up.
    #[error("the peer gave up{}: {failure}", at(.path))]
    Peer {
        /// Why.
        failure: Failure,
        /// At which path, if at one.
        path: String,
    },
    /// This side cannot go on: the destination is full, read-only or broken.
    #[error("cannot go on at {path}: {failure}")]
    Destination {
        /// Why.
        failure: Failure,
        /// At which path.
        path: String,
    },
    /// A system call failed before anything was sent or received.
    #[error("{call} {}: {source}", path.display())]
    Setup {
        /// Which call.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A source cannot be sent at all.
    #[error("cannot send {}: {reason}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// What should be sent of a folder is not below it, or is reached through a symbolic link.
    #[error("{} cannot be reached without symbolic links", path.display())]
    NotBeneath {
        /// What.
        path: PathBuf,
    },
    /// A newer run of the same transfer took over.
    #[error("a newer run of the same transfer took over")]
    Superseded,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" at {path}") }
}
