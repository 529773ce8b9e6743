//! The log, hard state and membership of one group on a disk.
//!
//! Space [`LOG`] holds entries by group and index, space [`STATE`] the rest by group. Each record begins with a CRC-32 of what
//! follows it; the key is part of the content too, so a record in the wrong place is found as well. What raft-rs asks for
//! while it works comes from memory if it is recent.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, Bytes};
use consensus_disk::{Batch, Disk, DiskError, Order, Space};
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
};

use crate::{
    OpenError,
    codec::{self, DecodeError},
    limits::{CACHE_BYTES, INDEX_MAX, TERM_MAX},
    membership::{MemberInfo, Membership},
    snapshot::SnapshotMetadata,
};

/// Entries.
pub const LOG: Space = Space(0);
/// Hard state, membership, where the log begins, and how long this member has ever promised to elect nobody.
pub const STATE: Space = Space(1);

const HARD_STATE: u8 = b'h';
const MEMBERSHIP: u8 = b'm';
const BEGIN: u8 = b'b';
const PROMISED: u8 = b'p';

/// A log that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record is not what was written.
    #[error(
        "group {group}: {record}: {source}; this member's data is damaged: remove the member and add it as a new one"
    )]
    Damaged {
        /// Which group.
        group: u64,
        /// Which record.
        record: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// An entry is missing.
    #[error(
        "group {group}: the log has no entry {index}; this member's data is damaged: remove the member and add it as a new one"
    )]
    Gap {
        /// Which group.
        group: u64,
        /// The first that is missing.
        index: u64,
    },
    /// Terms of a log do not fall: an entry is of another time than those around it.
    #[error(
        "group {group}: entry {index} of term {term} is where the log has term {before}; this member's data is damaged: remove the member and add it as a new one"
    )]
    Disorder {
        /// Which group.
        group: u64,
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// That of the entry before, or of the member.
        before: u64,
    },
}

impl LogError {
    /// Whether what was written is lost, as opposed to a disk that does not do what it is asked for now.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_damage(),
            _ => true,
        }
    }
}

/// Whether an entry may be the next.
pub(crate) fn follows(group: u64, before: Position, entry: &Entry) -> Result<(), LogError> {
    let (index, term) = (entry.index, entry.term);
    if index != before.index + 1 {
        return Err(LogError::Gap { group, index: before.index + 1 });
    }
    if term < before.term {
        return Err(LogError::Disorder { group, index, term, before: before.term });
    }
    Ok(())
}

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// The log of one group.
#[derive(Debug)]
pub(crate) struct Log<D> {
    disk: Arc<D>,
    group: u64,
    /// The entry before the first: everything up to it is in snapshots only.
    begin: Position,
    last: u64,
    /// About how many bytes the entries have.
    bytes: u64,
    pub(crate) hard_state: HardState,
    pub(crate) membership: Membership,
    /// The longest that was ever promised to a leader with leases.
    pub(crate) promised: Duration,
    /// The newest entries.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
}

fn state_key(group: u64, kind: u8) -> Vec<u8> {
    let mut key = group.to_be_bytes().to_vec();
    key.push(kind);
    key
}

fn entry_key(group: u64, index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    key.extend_from_slice(&group.to_be_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + size_of::<Entry>()
}

/// What a new group starts with: the same on all of its first members.
pub fn bootstrap(group: u64, membership: &Membership) -> Batch {
    let begin = Position { index: membership.index, term: 1 };
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.commit) = (begin.term, begin.index);
    let mut batch = Batch::default();
    put_begin(&mut batch, group, begin);
    put_hard_state(&mut batch, group, &hard_state);
    put_membership(&mut batch, group, membership);
    batch
}

/// What a member that joins starts with: nothing but where the others are. It has no vote, and waits for a leader.
pub fn join(group: u64, others: &BTreeMap<u64, MemberInfo>) -> Batch {
    let membership = Membership { members: others.clone(), ..Membership::default() };
    let mut batch = Batch::default();
    put_begin(&mut batch, group, Position::default());
    put_hard_state(&mut batch, group, &HardState::default());
    put_membership(&mut batch, group, &membership);
    batch
}

/// What makes a group of one out of a member whose majority is gone: it keeps what it knows to be committed, as everything that
/// its state machine has applied is, and is alone.
pub fn force_new_group<D: Disk>(disk: Arc<D>, group: u64, id: u64, applied: u64) -> Result<Batch, OpenError> {
    let log = Log::open(disk, group)?.ok_or(OpenError::Unknown { group })?;
    let commit = log.hard_state.commit.max(applied);
    let info = log.membership.members.get(&id).cloned().unwrap_or_default();
    // As of the end of the log, so that no change of before is done again.
    let membership = Membership { index: commit, ..Membership::of_voters(BTreeMap::from([(id, info)])) };
    let mut batch = Batch::default();
    batch.delete_range(LOG, entry_key(group, commit + 1), entry_key(group, u64::MAX));
    put_membership(&mut batch, group, &membership);
    Ok(batch)
}

