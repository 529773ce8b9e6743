//! Bytes of items: in messages, and as one value of a store.

use bytes::Bytes;

use crate::{
    cell::{Cell, Dots, Entry, Register},
    clock::Stamp,
    codec::{DecodeError, Reader, put_prefixed, put_stamp, put_varint, varint_len},
    item::{CellId, Item, Kind},
    limits::{FIELD_BYTES_MAX, MESSAGE_BYTES_MAX},
    tally::Tally,
    vector::{Dot, VersionVector},
};

/// The shortest cell: a counter that was reset.
const CELL_BYTES_MIN: usize = 3;
/// Shortest entry of a cell.
const ENTRY_BYTES_MIN: usize = 5;
/// The longest stamp.
const STAMP_BYTES_MAX: usize = 10;

impl Item {
    /// The item as a value of a store: stamps are told from the newest one in it.
    pub fn to_record(&self) -> Bytes {
        let newest = self.cells.values().map(Cell::newest_stamp).max().unwrap_or_default();
        let mut out = Vec::with_capacity(64);
        put_varint(&mut out, newest.millis());
        self.encode(&mut out, newest.millis());
        out.into()
    }

    /// Reads what [`to_record`](Self::to_record) has written, however much that is: several regions can add as much as they like
    /// to an item at the same time, and what was written has to be read.
    pub fn from_record(record: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(record, "stored item");
        let newest_ms = reader.varint(Stamp::MILLIS_MAX)?;
        let item = Self::decode(&mut reader, newest_ms, usize::MAX)?;
        reader.end()?;
        Ok(item)
    }

    /// How long it is in a message, at most.
    pub(crate) fn encoded_len(&self) -> usize {
        self.cells().map(|(id, cell)| cell_len(id, cell)).sum()
    }

    /// No stamp in it is after `newest_ms`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, newest_ms: u64) {
        put_varint(out, self.cells.len() as u64);
        for (id, cell) in &self.cells {
            encode_id(id, out);
            match cell {
                Cell::Register(register) => encode_register(register, out, newest_ms),
                Cell::Dots(dots) => {
                    dots.seen.encode(out);
                    encode_entries(dots, out, newest_ms);
                }
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader, newest_ms: u64, cells_max: usize) -> Result<Self, DecodeError> {
        let mut item = Self::default();
        for _ in 0..reader.count(CELL_BYTES_MIN, cells_max)? {
            let id = decode_id(reader)?;
            reader.ascending(item.cells.last_key_value().is_none_or(|(last, _)| *last < id))?;
            let cell = if id.kind.is_register() {
                Cell::Register(decode_register(reader, newest_ms)?)
            } else {
                Cell::Dots(decode_dots(reader, newest_ms, id.kind == Kind::Counter)?)
            };
            item.cells.insert(id, cell);
        }
        Ok(item)
    }

    /// What all regions have the same of, once they know the same: what is in force, and not what has been seen beside it, of
    /// which some may have collected more than others.
    pub(crate) fn encode_in_force(&self, out: &mut Vec<u8>) {
        for (id, cell) in self.cells.iter().filter(|(_, cell)| !cell.is_tombstone()) {
            encode_id(id, out);
            match cell {
                Cell::Register(register) => encode_register(register, out, Stamp::MILLIS_MAX),
                Cell::Dots(dots) => encode_entries(dots, out, Stamp::MILLIS_MAX),
            }
        }
    }
}

/// How long a cell is in a message, at most: what all regions have seen and put into it counts.
pub(crate) fn cell_len(id: &CellId, cell: &Cell) -> usize {
    let prefixed = |bytes: &Bytes| varint_len(bytes.len() as u64 + 1) + bytes.len();
    let dot = |region: u32, counter| varint_len(region.into()) + varint_len(counter) + STAMP_BYTES_MAX;
    let content = match cell {
        Cell::Register(Register { dot: made, value, .. }) => {
            dot(made.region.0, made.counter) + value.as_ref().map_or(1, prefixed)
        }
        Cell::Dots(Dots { seen, entries }) => {
            let counts = varint_len(seen.iter().count() as u64) + varint_len(entries.len() as u64);
            let seen = seen.iter().map(|(region, counter)| varint_len(region.0.into()) + varint_len(counter));
            let entries = entries.iter();
            let entries =
                entries.map(|(region, entry)| dot(region.0, entry.counter) + prefixed(&entry.value));
            counts + seen.sum::<usize>() + entries.sum::<usize>()
        }
    };
    1 + prefixed(&id.field) + content
}

pub(crate) fn encode_id(id: &CellId, out: &mut Vec<u8>) {
    out.push(id.kind as u8);
    if id.kind.has_field() {
        put_prefixed(out, &id.field);
    }
}

pub(crate) fn decode_id(reader: &mut Reader) -> Result<CellId, DecodeError> {
    let number = reader.u8()?;
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == number).ok_or(reader.unknown(number))?;
    let field = if kind.has_field() { reader.prefixed(FIELD_BYTES_MAX)? } else { Bytes::new() };
    Ok(CellId { kind, field })
}

