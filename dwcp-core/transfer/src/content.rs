//! Content as pieces: where they lie, and how their BLAKE3 subtrees make the hash of the whole (T4).
//!
//! Pieces are aligned and a power of two long, so each is a subtree of the file's BLAKE3 tree (BLAKE3 paper,
//! section 2.1). Pieces can be hashed in any order on any thread, and their chaining values merge into exactly
//! the hash that `b3sum` prints.

use std::fmt;

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::limits::{PIECE_BYTES, PIECE_BYTES_LARGE, PIECE_BYTES_LARGE_ABOVE};

/// BLAKE3 of a whole content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How a content of known (or, for byte streams, growing) size is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    size: u64,
    piece_bytes: u64,
}

impl Layout {
    pub(crate) fn new(size: u64) -> Self {
        let piece_bytes = if size > PIECE_BYTES_LARGE_ABOVE { PIECE_BYTES_LARGE } else { PIECE_BYTES };
        Self { size, piece_bytes }
    }

    pub(crate) fn size(self) -> u64 {
        self.size
    }

    pub(crate) fn piece_bytes(self) -> u64 {
        self.piece_bytes
    }

    pub(crate) fn pieces(self) -> u64 {
        self.size.div_ceil(self.piece_bytes)
    }

    /// First byte of a piece.
    pub(crate) fn offset(self, index: u64) -> u64 {
        index * self.piece_bytes
    }

    /// Length of a piece; 0 behind the end.
    pub(crate) fn len(self, index: u64) -> u64 {
        self.size.saturating_sub(self.offset(index)).min(self.piece_bytes)
    }
}

/// Digest of one piece. The first piece carries the hash it has if it is the only one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceDigest {
    /// Chaining value of the subtree, as it travels and is journaled.
    pub(crate) cv: [u8; 32],
    alone: [u8; 32],
}

/// Hashes one piece.
pub(crate) struct PieceHasher(Hasher);

impl PieceHasher {
    pub(crate) fn new(offset: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        Self(hasher)
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub(crate) fn update_zeros(&mut self, mut len: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while len > 0 {
            let step = len.min(ZEROS.len() as u64);
            self.0.update(&ZEROS[..step as usize]);
            len -= step;
        }
    }

    /// `offset` as given to [`new`](Self::new).
    pub(crate) fn finish(&self, offset: u64) -> PieceDigest {
        let alone = if offset == 0 { *self.0.finalize().as_bytes() } else { [0; 32] };
        PieceDigest { cv: self.0.finalize_non_root(), alone }
    }
}

/// Merges the digests of all pieces, in order, into the hash of the whole.
pub(crate) fn content_hash(pieces: &[PieceDigest]) -> ContentHash {
    ContentHash(match pieces {
        [] => *blake3::hash(b"").as_bytes(),
        [only] => only.alone,
        _ => {
            let (left, right) = split(pieces);
            *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    })
}

fn subtree(pieces: &[PieceDigest]) -> [u8; 32] {
    if let [only] = pieces {
        return only.cv;
    }
    let (left, right) = split(pieces);
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The left subtree is the largest power of two that leaves something for the right one.
fn split(pieces: &[PieceDigest]) -> (&[PieceDigest], &[PieceDigest]) {
    let half = pieces.len().next_power_of_two() / 2;
    pieces.split_at(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t4_2_merged_pieces_are_the_blake3_of_the_whole() {
        let piece = PIECE_BYTES as usize;
        for len in [0, 1, 1024, 1025, piece - 1, piece, piece + 1, 2 * piece, 3 * piece, 5 * piece + 77] {
            let data: Vec<u8> = (0..len).map(|i| (i / 3 % 251) as u8).collect();
            let layout = Layout::new(len as u64);
            let digests: Vec<_> = (0..layout.pieces())
                .map(|index| {
                    let start = layout.offset(index) as usize;
                    let mut hasher = PieceHasher::new(layout.offset(index));
                    hasher.update(&data[start..start + layout.len(index) as usize]);
                    hasher.finish(layout.offset(index))
                })
                .collect();
            assert_eq!(content_hash(&digests).0, *blake3::hash(&data).as_bytes(), "length {len}");
        }
    }

    #[test]
    fn zeros_hash_like_zeros() {
        let mut by_count = PieceHasher::new(PIECE_BYTES);
        by_count.update_zeros(100_000);
        let mut by_bytes = PieceHasher::new(PIECE_BYTES);
        by_bytes.update(&[0; 100_000]);
        assert_eq!(by_count.finish(PIECE_BYTES), by_bytes.finish(PIECE_BYTES));
    }

    #[test]
    fn t4_1_layout() {
        let table = [
            (0, 0, 0),
            (1, 1, 1),
            (PIECE_BYTES, 1, PIECE_BYTES),
            (PIECE_BYTES + 1, 2, 1),
            (10 << 40, 655_360, 16 << 20),
        ];
        for (size, pieces, last_len) in table {
            let layout = Layout::new(size);
            assert_eq!(layout.pieces(), pieces, "size {size}");
            assert_eq!(layout.len(pieces.saturating_sub(1)), last_len, "size {size}");
            assert_eq!(layout.len(pieces), 0);
        }
    }
}
