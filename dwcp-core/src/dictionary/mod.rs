//! Dictionaries: what payloads of a kind have in common, known to both sides before the first of them is sent. Small ones, which
//! have little in themselves to refer to, become a fraction of what they are without.
//!
//! Both sides name theirs in the handshake by BLAKE3 (DWCP-4.3); of those that both have, a sender uses the one that has
//! lately left the fewest bytes (`compress::Common`), or none. So nobody decodes with another dictionary than was meant.
//!
//! A dictionary is in zstd's own format (RFC 8878 5), so that `zstd -D` takes it. [`train`] makes one from samples, and only
//! if it gains on samples that it was not made from; [`Folder`] keeps them. Deliberately not here: whose samples these are.

mod folder;
mod train;

use std::{fmt, num::NonZeroU32};

use zstd::zstd_safe::{CDict, DDict, get_dict_id_from_dict};

pub use folder::{AddError, Folder, FolderError, Found, Name, NameError};
pub use train::{SAMPLE_BYTES_MAX, TRAINING_BYTES_MAX, TrainError, Trained, train};

/// A dictionary's length that is worth its memory for most data, bytes.
pub const DICTIONARY_BYTES: usize = 128 << 10;
/// The longest dictionary that is taken.
pub const DICTIONARY_BYTES_MAX: usize = 1 << 20;
/// Level of zstd for payloads with a dictionary. Higher ones gain little on payloads that are small.
pub(crate) const DICTIONARY_LEVEL: i32 = 3;

/// A dictionary, ready for encoding and decoding: several times its length in memory.
pub struct Dictionary {
    hash: [u8; 32],
    id: NonZeroU32,
    bytes: Box<[u8]>,
    encoder: CDict<'static>,
    decoder: DDict<'static>,
}

/// Bytes that are no dictionary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// It is too long.
    #[error("{len} bytes are more than the {DICTIONARY_BYTES_MAX} that a dictionary may have")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It does not begin like one of zstd's, or says no id.
    #[error(
        "it is no dictionary of zstd with an id (RFC 8878 5): `novacron dict train` and `zstd --train` make some"
    )]
    Format,
}

impl Dictionary {
    /// Takes the bytes of a dictionary.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, DictionaryError> {
        let bytes = bytes.into();
        if bytes.len() > DICTIONARY_BYTES_MAX {
            return Err(DictionaryError::TooLong { len: bytes.len() });
        }
        let id = get_dict_id_from_dict(&bytes).ok_or(DictionaryError::Format)?;
        let encoder = CDict::try_create(&bytes, DICTIONARY_LEVEL).ok_or(DictionaryError::Format)?;
        let decoder = DDict::try_create(&bytes).ok_or(DictionaryError::Format)?;
        Ok(Self { hash: *blake3::hash(&bytes).as_bytes(), id, bytes, encoder, decoder })
    }

    /// Its BLAKE3, by which it is known to others.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// What frames say that were made with it (RFC 8878 3.1.1.1.3).
    pub fn id(&self) -> NonZeroU32 {
        self.id
    }

    /// As it is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn encoder(&self) -> &CDict<'static> {
        &self.encoder
    }

    pub(crate) fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary")
            .field("id", &self.id)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
