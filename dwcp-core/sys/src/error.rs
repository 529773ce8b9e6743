//! The error of every socket option.

use std::io;

/// A system call on a socket failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct SocketError {
    /// The call with its option, e.g. `setsockopt(TCP_CONGESTION)`.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl SocketError {
    /// For `map_err`.
    pub(crate) fn in_call(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { call, source }
    }
}
