//! Any bytes as what a peer of a transfer says: no panic, and what is accepted is within its bounds and can be said
//! again. The first byte chooses who reads them.

use dwcp_transfer::{
    RelPath, fuzzing,
    limits::{BATCH_ENTRIES_MAX, DEPTH_MAX, EXTENTS_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX},
    manifest::{self, Entry, EntryKind},
};

/// Bytes of a record before its extents, and of one extent.
const RECORD_HEADER_BYTES: usize = 64;
const EXTENT_BYTES: usize = 8;

pub(crate) fn run(data: &[u8]) {
    let Some((&reader, bytes)) = data.split_first() else { return };
    match reader % 4 {
        0 => batch(bytes),
        1 => message(bytes),
        2 => record(bytes),
        _ => preamble(bytes),
    }
}

fn batch(bytes: &[u8]) {
    let Ok(batch) = manifest::decode(bytes) else { return };
    assert!(manifest::encode(&batch) == bytes, "a batch has one encoding");
    assert!(batch.entries.len() <= BATCH_ENTRIES_MAX);
    assert!(batch.entries.is_sorted_by(|a, b| a.id < b.id));
    batch.entries.iter().for_each(entry);
}

fn entry(entry: &Entry) {
    path(&entry.path);
    match &entry.kind {
        EntryKind::File { size, .. } => assert!(*size <= FILE_BYTES_MAX),
        EntryKind::Symlink { target } => assert!(!target.is_empty() && !target.contains(&0)),
        EntryKind::HardLink { target } => path(target),
        EntryKind::Directory | EntryKind::DirectoryEnd | EntryKind::Stream => {}
    }
    let metadata = &entry.metadata;
    assert!(metadata.mode <= 0o7777 && metadata.uid != u32::MAX && metadata.gid != u32::MAX);
    assert!(metadata.modified.nanoseconds < 1_000_000_000 && metadata.accessed.nanoseconds < 1_000_000_000);
}

/// Stays below the folder it is resolved in, and inside the partial area of nobody.
fn path(path: &RelPath) {
    let bytes = path.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= PATH_BYTES_MAX && !bytes.contains(&0));
    let names: Vec<_> = bytes.split(|&byte| byte == b'/').collect();
    assert!(names.len() <= DEPTH_MAX);
    for name in names {
        assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
        assert!(name != b"." && name != b".." && name != b".novacron-partial");
    }
}

fn message(bytes: &[u8]) {
    let Ok(again) = fuzzing::control(bytes) else { return };
    // Text of a failure is made printable when it is read, and then stays as it is.
    assert_eq!(fuzzing::control(&again), Ok(again.clone()), "what was accepted can be said again");
    if let Some(inner) = fuzzing::batch(bytes) {
        assert_eq!(again, bytes);
        batch(&inner);
    }
}

fn record(bytes: &[u8]) {
    let Ok(again) = fuzzing::record(bytes) else { return };
    assert!(again == bytes, "a record has one encoding");
    assert!(bytes.len() <= RECORD_HEADER_BYTES + EXTENTS_MAX * EXTENT_BYTES);
    extents(bytes);
}

/// Inside the piece, ascending, apart, summing up to the data; none where a delta says what is where.
fn extents(bytes: &[u8]) {
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let (piece_len, data_len) = (u64::from(u32_at(16)), u64::from(u32_at(20)));
    let is_delta = bytes[26] == 1;
    if is_delta {
        assert!(bytes.len() == RECORD_HEADER_BYTES && (1..=piece_len).contains(&data_len));
        return;
    }
    let (mut end, mut sum) = (None, 0);
    for at in (RECORD_HEADER_BYTES..bytes.len()).step_by(EXTENT_BYTES) {
        let (start, len) = (u64::from(u32_at(at)), u64::from(u32_at(at + 4)));
        assert!(len > 0 && end.is_none_or(|end| start > end) && start + len <= piece_len);
        end = Some(start + len);
        sum += len;
    }
    assert_eq!(sum, data_len);
}

fn preamble(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk() else { return };
    if let Ok(again) = fuzzing::preamble(*bytes) {
        assert_eq!(again, &bytes[..]);
    }
}
