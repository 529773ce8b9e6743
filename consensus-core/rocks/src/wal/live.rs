//! Reads the write-ahead logs that are in force, beside whoever writes them, to find what has rotted.
//!
//! The batches of a log have sequence numbers without gaps. So what was synced is whole if whole records have all numbers from the
//! first one on. A pass looks only for what was synced before it began: that is in the files completely, whatever is being
//! written meanwhile. A file that is not in force any more when something is missing accuses nobody: its records are in
//! tables, and its bytes may be another's already. What this cannot tell: damage of the first record of all, as long as there is none
//! behind it.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    ops::RangeInclusive,
};

use consensus_disk::DiskError;

use super::{BATCH_HEADER_BYTES, BLOCK_BYTES, FIRST, FULL, HEADER_BYTES, LAST, Record, files, split};
use crate::{RocksDisk, Slice, damaged, failed, not_readable};

/// RocksDB's number of the oldest write-ahead log that a start would read.
const FIRST_IN_FORCE: &str = "rocksdb.min-log-number-to-keep";

/// One reading of all files, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// What is looked for: all writes up to this one.
    synced: u64,
    /// The file that is read, and where the next block begins.
    number: u64,
    offset: u64,
    /// What follows the batches that were found, and the file that the last of them was in.
    next: Option<u64>,
    found_in: u64,
    /// A batch whose last part is still to come.
    unfinished: Option<Batch>,
}

/// What is known of a batch from the parts that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    begins_file: bool,
    /// Its sequence number and the count of its operations, as far as they have come: a first part may be short.
    head: Vec<u8>,
}

impl Batch {
    fn add(&mut self, part: &[u8]) {
        let missing = BATCH_HEADER_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&part[..part.len().min(missing)]);
    }

    /// Its sequence number, and that of the batch after it.
    fn sequences(&self) -> Option<(u64, u64)> {
        let (sequence, count) = self.head.split_first_chunk::<8>()?;
        let (sequence, count) = (u64::from_le_bytes(*sequence), u32::from_le_bytes(count.try_into().ok()?));
        Some((sequence, sequence.saturating_add(count.into())))
    }
}

impl Pass {
    /// A reading of what was synced up to here.
    pub(crate) fn new(synced: u64) -> Self {
        Self { synced, number: 0, offset: 0, next: None, found_in: 0, unfinished: None }
    }

    fn is_done(&self) -> bool {
        self.next.is_some_and(|next| next > self.synced)
    }

    /// Goes to the beginning of a file.
    fn enter(&mut self, number: u64) {
        (self.number, self.offset, self.unfinished) = (number, 0, None);
    }

    /// The next block of the file. An error: these writes are missing.
    fn block(&mut self, block: &[u8]) -> Result<(), RangeInclusive<u64>> {
        let mut rest = block;
        while let Some((record, after)) = split(rest) {
            let begins_file = self.offset == 0 && rest.len() == block.len();
            rest = after;
            if record.number == self.number as u32 && record.is_whole() {
                self.record(&record, begins_file)?;
            } else {
                // A batch ends with its own parts.
                self.unfinished = None;
            }
        }
        if rest.len() >= HEADER_BYTES {
            // Here a block ends that is written to its end only if a part is damaged.
            self.unfinished = None;
        }
        self.offset += block.len() as u64;
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>, begins_file: bool) -> Result<(), RangeInclusive<u64>> {
        if matches!(record.kind, FULL | FIRST) {
            self.unfinished = Some(Batch { begins_file, head: Vec::with_capacity(BATCH_HEADER_BYTES) });
        }
        let Some(batch) = &mut self.unfinished else { return Ok(()) };
        batch.add(record.payload);
        match record.kind {
            FULL | LAST => self.batch(),
            _ => Ok(()),
        }
    }

    /// All parts of a batch are there.
    fn batch(&mut self) -> Result<(), RangeInclusive<u64>> {
        let Some(batch) = self.unfinished.take() else { return Ok(()) };
        let Some((first, next)) = batch.sequences() else { return Ok(()) };
        // Before the first that is found there is nothing, or what is not whole.
        let begin = if batch.begins_file { first } else { first.saturating_sub(1) };
        let expected = self.next.unwrap_or(begin);
        if first > expected && expected <= self.synced {
            return Err(expected..=self.synced.min(first - 1));
        }
        (self.next, self.found_in) = (Some(next), self.number);
        Ok(())
    }
}

impl RocksDisk {
    fn first_wal_in_force(&self) -> Result<u64, DiskError> {
        let number = self.db.property_int_value(FIRST_IN_FORCE).map_err(|error| failed("get", &error))?;
        Ok(number.unwrap_or_default())
    }

    /// Reads about so many bytes of the write-ahead logs that are in force.
    pub(crate) fn read_wal(&self, pass: &mut Pass, bytes_max: usize) -> Result<Slice, DiskError> {
        let in_force = self.first_wal_in_force()?;
        if pass.number < in_force {
            *pass = Pass { number: in_force, ..Pass::new(pass.synced) };
        }
        let mut bytes = 0;
        let missing = match self.read_blocks(pass, bytes_max, &mut bytes) {
            Ok(Ok(last)) => return Ok(Slice { bytes, last }),
            Ok(Err(missing)) => missing,
            // It has become another while it was looked for.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Slice { bytes, last: false }),
            Err(error) => return Err(not_readable(self.db.path(), &error)),
        };
        let oldest = if pass.next.is_some() { pass.found_in } else { pass.number };
        if oldest < self.first_wal_in_force()? {
            // The next slice begins with what is in force.
            pass.enter(oldest);
            return Ok(Slice { bytes, last: false });
        }
        let (from, to) = missing.into_inner();
        let text = format!("writes {from} to {to} were synced, and the write-ahead log has them no more");
        Err(damaged("scrub", self.db.path(), text))
    }

    /// Whether that was all, or what is missing.
    fn read_blocks(
        &self,
        pass: &mut Pass,
        bytes_max: usize,
        bytes: &mut usize,
    ) -> io::Result<Result<bool, RangeInclusive<u64>>> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        for (number, path) in files(self.db.path())? {
            if number < pass.number {
                continue;
            }
            if number > pass.number {
                pass.enter(number);
            }
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(pass.offset))?;
            loop {
                block.clear();
                if file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
                    break;
                }
                *bytes += block.len();
                if let Err(missing) = pass.block(&block) {
                    return Ok(Err(missing));
                }
                if pass.is_done() {
                    return Ok(Ok(true));
                }
                // The end, for now: what will follow is not looked for.
                if block.len() < BLOCK_BYTES {
                    break;
                }
                if *bytes >= bytes_max {
                    return Ok(Ok(false));
                }
            }
        }
        Ok(match pass.next {
            Some(next) if next <= pass.synced => Err(next..=pass.synced),
            _ => Ok(true),
        })
    }
}
