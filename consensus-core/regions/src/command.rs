//! Entries of a region's log that are about other regions, or change items in another way than etcd's requests do.

use bytes::Bytes;

use crate::{
    clock::Stamp,
    codec::{DecodeError, Reader, put_prefixed, put_varint},
    delta::{Chunk, Delta},
    item::Change,
    items::{Changed, Items},
    limits::{COLLECT_KEYS_MAX, FIELD_BYTES_MAX, INFO_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    replica::{Outcome, Replica},
    vector::{RegionId, VersionVector},
};

/// What is proposed to a region's log. Whoever proposes brings the time of its own machine, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Change { wall_ms: u64, key: Bytes, change: Change },
    AddRegion { wall_ms: u64, region: RegionId, info: Bytes },
    RemoveRegion { wall_ms: u64, region: RegionId },
    Merge(Delta),
    Take(Chunk),
    Collect { keys: Vec<Bytes>, known: VersionVector },
}

impl Replica {
    /// Applies an entry of the log. The items that have changed, each once.
    pub fn apply<I: Items>(&mut self, items: &I, command: Command) -> Outcome<Vec<Changed>, I::Error> {
        let one = |changed: Result<Option<Changed>, _>| changed.map(|changed| changed.into_iter().collect());
        match command {
            Command::Change { wall_ms, key, change } => self.change(items, wall_ms, &key, change).map(one),
            Command::AddRegion { wall_ms, region, info } => {
                self.add_region(items, wall_ms, region, info).map(one)
            }
            Command::RemoveRegion { wall_ms, region } => self.remove_region(items, wall_ms, region).map(one),
            Command::Merge(delta) => self.merge(items, delta),
            Command::Take(chunk) => self.take(items, chunk),
            Command::Collect { keys, known } => self.collect(items, &keys, &known).map(Ok),
        }
    }
}

impl Command {
    /// As an entry of the log.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Change { wall_ms, key, change } => {
                out.push(1);
                put_varint(&mut out, *wall_ms);
                put_prefixed(&mut out, key);
                change.encode(&mut out);
            }
            Self::AddRegion { wall_ms, region, info } => {
                out.push(2);
                put_varint(&mut out, *wall_ms);
                put_varint(&mut out, region.0.into());
                put_prefixed(&mut out, info);
            }
            Self::RemoveRegion { wall_ms, region } => {
                out.push(3);
                put_varint(&mut out, *wall_ms);
                put_varint(&mut out, region.0.into());
            }
            Self::Merge(delta) => {
                out.push(4);
                put_varint(&mut out, delta.from.0.into());
                delta.encode(&mut out);
            }
            Self::Take(chunk) => {
                out.push(5);
                put_varint(&mut out, chunk.from.0.into());
                chunk.encode(&mut out);
            }
            Self::Collect { keys, known } => {
                out.push(6);
                known.encode(&mut out);
                put_varint(&mut out, keys.len() as u64);
                keys.iter().for_each(|key| put_prefixed(&mut out, key));
            }
        }
        out.into()
    }

    /// Reads an entry of the log.
    pub fn decode(entry: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(entry, "log entry");
        let command = match reader.u8()? {
            1 => Self::Change {
                wall_ms: reader.varint(Stamp::MILLIS_MAX)?,
                key: reader.prefixed(KEY_BYTES_MAX)?,
                change: Change::decode(&mut reader)?,
            },
            2 => Self::AddRegion {
                wall_ms: reader.varint(Stamp::MILLIS_MAX)?,
                region: reader.region()?,
                info: reader.prefixed(INFO_BYTES_MAX)?,
            },
            3 => Self::RemoveRegion { wall_ms: reader.varint(Stamp::MILLIS_MAX)?, region: reader.region()? },
            4 => {
                let from = reader.region()?;
                Self::Merge(Delta::decode(&mut reader, from)?)
            }
            5 => {
                let from = reader.region()?;
                Self::Take(Chunk::decode(&mut reader, from)?)
            }
            6 => {
                let known = VersionVector::decode(&mut reader)?;
                let count = reader.count(1, COLLECT_KEYS_MAX)?;
                let keys = (0..count).map(|_| reader.prefixed(KEY_BYTES_MAX)).collect::<Result<_, _>>()?;
                Self::Collect { keys, known }
            }
            other => return Err(reader.unknown(other)),
        };
        reader.end()?;
        Ok(command)
    }
}

impl Change {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(value) => {
                out.push(1);
                put_prefixed(out, value);
            }
            Self::Delete => out.push(2),
            Self::RegisterMapPut { field, value } | Self::OrMapPut { field, value } => {
                out.push(if matches!(self, Self::OrMapPut { .. }) { 5 } else { 3 });
                put_prefixed(out, field);
                put_prefixed(out, value);
            }
            Self::RegisterMapDelete { field } => put_field(out, 4, field),
            Self::OrMapRemove { field } => put_field(out, 6, field),
            Self::OrSetAdd { element } => put_field(out, 7, element),
            Self::OrSetRemove { element } => put_field(out, 8, element),
            Self::CounterAdd(amount) => {
                out.push(9);
                out.extend_from_slice(&amount.to_le_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let number = reader.u8()?;
        let mut field = || reader.prefixed(FIELD_BYTES_MAX);
        Ok(match number {
            1 => Self::Put(reader.prefixed(VALUE_BYTES_MAX)?),
            2 => Self::Delete,
            3 => Self::RegisterMapPut { field: field()?, value: reader.prefixed(VALUE_BYTES_MAX)? },
            4 => Self::RegisterMapDelete { field: field()? },
            5 => Self::OrMapPut { field: field()?, value: reader.prefixed(VALUE_BYTES_MAX)? },
            6 => Self::OrMapRemove { field: field()? },
            7 => Self::OrSetAdd { element: field()? },
            8 => Self::OrSetRemove { element: field()? },
            9 => Self::CounterAdd(reader.u64()?.cast_signed()),
            other => return Err(reader.unknown(other)),
        })
    }
}

fn put_field(out: &mut Vec<u8>, number: u8, field: &[u8]) {
    out.push(number);
    put_prefixed(out, field);
}