fn put_begin(batch: &mut Batch, group: u64, begin: Position) {
    batch.put(
        STATE,
        state_key(group, BEGIN),
        codec::seal(|out| {
            out.put_u64_le(begin.index);
            out.put_u64_le(begin.term);
        }),
    );
}

fn put_hard_state(batch: &mut Batch, group: u64, state: &HardState) {
    batch.put(
        STATE,
        state_key(group, HARD_STATE),
        codec::seal(|out| {
            out.put_u64_le(state.term);
            out.put_u64_le(state.vote);
            out.put_u64_le(state.commit);
        }),
    );
}

fn put_membership(batch: &mut Batch, group: u64, membership: &Membership) {
    batch.put(STATE, state_key(group, MEMBERSHIP), codec::seal(|out| membership.put(out)));
}

impl<D: Disk> Log<D> {
    /// Reads what is there and checks all of it. `None`: the group was never started on this disk.
    pub(crate) fn open(disk: Arc<D>, group: u64) -> Result<Option<Self>, LogError> {
        let damaged = |record: &str| {
            let record = record.to_owned();
            move |source| LogError::Damaged { group, record, source }
        };
        let read = |kind: u8| disk.get(STATE, &state_key(group, kind));
        let Some(begin) = read(BEGIN)? else { return Ok(None) };
        let begin = (|| {
            let mut reader = codec::unseal(begin, "begin of the log")?;
            let begin = Position { index: reader.position(INDEX_MAX)?, term: reader.position(TERM_MAX)? };
            reader.end().map(|()| begin)
        })()
        .map_err(damaged("begin of the log"))?;
        let hard_state = read(HARD_STATE)?.unwrap_or_default();
        let hard_state = (|| {
            let mut reader = codec::unseal(hard_state, "hard state")?;
            let mut state = HardState::default();
            (state.term, state.vote) = (reader.position(TERM_MAX)?, reader.u64()?);
            state.commit = reader.position(INDEX_MAX)?;
            reader.end().map(|()| state)
        })()
        .map_err(damaged("hard state"))?;
        let membership = read(MEMBERSHIP)?.unwrap_or_default();
        let membership = (|| {
            let mut reader = codec::unseal(membership, "membership")?;
            let membership = Membership::read(&mut reader)?;
            reader.end().map(|()| membership)
        })()
        .map_err(damaged("membership"))?;
        let promised = match read(PROMISED)? {
            None => Duration::ZERO,
            Some(promised) => (|| {
                let mut reader = codec::unseal(promised, "promise")?;
                let promised = Duration::from_nanos(reader.u64()?);
                reader.end().map(|()| promised)
            })()
            .map_err(damaged("promise"))?,
        };
        let mut log = Self {
            disk: Arc::clone(&disk),
            group,
            begin,
            last: begin.index,
            bytes: 0,
            hard_state,
            membership,
            promised,
            cache: VecDeque::new(),
            cache_bytes: 0,
        };
        let (mut last, mut checked) = (begin, Ok(()));
        log.scan(begin.index + 1, u64::MAX, |log, entry| {
            let entry = entry.and_then(|entry| follows(group, last, &entry).map(|()| entry));
            match entry {
                Ok(entry) => {
                    last = Position { index: entry.index, term: entry.term };
                    log.bytes += size(&entry) as u64;
                    log.remember(entry);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    checked = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        checked?;
        log.last = last.index;
        let Position { index, term } = last;
        if index < log.hard_state.commit {
            return Err(LogError::Gap { group, index: index + 1 });
        }
        if term > log.hard_state.term {
            return Err(LogError::Disorder { group, index, term, before: log.hard_state.term });
        }
        Ok(Some(log))
    }

    fn scan(
        &mut self,
        low: u64,
        high: u64,
        mut visit: impl FnMut(&mut Self, Result<Entry, LogError>) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        let group = self.group;
        let (from, to) = (entry_key(group, low), entry_key(group, high));
        let disk = Arc::clone(&self.disk);
        disk.scan(LOG, &from, Some(&to), Order::Ascending, &mut |key, value| {
            visit(self, decode_entry(group, key, value))
        })
    }

    fn remember(&mut self, entry: Entry) {
        self.cache_bytes += size(&entry);
        self.cache.push_back(entry);
        while self.cache_bytes > CACHE_BYTES && self.cache.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= size(&entry);
        }
    }

    /// Adds entries; those that are there from the first of them on are replaced.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, batch: &mut Batch) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (first, last) = (first.index, last.index);
        assert!(first <= self.last + 1 && first > self.begin.index, "the log has no gaps");
        if last < self.last {
            batch.delete_range(LOG, entry_key(self.group, last + 1), entry_key(self.group, self.last + 1));
        }
        while self.cache.back().is_some_and(|entry| entry.index >= first) {
            let entry = self.cache.pop_back().expect("there is one");
            self.cache_bytes -= size(&entry);
        }
        for entry in entries {
            batch.put(
                LOG,
                entry_key(self.group, entry.index),
                codec::seal(|out| codec::put_entry(out, &entry)),
            );
            self.bytes += size(&entry) as u64;
            self.remember(entry);
        }
        self.last = last;
    }

    /// Forgets entries up to `index`; whether there were any.
    pub(crate) fn compact(&mut self, index: u64, batch: &mut Batch) -> bool {
        let index = index.min(self.last);
        let Ok(term) = self.term(index) else { return false };
        if index <= self.begin.index {
            return false;
        }
        let (all, gone) = (self.last - self.begin.index, index - self.begin.index);
        self.bytes -= (u128::from(self.bytes) * u128::from(gone) / u128::from(all)) as u64;
        batch.delete_range(
            LOG,
            entry_key(self.group, self.begin.index + 1),
            entry_key(self.group, index + 1),
        );
        self.begin = Position { index, term };
        put_begin(batch, self.group, self.begin);
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            self.forget_oldest();
        }
        true
    }

    /// Begins anew after a snapshot.
    pub(crate) fn restore(&mut self, metadata: &SnapshotMetadata, batch: &mut Batch) {
        batch.delete_range(LOG, entry_key(self.group, 0), entry_key(self.group, u64::MAX));
        self.begin = Position { index: metadata.index, term: metadata.term };
        (self.last, self.bytes, self.cache_bytes) = (metadata.index, 0, 0);
        self.cache.clear();
        self.membership = metadata.membership.clone();
        put_begin(batch, self.group, self.begin);
        put_membership(batch, self.group, &self.membership);
    }

    pub(crate) fn save_hard_state(&self, batch: &mut Batch) {
        put_hard_state(batch, self.group, &self.hard_state);
    }

    pub(crate) fn save_promised(&self, batch: &mut Batch) {
        let nanoseconds = self.promised.as_nanos() as u64;
        batch.put(STATE, state_key(self.group, PROMISED), codec::seal(|out| out.put_u64_le(nanoseconds)));
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn save_membership(&self, batch: &mut Batch) {
        put_membership(batch, self.group, &self.membership);
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.cache.front()?.index;
        self.cache.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn read(&self, index: u64) -> Result<Entry, LogError> {
        let key = entry_key(self.group, index);
        let value = self.disk.get(LOG, &key)?.ok_or(LogError::Gap { group: self.group, index })?;
        decode_entry(self.group, &key, &value)
    }
}

pub(crate) fn decode_entry(group: u64, key: &[u8], value: &[u8]) -> Result<Entry, LogError> {
    let index =
        key.get(8..).and_then(|index| index.try_into().ok()).map(u64::from_be_bytes).unwrap_or_default();
    let decoded = (|| {
        let mut reader = codec::unseal(Bytes::copy_from_slice(value), "entry")?;
        let entry = reader.entry()?;
        reader.end()?;
        if entry.index != index {
            return Err(DecodeError::Unknown { what: "index of the entry", value: entry.index });
        }
        Ok(entry)
    })();
    decoded.map_err(|source| LogError::Damaged { group, record: format!("entry {index}"), source })
}

/// raft-rs stops the member on an error of its storage; the text says which.
fn stop(error: LogError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl<D: Disk> Storage for Log<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.membership.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.begin.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last + 1, "entries up to {high} of {} wanted", self.last);
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let entry = match self.cached(index) {
                Some(entry) => entry.clone(),
                None => self.read(index).map_err(stop)?,
            };
            bytes += size(&entry) as u64;
            if bytes > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.begin.index {
            return Ok(self.begin.term);
        }
        if index < self.begin.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        match self.cached(index) {
            Some(entry) => Ok(entry.term),
            None => Ok(self.read(index).map_err(stop)?.term),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.begin.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// Only says what is needed: everything that is not in the log, and all members.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.begin.index.max(self.membership.index).max(request_index);
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, self.term(index)?);
        metadata.set_conf_state(self.membership.conf.clone());
        Ok(snapshot)
    }
}
