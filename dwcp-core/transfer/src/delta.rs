//! What both sides of a transfer that sends differences have in common: whether they do, what is a version of what, and how
//! contents are cut (T7).

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use dwcp_delta::{BaselineName, chunks::Cutting};

use crate::{BaselineStore, RelPath, control::Token};

/// Blocks of disk images and memory.
pub const BLOCK_BYTES: usize = 4096;
/// Ends the token of a sender that takes baselines (T7.1). A sender that does not has it by an accident of 1 in 2^32.
const TOKEN_MARK: [u8; 4] = *b"dlt\x01";
/// Looked at to see whether a content is a disk.
const HEAD_BYTES: usize = 4096;
/// What disk images have, and where: a partition table, ext2 to ext4, XFS, qcow2, LVM.
const DISK_MARKS: [(usize, &[u8]); 5] =
    [(510, b"\x55\xaa"), (0x438, b"\x53\xef"), (0, b"XFSB"), (0, b"QFI\xfb"), (512, b"LABELONE")];

/// How differences are sent and received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeltaConfig {
    /// Where contents are kept, and looked for. A receiver without one offers the file that is to be replaced; a sender
    /// without one finds what has changed by its chunks alone.
    pub store: Option<Arc<BaselineStore>>,
    /// Blocks in which disk images and memory are compared, in bytes.
    pub block_bytes: usize,
}

impl DeltaConfig {
    /// With this store, if any.
    pub fn new(store: Option<Arc<BaselineStore>>) -> Self {
        Self { store, block_bytes: BLOCK_BYTES }
    }
}

pub(crate) fn mark(token: &mut Token, takes_baselines: bool) {
    let last = token.last_chunk_mut().expect("a token is longer");
    if takes_baselines {
        *last = TOKEN_MARK;
    } else if *last == TOKEN_MARK {
        last[0] ^= 1;
    }
}

pub(crate) fn is_marked(token: &Token) -> bool {
    token.ends_with(&TOKEN_MARK)
}

/// What all versions of a content have in common: who sends it, and what it is called.
pub(crate) fn version_of(who: &str, path: &RelPath) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [who.as_bytes(), path.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer")
}

/// How a content is best cut: a disk in blocks, anything else where the content says.
pub(crate) fn cutting_of(file: &File, len: u64, block_bytes: usize) -> Cutting {
    let mut head = [0; HEAD_BYTES];
    let read = len >= HEAD_BYTES as u64 && file.read_exact_at(&mut head, 0).is_ok();
    let is_disk = read && DISK_MARKS.iter().any(|(at, mark)| head[*at..].starts_with(mark));
    Cutting::of(len, is_disk && len.is_multiple_of(512), block_bytes)
}

/// What a receiver has of a content, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) name: BaselineName,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) cutting: Cutting,
}

/// How a piece that has a baseline travels, for metrics.
pub(crate) fn count_piece(how: &'static str) {
    metrics::counter!("dwcp_delta_pieces_total", "how" => how).increment(1);
}

/// Bytes that a delta did not send.
pub(crate) fn count_saved(bytes: u64) {
    metrics::counter!("dwcp_delta_saved_bytes_total").increment(bytes);
}

/// A baseline was of no use, and the content is sent in full.
pub(crate) fn count_fallback(reason: &'static str) {
    metrics::counter!("dwcp_delta_fallbacks_total", "reason" => reason).increment(1);
}
