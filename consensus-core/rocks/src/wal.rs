//! Looks into RocksDB's write-ahead logs for what their records say of each other, past records that are not whole.
//!
//! The format is that of RocksDB's wiki page "Write Ahead Log File Format": blocks of 32 KiB, in which records have a masked CRC-32C,
//! a length, a type and, because files are used again, the number of the file. Only the beginning of each batch is of interest:
//! its sequence number, and the [witness](witness) that every batch of ours begins with. Not here: replaying it,
//! which is RocksDB's.

mod live;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

pub(crate) use live::Pass;

const BLOCK_BYTES: usize = 32 << 10;
/// CRC, length, type, number of the file.
const HEADER_BYTES: usize = 11;
const MASK_DELTA: u32 = 0xa282_ead8;
/// Types of records that a batch begins with, in files that are used again: all of it, or its first part.
const FULL: u8 = 5;
const FIRST: u8 = 6;
/// The last part of one.
const LAST: u8 = 8;
/// Of a batch: sequence number and count of its operations.
const BATCH_HEADER_BYTES: usize = 12;
/// A batch's first operation: bytes that are for the log alone (RocksDB's `kTypeLogData`), eight of them.
const WITNESS_HEAD: [u8; 2] = [3, 8];

/// What a batch begins with: everything up to this sequence number was synced before it was written.
pub(crate) fn witness(synced: u64) -> [u8; 8] {
    synced.to_le_bytes()
}

/// The largest sequence number that whole records in the folder say was synced before them; 0: none does.
pub(crate) fn synced_before(folder: &Path) -> io::Result<u64> {
    let mut synced = 0;
    for (number, path) in files(folder)? {
        // Records have the lower half.
        synced = synced.max(synced_in(File::open(&path)?, number as u32)?);
    }
    Ok(synced)
}

/// The write-ahead logs in a folder with their numbers, the oldest first. Some may be there only to be used again.
fn files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = stem.filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn synced_in(mut file: impl Read, number: u32) -> io::Result<u64> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut synced = 0;
    loop {
        block.clear();
        if file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(synced);
        }
        let mut rest = &block[..];
        while let Some((record, after)) = split(rest) {
            // One that is not whole still says where the next is, perhaps; the next block begins with a record in any case.
            synced = synced.max(record.witness(number).unwrap_or_default());
            rest = after;
        }
    }
}

struct Record<'a> {
    crc: u32,
    kind: u8,
    number: u32,
    /// What the CRC is over: type, number and payload.
    covered: &'a [u8],
    payload: &'a [u8],
}

/// The record at the beginning, and what is after it.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind, n0, n1, n2, n3] = *header;
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
    let record = Record {
        crc: u32::from_le_bytes([c0, c1, c2, c3]),
        kind,
        number: u32::from_le_bytes([n0, n1, n2, n3]),
        covered: &bytes[6..HEADER_BYTES + payload.len()],
        payload,
    };
    (kind != 0).then_some((record, &rest[payload.len()..]))
}

impl Record<'_> {
    fn is_whole(&self) -> bool {
        crc32c::crc32c(self.covered).rotate_right(15).wrapping_add(MASK_DELTA) == self.crc
    }

    /// What the batch that begins here says was synced before it.
    fn witness(&self, number: u32) -> Option<u64> {
        let begins = matches!(self.kind, FULL | FIRST) && self.number == number;
        let content = self.payload.get(BATCH_HEADER_BYTES..)?.strip_prefix(&WITNESS_HEAD)?;
        let synced = u64::from_le_bytes(*content.first_chunk()?);
        (begins && self.is_whole()).then_some(synced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, number: u32, synced: u64, payload_bytes: usize) -> Vec<u8> {
        let mut covered = vec![kind];
        covered.extend(number.to_le_bytes());
        let mut payload = vec![0; BATCH_HEADER_BYTES];
        payload.extend(WITNESS_HEAD);
        payload.extend(witness(synced));
        payload.resize(payload_bytes, 0xaa);
        covered.extend(&payload);
        let crc = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(MASK_DELTA);
        let mut record = crc.to_le_bytes().to_vec();
        record.extend((payload_bytes as u16).to_le_bytes());
        record.extend(covered);
        record
    }

    #[test]
    fn records_behind_a_bad_one_are_heard() {
        let records: Vec<_> = (1..=3).map(|synced| record(FULL, 7, synced * 10, 40)).collect();
        let mut file = records.concat();
        assert_eq!(synced_in(&file[..], 7).unwrap(), 30);
        assert_eq!(synced_in(&file[..], 8).unwrap(), 0, "left from when the file was used before");
        let second = records[0].len() + HEADER_BYTES + 30;
        file[second] ^= 1;
        assert_eq!(synced_in(&file[..], 7).unwrap(), 30);
        let third = records[0].len() + records[1].len() + HEADER_BYTES + 16;
        file[third] ^= 1;
        assert_eq!(synced_in(&file[..], 7).unwrap(), 10, "a bad one says nothing");
    }

    #[test]
    fn the_next_block_is_heard_when_a_length_is_bad() {
        let mut file = record(FULL, 7, 10, 40);
        file.resize(BLOCK_BYTES, 0);
        file.extend(record(FIRST, 7, 20, 40));
        file[4] = 0xff;
        file[5] = 0xff;
        assert_eq!(synced_in(&file[..], 7).unwrap(), 20);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut seed = 1_u64;
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 60) as u8
                })
                .collect();
            assert_eq!(synced_in(&bytes[..], 7).unwrap(), 0);
        }
    }
}
