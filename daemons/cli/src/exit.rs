//! Exit codes, and which outcome has which.

use dwcp_core::{BindError, ConnectError};
use dwcp_transfer::{FailureKind, Summary, TransferError};
use novacron_admin::AdminError;
use novacron_settings::SettingsError;

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
     it was
  2  wrong usage: a flag, a setting or a configuration file
  3  some files failed, all others were transferred
  4  refused: a file exists, a path leads out of the folder, plaintext or a certificate is not allowed
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
    if error.is::<Usage>() || error.is::<SettingsError>() || error.is::<dwcp_core::ConfigError>() {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<TransferError>() {
        return of_transfer_error(error);
    }
    let connect = error.downcast_ref::<ConnectError>();
    let refused = matches!(
        connect,
        Some(
            ConnectError::PlaintextNotAllowed { .. }
                | ConnectError::Tls { .. }
                | ConnectError::Refused { .. }
        )
    );
    if let Some(AdminError::PlaintextNotAllowed { .. }) = error.downcast_ref() {
        return REFUSED;
    }
    let bind = error.downcast_ref::<BindError>();
    if refused || matches!(bind, Some(BindError::PlaintextNotAllowed { .. })) {
        return REFUSED;
    }
    if matches!(connect, Some(ConnectError::Config(_))) || matches!(bind, Some(BindError::Config(_))) {
        return USAGE;
    }
    FAILURE
}
