//! Reads all files of a disk once, a slice at a time, so that what has rotted is found before it is needed.
//!
//! Blocks are checked as they are read, and do not take the place of others in the cache. A slice holds no files open after
//! it. Of a log, the write-ahead logs that are in force come last: what is in them is in memory as well, but the next start
//! needs them.

use std::{ops::ControlFlow, sync::atomic::Ordering::Relaxed};

use consensus_disk::{DiskError, Space};
use rocksdb::ReadOptions;

use crate::{RocksDisk, failed, wal::Pass};

/// Where the next slice begins. It begins with the last key of the one before, so that pairs can be compared with their neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    space: u8,
    key: Vec<u8>,
    /// All spaces are read.
    wal: Option<Pass>,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Keys and values, or of files.
    pub bytes: usize,
    /// There is no more; the place is the beginning again.
    pub last: bool,
}

impl RocksDisk {
    /// Reads about so many bytes, of one space, until `visit` breaks.
    pub fn read_slice(
        &self,
        place: &mut Place,
        bytes_max: usize,
        mut visit: impl FnMut(Space, &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<Slice, DiskError> {
        if let Some(pass) = &mut place.wal {
            let slice = self.read_wal(pass, bytes_max)?;
            if slice.last {
                place.wal = None;
            }
            return Ok(slice);
        }
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let space = Space(place.space);
        let mut pairs = self.db.raw_iterator_cf_opt(self.family(space), options);
        pairs.seek(&place.key);
        let (mut bytes, mut count) = (0, 0);
        while let Some((key, value)) = pairs.item() {
            bytes += key.len() + value.len();
            count += 1;
            if visit(space, key, value).is_break() {
                break;
            }
            // Of one pair, the next slice would be the same.
            if bytes >= bytes_max && count > 1 {
                place.key = key.to_vec();
                return Ok(Slice { bytes, last: false });
            }
            pairs.next();
        }
        pairs.status().map_err(|error| failed("iterate", &error))?;
        let next = place.space + 1;
        let last_space = usize::from(next) == self.names.len();
        let wal =
            self.synced.as_ref().filter(|_| last_space).map(|(_, synced)| Pass::new(synced.load(Relaxed)));
        let last = last_space && wal.is_none();
        *place = Place { space: if last_space { 0 } else { next }, key: Vec::new(), wal };
        Ok(Slice { bytes, last })
    }
}

#[cfg(test)]
mod tests {
    use consensus_disk::{Batch, Disk as _, Durability};

    use super::*;
    use crate::Kind;

    #[test]
    fn slices_have_everything_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RocksDisk::open(folder.path(), Kind::Data, 3).unwrap();
        let mut batch = Batch::default();
        for space in [0, 2] {
            (0..100_u8).for_each(|n| batch.put(Space(space), [n], vec![n; 100]));
        }
        disk.write(batch, Durability::Synced).unwrap();
        for bytes_max in [1, 1000, 1 << 20] {
            let (mut place, mut found, mut slices) = (Place::default(), Vec::new(), 0);
            loop {
                let slice = disk.read_slice(&mut place, bytes_max, |space, key, _| {
                    found.push((space, key[0]));
                    ControlFlow::Continue(())
                });
                slices += 1;
                if slice.unwrap().last {
                    break;
                }
            }
            assert_eq!(place, Place::default());
            found.dedup();
            let all = [0, 2].into_iter().flat_map(|space| (0..100).map(move |n| (Space(space), n)));
            assert!(found.into_iter().eq(all), "slices of {bytes_max}");
            assert_eq!(slices, if bytes_max == 1 << 20 { 3 } else { slices.max(20) });
        }
    }
}
