//! What is stored under one key.
//!
//! An item is a map of cells, so items of different kinds under one key are no conflict: their cells are merged side by side,
//! and the kind that was written last is what is seen. A change of one kind removes what it has seen of the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    cell::{Cell, Dots, Entry, Known, Register},
    clock::Stamp,
    error::Refused,
    limits::{FIELD_BYTES_MAX, ITEM_BYTES_MAX, OR_MAP_VALUE_BYTES_MAX, VALUE_BYTES_MAX},
    record::cell_len,
    tally::Tally,
    vector::{Dot, RegionId, VersionVector},
};

/// About what a cell takes beside its field and values, in bytes.
const CELL_OVERHEAD: usize = 16;

/// What a cell is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    /// A value: the last writer wins, also over a deletion.
    Register = 1,
    /// A map whose fields are registers.
    RegisterMap = 2,
    /// A map whose fields are removed only as far as they were seen.
    OrMap = 3,
    /// A set whose elements are removed only as far as they were seen.
    OrSet = 4,
    /// A sum of what all regions have added and taken away.
    Counter = 5,
    /// A region that was added; the field is its number. Not for clients.
    Member = 6,
    /// A region that was removed for good; the field is its number. Not for clients.
    Removal = 7,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Register,
        Self::RegisterMap,
        Self::OrMap,
        Self::OrSet,
        Self::Counter,
        Self::Member,
        Self::Removal,
    ];

    pub(crate) fn is_register(self) -> bool {
        matches!(self, Self::Register | Self::RegisterMap | Self::Member | Self::Removal)
    }

    pub(crate) fn has_field(self) -> bool {
        !matches!(self, Self::Register | Self::Counter)
    }

    fn is_for_clients(self) -> bool {
        !matches!(self, Self::Member | Self::Removal)
    }
}

/// Which cell of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellId {
    /// What it is part of.
    pub kind: Kind,
    /// The field of a map, or the element of a set; else empty.
    pub field: Bytes,
}

/// What a client wants of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    /// A register with this value.
    Put(Bytes),
    /// Nothing, whatever it was.
    Delete,
    RegisterMapPut {
        field: Bytes,
        value: Bytes,
    },
    RegisterMapDelete {
        field: Bytes,
    },
    OrMapPut {
        field: Bytes,
        value: Bytes,
    },
    OrMapRemove {
        field: Bytes,
    },
    OrSetAdd {
        element: Bytes,
    },
    OrSetRemove {
        element: Bytes,
    },
    /// To a counter; less than nothing is taken away.
    CounterAdd(i64),
}

/// What a client sees of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum View {
    Register(Bytes),
    /// By field. Of values that were put into an [`OrMap`](Kind::OrMap) at the same time, the latest.
    Map(BTreeMap<Bytes, Bytes>),
    Set(Vec<Bytes>),
    Counter(i128),
}

/// Cells by the change that has touched them last.
pub(crate) type ByChange = BTreeMap<u64, Vec<(CellId, Cell)>>;

/// All cells under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    pub(crate) cells: BTreeMap<CellId, Cell>,
}

impl Item {
    /// Whether there is nothing, not even a tombstone.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Its cells.
    pub fn cells(&self) -> impl Iterator<Item = (&CellId, &Cell)> {
        self.cells.iter()
    }

    /// For each region its latest change of this item. What does not know this lacks something of it.
    pub fn version(&self) -> VersionVector {
        let mut version = VersionVector::default();
        self.cells.values().for_each(|cell| cell.add_version(&mut version));
        version
    }

    /// For each cell, and each region, its latest change of it: what finds the item for those who lack something of it. One for
    /// the item would hide what was changed before in other cells.
    pub fn dots(&self) -> BTreeSet<Dot> {
        let mut dots = BTreeSet::new();
        for cell in self.cells.values() {
            let mut version = VersionVector::default();
            cell.add_version(&mut version);
            dots.extend(version.iter().map(|(region, counter)| Dot { region, counter }));
        }
        dots
    }

