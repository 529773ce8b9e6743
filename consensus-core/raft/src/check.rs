//! Looks at a stored log from outside, beside the member that writes it: whether its records are what was written, and follow
//! each other. Not here: reading them from a disk.

use bytes::Bytes;
use consensus_disk::Space;

use crate::{
    codec,
    log::{LOG, LogError, Position, STATE, decode_entry, follows},
};

/// What is known of the records so far. To be given those of a disk in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct LogCheck {
    /// Group and position of the entry before.
    before: Option<(u64, Position)>,
}

impl LogCheck {
    /// What comes was read at another time than what was before, and need not follow it.
    pub fn begin_slice(&mut self) {
        self.before = None;
    }

    /// Looks at one record.
    pub fn record(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), LogError> {
        let group = key.first_chunk().map(|group| u64::from_be_bytes(*group)).unwrap_or_default();
        match space {
            LOG => {
                let entry = decode_entry(group, key, value)?;
                if let Some((of, before)) = self.before
                    && of == group
                {
                    follows(group, before, &entry)?;
                }
                self.before = Some((group, Position { index: entry.index, term: entry.term }));
            }
            STATE => {
                let record = String::from_utf8_lossy(key.get(8..).unwrap_or_default()).into_owned();
                codec::unseal(Bytes::copy_from_slice(value), "state").map_err(|source| {
                    LogError::Damaged { group, record: format!("state {record}"), source }
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk, Order};
    use raft::eraftpb::Entry;

    use super::*;
    use crate::{
        log::{Log, bootstrap},
        membership::Membership,
    };

    fn disk(terms: &[u64]) -> (Arc<MemoryDisk>, Log<MemoryDisk>) {
        let disk = Arc::new(MemoryDisk::default());
        disk.write(bootstrap(1, &Membership { index: 1, ..Default::default() }), Durability::Synced).unwrap();
        let mut log = Log::open(Arc::clone(&disk), 1).unwrap().unwrap();
        let entries = (2..).zip(terms).map(|(index, term)| Entry { index, term: *term, ..Entry::default() });
        let mut batch = Batch::default();
        log.append(entries.collect(), &mut batch);
        log.hard_state.term = 9;
        log.save_hard_state(&mut batch);
        disk.write(batch, Durability::Synced).unwrap();
        (disk, log)
    }

    fn check(disk: &MemoryDisk) -> Result<(), LogError> {
        let (mut check, mut checked) = (LogCheck::default(), Ok(()));
        for space in [LOG, STATE] {
            disk.scan(space, &[], None, Order::Ascending, &mut |key, value| {
                checked = checked.clone().and(check.record(space, key, value));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        }
        checked
    }

    #[test]
    fn a_log_that_is_whole_passes() {
        let (disk, _) = disk(&[1, 1, 2, 9]);
        check(&disk).unwrap();
        Log::open(disk, 1).unwrap();
    }

    #[test]
    fn an_entry_of_before_in_the_place_of_a_newer_one_is_found() {
        let (new, _) = disk(&[1, 3, 3]);
        let (old, _) = disk(&[1, 1, 1]);
        let key = [1_u64.to_be_bytes(), 4_u64.to_be_bytes()].concat();
        let mut batch = Batch::default();
        batch.put(LOG, key.clone(), old.get(LOG, &key).unwrap().unwrap().to_vec());
        new.write(batch, Durability::Synced).unwrap();
        assert!(matches!(check(&new), Err(LogError::Disorder { index: 4, term: 1, before: 3, .. })));
        assert!(matches!(Log::open(new, 1), Err(LogError::Disorder { .. })));
    }

    #[test]
    fn what_is_missing_or_not_what_was_written_is_found() {
        let (gap, _) = disk(&[1, 1, 1]);
        let key = [1_u64.to_be_bytes(), 3_u64.to_be_bytes()].concat();
        let mut batch = Batch::default();
        batch.delete(LOG, key.clone());
        gap.write(batch, Durability::Synced).unwrap();
        assert!(matches!(check(&gap), Err(LogError::Gap { index: 3, .. })));
        for (space, key) in [(LOG, key), (STATE, [&1_u64.to_be_bytes()[..], b"h"].concat())] {
            let (flipped, _) = disk(&[1, 1, 1]);
            let mut value = flipped.get(space, &key).unwrap().unwrap().to_vec();
            *value.last_mut().unwrap() ^= 4;
            let mut batch = Batch::default();
            batch.put(space, key, value);
            flipped.write(batch, Durability::Synced).unwrap();
            assert!(matches!(check(&flipped), Err(LogError::Damaged { .. })));
        }
    }

    #[test]
    fn a_log_of_terms_that_the_member_never_heard_of_is_refused() {
        let (disk, mut log) = disk(&[1, 2, 9]);
        log.hard_state.term = 8;
        let mut batch = Batch::default();
        log.save_hard_state(&mut batch);
        disk.write(batch, Durability::Synced).unwrap();
        assert!(matches!(Log::open(disk, 1), Err(LogError::Disorder { index: 4, term: 9, before: 8, .. })));
    }
}
