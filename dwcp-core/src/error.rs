//! One error enum per family of operations. Fields instead of strings, the system call's name inside.

use std::{io, net::SocketAddr, time::Duration};

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// Plaintext on an address that others can reach.
    #[error("refusing plaintext on {addr}: configure TLS, listen on loopback, or allow plaintext explicitly")]
    PlaintextNotAllowed {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A system call failed.
    #[error("{call} {addr}: {source}")]
    Io {
        /// Which one.
        call: &'static str,
        /// On which address.
        addr: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// Why a connection could not be established.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// Plaintext to an address that is not loopback.
    #[error("refusing plaintext to {addr}: configure TLS or allow plaintext explicitly")]
    PlaintextNotAllowed {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A system call failed.
    #[error("{call} {addr}: {source}")]
    Io {
        /// Which one.
        call: &'static str,
        /// To which address.
        addr: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// The TLS handshake failed, or the peer's certificate is not one we accept.
    #[error("TLS with {addr}: {source}")]
    Tls {
        /// With whom.
        addr: SocketAddr,
        /// How.
        source: crate::security::HandshakeError,
    },
    /// A TLS peer answers a plaintext HELLO.
    #[error(
        "{addr} speaks TLS and this side is set to plaintext: configure a certificate, its key and the CA"
    )]
    PeerSpeaksTls {
        /// Who.
        addr: SocketAddr,
    },
    /// The peer does not speak this protocol, or broke it.
    #[error("{addr} broke the protocol: {source}")]
    Protocol {
        /// With whom.
        addr: SocketAddr,
        /// How.
        source: dwcp_proto::ProtocolError,
    },
    /// The peer refused.
    #[error("{addr} refused: {reason}")]
    Refused {
        /// Who.
        addr: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
    /// No answer in time.
    #[error("{addr} did not complete the handshake within {timeout:?}")]
    TimedOut {
        /// Who.
        addr: SocketAddr,
        /// The bound.
        timeout: Duration,
    },
    /// The endpoint is shutting down.
    #[error("the endpoint is shutting down")]
    ShuttingDown,
}

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// One of both sides is draining it: no new streams.
    #[error("the connection is draining")]
    Draining,
    /// We closed it.
    #[error("closed by this side")]
    ClosedLocally,
    /// The peer closed it.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(CloseReason),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] dwcp_proto::ProtocolError),
    /// All links were lost and none returned in time.
    #[error("all links lost and none returned within {0:?}")]
    ResumeTimedOut(Duration),
    /// Nothing was heard for the idle timeout.
    #[error("idle for {0:?}")]
    IdleTimedOut(Duration),
    /// A bug in this library: one of the connection's tasks panicked.
    #[error("internal error: the connection's {task} panicked")]
    Internal {
        /// Which one.
        task: &'static str,
    },
}

/// A close code with the text that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The code (see the specification, section "Close codes").
    pub code: dwcp_proto::CloseCode,
    /// For people; at most 256 bytes.
    pub text: String,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() {
            return write!(f, "{}", self.code);
        }
        write!(f, "{} ({})", self.text, self.code)
    }
}

/// Why bytes could not be written to a stream.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer does not want more, with its code.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u32),
    /// [`finish`](crate::SendStream::finish) or reset was called before.
    #[error("the stream is already finished or reset")]
    Finished,
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Why bytes could not be read from a stream.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer abandoned the stream, with its code.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    /// A compressed frame did not decode to what its header says. The connection is closed with PROTOCOL_ERROR.
    #[error("a compressed frame at offset {offset} does not decode: {reason}")]
    Corrupt {
        /// Stream offset of the frame in bytes.
        offset: u64,
        /// What the decoder said.
        reason: String,
    },
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Why a message or request failed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// Larger than the bound.
    #[error("a message of {len} bytes is larger than the bound of {max}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// The deadline passed before the answer came.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The peer dropped the request without an answer.
    #[error("the peer dropped the request")]
    Dropped,
    /// The peer answered with an error.
    #[error("the peer answered with an error: {}", String::from_utf8_lossy(.0))]
    Remote(bytes::Bytes),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// Larger than the path carries.
    #[error("a datagram of {len} bytes is larger than the path is known to carry, {max}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The bound in bytes: [`max_len`](crate::Datagrams::max_len).
        max: usize,
    },
    /// The socket has no room: more is sent than the network takes.
    #[error("the socket is full")]
    Full,
    /// The peer has answered nothing for so long that the key may not encrypt more.
    #[error("the key is used up, and the peer does not answer")]
    KeyUsedUp,
    /// A system call failed.
    #[error("send to {to}: {source}")]
    Io {
        /// The peer's address.
        to: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped(_) => io::ErrorKind::BrokenPipe,
            WriteError::Finished => io::ErrorKind::NotConnected,
            WriteError::Connection(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Corrupt { .. } => io::ErrorKind::InvalidData,
            ReadError::Connection(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}
