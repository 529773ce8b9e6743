//! Manifest batches: what a sender says about its entries before their content travels (T3).
//!
//! Pure and bounded: [`decode`] takes bytes of a peer and never panics, and never allocates more than a small
//! multiple of their length.

use crate::{
    DecodeError, RelPath,
    codec::{Put, Reader},
    limits::{
        BATCH_ENTRIES_MAX, FILE_BYTES_MAX, LINK_TARGET_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX,
        XATTR_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_MAX,
    },
};

/// A run of entries, in ascending order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At most [`BATCH_ENTRIES_MAX`].
    pub entries: Vec<Entry>,
}

/// One path to be made at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in the transfer, ascending.
    pub id: u64,
    /// Where, below the receiver's folder.
    pub path: RelPath,
    /// What.
    pub kind: EntryKind,
    /// Mode, times, owner and extended attributes.
    pub metadata: Metadata,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory that must exist before what is in it. Of its metadata only the mode is used, if it is made.
    Directory,
    /// Everything in a directory has been sent: its metadata can be applied.
    DirectoryEnd,
    /// A regular file or the content of a block device.
    File {
        /// Bytes.
        size: u64,
        /// The content is known to differ from an existing file of the same size and time.
        differs: bool,
    },
    /// Bytes whose number is known only at their end.
    Stream,
    /// A symbolic link; the target is stored, never followed.
    Symlink {
        /// Verbatim.
        target: Vec<u8>,
    },
    /// Another name of a file that this transfer has made before.
    HardLink {
        /// That file.
        target: RelPath,
    },
}

/// Seconds since the epoch and nanoseconds below one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// May be negative.
    pub seconds: i64,
    /// 0..=999_999_999.
    pub nanoseconds: u32,
}

/// Metadata of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Owner, numeric.
    pub uid: u32,
    /// Group, numeric.
    pub gid: u32,
    /// Last modification.
    pub modified: Time,
    /// Last access.
    pub accessed: Time,
    /// Extended attributes: full name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

mod tag {
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const DIRECTORY_END: u8 = 2;
    pub(super) const FILE: u8 = 3;
    pub(super) const STREAM: u8 = 4;
    pub(super) const SYMLINK: u8 = 5;
    pub(super) const HARD_LINK: u8 = 6;
}

/// Encodes a batch. The caller keeps to the bounds.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + batch.entries.len() * 96);
    out.put_u32(batch.entries.len() as u32);
    for entry in &batch.entries {
        encode_entry(entry, &mut out);
    }
    out
}

/// Bytes that an entry takes at most: to close a batch in time.
pub(crate) fn encoded_len_max(entry: &Entry) -> usize {
    let xattrs: usize = entry.metadata.xattrs.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        EntryKind::HardLink { target } => target.as_bytes().len(),
        _ => 0,
    };
    96 + entry.path.as_bytes().len() + target + xattrs
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.put_u64(entry.id);
    out.put_blob(entry.path.as_bytes());
    match &entry.kind {
        EntryKind::Directory => out.put_u8(tag::DIRECTORY),
        EntryKind::DirectoryEnd => out.put_u8(tag::DIRECTORY_END),
        EntryKind::File { size, differs } => {
            out.put_u8(tag::FILE);
            out.put_u64(*size);
            out.put_u8((*differs).into());
        }
        EntryKind::Stream => out.put_u8(tag::STREAM),
        EntryKind::Symlink { target } => {
            out.put_u8(tag::SYMLINK);
            out.put_blob(target);
        }
        EntryKind::HardLink { target } => {
            out.put_u8(tag::HARD_LINK);
            out.put_blob(target.as_bytes());
        }
    }
    let metadata = &entry.metadata;
    out.put_u32(metadata.mode);
    out.put_u32(metadata.uid);
    out.put_u32(metadata.gid);
    for time in [metadata.modified, metadata.accessed] {
        out.put_i64(time.seconds);
        out.put_u32(time.nanoseconds);
    }
    out.put_u32(metadata.xattrs.len() as u32);
    for (name, value) in &metadata.xattrs {
        out.put_blob(name);
        out.put_blob(value);
    }
}

/// Decodes a batch and checks every bound.
pub fn decode(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.count("number of entries", BATCH_ENTRIES_MAX)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = decode_entry(&mut reader)?;
        if entries.last().is_some_and(|last| last.id >= entry.id) {
            return Err(DecodeError::Invalid("order of entry ids"));
        }
        entries.push(entry);
    }
    reader.end()?;
    Ok(Batch { entries })
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let id = reader.u64()?;
    let path = RelPath::new(reader.blob("path length", PATH_BYTES_MAX)?)?;
    let kind = decode_kind(reader)?;
    let metadata = decode_metadata(reader)?;
    Ok(Entry { id, path, kind, metadata })
}

