//! Bounds of what is written, and of what is believed when it is read.

/// Size of a page that is written. Files with other sizes are read: they have that of the machine that made them.
pub const PAGE_BYTES: usize = 4096;

/// The smallest and the largest size of a page; a power of two.
pub const PAGE_BYTES_MIN: usize = 1024;
/// See [`PAGE_BYTES_MIN`].
pub const PAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a key, as in bbolt.
pub const KEY_BYTES_MAX: usize = 32 << 10;

/// Bytes of a value. etcd's requests are far smaller.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of a run of pages that is read at once. bbolt leaves up to four pairs in one run, however large they are.
pub const RUN_BYTES_MAX: usize = 5 * VALUE_BYTES_MAX;

/// Branch pages above a leaf.
pub const DEPTH_MAX: usize = 64;

/// Buckets of a file.
pub const BUCKETS_MAX: usize = 1024;

/// Bytes of a file that is read or written: a bit in memory for each of its pages.
pub const FILE_BYTES_MAX: u64 = 256 << 30;

/// Bytes that are read at once for a digest.
#[cfg(feature = "etcd")]
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Bytes that are written at once.
pub(crate) const WRITE_BYTES: usize = 256 << 10;
