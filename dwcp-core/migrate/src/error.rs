//! Why a migration fails.

use std::{io, path::PathBuf, time::Duration};

use dwcp_core::{ConnectionError, ReadError, WriteError};

use crate::ram::DecodeError;

/// Why a migration fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// QEMU's monitor cannot be spoken with.
    #[error("QMP at {}: {source}", path.display())]
    Qmp {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {message}")]
    Refused {
        /// Which.
        command: String,
        /// What it said.
        message: String,
    },
    /// It answers with something else than is expected.
    #[error("QEMU's answer to {command} is not understood")]
    NotUnderstood {
        /// Which.
        command: &'static str,
    },
    /// The guest is not in the state that it has to be in.
    #[error("the guest is {state}, and should be {wanted}")]
    State {
        /// What it is.
        state: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The other QEMU's disks are others.
    #[error("disk {name}: {what}")]
    Disk {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// QEMU's own migration failed.
    #[error("QEMU's migration {status}: {message}")]
    Migration {
        /// Its status.
        status: String,
        /// What it said.
        message: String,
    },
    /// The other side failed and said why.
    #[error("the target: {0}")]
    Target(String),
    /// The other side takes no more, and did not say why.
    #[error("the target has given up")]
    GivenUp,
    /// The source ended before it had sent everything.
    #[error("the source ended before it had sent all of the memory")]
    CutOff,
    /// What the peer says is not of this protocol.
    #[error("the peer's {0} is not understood")]
    Protocol(&'static str),
    /// Something took too long.
    #[error("{what} took longer than {timeout:?}")]
    Timeout {
        /// What.
        what: &'static str,
        /// How long that may take.
        timeout: Duration,
    },
    /// All was sent, and then the connection ended: nobody here knows whether the guest runs there.
    #[error(
        "the connection ended when everything was sent: look at the target. If the guest does not run there, `cont` at the source lets it go on"
    )]
    Unknown,
    /// A socket between this process and QEMU.
    #[error("{what}: {source}")]
    Socket {
        /// Which.
        what: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// Memory that does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A stream of it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stream of it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Names a socket in its error.
pub(crate) fn socket(what: &'static str) -> impl FnOnce(io::Error) -> MigrateError {
    move |source| MigrateError::Socket { what, source }
}
