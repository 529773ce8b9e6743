//! Errors as gRPC says them, with etcd's codes and texts.

use consensus_core::ProposeError;
use consensus_regions::Refused;
use consensus_store::{AuthError, StoreError};
use tonic::{Code, Status};

pub(crate) fn store(error: &StoreError) -> Status {
    let code = match error {
        StoreError::Auth(error) => return auth(*error),
        StoreError::Compacted | StoreError::FutureRevision | StoreError::LeaseTtlTooLarge => Code::OutOfRange,
        StoreError::LeaseNotFound => Code::NotFound,
        StoreError::LeaseExists => Code::FailedPrecondition,
        StoreError::Disk(_) => Code::Unavailable,
        StoreError::NoSpace => Code::ResourceExhausted,
        // It passes.
        StoreError::Region(Refused::Joining) => Code::Unavailable,
        StoreError::Region(
            Refused::Removed
            | Refused::NoMember { .. }
            | Refused::NumberUsed { .. }
            | Refused::TooManyRegions { .. },
        )
        | StoreError::NoRegion
        | StoreError::RegionBegun
        | StoreError::RegionKeysInTheWay => Code::FailedPrecondition,
        StoreError::CorruptMember | StoreError::Damaged { .. } => Code::DataLoss,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

pub(crate) fn auth(error: AuthError) -> Status {
    let code = match error {
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthFailed
        | AuthError::PermissionNotGiven
        | AuthError::InvalidManagement
        | AuthError::OldRevision => Code::InvalidArgument,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::InvalidToken => Code::Unauthenticated,
        // etcd has no code for it either.
        AuthError::NoPasswordUser => Code::Unknown,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// As etcd writes an error where there is only room for a text.
pub(crate) fn as_text(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

pub(crate) fn propose(error: ProposeError) -> Status {
    match error {
        ProposeError::NoLeader => Status::unavailable("etcdserver: no leader"),
        ProposeError::Busy => Status::resource_exhausted("etcdserver: too many requests"),
        ProposeError::LeaderGone => {
            Status::unavailable("etcdserver: request timed out, possibly due to previous leader failure")
        }
        ProposeError::Timeout => Status::unavailable("etcdserver: request timed out"),
        ProposeError::Stopped => Status::unavailable("etcdserver: server stopped"),
        ProposeError::ChangePending => {
            Status::failed_precondition("etcdserver: another change of the membership is under way")
        }
        ProposeError::ChangeRefused => Status::failed_precondition(
            "etcdserver: this change of the membership makes no sense: is it the last voter, or was it changed meanwhile?",
        ),
        ProposeError::TooLarge { .. } => request_too_large(),
        error => Status::internal(format!("etcdserver: {error}")),
    }
}

/// The one text that makes etcd's Go clients send a write again, elsewhere: for them it says that nothing was sent, which is as
/// good as that nothing was taken.
pub(crate) fn draining() -> Status {
    Status::unavailable("there is no connection available")
}

pub(crate) fn member_not_found() -> Status {
    Status::not_found("etcdserver: member not found")
}

pub(crate) fn request_too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}
