//! What can be wrong with a delta.

/// A baseline has no such bytes, or cannot be read. Whoever reads it knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the baseline cannot be read there")]
pub struct Unreadable;

/// Why a delta cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// Fewer bytes than the fields need.
    #[error("truncated")]
    Truncated,
    /// A field that contradicts others, or is not in its domain.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// It was made with another baseline.
    #[error("it was made with another baseline")]
    OtherBaseline,
    /// What is compressed does not decompress; also with a baseline that is not what its name says.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// The baseline cannot be read.
    #[error(transparent)]
    Baseline(#[from] Unreadable),
}
