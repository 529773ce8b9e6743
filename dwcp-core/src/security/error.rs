//! What can be wrong with certificates, and with a TLS handshake.

use std::{fmt, io, path::PathBuf};

use rustls::AlertDescription;

use super::PatternError;

/// Where PEM text came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemSource {
    /// What it is for: `certificate`, `key` or `CA`.
    pub role: &'static str,
    /// The file, unless the text was given directly.
    pub path: Option<PathBuf>,
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} file {}", self.role, path.display()),
            None => write!(f, "the {} given", self.role),
        }
    }
}

/// Certificates, key or trust anchors cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read the {pem}: {source}")]
    Read {
        /// Which one.
        pem: PemSource,
        /// What the system said.
        source: io::Error,
    },
    /// Not PEM, or cut off.
    #[error("{pem} is not valid PEM: {source}")]
    BadPem {
        /// Which one.
        pem: PemSource,
        /// What the parser said.
        source: rustls_pki_types::pem::Error,
    },
    /// PEM without what is needed.
    #[error("{pem} holds no {wanted}; are the files swapped?")]
    Missing {
        /// Which one.
        pem: PemSource,
        /// `CERTIFICATE` or `PRIVATE KEY`.
        wanted: &'static str,
    },
    /// Not an X.509 certificate that TLS can use.
    #[error("{pem} holds a certificate that cannot be used: {reason}")]
    BadCertificate {
        /// Which one.
        pem: PemSource,
        /// Why.
        reason: String,
    },
    /// The certificate is for another key, or the key's algorithm is not supported.
    #[error("the key of {key} does not fit the certificate of {cert}: {source}; issue both together")]
    KeyMismatch {
        /// The certificate.
        cert: PemSource,
        /// The key.
        key: PemSource,
        /// What rustls said.
        source: Box<rustls::Error>,
    },
    /// Our own certificate is past its end.
    #[error("the certificate of {pem} expired on {not_after}; issue a new one")]
    Expired {
        /// Which one.
        pem: PemSource,
        /// Its last moment.
        not_after: String,
    },
    /// Our own certificate is not valid yet.
    #[error("the certificate of {pem} is valid only from {not_before}; check this machine's clock")]
    NotYetValid {
        /// Which one.
        pem: PemSource,
        /// Its first moment.
        not_before: String,
    },
    /// The allow rule has a pattern that makes no sense.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// rustls refuses the combination.
    #[error("TLS setup: {0}")]
    Setup(#[from] rustls::Error),
}

/// The peer's certificate is genuine, but the allow rule has none of its names.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the peer presented the names {names:?}, none of which the allow rule accepts")]
pub struct NotAllowed {
    /// Its subject alternative names: DNS, URI, IP.
    pub names: Vec<String>,
}

/// A TLS handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The name to connect to cannot be in a certificate.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    BadServerName {
        /// As given.
        name: String,
    },
    /// What came first is not TLS.
    #[error("the peer does not speak TLS; does it run in plaintext mode?")]
    NotTls,
    /// The peer speaks TLS but not DWCP over it.
    #[error("the peer did not negotiate the application protocol dwcp/1")]
    WrongProtocol,
    /// The connection ended in the middle.
    #[error("the peer closed the connection during the TLS handshake; it may expect plaintext")]
    Closed,
    /// More handshake data than any honest peer sends.
    #[error("the peer sent more than {max} bytes of unfinished TLS handshake")]
    TooLong {
        /// The bound in bytes.
        max: usize,
    },
    /// The allow rule refuses the peer.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The peer refuses us.
    #[error("the peer refused {what} with TLS alert {0:?}", what = refused(.0))]
    Refused(AlertDescription),
    /// Certificate or protocol error, found by us.
    #[error("{0}")]
    Tls(rustls::Error),
    /// A system call failed.
    #[error("{call}: {source}")]
    Io {
        /// Which one.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// What an alert says was refused.
fn refused(alert: &AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        // A certificate whose signature does not verify gives DecryptError.
        Alert::BadCertificate
        | Alert::DecryptError
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::CertificateRequired
        | Alert::UnknownCA
        | Alert::AccessDenied => "our certificate",
        _ => "the TLS handshake",
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        use rustls::{CertificateError, Error, InvalidMessage};
        match error {
            Error::AlertReceived(alert) => Self::Refused(alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::InvalidCertificate(CertificateError::Other(ref other)) => {
                match other.0.downcast_ref::<NotAllowed>() {
                    Some(not_allowed) => Self::NotAllowed(not_allowed.clone()),
                    None => Self::Tls(error),
                }
            }
            other => Self::Tls(other),
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match &error {
            HandshakeError::Io { source, .. } => source.kind(),
            HandshakeError::Closed => io::ErrorKind::UnexpectedEof,
            HandshakeError::NotAllowed(_) | HandshakeError::Refused(_) => io::ErrorKind::PermissionDenied,
            HandshakeError::BadServerName { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
