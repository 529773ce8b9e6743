//! What a region is beside its items: the part of the replicated state that makes merges possible.
//!
//! Every function here is called when an entry of the region's Raft log is applied, by all members alike, and is determined by
//! its arguments. It says which items have changed; the caller writes them, and the [record](Replica::to_record), in one batch.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{
    cell::{Cell, Known},
    clock::{Clock, Stamp},
    codec::{DecodeError, Reader, put_stamp, put_varint},
    delta::{Chunk, Delta, Position},
    error::Refused,
    item::{CellId, Change, Item, Kind},
    items::{Changed, Items},
    limits::{INFO_BYTES_MAX, ITEMS_MAX, KEY_BYTES_MAX, REGIONS_MAX},
    membership::{MEMBERS_KEY, Membership, cell_id},
    message::{put_position, read_position},
    vector::{Dot, RegionId, VersionVector},
};

/// How far a region is on its way to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no complete state yet: it takes a snapshot, and neither writes nor merges.
    Joining = 1,
    /// It has, and does.
    Active = 2,
}

/// A snapshot that is being taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Whose.
    pub source: RegionId,
    /// What the source knew when it began: the region knows as much when it ends.
    pub(crate) version: VersionVector,
    /// What the source has collected.
    pub(crate) horizon: VersionVector,
    /// The last that has been taken.
    pub after: Position,
}

/// The state of a region beside its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub(crate) region: RegionId,
    phase: Phase,
    pub(crate) version: VersionVector,
    pub(crate) horizon: VersionVector,
    pub(crate) clock: Clock,
    catch_up: Option<CatchUp>,
    membership: Membership,
}

/// What became of an entry: an error of the store, a refusal, or the items that have changed.
pub type Outcome<T, E> = Result<Result<T, Refused>, E>;

impl Replica {
    /// One of the regions that were there from the beginning: all of them name the same ones, each with its info.
    pub fn founder(region: RegionId, founders: &[(RegionId, Bytes)]) -> (Self, Changed) {
        let mut item = Item::default();
        for (id, info) in founders {
            let field = cell_id(Kind::Member, *id).field;
            item.put(Kind::Member, field, info.clone(), Dot::default(), Stamp::default());
        }
        let membership = Membership::of(&item);
        assert!(membership.contains(region), "a founder is one of the founders");
        let replica = Self { phase: Phase::Active, membership, ..Self::joining(region) };
        let key = Bytes::from_static(MEMBERS_KEY);
        (replica, Changed { key, before: None, after: Some(item) })
    }

    /// A region that is added later, with a number that was never used before, and without items. One that comes back from a
    /// backup, or after its removal, is such a one.
    pub fn joining(region: RegionId) -> Self {
        Self {
            region,
            phase: Phase::Joining,
            version: VersionVector::default(),
            horizon: VersionVector::default(),
            clock: Clock::default(),
            catch_up: None,
            membership: Membership::default(),
        }
    }

    /// Its own number.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// How far it is on its way to the others.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Which changes it knows. Its own counter is how many changes it has made.
    pub fn version(&self) -> &VersionVector {
        &self.version
    }

    /// Changes whose tombstones it has collected. Who does not know all of these cannot be brought up to date by deltas.
    pub fn horizon(&self) -> &VersionVector {
        &self.horizon
    }

    /// The latest stamp that it has given or seen.
    pub fn latest(&self) -> Stamp {
        self.clock.latest()
    }

    /// The snapshot that it takes.
    pub fn catch_up(&self) -> Option<&CatchUp> {
        self.catch_up.as_ref()
    }

