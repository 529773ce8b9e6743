//! What a log disk has synced, told by more than the write-ahead log itself.
//!
//! RocksDB reads a write-ahead log up to the first record that is not whole, because a power cut leaves such a record at the
//! end. It cannot know whether that record, and what came after it, was synced and acknowledged. Two witnesses can:
//!
//! - the *mark*, a small file that has the sequence number of the last synced write. It is written after each sync and not
//!   synced itself: after a power cut it may be some seconds old, but never too new.
//! - each record says up to which sequence number writes were synced before it. So a record behind a bad one convicts
//!   it ([`wal`](crate::wal)).
//!
//! A log that ends before either of them has lost what was acknowledged. What neither can tell after a power cut: damage of
//! the last records, if the mark is older than they are.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const FILE: &str = "synced";
/// Sequence number, and CRC-32C of it: less than a sector, so it is written whole.
const MARK_BYTES: usize = 12;

/// The mark of one disk.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
}

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The sequence number that the mark has; 0: there is none. One that is damaged is none either: it accuses nobody.
pub(crate) fn read(folder: &Path) -> io::Result<u64> {
    let mark = match std::fs::read(path(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read?,
    };
    let decoded = mark.split_first_chunk::<8>().and_then(|(sequence, crc)| {
        let whole = crc.try_into().is_ok_and(|crc| u32::from_le_bytes(crc) == crc32c::crc32c(sequence));
        whole.then_some(u64::from_le_bytes(*sequence))
    });
    // A power cut soon after it was made leaves it empty.
    if decoded.is_none() && !mark.is_empty() {
        tracing::warn!(path = %path(folder).display(), "the mark of what is synced is damaged: it is written anew");
    }
    Ok(decoded.unwrap_or_default())
}

impl Mark {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(folder))?;
        Ok(Self { file })
    }

    /// Everything up to this is synced. Costs a copy into the page cache.
    pub(crate) fn set(&self, sequence: u64) -> io::Result<()> {
        let mut mark = [0; MARK_BYTES];
        let (number, crc) = mark.split_at_mut(8);
        number.copy_from_slice(&sequence.to_le_bytes());
        crc.copy_from_slice(&crc32c::crc32c(number).to_le_bytes());
        self.file.write_all_at(&mark, 0)
    }

    /// The same, for good.
    pub(crate) fn set_for_good(&self, sequence: u64) -> io::Result<()> {
        self.set(sequence)?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), 0);
        let mark = Mark::open(folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), 0, "empty");
        mark.set(1 << 40).unwrap();
        mark.set_for_good(77).unwrap();
        assert_eq!(read(folder.path()).unwrap(), 77);
        for at in 0..MARK_BYTES {
            let mut bytes = std::fs::read(path(folder.path())).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(path(folder.path()), &bytes).unwrap();
            assert_eq!(read(folder.path()).unwrap(), 0, "byte {at}");
            bytes[at] ^= 0x10;
            std::fs::write(path(folder.path()), &bytes).unwrap();
        }
    }
}
