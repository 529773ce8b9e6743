//! Exit codes, and which outcome has which.

use dwcp_core::{BindError, CloseCode, ConfigError, ConnectError, security::HandshakeError};
use dwcp_transfer::{FailureKind, Summary, TransferError};
use novacron_admin::AdminError;
use novacron_process::{CertificatesError, SourceError};
use novacron_settings::SettingsError;

use novacron_store::StoreError;
use tonic::Code;

pub(crate) const OK: u8 = 0;
pub(crate) const FAILURE: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const PARTIAL: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
pub(crate) const INTEGRITY: u8 = 5;

pub(crate) const HELP: &str = "\
Exit codes:
  0  everything was done
  1  failure: connection lost, destination full, peer gone, told to stop by a signal; a transfer run again goes on where
     it was; no such key or lease, a member that does not answer or is not healthy
  2  wrong usage: a flag, a setting or a configuration file
  3  some files failed, all others were transferred; a drain was cut short
  4  refused: a file exists, a path leads out of the folder, plaintext or a certificate is not allowed, a user may not
     do it, a cluster would lose its quorum
  5  integrity: content did not match its hash";

/// A mistake of whoever called the command that the parser cannot see.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A reason to end with another code than 1 that only the command knows.
#[derive(Debug)]
pub(crate) struct Ended {
    code: u8,
    why: String,
}

impl Ended {
    pub(crate) fn failed(why: String) -> Self {
        Self { code: FAILURE, why }
    }

    pub(crate) fn refused(why: String) -> Self {
        Self { code: REFUSED, why }
    }

    pub(crate) fn integrity(why: String) -> Self {
        Self { code: INTEGRITY, why }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Ended {}

pub(crate) fn of_summary(summary: &Summary) -> u8 {
    if summary.unsent.is_some() {
        FAILURE
    } else if summary.has(FailureKind::Integrity) {
        INTEGRITY
    } else if summary.has(FailureKind::Exists) || summary.has(FailureKind::Escapes) {
        REFUSED
    } else if summary.progress.failures > 0 {
        PARTIAL
    } else {
        OK
    }
}

pub(crate) fn of_transfer_error(error: &TransferError) -> u8 {
    let (TransferError::Peer { failure, .. } | TransferError::Destination { failure, .. }) = error else {
        return FAILURE;
    };
    match failure.kind {
        FailureKind::Integrity => INTEGRITY,
        FailureKind::Exists | FailureKind::Escapes => REFUSED,
        _ => FAILURE,
    }
}

pub(crate) fn of_error(error: &anyhow::Error) -> u8 {
    let is_usage = error.is::<Usage>()
        || error.is::<SettingsError>()
        || error.is::<ConfigError>()
        || error.is::<SourceError>()
        || error.is::<CertificatesError>();
    if is_usage {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<TransferError>() {
        return of_transfer_error(error);
    }
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return ended.code;
    }
    if error.downcast_ref().is_some_and(StoreError::is_of_access) {
        return REFUSED;
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(BindError::Config(_)), _) | (_, Some(ConnectError::Config(_))) => USAGE,
        (_, Some(ConnectError::Tls { source, .. })) => of_handshake(source),
        (_, Some(ConnectError::Refused { reason, .. })) if reason.code == CloseCode::NOT_ALLOWED => REFUSED,
        _ if needs_plaintext(error) => REFUSED,
        _ => FAILURE,
    }
}

/// A certificate, or the lack of one, is refused by one of both sides; whatever else may be better next time.
fn of_handshake(error: &HandshakeError) -> u8 {
    match error {
        HandshakeError::BadServerName { .. } => USAGE,
        HandshakeError::NotAllowed(_)
        | HandshakeError::Refused(_)
        | HandshakeError::Tls(_)
        | HandshakeError::NotTls => REFUSED,
        _ => FAILURE,
    }
}

/// Whether the error is that plaintext on an address that others can reach was not allowed.
fn needs_plaintext(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BindError::PlaintextNotAllowed { .. }))
        || matches!(error.downcast_ref(), Some(ConnectError::PlaintextNotAllowed { .. }))
        || matches!(error.downcast_ref(), Some(AdminError::PlaintextNotAllowed { .. }))
}

/// Of what members of the store say.
fn advice_of_store(error: &StoreError) -> Option<&'static str> {
    let failure = match error {
        StoreError::Refused { failure, .. } | StoreError::Unknown { failure, .. } => failure,
        _ => return Some("--endpoints or NOVACRON_ENDPOINTS says where the members are"),
    };
    match failure.code {
        Code::Unimplemented => Some("this member does not offer it"),
        Code::PermissionDenied => Some("the user's roles do not allow it; --user names another"),
        Code::Unauthenticated => Some("--user NAME:PASSWORD logs in"),
        Code::InvalidArgument if failure.message == "user name is empty" => {
            Some("--user NAME:PASSWORD logs in")
        }
        Code::ResourceExhausted if failure.message.contains("space exceeded") => Some(
            "`novacron kv compact`, `novacron cluster defrag` and `novacron cluster alarm disarm` make room",
        ),
        Code::OutOfRange if failure.message.contains("has been compacted") => {
            Some("older revisions are gone; `novacron kv get` without --rev reads the newest")
        }
        _ => None,
    }
}

/// What the user can do about an error, where it does not say so itself: libraries know no flags.
pub(crate) fn advice(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref() {
        return advice_of_store(error);
    }
    match error.downcast_ref() {
        Some(AdminError::PlaintextNotAllowed { .. }) => Some("--metrics-allow-plaintext allows it"),
        _ if needs_plaintext(error) => {
            Some("--cert, --key and --ca set TLS, --allow-plaintext allows plaintext")
        }
        _ => None,
    }
}
