//! The journal of a partial file: which pieces it holds (T5.4).
//!
//! A header, then one self-checking record for each piece. A record is appended when its piece was written; no
//! order between the two on the disk is needed, because nothing in a journal is believed: pieces are read back
//! and hashed before they are offered. A torn, flipped or stale record costs one piece sent again.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt};

use crate::{RelPath, content::Layout, limits::PIECES_MAX};

const MAGIC: &[u8; 8] = b"DWTXJNL1";
const HEADER_BYTES: usize = 64;
const RECORD_BYTES: usize = 48;
/// Larger journals are started anew.
const BYTES_MAX: u64 = HEADER_BYTES as u64 + 2 * PIECES_MAX * RECORD_BYTES as u64;

pub(super) struct Journal {
    file: File,
    end: u64,
}

impl Journal {
    /// Reads what a journal claims, as index and chaining value, and makes it ready for more.
    pub(super) fn open(
        file: File,
        path: &RelPath,
        layout: Layout,
    ) -> io::Result<(Self, HashMap<u64, [u8; 32]>)> {
        let header = header(path, layout);
        let len = file.metadata()?.len();
        let mut bytes = Vec::new();
        if len <= BYTES_MAX {
            bytes.resize(len as usize, 0);
            file.read_exact_at(&mut bytes, 0)?;
        }
        let Some(records) = bytes.strip_prefix(&header) else {
            file.set_len(0)?;
            file.write_all_at(&header, 0)?;
            return Ok((Self { file, end: HEADER_BYTES as u64 }, HashMap::new()));
        };
        let (records, _torn) = records.as_chunks::<RECORD_BYTES>();
        let claims =
            records.iter().filter_map(decode).filter(|(index, _)| *index < layout.pieces()).collect();
        let end = (HEADER_BYTES + records.len() * RECORD_BYTES) as u64;
        Ok((Self { file, end }, claims))
    }

    /// Notes that a piece was written.
    pub(super) fn append(&mut self, index: u64, cv: &[u8; 32]) -> io::Result<()> {
        self.file.write_all_at(&encode(index, cv), self.end)?;
        self.end += RECORD_BYTES as u64;
        Ok(())
    }
}

/// Names the destination path and the piece size: with another of either, the claims mean nothing.
fn header(path: &RelPath, layout: Layout) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&layout.piece_bytes().to_le_bytes());
    header[16..48].copy_from_slice(blake3::hash(path.as_bytes()).as_bytes());
    let check = blake3::hash(&header[..48]);
    header[48..].copy_from_slice(&check.as_bytes()[..16]);
    header
}

fn encode(index: u64, cv: &[u8; 32]) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&index.to_le_bytes());
    record[8..40].copy_from_slice(cv);
    let check = blake3::hash(&record[..40]);
    record[40..].copy_from_slice(&check.as_bytes()[..8]);
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<(u64, [u8; 32])> {
    let index = u64::from_le_bytes(record[..8].try_into().ok()?);
    let cv = record[8..40].try_into().ok()?;
    (encode(index, &cv) == *record).then_some((index, cv))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path() -> RelPath {
        RelPath::new(&b"a/b"[..]).unwrap()
    }

    fn layout() -> Layout {
        Layout::new(1 << 30)
    }

    fn written(pieces: u64) -> (File, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        let (mut journal, claims) = Journal::open(file.try_clone().unwrap(), &path(), layout()).unwrap();
        assert!(claims.is_empty());
        for index in 0..pieces {
            journal.append(index, &[index as u8; 32]).unwrap();
        }
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (file, bytes)
    }

    #[test]
    fn t5_4_claims_come_back() {
        let (file, _) = written(5);
        let (_, claims) = Journal::open(file, &path(), layout()).unwrap();
        assert_eq!(claims, (0..5).map(|index| (index, [index as u8; 32])).collect());
    }

    #[test]
    fn t5_4_another_path_or_piece_size_starts_anew() {
        for (path, layout) in [(RelPath::new(&b"a/c"[..]).unwrap(), layout()), (path(), Layout::new(2 << 40))]
        {
            let (file, _) = written(3);
            assert!(Journal::open(file, &path, layout).unwrap().1.is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn t5_4_damage_only_loses_claims(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
            let (file, mut bytes) = written(6);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            file.write_all_at(&bytes, 0).unwrap();
            if cut {
                file.set_len(at as u64).unwrap();
            }
            let (mut journal, claims) = Journal::open(file.try_clone().unwrap(), &path(), layout()).unwrap();
            prop_assert!(claims.iter().all(|(index, cv)| *cv == [*index as u8; 32]), "a false claim");
            prop_assert!(cut || at < HEADER_BYTES || claims.len() == 5);
            journal.append(9, &[9; 32]).unwrap();
            let again = Journal::open(file, &path(), layout()).unwrap().1;
            prop_assert_eq!(again.len(), claims.len() + 1);
        }
    }
}
