//! Why a request was refused, in the words that etcd's clients look for.

use consensus_disk::DiskError;

use crate::auth::AuthError;

/// A request that was refused. The texts are etcd's: clients decide by them whether to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: corrupt cluster")]
    CorruptMember,
    /// The request makes no sense, and etcd has no text of its own for it.
    #[error("etcdserver: invalid request: {0}")]
    Invalid(&'static str),
    /// Who asks may not do that, or it makes no sense for users and roles.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The disk failed: the member stops.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is stored is not what was written: the member stops.
    #[error(
        "stored {what} is damaged; this member's data is of no use any more: remove the member and add it as a new one"
    )]
    Damaged {
        /// What it is.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the member cannot go on, as opposed to a request that cannot.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Damaged { .. })
    }

    /// Whether this member's data is lost, so that it can only come back as a new member.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_damage(),
            Self::Damaged { .. } => true,
            _ => false,
        }
    }
}
