//! Why a request was refused, in the words that etcd's clients look for.

use consensus_disk::DiskError;
use consensus_regions::Refused;

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
    /// What is told to other regions was refused, by the rules that all regions have.
    #[error("novacron: {0}")]
    Region(Refused),
    /// There are no other regions.
    #[error("novacron: this store is no region of several")]
    NoRegion,
    /// Of what is elsewhere nothing is told to other regions.
    #[error("novacron: the key is not under the prefix that regions have in common")]
    NotUnderPrefix,
    /// What a region is, is decided once.
    #[error("novacron: this store is a region already, of another number or with another prefix")]
    RegionBegun,
    /// A region that joins gets its keys from others; and the first ones begin with so many at most.
    #[error(
        "novacron: a region that joins others must have no keys under the prefix, and one of the first at most 100000: delete them"
    )]
    RegionKeysInTheWay,
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
