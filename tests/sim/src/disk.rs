//! A simulated disk: one that fails when it is told to, and forgets in a crash what was not synced.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk, DiskError, Durability, MemoryDisk, Op, Order, Space};
use consensus_raft::STATE;

use crate::{Mistake, random::Random};

/// How a write fails. Whoever wrote stops, as a process that crashes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The machine crashes before anything is written.
    CrashBefore,
    /// It crashes when everything is written.
    CrashAfter,
    /// There is no room.
    NoSpace,
    /// A sync fails, and nobody knows how much of what was written since the last one is on the disk.
    SyncFailed,
}

#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    memory: MemoryDisk,
    mistake: Option<Mistake>,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Writes until the one that fails, and how it does.
    armed: Option<(u64, Failure)>,
    failed: Option<Failure>,
    /// A sync has failed, and by mistake nobody was told: what comes after the hole in the file is of no use either.
    hole: bool,
    /// The hard state before the last vote, while nothing but votes was written since.
    before_vote: Option<(Vec<u8>, Bytes)>,
}

impl SimDisk {
    pub(crate) fn new(memory: MemoryDisk, mistake: Option<Mistake>) -> Self {
        Self { memory, mistake, trouble: Mutex::default() }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The write after so many others fails.
    pub(crate) fn arm(&self, after: u64, failure: Failure) {
        self.trouble().armed = Some((after, failure));
    }

    /// No write will fail.
    pub(crate) fn disarm(&self) {
        self.trouble().armed = None;
    }

    /// How it failed, if it has.
    pub(crate) fn failed(&self) -> Option<Failure> {
        self.trouble().failed
    }

    /// What is visible now.
    pub(crate) fn copy(&self) -> MemoryDisk {
        self.memory.copy()
    }

    /// Whoever uses it is gone, and the machine with what was not synced if `power_lost`; it fails no more.
    pub(crate) fn crash(&self, power_lost: bool, random: &mut Random) {
        let trouble = std::mem::take(&mut *self.trouble());
        let unsynced = self.memory.unsynced() as u64;
        let survivors = if power_lost { random.below(unsynced + 1) } else { unsynced };
        self.memory.crash(survivors as usize);
        if let Some((key, value)) = trouble.before_vote.filter(|_| power_lost) {
            let mut batch = Batch::default();
            batch.put(STATE, key, value);
            self.memory.write(batch, Durability::Synced).expect("memory takes every write");
        }
    }

    /// Flips a bit of one stored value.
    pub(crate) fn rot(&self, spaces: &[Space], random: &mut Random) {
        let mut values = Vec::new();
        for space in spaces {
            let scanned = self.memory.scan(*space, &[], None, Order::Ascending, &mut |key, value| {
                values.push((*space, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
            scanned.expect("memory gives every value");
        }
        let (space, key, mut value) = values.swap_remove(random.below(values.len() as u64) as usize);
        let bit = random.below(value.len() as u64 * 8);
        value[bit as usize / 8] ^= 1 << (bit % 8);
        let mut batch = Batch::default();
        batch.put(space, key, value);
        self.memory.write(batch, Durability::Synced).expect("memory takes every write");
    }

    /// Remembers what a crash that takes a vote goes back to.
    fn note_votes(&self, batch: &Batch) {
        let mut trouble = self.trouble();
        let hard_state = batch.ops().iter().find_map(|op| match op {
            Op::Put { space: STATE, key, .. } if key.ends_with(b"h") => Some(key),
            _ => None,
        });
        match hard_state {
            Some(key) if batch.ops().len() == 1 => {
                if trouble.before_vote.is_none()
                    && let Ok(Some(before)) = self.memory.get(STATE, key)
                {
                    trouble.before_vote = Some((key.clone(), before));
                }
            }
            // Once there are entries of the new term, the log notices that its hard state is older.
            _ => trouble.before_vote = None,
        }
    }
}

impl Trouble {
    /// How the write that comes now fails, if it does.
    fn next_failure(&mut self, durability: Durability) -> Option<Failure> {
        assert!(self.failed.is_none(), "nobody writes to a disk that has failed");
        let (after, failure) = self.armed?;
        // Without a sync, none fails.
        let waits = failure == Failure::SyncFailed && durability != Durability::Synced;
        if after > 0 || waits {
            self.armed = Some((after.saturating_sub(1), failure));
            return None;
        }
        (self.armed, self.failed) = (None, Some(failure));
        self.failed
    }
}

fn io() -> DiskError {
    DiskError::Io { call: "write", text: "simulated".to_owned() }
}

impl Disk for SimDisk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.memory.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        self.memory.scan(space, from, to, order, visit)
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), DiskError> {
        if self.mistake == Some(Mistake::VoteForgotten) {
            self.note_votes(&batch);
        }
        let failure = self.trouble().next_failure(durability);
        if failure == Some(Failure::SyncFailed) && self.mistake == Some(Mistake::SyncRepeated) {
            let mut trouble = self.trouble();
            (trouble.failed, trouble.hole) = (None, true);
            drop(trouble);
            return self.memory.write(batch, Durability::Ordered);
        }
        let durability = match self.mistake {
            Some(Mistake::SyncDropped) => Durability::Ordered,
            _ if self.trouble().hole => Durability::Ordered,
            _ => durability,
        };
        match failure {
            None => self.memory.write(batch, durability),
            Some(Failure::SyncFailed) => self.memory.write(batch, Durability::Ordered).and(Err(io())),
            Some(Failure::CrashBefore) => Err(io()),
            Some(Failure::CrashAfter) => self.memory.write(batch, durability).and(Err(io())),
            Some(Failure::NoSpace) => Err(DiskError::NoSpace { call: "write", text: "simulated".to_owned() }),
        }
    }
}
