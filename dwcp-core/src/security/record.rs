//! What both directions of the TLS 1.3 record layer share: sizes, and what can go wrong
//! (RFC 8446 section 5).

use std::io;

use rustls::{AlertDescription, ContentType, ProtocolVersion};

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// Largest plaintext of a record.
pub(super) const PLAINTEXT_BYTES_MAX: usize = 1 << 14;
/// Largest ciphertext of a record, without header.
pub(super) const CIPHERTEXT_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;
/// All encrypted records say TLS 1.2 on the outside.
pub(super) const OUTER_VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;
/// And all are application data on the outside.
pub(super) const OUTER_TYPE: ContentType = ContentType::ApplicationData;

/// Handshake message types that may come after the handshake.
pub(super) const NEW_SESSION_TICKET: u8 = 4;
pub(super) const KEY_UPDATE: u8 = 24;

/// The encrypted connection is unusable from here on.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum RecordError {
    /// The TCP connection ended without the peer's `close_notify`: what was read may be incomplete.
    #[error("the connection was cut off: it ended without TLS close_notify")]
    Truncated,
    /// The peer gave up.
    #[error("the peer ended the connection with TLS alert {0:?}")]
    Alert(AlertDescription),
    /// A record that is not allowed here.
    #[error("the peer broke TLS: unexpected {what}")]
    Unexpected {
        /// What it sent.
        what: &'static str,
    },
    /// A record or message larger than TLS allows.
    #[error("the peer broke TLS: {len} bytes in a {what}, at most {max} are allowed")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// Its size in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A record does not decrypt: it was altered on the way, or keys differ.
    #[error("TLS record: {0}")]
    Crypto(#[from] rustls::Error),
}

impl RecordError {
    /// What to tell the peer, if it is its fault and it still listens.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::Truncated | Self::Alert(_) => None,
            Self::Unexpected { .. } => Some(AlertDescription::UnexpectedMessage),
            Self::TooLong { .. } => Some(AlertDescription::RecordOverflow),
            Self::Crypto(rustls::Error::DecryptError) => Some(AlertDescription::BadRecordMac),
            Self::Crypto(_) => Some(AlertDescription::InternalError),
        }
    }
}

/// Whether a link failed because what came is not what the peer's TLS sent.
pub(crate) fn is_altered(error: &io::Error) -> bool {
    let record = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(record, Some(RecordError::Crypto(rustls::Error::DecryptError)))
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        let kind = match &error {
            RecordError::Truncated => io::ErrorKind::UnexpectedEof,
            RecordError::Alert(_) => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
