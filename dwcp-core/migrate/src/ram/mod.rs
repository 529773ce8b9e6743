//! A guest's memory on its way: QEMU's own stream, in which pages that were sent before are said as differences
//! (MIGRATE-4). No I/O here.

mod decode;
mod encode;
mod pages;
mod parse;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder, Head, Step};
pub use encode::{Counts, Encoder};
pub use pages::Place;
pub use parse::{PAGE_BYTES, Page, Parser, Piece};

/// Bytes of QEMU's stream that one batch stands for: it is ended when there are more.
pub const BATCH_BYTES: usize = 256 << 10;
/// A batch and what its last record may add.
pub(crate) const BATCH_BYTES_MAX: usize = BATCH_BYTES + (128 << 10);
/// What a batch begins with: lengths of what is compressed, of both columns, and the hash of what it stands for.
pub const HEAD_BYTES: usize = 12 + BATCH_HASH_BYTES;
pub(crate) const BATCH_HASH_BYTES: usize = 16;
/// How far back zstd looks, as a power of two: 128 MiB.
pub(crate) const WINDOW_BITS: u32 = 27;
/// Most memory that an end keeps pages in.
pub const PAGES_BYTES_MAX: u64 = 1 << 30;

/// How a record is said, in the low bits of its tag.
mod kind {
    pub(super) const RAW: u8 = 0;
    pub(super) const ZERO: u8 = 1;
    pub(super) const FULL: u8 = 2;
    pub(super) const DELTA: u8 = 3;
    pub(super) const MASK: u8 = 3;
    /// The record has no name of a block.
    pub(super) const CONTINUES: u8 = 4;
    /// The page behind the one before.
    pub(super) const NEXT: u8 = 8;
}

fn batch_hash(bytes: &[u8]) -> [u8; BATCH_HASH_BYTES] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer")
}

/// The number of a block: in order of appearance. `None`: there are too many.
fn block_number(names: &mut Vec<Vec<u8>>, name: &[u8]) -> Option<u16> {
    let known = names.iter().position(|known| known == name);
    let number = match known {
        Some(number) => number,
        None if names.len() < parse::BLOCKS_MAX => {
            names.push(name.to_vec());
            names.len() - 1
        }
        None => return None,
    };
    Some(number as u16)
}
