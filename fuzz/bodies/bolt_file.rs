//! Any bytes as a database file, and as the pages behind meta pages that are right: reading ends without a panic, and gives
//! pairs in order that are no more than the file holds.

use std::io::Cursor;

use consensus_bolt::{ReadError, Reader};

const PAGE_BYTES: usize = 1024;

pub(crate) fn run(data: &[u8]) {
    let _ = read(data);
    // No fuzzer guesses a checksum. The first byte is the root's page.
    let Some((&root, pages)) = data.split_first() else { return };
    let _ = read(&file(root, pages));
}

/// Pairs of all buckets.
pub(crate) fn read(file: &[u8]) -> Result<usize, ReadError> {
    let mut reader = Reader::open(Cursor::new(file))?;
    let names: Vec<_> = reader.buckets().map(<[u8]>::to_vec).collect();
    assert!(names.is_sorted_by(|a, b| a < b));
    let mut count = 0;
    for name in names {
        let mut pairs = reader.pairs(&name)?.expect("a bucket that was named");
        let (mut last, mut bytes) = (None, 0);
        while let Some((key, value)) = pairs.next()? {
            assert!(last.as_deref().is_none_or(|last| last < key), "keys ascend");
            bytes += key.len() + value.len();
            assert!(bytes <= file.len(), "a bucket is no larger than its file");
            last = Some(key.to_vec());
            count += 1;
        }
    }
    Ok(count)
}

/// Meta pages, and what follows them.
pub(crate) fn file(root: u8, pages: &[u8]) -> Vec<u8> {
    let count = 2 + pages.len().div_ceil(PAGE_BYTES);
    let mut file = Vec::new();
    for number in 0..2_u64 {
        let mut content = Vec::new();
        content.extend([0xED0C_DAED_u32, 2, PAGE_BYTES as u32, 0].map(u32::to_le_bytes).concat());
        content.extend([u64::from(root), 0, 0, count as u64, number].map(u64::to_le_bytes).concat());
        content.extend(fnv_1a(&content).to_le_bytes());
        file.extend([&number.to_le_bytes()[..], &[4, 0, 0, 0, 0, 0, 0, 0], &content].concat());
        file.resize((number as usize + 1) * PAGE_BYTES, 0);
    }
    file.extend(pages);
    file.resize(count * PAGE_BYTES, 0);
    file
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