/// The length of the value is one more than it is, 0 is a deletion.
fn encode_register(register: &Register, out: &mut Vec<u8>, newest_ms: u64) {
    register.dot.encode(out);
    put_stamp(out, register.stamp, newest_ms);
    match &register.value {
        None => out.push(0),
        Some(value) => {
            put_varint(out, value.len() as u64 + 1);
            out.extend_from_slice(value);
        }
    }
}

fn decode_register(reader: &mut Reader, newest_ms: u64) -> Result<Register, DecodeError> {
    let (dot, stamp) = (Dot::decode(reader)?, reader.stamp(newest_ms)?);
    let value = match reader.varint(MESSAGE_BYTES_MAX as u64)? {
        0 => None,
        len => Some(reader.bytes(len as usize - 1)?),
    };
    Ok(Register { dot, stamp, value })
}

fn encode_entries(dots: &Dots, out: &mut Vec<u8>, newest_ms: u64) {
    put_varint(out, dots.entries.len() as u64);
    for (region, entry) in &dots.entries {
        Dot { region: *region, counter: entry.counter }.encode(out);
        put_stamp(out, entry.stamp, newest_ms);
        put_prefixed(out, &entry.value);
    }
}

fn decode_dots(reader: &mut Reader, newest_ms: u64, is_counter: bool) -> Result<Dots, DecodeError> {
    let mut dots = Dots { seen: VersionVector::decode(reader)?, ..Dots::default() };
    for _ in 0..reader.count(ENTRY_BYTES_MIN, usize::MAX)? {
        let dot = Dot::decode(reader)?;
        reader.ascending(dots.entries.last_key_value().is_none_or(|(last, _)| *last < dot.region))?;
        reader.consistent(dot.counter > 0 && dots.seen.covers(dot))?;
        let (stamp, value) = (reader.stamp(newest_ms)?, reader.prefixed(MESSAGE_BYTES_MAX)?);
        if is_counter {
            Tally::decode(&value)?;
        }
        dots.entries.insert(dot.region, Entry { counter: dot.counter, stamp, value });
    }
    reader.consistent(!dots.seen.is_empty())?;
    Ok(dots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{BATCH_BYTES, COUNTER_MAX, KEY_BYTES_MAX, OR_MAP_VALUE_BYTES_MAX, REGIONS_MAX},
        vector::RegionId,
    };

    /// Put into by each region at the same time, and of all lengths the greatest.
    #[test]
    fn the_longest_cell_fits_into_a_message() {
        let bytes = |len| Bytes::from(vec![b'x'; len]);
        let mut item = Item::default();
        for region in 0..REGIONS_MAX as u32 {
            let mut other = Item::default();
            let dot = Dot { region: RegionId(u32::MAX - region), counter: COUNTER_MAX };
            let stamp = Stamp::new(u64::from(region), u16::MAX);
            other.put(Kind::OrMap, bytes(FIELD_BYTES_MAX), bytes(OR_MAP_VALUE_BYTES_MAX), dot, stamp);
            item.merge(other);
        }
        let mut out = Vec::new();
        item.encode(&mut out, Stamp::MILLIS_MAX);
        assert!(out.len() <= item.encoded_len() + 1, "{} is said to be {}", out.len(), item.encoded_len());
        assert!(BATCH_BYTES + KEY_BYTES_MAX + out.len() < MESSAGE_BYTES_MAX);
        assert_eq!(Item::from_record(item.to_record()), Ok(item));
    }
}
