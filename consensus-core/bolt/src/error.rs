//! Why a file could not be read or written.
//!
//! What etcd's records are wrong about is in [`etcd`](crate::etcd).

use std::io;

use thiserror::Error;

/// Why a file could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("{action} at byte {offset}: {source}")]
    Io {
        /// `seek` or `read`.
        action: &'static str,
        /// From the beginning of the file.
        offset: u64,
        /// What the source said.
        source: io::Error,
    },
    /// Neither copy of the meta page can be used.
    #[error("no usable meta page: {first} (page 0), {second} (page 1)")]
    Meta {
        /// What is wrong with the first copy.
        first: MetaFault,
        /// What is wrong with the second.
        second: MetaFault,
    },
    /// The end is missing.
    #[error("the file has {found} bytes, its meta page says {expected}")]
    Truncated {
        /// Bytes of all pages.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// More than [`FILE_BYTES_MAX`](crate::limits::FILE_BYTES_MAX).
    #[error("a file of {pages} pages is longer than {} bytes", crate::limits::FILE_BYTES_MAX)]
    FileTooLong {
        /// What its meta page says.
        pages: u64,
    },
    /// A page is damaged.
    #[error("page {page}: {fault}")]
    Page {
        /// Its number; 0: one inside the root's pair.
        page: u64,
        /// What is wrong with it.
        fault: PageFault,
    },
    /// More than [`BUCKETS_MAX`](crate::limits::BUCKETS_MAX).
    #[error("more than {} buckets", crate::limits::BUCKETS_MAX)]
    TooManyBuckets,
}

/// What is wrong with a copy of the meta page.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaFault {
    /// The file ends before it.
    #[error("the file ends before it")]
    Missing,
    /// Not a bbolt file, or written on a machine with the other byte order.
    #[error("its magic number is {found:#010x}")]
    Magic {
        /// Instead of 0xed0cdaed.
        found: u32,
    },
    /// A version of the format that this does not know.
    #[error("its version is {found}")]
    Version {
        /// Instead of 2.
        found: u32,
    },
    /// Damaged.
    #[error("its checksum is wrong")]
    Checksum,
    /// A size that no page has, or another one than where the page is.
    #[error("its pages have {found} bytes")]
    PageBytes {
        /// What it says.
        found: u32,
    },
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageFault {
    /// It is not between the meta pages and the high water, or does not end before that.
    #[error("not inside the file")]
    OutsideFile,
    /// It is a copy of another page.
    #[error("it says it is page {found}")]
    Number {
        /// What it says.
        found: u64,
    },
    /// Neither leaf nor branch.
    #[error("its flags are {found:#06x}")]
    Kind {
        /// What it says.
        found: u16,
    },
    /// More than [`RUN_BYTES_MAX`](crate::limits::RUN_BYTES_MAX).
    #[error("it and its {overflow} overflow pages are too long")]
    RunTooLong {
        /// What it says.
        overflow: u32,
    },
    /// Two pages lead to it: a cycle, or runs that overlap.
    #[error("reached twice")]
    ReachedTwice,
    /// More than [`DEPTH_MAX`](crate::limits::DEPTH_MAX) branches above it.
    #[error("too deep")]
    TooDeep,
    /// Only the root of a tree may be empty.
    #[error("it is empty")]
    Empty,
    /// Key or value are not where an element's can be: behind all elements and those of the one before, in the page.
    #[error("key or value of its element {element} are out of place")]
    Bounds {
        /// Counted from 0.
        element: usize,
    },
    /// Its key is not greater than the one before.
    #[error("the key of its element {element} is out of order")]
    Order {
        /// Counted from 0.
        element: usize,
    },
    /// A pair where a bucket is expected, or the other way round, or flags that bbolt does not know.
    #[error("its element {element} has flags {found:#x}")]
    ElementFlags {
        /// Counted from 0.
        element: usize,
        /// What it says.
        found: u32,
    },
    /// The value of a bucket is not one.
    #[error("its element {element} describes no bucket")]
    Bucket {
        /// Counted from 0.
        element: usize,
    },
}

/// Why a file could not be written. It is none then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file failed.
    #[error("{action}: {source}")]
    Io {
        /// `seek`, `write` or `flush`.
        action: &'static str,
        /// What the file said.
        source: io::Error,
    },
    /// An earlier write failed.
    #[error("an earlier write failed")]
    FailedEarlier,
    /// A key or a bucket's name is empty or has more than [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX).
    #[error("a key of {bytes} bytes")]
    KeyLength {
        /// Its length.
        bytes: usize,
    },
    /// More than [`VALUE_BYTES_MAX`](crate::limits::VALUE_BYTES_MAX).
    #[error("a value of {bytes} bytes")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A key, or a bucket's name, is not greater than the one before.
    #[error("key {} after {}", key.escape_ascii(), after.escape_ascii())]
    Order {
        /// The key.
        key: Vec<u8>,
        /// The one before.
        after: Vec<u8>,
    },
    /// More than [`BUCKETS_MAX`](crate::limits::BUCKETS_MAX).
    #[error("more than {} buckets", crate::limits::BUCKETS_MAX)]
    TooManyBuckets,
    /// More than [`FILE_BYTES_MAX`](crate::limits::FILE_BYTES_MAX).
    #[error("a file longer than {} bytes", crate::limits::FILE_BYTES_MAX)]
    FileTooLong,
}
