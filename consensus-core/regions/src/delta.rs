//! Items on their way to another region: what is new, or a part of all there is.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{
    clock::Stamp,
    codec::{DecodeError, Reader, put_prefixed, put_varint},
    item::{CellId, Item},
    items::place,
    limits::{CELLS_MAX, COUNTER_MAX, ITEMS_MAX, KEY_BYTES_MAX},
    message::{put_latest, put_position, read_latest, read_position},
    vector::{RegionId, VersionVector},
};

/// Changes of one region, all of which a delta has, or something that came in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose changes.
    pub region: RegionId,
    /// The last one before the range. Who does not know it cannot say to know the range afterwards.
    pub after: u64,
    /// The last one of the range.
    pub to: u64,
}

/// What the receiver is believed to lack; without ranges what a comparison has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Who sends it, which need not be who has made the changes.
    pub from: RegionId,
    /// What the sender knew.
    pub version: VersionVector,
    /// The sender's clock: no stamp in the items is later.
    pub latest: Stamp,
    /// By region.
    pub ranges: Vec<Range>,
    /// The cells that are lacking, by key.
    pub items: BTreeMap<Bytes, Item>,
}

/// Where a part of a snapshot ends, and the next one begins. An item that is too long for one message is in several parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Of the last item.
    pub key: Bytes,
    /// The last cell of that item; `None`: all of them.
    pub cell: Option<CellId>,
}

impl Position {
    pub(crate) fn behind(key: &Bytes) -> Self {
        Self { key: key.clone(), cell: None }
    }

    /// Where a scan begins of what is behind it.
    pub(crate) fn bound(after: Option<&Self>) -> Bound<(u16, &[u8])> {
        match after {
            None => Bound::Unbounded,
            Some(Self { key, cell: None }) => Bound::Excluded(place(key)),
            Some(Self { key, cell: Some(_) }) => Bound::Included(place(key)),
        }
    }

    /// Whether all of an item is behind it.
    pub(crate) fn is_before(&self, key: &[u8]) -> bool {
        place(&self.key) < place(key)
    }

    /// Whether it is behind a cell, or is this one.
    pub(crate) fn includes(&self, key: &[u8], id: &CellId) -> bool {
        match &self.cell {
            Some(last) if self.key == key => id <= last,
            _ => !self.is_before(key),
        }
    }
}

/// A part of a snapshot: all items of a range of places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whose snapshot.
    pub from: RegionId,
    /// What the sender knew when it read this part.
    pub version: VersionVector,
    /// What the sender has collected.
    pub horizon: VersionVector,
    /// The sender's clock: no stamp in the items is later.
    pub latest: Stamp,
    /// What is before the range; `None`: it begins with the first item.
    pub after: Option<Position>,
    /// The end of the range; `None`: it ends with the last item.
    pub next: Option<Position>,
    /// By key.
    pub items: BTreeMap<Bytes, Item>,
}

impl Delta {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.version.encode(out);
        put_latest(out, self.latest);
        put_varint(out, self.ranges.len() as u64);
        for range in &self.ranges {
            put_varint(out, range.region.0.into());
            put_varint(out, range.after);
            put_varint(out, range.to - range.after);
        }
        encode_items(&self.items, out, self.latest);
    }

    pub(crate) fn decode(reader: &mut Reader, from: RegionId) -> Result<Self, DecodeError> {
        let (version, latest) = (VersionVector::decode(reader)?, read_latest(reader)?);
        let mut ranges: Vec<Range> = Vec::new();
        for _ in 0..reader.count(3, usize::MAX)? {
            let (region, after) = (reader.region()?, reader.varint(COUNTER_MAX)?);
            let to = after + reader.varint(COUNTER_MAX - after)?;
            reader.ascending(ranges.last().is_none_or(|last| last.region < region))?;
            reader.consistent(to > after && to <= version.get(region))?;
            ranges.push(Range { region, after, to });
        }
        let items = decode_items(reader, latest)?;
        Ok(Self { from, version, latest, ranges, items })
    }
}

impl Chunk {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.version.encode(out);
        self.horizon.encode(out);
        put_latest(out, self.latest);
        put_position(out, self.after.as_ref());
        put_position(out, self.next.as_ref());
        encode_items(&self.items, out, self.latest);
    }

    pub(crate) fn decode(reader: &mut Reader, from: RegionId) -> Result<Self, DecodeError> {
        let (version, horizon) = (VersionVector::decode(reader)?, VersionVector::decode(reader)?);
        let (latest, after, next) = (read_latest(reader)?, read_position(reader)?, read_position(reader)?);
        let items = decode_items(reader, latest)?;
        Ok(Self { from, version, horizon, latest, after, next, items })
    }
}

fn encode_items(items: &BTreeMap<Bytes, Item>, out: &mut Vec<u8>, latest: Stamp) {
    put_varint(out, items.len() as u64);
    for (key, item) in items {
        put_prefixed(out, key);
        item.encode(out, latest.millis());
    }
}

fn decode_items(reader: &mut Reader, latest: Stamp) -> Result<BTreeMap<Bytes, Item>, DecodeError> {
    let mut items: BTreeMap<Bytes, Item> = BTreeMap::new();
    for _ in 0..reader.count(2, ITEMS_MAX)? {
        let key = reader.prefixed(KEY_BYTES_MAX)?;
        reader.ascending(items.last_key_value().is_none_or(|(last, _)| *last < key))?;
        let item = Item::decode(reader, latest.millis(), CELLS_MAX)?;
        reader.consistent(!item.is_empty())?;
        items.insert(key, item);
    }
    Ok(items)
}
