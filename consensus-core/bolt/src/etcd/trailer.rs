//! The SHA-256 digest that a saved snapshot ends with.
//!
//! Pages have no checksums, so this is what tells a changed byte. Whoever streams a file takes a [`Digest`] on the way;
//! [`append`] is for a file that stays. A database out of etcd's own folder has none.

use std::io::{self, Read, Seek, SeekFrom, Write};

use ring::digest::{Context, SHA256};
use thiserror::Error;

use crate::limits::READ_BYTES;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;
/// Files without digest have whole ones of these: so etcd tells whether there is a digest.
const SECTOR_BYTES: u64 = 512;

/// Why a snapshot is not known to be whole.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrailerError {
    /// The file failed.
    #[error("{action}: {source}")]
    Io {
        /// `seek`, `read` or `write`.
        action: &'static str,
        /// What the file said.
        source: io::Error,
    },
    /// The length is not one of pages and a digest.
    #[error("a file of {bytes} bytes ends with no digest")]
    Missing {
        /// Of the file.
        bytes: u64,
    },
    /// Something changed since the snapshot was saved.
    #[error("the digest of the content is not the one at its end")]
    Mismatch,
}

/// The digest of what goes by.
pub struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digest {
    /// What comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What ends the file.
    pub fn finish(self) -> [u8; DIGEST_BYTES] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Appends the digest of all that is in the file.
pub fn append(file: &mut (impl Read + Write + Seek)) -> Result<(), TrailerError> {
    let bytes = end(file)?;
    let digest = digest(file, bytes)?;
    file.write_all(&digest).map_err(|source| TrailerError::Io { action: "write", source })
}

/// Reads the whole file. Gives the bytes before the digest.
pub fn verify(file: &mut (impl Read + Seek)) -> Result<u64, TrailerError> {
    let bytes = end(file)?;
    if bytes % SECTOR_BYTES != DIGEST_BYTES as u64 {
        return Err(TrailerError::Missing { bytes });
    }
    let content = bytes - DIGEST_BYTES as u64;
    let computed = digest(file, content)?;
    let mut stored = [0; DIGEST_BYTES];
    file.read_exact(&mut stored).map_err(|source| TrailerError::Io { action: "read", source })?;
    if stored == computed { Ok(content) } else { Err(TrailerError::Mismatch) }
}

fn end(file: &mut impl Seek) -> Result<u64, TrailerError> {
    file.seek(SeekFrom::End(0)).map_err(|source| TrailerError::Io { action: "seek", source })
}

/// Of so many bytes from the beginning; the file is behind them then.
fn digest(file: &mut (impl Read + Seek), bytes: u64) -> Result<[u8; DIGEST_BYTES], TrailerError> {
    file.seek(SeekFrom::Start(0)).map_err(|source| TrailerError::Io { action: "seek", source })?;
    let mut digest = Digest::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut rest = bytes;
    while rest > 0 {
        let part = &mut buffer[..rest.min(READ_BYTES as u64) as usize];
        file.read_exact(part).map_err(|source| TrailerError::Io { action: "read", source })?;
        digest.update(part);
        rest -= part.len() as u64;
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_digest_is_found_and_any_change_noticed() {
        let content = [7; 1024];
        let mut file = Cursor::new(content.to_vec());
        append(&mut file).unwrap();
        assert_eq!(verify(&mut file).unwrap(), 1024);
        let mut streamed = Digest::default();
        content.chunks(100).for_each(|chunk| streamed.update(chunk));
        assert_eq!(file.get_ref()[1024..], streamed.finish());
        for at in [0, 1023, 1024, 1055] {
            let mut changed = file.clone();
            changed.get_mut()[at] ^= 1;
            assert!(matches!(verify(&mut changed), Err(TrailerError::Mismatch)), "byte {at}");
        }
    }

    #[test]
    fn a_file_without_digest_is_told() {
        for bytes in [0, 31, 1024, 1024 + 31] {
            let missing = verify(&mut Cursor::new(vec![0; bytes as usize]));
            assert!(matches!(missing, Err(TrailerError::Missing { bytes: found }) if found == bytes));
        }
    }
}
