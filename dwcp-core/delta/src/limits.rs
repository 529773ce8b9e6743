//! Every bound of deltas, in one place.

/// Largest part of a content that one delta describes, in bytes.
pub const PART_BYTES_MAX: usize = 16 << 20;
/// Smallest block that is compared with the one at the same place, in bytes.
pub const BLOCK_BYTES_MIN: usize = 512;
/// Largest, in bytes.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;
/// A block whose difference takes at most this part of it is not tried any other way.
pub const XOR_EARLY_DIVISOR: usize = 8;

/// Baselines are looked for similar content in regions of this many bytes.
pub const REGION_BYTES: usize = 16 << 10;
/// Bytes of a baseline that one delta uses as prefix.
pub const PREFIX_BYTES_MAX: usize = 12 << 20;
/// Runs of bytes that make up a prefix.
pub const PREFIX_RUNS_MAX: usize = PREFIX_BYTES_MAX / REGION_BYTES;
/// Marks remembered of one baseline; of a larger one, fewer for each byte.
pub const MARKS_MAX: usize = 1 << 21;
/// Marks of one part that are looked up.
pub const MARKS_LOOKED_UP_MAX: usize = 1 << 16;

/// Smallest average of content-defined chunks, and smallest aligned block whose hash is offered, in bytes, as a power of two.
pub const CHUNK_BITS_MIN: u8 = 12;
/// Largest, as a power of two: 1 MiB.
pub const CHUNK_BITS_MAX: u8 = 20;
/// Chunks are made larger rather than more than this many of one content.
pub const CHUNKS_TARGET: u64 = 1 << 20;
/// Content-defined chunks are at most this many times their average.
pub const CHUNK_MAX_FACTOR: usize = 4;
/// Bytes before a part at which a sender begins to look for the chunks in it, in average chunks: until then both sides have
/// found the same boundaries.
pub const LEAD_CHUNKS: usize = 16;
/// Largest context that a decoder accepts of zstd, as a power of two: prefix and part together.
pub const WINDOW_BITS_MAX: u32 = 25;