    /// Which regions there are.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    fn may_write(&self) -> Result<(), Refused> {
        if self.membership.is_removed(self.region) {
            return Err(Refused::Removed);
        }
        if self.phase == Phase::Active { Ok(()) } else { Err(Refused::Joining) }
    }

    /// The next change, and when it is made.
    fn next(&self, wall_ms: u64) -> (Clock, Dot, Stamp) {
        let mut clock = self.clock;
        let stamp = clock.tick(wall_ms);
        let counter = self.version.get(self.region) + 1;
        (clock, Dot { region: self.region, counter }, stamp)
    }

    fn took(&mut self, clock: Clock, dot: Dot) {
        self.clock = clock;
        self.version.advance(dot.region, dot.counter);
    }

    /// A client's change, at the time of whoever proposed it. `None`: nothing has changed.
    pub fn change<I: Items>(
        &mut self,
        items: &I,
        wall_ms: u64,
        key: &[u8],
        change: Change,
    ) -> Outcome<Option<Changed>, I::Error> {
        if let Err(refused) = self.may_write() {
            return Ok(Err(refused));
        }
        if key.len() > KEY_BYTES_MAX {
            return Ok(Err(Refused::KeyTooLong { max: KEY_BYTES_MAX }));
        }
        let before = items.get(key)?;
        let mut after = before.clone().unwrap_or_default();
        let (clock, dot, stamp) = self.next(wall_ms);
        Ok(after.change(change, dot, stamp).map(|count| {
            let last = Dot { counter: dot.counter + count.checked_sub(1)?, ..dot };
            self.took(clock, last);
            Changed::new(Bytes::copy_from_slice(key), before, after)
        }))
    }

    /// Adds a region.
    pub fn add_region<I: Items>(
        &mut self,
        items: &I,
        wall_ms: u64,
        region: RegionId,
        info: Bytes,
    ) -> Outcome<Option<Changed>, I::Error> {
        if self.membership.get(region).is_some() || region.0 == 0 {
            return Ok(Err(Refused::NumberUsed { region }));
        }
        if self.membership.len() >= REGIONS_MAX {
            return Ok(Err(Refused::TooManyRegions { max: REGIONS_MAX }));
        }
        if info.len() > INFO_BYTES_MAX {
            return Ok(Err(Refused::ValueTooLong { max: INFO_BYTES_MAX }));
        }
        self.change_members(items, wall_ms, Kind::Member, region, info)
    }

    /// Removes a region for good. What it has changed and told nobody of is lost.
    pub fn remove_region<I: Items>(
        &mut self,
        items: &I,
        wall_ms: u64,
        region: RegionId,
    ) -> Outcome<Option<Changed>, I::Error> {
        if !self.membership.contains(region) {
            return Ok(Err(Refused::NoMember { region }));
        }
        self.change_members(items, wall_ms, Kind::Removal, region, Bytes::new())
    }

    fn change_members<I: Items>(
        &mut self,
        items: &I,
        wall_ms: u64,
        kind: Kind,
        region: RegionId,
        info: Bytes,
    ) -> Outcome<Option<Changed>, I::Error> {
        if let Err(refused) = self.may_write() {
            return Ok(Err(refused));
        }
        let before = items.get(MEMBERS_KEY)?;
        let mut after = before.clone().unwrap_or_default();
        let (clock, dot, stamp) = self.next(wall_ms);
        after.put(kind, cell_id(kind, region).field, info, dot, stamp);
        self.took(clock, dot);
        self.membership = Membership::of(&after);
        Ok(Ok(Changed::new(Bytes::from_static(MEMBERS_KEY), before, after)))
    }

    /// Merges what another region has sent.
    pub fn merge<I: Items>(&mut self, items: &I, delta: Delta) -> Outcome<Vec<Changed>, I::Error> {
        if !self.membership.contains(delta.from) {
            return Ok(Err(Refused::NoMember { region: delta.from }));
        }
        // The condition under which a delta may be merged (Almeida et al., section 4.1). What is behind a gap is not taken at all:
        // if its region were removed, nobody could close the gap, and others would not get it.
        for range in &delta.ranges {
            let (region, after, known) = (range.region, range.after, self.version.get(range.region));
            if after > known {
                return Ok(Err(Refused::Gap { region, after, known }));
            }
        }
        let mut all = Vec::new();
        let known = Known { here: self.knows_more(&delta.version), there: None };
        for (key, theirs) in delta.items {
            let before = items.get(&key)?;
            let mut after = before.clone().unwrap_or_default();
            after.merge_known(theirs, known);
            all.extend(Changed::new(key, before, after));
        }
        self.clock.observe(delta.latest);
        delta.ranges.iter().for_each(|range| self.version.advance(range.region, range.to));
        self.look_at_members(&all);
        Ok(Ok(all))
    }

    /// What is known here and not here any more is gone, for whoever may not have heard of it: it knows `version`. If that has all
    /// that was collected here, something that is not here was lost here.
    fn knows_more(&self, version: &VersionVector) -> Option<&VersionVector> {
        (!version.includes(&self.horizon)).then_some(&self.version)
    }

    fn look_at_members(&mut self, all: &[Changed]) {
        if let Some(Changed { after: Some(item), .. }) = all.iter().find(|changed| changed.key == MEMBERS_KEY)
        {
            self.membership = Membership::of(item);
        }
    }

    /// Removes tombstones of which all regions know, from these items. `known` is what all are known to know.
    pub fn collect<I: Items>(
        &mut self,
        items: &I,
        keys: &[Bytes],
        known: &VersionVector,
    ) -> Result<Vec<Changed>, I::Error> {
        let mut all = Vec::new();
        for key in keys {
            let Some(before) = items.get(key)? else { continue };
            let mut after = before.clone();
            let is_gone = |cell: &Cell| cell.is_tombstone() && cell.is_covered_by(known);
            before
                .cells()
                .filter(|(_, cell)| is_gone(cell))
                .for_each(|(_, cell)| cell.add_version(&mut self.horizon));
            after.drop_cells(|_, cell| is_gone(cell));
            all.extend(Changed::new(key.clone(), Some(before), after));
        }
        Ok(all)
    }

    /// Takes the next part of a snapshot: what is here and was known to the source without being there any more goes.
    pub fn take<I: Items>(&mut self, items: &I, chunk: Chunk) -> Outcome<Vec<Changed>, I::Error> {
        if self.phase == Phase::Active {
            return Ok(Err(Refused::OutOfOrder));
        }
        let mut catch_up = match self.catch_up.take() {
            Some(running) if running.source == chunk.from && chunk.after.as_ref() == Some(&running.after) => {
                running
            }
            _ if chunk.after.is_none() => CatchUp {
                source: chunk.from,
                version: chunk.version.clone(),
                horizon: VersionVector::default(),
                after: Position::default(),
            },
            running => {
                self.catch_up = running;
                return Ok(Err(Refused::OutOfOrder));
            }
        };
        let (all, reached) = self.replace(items, &chunk)?;
        self.clock.observe(chunk.latest);
        self.look_at_members(&all);
        catch_up.horizon.join(&chunk.horizon);
        match reached {
            Some(after) => self.catch_up = Some(CatchUp { after, ..catch_up }),
            None => {
                self.version.join(&catch_up.version);
                self.horizon.join(&catch_up.horizon);
                self.phase = Phase::Active;
            }
        }
        Ok(Ok(all))
    }

    /// What changes in the range of a chunk, and where it ends, unless that is the end of all. It may be less than the chunk,
    /// if there are too many items here: the rest is asked for again.
    fn replace<I: Items>(
        &self,
        items: &I,
        chunk: &Chunk,
    ) -> Result<(Vec<Changed>, Option<Position>), I::Error> {
        let mut end = chunk.next.clone();
        let mut own = Vec::new();
        items.scan(Position::bound(chunk.after.as_ref()), &mut |key, item| {
            if end.as_ref().is_some_and(|end| end.is_before(key)) {
                return ControlFlow::Break(());
            }
            if own.len() == ITEMS_MAX {
                end = own.last().map(|(key, _): &(Bytes, Item)| Position::behind(key));
                return ControlFlow::Break(());
            }
            own.push((key.clone(), item.clone()));
            ControlFlow::Continue(())
        })?;
        let known = Known { here: self.knows_more(&chunk.version), there: Some(&chunk.version) };
        let mut all = Vec::new();
        let mut theirs = chunk.items.clone();
        for (key, before) in own {
            let is_in_range = |id: &CellId| {
                chunk.after.as_ref().is_none_or(|after| !after.includes(&key, id))
                    && end.as_ref().is_none_or(|end| end.includes(&key, id))
            };
            let (mut after, others) = before.clone().split(is_in_range);
            after.merge_known(theirs.remove(&key).unwrap_or_default(), known);
            after.cells.extend(others.cells);
            all.extend(Changed::new(key, Some(before), after));
        }
        for (key, item) in theirs {
            if end.as_ref().is_none_or(|end| !end.is_before(&key)) {
                let mut after = Item::default();
                after.merge_known(item, known);
                all.extend(Changed::new(key, None, after));
            }
        }
        Ok((all, end))
    }

    /// As a value of a store; the members are in their item.
    pub fn to_record(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        put_varint(&mut out, self.region.0.into());
        out.push(self.phase as u8);
        self.version.encode(&mut out);
        self.horizon.encode(&mut out);
        put_stamp(&mut out, self.clock.latest(), Stamp::MILLIS_MAX);
        put_position(&mut out, self.catch_up.as_ref().map(|catch_up| &catch_up.after));
        if let Some(CatchUp { source, version, horizon, .. }) = &self.catch_up {
            put_varint(&mut out, source.0.into());
            version.encode(&mut out);
            horizon.encode(&mut out);
        }
        out.into()
    }

    /// Reads what [`to_record`](Self::to_record) has written; `members` is the item under [`MEMBERS_KEY`].
    pub fn from_record(record: Bytes, members: Option<&Item>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(record, "stored region");
        let replica = Self {
            region: reader.region()?,
            phase: Phase::decode(&mut reader)?,
            version: VersionVector::decode(&mut reader)?,
            horizon: VersionVector::decode(&mut reader)?,
            clock: Clock::at(reader.stamp(Stamp::MILLIS_MAX)?),
            catch_up: match read_position(&mut reader)? {
                None => None,
                Some(after) => Some(CatchUp {
                    source: reader.region()?,
                    version: VersionVector::decode(&mut reader)?,
                    horizon: VersionVector::decode(&mut reader)?,
                    after,
                }),
            },
            membership: members.map(Membership::of).unwrap_or_default(),
        };
        reader.end()?;
        Ok(replica)
    }
}

impl Phase {
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Joining),
            2 => Ok(Self::Active),
            other => Err(reader.unknown(other)),
        }
    }
}
