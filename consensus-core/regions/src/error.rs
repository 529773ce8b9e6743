//! Why something was refused.

use crate::vector::RegionId;

/// A change, or a peer's message in the log, that was refused: on all members of the region alike. Nothing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The region has not caught up with the others yet.
    #[error("this region may not write yet: it is joining the others")]
    Joining,
    /// The region was removed.
    #[error("this region was removed from the others")]
    Removed,
    /// Another region is not, or not any more, a member.
    #[error("region {region} is no member")]
    NoMember {
        /// Which.
        region: RegionId,
    },
    /// A region's number was used before.
    #[error("the number {region} was used for a region before")]
    NumberUsed {
        /// Which.
        region: RegionId,
    },
    /// There are, or were, too many regions.
    #[error("more than {max} regions")]
    TooManyRegions {
        /// The bound.
        max: usize,
    },
    /// A delta that goes on behind what is known. It is sent again when that is.
    #[error("changes of region {region} after the {after}th, of which {known} are known")]
    Gap {
        /// Whose changes.
        region: RegionId,
        /// The last one before them.
        after: u64,
        /// How many are known.
        known: u64,
    },
    /// A part of a snapshot that does not go on where the last one ended.
    #[error("a part of a snapshot that does not follow the last one")]
    OutOfOrder,
    /// A key is too long.
    #[error("a key of more than {max} bytes")]
    KeyTooLong {
        /// The bound.
        max: usize,
    },
    /// A field of a map, or an element of a set, is too long.
    #[error("a field or element of more than {max} bytes")]
    FieldTooLong {
        /// The bound.
        max: usize,
    },
    /// A value is too long.
    #[error("a value of more than {max} bytes")]
    ValueTooLong {
        /// The bound.
        max: usize,
    },
    /// A map or set is full.
    #[error("a map or set of more than {max} bytes")]
    ItemTooLarge {
        /// The bound.
        max: usize,
    },
    /// A region's share of a counter does not fit into 64 bits.
    #[error("a counter has no room for this")]
    CounterFull,
}