    /// Makes a change. It counts as one for each cell that it touches, so a delta can end behind any of them, however many they
    /// are. The first is `dot`; how many there are, 0: nothing has changed.
    pub(crate) fn change(&mut self, change: Change, dot: Dot, stamp: Stamp) -> Result<u64, Refused> {
        check(&change)?;
        let (kind, field) = match change {
            Change::Delete => return Ok(self.clear(|_| true, dot, stamp)),
            Change::RegisterMapDelete { field } => {
                return Ok(self.remove(Kind::RegisterMap, field, dot, stamp));
            }
            Change::OrMapRemove { field } => return Ok(self.remove(Kind::OrMap, field, dot, stamp)),
            Change::OrSetRemove { element } => return Ok(self.remove(Kind::OrSet, element, dot, stamp)),
            Change::Put(value) => {
                self.put(Kind::Register, Bytes::new(), value, dot, stamp);
                return Ok(1 + self.clear(|kind| kind != Kind::Register, dot.next(), stamp));
            }
            Change::CounterAdd(amount) => {
                self.add(amount, dot, stamp)?;
                return Ok(1 + self.clear(|kind| kind != Kind::Counter, dot.next(), stamp));
            }
            Change::RegisterMapPut { field, value } => (Kind::RegisterMap, (field, value)),
            Change::OrMapPut { field, value } => (Kind::OrMap, (field, value)),
            Change::OrSetAdd { element } => (Kind::OrSet, (element, Bytes::new())),
        };
        if self.bytes() + field.0.len() + field.1.len() > ITEM_BYTES_MAX {
            return Err(Refused::ItemTooLarge { max: ITEM_BYTES_MAX });
        }
        self.put(kind, field.0, field.1, dot, stamp);
        Ok(1 + self.clear(|other| other != kind, dot.next(), stamp))
    }

    /// About how long it is when it is encoded, if one region has made it.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.iter().map(|(id, cell)| CELL_OVERHEAD + id.field.len() + cell_bytes(cell)).sum()
    }

    /// Clears what is in force of these kinds; how many cells that were.
    fn clear(&mut self, of: impl Fn(Kind) -> bool, first: Dot, stamp: Stamp) -> u64 {
        let mut dot = first;
        for (id, cell) in &mut self.cells {
            if id.kind.is_for_clients() && of(id.kind) && !cell.is_tombstone() {
                cell.clear(dot, stamp);
                dot = dot.next();
            }
        }
        dot.counter - first.counter
    }

    fn remove(&mut self, kind: Kind, field: Bytes, dot: Dot, stamp: Stamp) -> u64 {
        match self.cells.get_mut(&CellId { kind, field }) {
            Some(cell) if !cell.is_tombstone() => {
                cell.clear(dot, stamp);
                1
            }
            _ => 0,
        }
    }

    pub(crate) fn put(&mut self, kind: Kind, field: Bytes, value: Bytes, dot: Dot, stamp: Stamp) {
        let id = CellId { kind, field };
        if kind.is_register() {
            self.cells.insert(id, Cell::Register(Register { dot, stamp, value: Some(value) }));
            return;
        }
        let dots = self.dots_cell(id);
        // It has seen all others: they are replaced.
        dots.entries.clear();
        dots.seen.advance(dot.region, dot.counter);
        dots.entries.insert(dot.region, Entry { counter: dot.counter, stamp, value });
    }

    /// Only the region's own share changes.
    fn add(&mut self, amount: i64, dot: Dot, stamp: Stamp) -> Result<(), Refused> {
        let id = CellId { kind: Kind::Counter, field: Bytes::new() };
        let own = match self.cells.get(&id) {
            Some(Cell::Dots(dots)) => dots.entries.get(&dot.region),
            _ => None,
        };
        let mut share = own.map_or_else(Tally::default, |entry| Tally::read(&entry.value));
        share.add(amount)?;
        let dots = self.dots_cell(id);
        dots.seen.advance(dot.region, dot.counter);
        dots.entries.insert(dot.region, Entry { counter: dot.counter, stamp, value: share.write() });
        Ok(())
    }

    fn dots_cell(&mut self, id: CellId) -> &mut Dots {
        match self.cells.entry(id).or_insert_with(|| Cell::Dots(Dots::default())) {
            Cell::Dots(dots) => dots,
            Cell::Register(_) => unreachable!("the kind of a cell is part of its id"),
        }
    }

    /// Merges another region's state of the item, or a part of it.
    pub fn merge(&mut self, theirs: Self) {
        self.merge_known(theirs, Known::default());
    }

    pub(crate) fn merge_known(&mut self, theirs: Self, known: Known<'_>) {
        if known.there.is_some() {
            let left = std::mem::take(&mut self.cells).into_iter().filter_map(|(id, own)| {
                let is_there = theirs.cells.contains_key(&id);
                let left = if is_there { Some(own) } else { own.unless_gone(known.there) };
                left.map(|own| (id, own))
            });
            self.cells = left.collect();
        }
        for (id, cell) in theirs.cells {
            match self.cells.get_mut(&id) {
                Some(own) => own.merge(cell, known),
                None => drop(cell.unless_gone(known.here).map(|cell| self.cells.insert(id, cell))),
            }
        }
    }

    /// The delta for whoever knows `known`: the cells of which it lacks something.
    pub fn since(&self, known: &VersionVector) -> Self {
        let lacking = self.cells.iter().filter(|(_, cell)| !cell.is_covered_by(known));
        Self { cells: lacking.map(|(id, cell)| (id.clone(), cell.clone())).collect() }
    }

    /// The cells that a region has changed, by its latest change of each, from this change on: the first ones, about so many
    /// bytes of them, and the last change up to which these are all.
    pub(crate) fn changed_by(self, region: RegionId, from: u64, bytes: usize) -> (ByChange, u64) {
        let mut by_change = ByChange::new();
        for (id, cell) in self.cells {
            let counter = cell.latest_of(region);
            if counter >= from {
                by_change.entry(counter).or_default().push((id, cell));
            }
        }
        let mut len = 0;
        let rest = by_change.iter().find_map(|(counter, cells)| {
            let is_full = len > bytes;
            len += cells.iter().map(|(id, cell)| cell_len(id, cell)).sum::<usize>();
            is_full.then_some(*counter)
        });
        rest.iter().for_each(|rest| drop(by_change.split_off(rest)));
        (by_change, rest.map_or(u64::MAX, |rest| rest - 1))
    }

    /// As several, each of about so many bytes, or of one cell.
    pub(crate) fn parts(&self, bytes: usize) -> Vec<Self> {
        let (mut parts, mut room) = (Vec::new(), 0);
        for (id, cell) in &self.cells {
            if room == 0 {
                parts.push(Self::default());
                room = bytes;
            }
            room = room.saturating_sub(cell_len(id, cell));
            parts.last_mut().into_iter().for_each(|part| drop(part.cells.insert(id.clone(), cell.clone())));
        }
        parts
    }

    /// Cells for which `is_apart` says so, and the others.
    pub(crate) fn split(self, is_apart: impl Fn(&CellId) -> bool) -> (Self, Self) {
        let (apart, others) = self.cells.into_iter().partition(|(id, _)| is_apart(id));
        (Self { cells: apart }, Self { cells: others })
    }

    /// Removes cells for which `is_gone` says so.
    pub(crate) fn drop_cells(&mut self, is_gone: impl Fn(&CellId, &Cell) -> bool) {
        self.cells.retain(|id, cell| !is_gone(id, cell));
    }

    /// Whether it has tombstones that everybody knows of who knows `known`.
    pub fn is_collectable(&self, known: &VersionVector) -> bool {
        self.cells.values().any(|cell| cell.is_tombstone() && cell.is_covered_by(known))
    }

    /// Whether a client sees something.
    pub fn is_visible(&self) -> bool {
        self.cells.iter().any(|(id, cell)| id.kind.is_for_clients() && !cell.is_tombstone())
    }

    /// What a client sees; `None`: nothing is there.
    pub fn view(&self) -> Option<View> {
        let cells =
            || self.cells.iter().filter(|(id, cell)| id.kind.is_for_clients() && !cell.is_tombstone());
        let (kind, _) =
            cells().map(|(id, cell)| (id.kind, cell.latest())).max_by_key(|(kind, at)| (*at, *kind))?;
        let mut fields = cells().filter(|(id, _)| id.kind == kind).map(|(id, cell)| (id.field.clone(), cell));
        Some(match kind {
            Kind::Counter => View::Counter(fields.next().map_or(0, |(_, cell)| sum(cell))),
            Kind::Register => View::Register(fields.next().map(|(_, cell)| value(cell)).unwrap_or_default()),
            Kind::OrSet => View::Set(fields.map(|(element, _)| element).collect()),
            _ => View::Map(fields.map(|(field, cell)| (field, value(cell))).collect()),
        })
    }
}

