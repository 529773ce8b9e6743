//! What can go wrong on the way over RDMA.

use std::{fmt, io};

/// RDMA is not to be had here, or a queue pair has failed. After either, the traffic has to go another way.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RdmaError {
    /// The machine has no rdma-core, or one that is too old.
    #[error("libibverbs is not there: {reason}")]
    NoLibrary {
        /// What the loader said.
        reason: String,
    },
    /// The library has nobody to ask.
    #[error("this kernel has no RDMA (CONFIG_INFINIBAND_USER_ACCESS, module ib_uverbs)")]
    NoKernel,
    /// No device, or none with an active Ethernet port that has a RoCE v2 address.
    #[error("no RDMA device has an active port with a RoCE v2 address ({devices} devices)")]
    NoPort {
        /// How many devices there are.
        devices: usize,
    },
    /// The port that was found is gone.
    #[error("the RDMA device {device} is gone")]
    DeviceGone {
        /// Its name.
        device: String,
    },
    /// A call of the library failed.
    #[error("{call}: {}", io::Error::from_raw_os_error(*errno))]
    Call {
        /// Its name.
        call: &'static str,
        /// The error number.
        errno: i32,
    },
    /// A work request did not complete: the queue pair is unusable from then on.
    #[error("a work request failed: {0}")]
    Completion(CompletionStatus),
    /// The device says that it, its port or the queue pair is gone.
    #[error("the device reports {what}")]
    Event {
        /// Which event.
        what: &'static str,
    },
    /// The peer did what no correct one does.
    #[error("the peer broke the protocol of the RDMA link: {what}")]
    Peer {
        /// What.
        what: &'static str,
    },
    /// The peer cannot be talked to this way, for example another version.
    #[error("the peer's connection data do not fit: {what}")]
    Incompatible {
        /// What.
        what: &'static str,
    },
}

impl RdmaError {
    /// The error that the calling thread's last call of the library has left.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::Call { call, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }

    /// For calls that return an error number, or 0.
    pub(crate) fn check(call: &'static str, returned: i32) -> Result<(), Self> {
        match returned {
            0 => Ok(()),
            // Some return -1 and leave the number in `errno`.
            -1 => Err(Self::last(call)),
            errno => Err(Self::Call { call, errno: errno.abs() }),
        }
    }
}

impl From<RdmaError> for io::Error {
    fn from(error: RdmaError) -> Self {
        let kind = match &error {
            RdmaError::Peer { .. } => io::ErrorKind::InvalidData,
            RdmaError::Completion(CompletionStatus::RETRY_EXCEEDED) => io::ErrorKind::TimedOut,
            RdmaError::Completion(_) | RdmaError::Event { .. } => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// How a work request ended (`enum ibv_wc_status`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompletionStatus(pub u32);

impl CompletionStatus {
    /// It was given up because the queue pair had failed, or was made to.
    pub const FLUSHED: Self = Self(5);
    /// The peer does not allow that access to its memory.
    pub const REMOTE_ACCESS: Self = Self(10);
    /// The peer does not answer.
    pub const RETRY_EXCEEDED: Self = Self(12);
    /// The peer had no receive request posted: the accounting of credit is wrong.
    pub const RECEIVER_NOT_READY: Self = Self(13);

    fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::FLUSHED => "flushed: the queue pair has failed before",
            Self::REMOTE_ACCESS => "the peer refuses the access",
            Self::RETRY_EXCEEDED => "the peer does not answer",
            Self::RECEIVER_NOT_READY => "the peer had no room",
            _ => return None,
        })
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "status {} of enum ibv_wc_status", self.0),
        }
    }
}

impl fmt::Debug for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
