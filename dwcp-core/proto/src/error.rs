//! What a peer can do wrong.

use crate::frame::FrameType;

/// The peer broke the protocol. Every variant closes the connection with
/// [`CloseCode::PROTOCOL_ERROR`](crate::CloseCode::PROTOCOL_ERROR) or the more specific code of [`ProtocolError::close_code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first byte of a header is not the magic byte: the peer speaks something else.
    #[error("not DWCP: a frame begins with 0x{0:02x}")]
    BadMagic(u8),
    /// The peer speaks another major version.
    #[error("the peer speaks DWCP version {theirs}, this side speaks {ours}")]
    VersionMismatch {
        /// Version byte of the peer's frame.
        theirs: u8,
        /// Our version.
        ours: u8,
    },
    /// Header CRC mismatch.
    #[error("header checksum 0x{found:08x}, expected 0x{expected:08x}")]
    HeaderChecksum {
        /// As sent.
        found: u32,
        /// As computed.
        expected: u32,
    },
    /// Payload CRC mismatch.
    #[error("payload checksum of a {ty:?} frame 0x{found:08x}, expected 0x{expected:08x}")]
    PayloadChecksum {
        /// Kind of the frame.
        ty: FrameType,
        /// As sent.
        found: u32,
        /// As computed.
        expected: u32,
    },
    /// A length above the negotiated bound.
    #[error("a frame of type 0x{ty:02x} has {len} bytes, the bound is {max}")]
    FrameTooLarge {
        /// Wire value of its type, which may be unknown here.
        ty: u8,
        /// Its wire or raw length in bytes.
        len: u32,
        /// The bound in bytes.
        max: u32,
    },
    /// A frame type that may not be skipped and is not known.
    #[error("unknown mandatory frame type 0x{0:02x}")]
    UnknownMandatory(u8),
    /// A field has a value that its frame type does not allow.
    #[error("{ty:?} frame: {what}")]
    Invalid {
        /// Kind of the frame.
        ty: FrameType,
        /// Which rule it breaks.
        what: &'static str,
    },
    /// More bytes than the credit that was given.
    #[error("{what} credit exceeded: {used} of {limit}")]
    CreditExceeded {
        /// Which credit.
        what: &'static str,
        /// Position reached.
        used: u64,
        /// Position allowed.
        limit: u64,
    },
    /// A bound of this side other than credit was exceeded.
    #[error("limit of {what} exceeded: {limit}")]
    LimitExceeded {
        /// Which bound.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The final size of a stream changed, or data lies beyond it.
    #[error("stream {stream}: final size is inconsistent")]
    FinalSize {
        /// Which stream.
        stream: u32,
    },
    /// A frame arrived in a state in which it may not.
    #[error("{ty:?} frame is not allowed {when}")]
    Unexpected {
        /// Kind of the frame.
        ty: FrameType,
        /// In which state.
        when: &'static str,
    },
    /// The connection ended inside a frame.
    #[error("the link ended inside a frame")]
    Truncated,
}

impl ProtocolError {
    /// The code to close with.
    pub fn close_code(&self) -> crate::CloseCode {
        use crate::CloseCode;
        match self {
            Self::VersionMismatch { .. } => CloseCode::VERSION_UNSUPPORTED,
            Self::HeaderChecksum { .. } | Self::PayloadChecksum { .. } => CloseCode::CHECKSUM_MISMATCH,
            Self::FrameTooLarge { .. } => CloseCode::FRAME_TOO_LARGE,
            Self::UnknownMandatory(_) => CloseCode::UNKNOWN_FRAME,
            Self::CreditExceeded { .. } => CloseCode::CREDIT_EXCEEDED,
            Self::LimitExceeded { .. } => CloseCode::LIMIT_EXCEEDED,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