fn check(change: &Change) -> Result<(), Refused> {
    let (field, value): (&[u8], &[u8]) = match change {
        Change::Put(value) => (&[], value),
        Change::Delete | Change::CounterAdd(_) => (&[], &[]),
        Change::RegisterMapPut { field, value } | Change::OrMapPut { field, value } => (field, value),
        Change::RegisterMapDelete { field } | Change::OrMapRemove { field } => (field, &[]),
        Change::OrSetAdd { element } | Change::OrSetRemove { element } => (element, &[]),
    };
    if field.len() > FIELD_BYTES_MAX {
        return Err(Refused::FieldTooLong { max: FIELD_BYTES_MAX });
    }
    let max =
        if matches!(change, Change::OrMapPut { .. }) { OR_MAP_VALUE_BYTES_MAX } else { VALUE_BYTES_MAX };
    if value.len() > max {
        return Err(Refused::ValueTooLong { max });
    }
    Ok(())
}

fn cell_bytes(cell: &Cell) -> usize {
    match cell {
        Cell::Register(register) => register.value.as_ref().map_or(0, Bytes::len),
        Cell::Dots(dots) => dots.entries.values().map(|entry| entry.value.len()).sum(),
    }
}

fn value(cell: &Cell) -> Bytes {
    match cell {
        Cell::Register(register) => register.value.clone().unwrap_or_default(),
        Cell::Dots(dots) => dots.latest().map(|(_, entry)| entry.value.clone()).unwrap_or_default(),
    }
}

fn sum(cell: &Cell) -> i128 {
    match cell {
        Cell::Dots(dots) => dots.entries.values().map(|entry| Tally::read(&entry.value).value()).sum(),
        Cell::Register(_) => 0,
    }
}
