//! bbolt's file format, and etcd's database in it.
//!
//! A [`Writer`] makes a file of sorted pairs, a [`Reader`] reads one that nobody vouches for. [`etcd`] knows which buckets
//! etcd keeps in such a file, what their pairs mean, and the digest that a saved snapshot ends with.
//!
//! The file in short: pages of one size, numbered from 0. Pages 0 and 1 are two copies of the *meta* page (the one of the
//! newer transaction counts): where the root tree is, and the *high water*, the number of pages. A bucket is a B+ tree of
//! leaf and branch pages; a page that is too small for its pairs is followed by *overflow* pages, together a *run*. The root
//! is a tree as well, from names of buckets to their trees. A small bucket may be *inline*: one page inside the root's pair.
//!
//! Deliberately not here: changing a file, free pages, buckets inside buckets (etcd has none), names of files, tokio. The
//! caller has opened what is read and written.

mod cursor;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod layout;
pub mod limits;
mod page;
mod reader;
mod tree;
mod writer;

pub use error::{MetaFault, PageFault, ReadError, WriteError};
pub use reader::{Pairs, Reader};
pub use writer::Writer;