fn decode_kind(reader: &mut Reader<'_>) -> Result<EntryKind, DecodeError> {
    Ok(match reader.u8()? {
        tag::DIRECTORY => EntryKind::Directory,
        tag::DIRECTORY_END => EntryKind::DirectoryEnd,
        tag::FILE => {
            let size = reader.u64()?;
            if size > FILE_BYTES_MAX {
                return Err(DecodeError::TooLarge { what: "file size", value: size, max: FILE_BYTES_MAX });
            }
            EntryKind::File { size, differs: reader.flag("file flag")? }
        }
        tag::STREAM => EntryKind::Stream,
        tag::SYMLINK => {
            let target = reader.blob("symbolic link length", LINK_TARGET_BYTES_MAX)?;
            if target.is_empty() || target.contains(&0) {
                return Err(DecodeError::Invalid("symbolic link target"));
            }
            EntryKind::Symlink { target: target.to_vec() }
        }
        tag::HARD_LINK => {
            EntryKind::HardLink { target: RelPath::new(reader.blob("hard link length", PATH_BYTES_MAX)?)? }
        }
        value => return Err(DecodeError::Unknown { what: "entry kind", value: value.into() }),
    })
}

fn decode_metadata(reader: &mut Reader<'_>) -> Result<Metadata, DecodeError> {
    let mode = reader.u32()?;
    if mode > 0o7777 {
        return Err(DecodeError::Invalid("mode"));
    }
    let (uid, gid) = (reader.u32()?, reader.u32()?);
    if uid == u32::MAX || gid == u32::MAX {
        // To chown(2) this means "leave it".
        return Err(DecodeError::Invalid("owner"));
    }
    let modified = decode_time(reader)?;
    let accessed = decode_time(reader)?;
    let count = reader.count("number of extended attributes", XATTRS_MAX)?;
    let mut xattrs = Vec::with_capacity(count);
    let mut total = 0;
    for _ in 0..count {
        let name = reader.blob("extended attribute name length", NAME_BYTES_MAX)?;
        if name.is_empty() || name.contains(&0) {
            return Err(DecodeError::Invalid("extended attribute name"));
        }
        let value = reader.blob("extended attribute length", XATTR_VALUE_BYTES_MAX)?;
        total += name.len() + value.len();
        if total > XATTR_BYTES_MAX {
            let max = XATTR_BYTES_MAX as u64;
            return Err(DecodeError::TooLarge { what: "extended attributes", value: total as u64, max });
        }
        xattrs.push((name.to_vec(), value.to_vec()));
    }
    Ok(Metadata { mode, uid, gid, modified, accessed, xattrs })
}

fn decode_time(reader: &mut Reader<'_>) -> Result<Time, DecodeError> {
    let (seconds, nanoseconds) = (reader.i64()?, reader.u32()?);
    if nanoseconds >= 1_000_000_000 {
        return Err(DecodeError::Invalid("nanoseconds"));
    }
    Ok(Time { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn path() -> impl Strategy<Value = RelPath> {
        vec(vec(1u8.., 1..12), 1..5)
            .prop_filter_map("not a path", |parts| RelPath::new(parts.join(&b'/')).ok())
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Directory),
            Just(EntryKind::DirectoryEnd),
            (0..=FILE_BYTES_MAX, any::<bool>()).prop_map(|(size, differs)| EntryKind::File { size, differs }),
            Just(EntryKind::Stream),
            vec(1u8.., 1..40).prop_map(|target| EntryKind::Symlink { target }),
            path().prop_map(|target| EntryKind::HardLink { target }),
        ]
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let time = || {
            (any::<i64>(), 0..1_000_000_000u32)
                .prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
        };
        let xattrs = vec((vec(1u8.., 1..20), vec(any::<u8>(), 0..50)), 0..4);
        (0..=0o7777u32, 0..u32::MAX, 0..u32::MAX, time(), time(), xattrs).prop_map(
            |(mode, uid, gid, modified, accessed, xattrs)| Metadata {
                mode,
                uid,
                gid,
                modified,
                accessed,
                xattrs,
            },
        )
    }

    fn batch() -> impl Strategy<Value = Batch> {
        vec((path(), kind(), metadata()), 0..20).prop_map(|parts| Batch {
            entries: parts
                .into_iter()
                .enumerate()
                .map(|(id, (path, kind, metadata))| Entry { id: id as u64, path, kind, metadata })
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn t3_2_batches_come_back_as_they_went(batch in batch()) {
            let bytes = encode(&batch);
            let bound: usize = 4 + batch.entries.iter().map(encoded_len_max).sum::<usize>();
            prop_assert!(bytes.len() <= bound);
            prop_assert_eq!(decode(&bytes), Ok(batch));
        }

        #[test]
        fn damaged_batches_never_panic(batch in batch(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = encode(&batch);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            let _ = decode(&bytes);
        }

        #[test]
        fn noise_never_panics(bytes in vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn t3_2_bounds_are_kept() {
        let entry = |id| Entry {
            id,
            path: RelPath::new(&b"x"[..]).unwrap(),
            kind: EntryKind::Directory,
            metadata: Metadata::default(),
        };
        let unordered = encode(&Batch { entries: vec![entry(5), entry(5)] });
        assert_eq!(decode(&unordered), Err(DecodeError::Invalid("order of entry ids")));
        let mut many = encode(&Batch { entries: vec![] });
        many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&many), Err(DecodeError::TooLarge { .. })));
        let large = Entry { kind: EntryKind::File { size: FILE_BYTES_MAX + 1, differs: false }, ..entry(0) };
        assert!(matches!(
            decode(&encode(&Batch { entries: vec![large] })),
            Err(DecodeError::TooLarge { .. })
        ));
    }
}
