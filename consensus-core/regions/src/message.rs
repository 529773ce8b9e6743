//! What leaders of regions say to each other: `docs/spec/regions-1.md`.

use bytes::Bytes;

use crate::{
    clock::Stamp,
    codec::{DecodeError, Reader, put_prefixed, put_varint},
    delta::{Chunk, Delta, Position},
    limits::{KEY_BYTES_MAX, LEAF_ITEMS_MAX, LEAVES_MAX, MESSAGE_BYTES_MAX, NODES_MAX, WANTED_MAX},
    record::{decode_id, encode_id},
    replica::Phase,
    tree::{FANOUT, LEAF_NUMBERS, Node},
    vector::{RegionId, VersionVector},
};

/// Of the protocol.
pub const VERSION: u8 = 1;
const WHAT: &str = "message of a region";

/// From the leader of one region to that of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: RegionId,
    /// To whom.
    pub to: RegionId,
    /// What.
    pub body: Body,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Body {
    Status(Status),
    Ack(Ack),
    Delta(Delta),
    Hashes(Hashes),
    Leaves(Leaves),
    Want(Want),
    SnapshotRequest(SnapshotRequest),
    Chunk(Chunk),
}

/// How far the sender is, and how far it knows others to be. Each interval; it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is joining or active.
    pub phase: Phase,
    /// What the sender knows.
    pub version: VersionVector,
    /// What it has collected.
    pub horizon: VersionVector,
    /// Its clock.
    pub latest: Stamp,
    /// The sender's time, in milliseconds; it comes back with the acknowledgement.
    pub sent_ms: u64,
    /// What other regions have told that they know, by region.
    pub rows: Vec<(RegionId, VersionVector)>,
}

/// A status was heard, or a delta is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// What the sender knows.
    pub version: VersionVector,
    /// [`Status::sent_ms`]; 0: this is for a delta.
    pub echo_ms: u64,
}

/// Hashes of nodes' children, for a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// What the sender knows.
    pub version: VersionVector,
    /// Of one level.
    pub nodes: Vec<(Node, [u64; FANOUT])>,
}

/// What leaves that differ hold at the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// What the sender knows.
    pub version: VersionVector,
    /// Each with its items in force: hash of the key, and of the item; 0 instead of that if the receiver does not know all of
    /// the item yet.
    pub leaves: Vec<(u16, Vec<(u64, u64)>)>,
}

/// Items that the sender lacks, although it knows the changes that made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Leaf and hash of the key.
    pub items: Vec<(u16, u64)>,
}

/// Asks for the next part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Up to where it was taken; `None`: nothing was.
    pub after: Option<Position>,
}

impl Body {
    fn number(&self) -> u8 {
        match self {
            Self::Status(_) => 1,
            Self::Ack(_) => 2,
            Self::Delta(_) => 3,
            Self::Hashes(_) => 4,
            Self::Leaves(_) => 5,
            Self::Want(_) => 6,
            Self::SnapshotRequest(_) => 7,
            Self::Chunk(_) => 8,
        }
    }
}

impl Message {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, self.body.number()];
        put_varint(&mut out, self.from.0.into());
        put_varint(&mut out, self.to.0.into());
        match &self.body {
            Body::Status(status) => status.encode(&mut out),
            Body::Ack(ack) => {
                ack.version.encode(&mut out);
                put_varint(&mut out, ack.echo_ms);
            }
            Body::Delta(delta) => delta.encode(&mut out),
            Body::Hashes(hashes) => hashes.encode(&mut out),
            Body::Leaves(leaves) => leaves.encode(&mut out),
            Body::Want(want) => {
                put_varint(&mut out, want.items.len() as u64);
                for (leaf, key_hash) in &want.items {
                    put_varint(&mut out, (*leaf).into());
                    out.extend_from_slice(&key_hash.to_le_bytes());
                }
            }
            Body::SnapshotRequest(request) => put_position(&mut out, request.after.as_ref()),
            Body::Chunk(chunk) => chunk.encode(&mut out),
        }
        out.into()
    }

    /// Reads what a peer has sent. A version other than [`VERSION`] is `Unknown`.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            let (value, max) = (bytes.len() as u64, MESSAGE_BYTES_MAX as u64);
            return Err(DecodeError::TooMany { what: WHAT, value, max });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "protocol version", value: version.into() });
        }
        let number = reader.u8()?;
        let (from, to) = (reader.region()?, reader.region()?);
        let reader_ref = &mut reader;
        let body = match number {
            1 => Body::Status(Status::decode(reader_ref)?),
            2 => Body::Ack(Ack {
                version: VersionVector::decode(reader_ref)?,
                echo_ms: reader_ref.varint(Stamp::MILLIS_MAX)?,
            }),
            3 => Body::Delta(Delta::decode(reader_ref, from)?),
            4 => Body::Hashes(Hashes::decode(reader_ref)?),
            5 => Body::Leaves(Leaves::decode(reader_ref)?),
            6 => Body::Want(Want::decode(reader_ref)?),
            7 => Body::SnapshotRequest(SnapshotRequest { after: read_position(reader_ref)? }),
            8 => Body::Chunk(Chunk::decode(reader_ref, from)?),
            other => return Err(DecodeError::Unknown { what: "type of a message", value: other.into() }),
        };
        reader.end()?;
        Ok(Self { from, to, body })
    }
}

impl Status {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.phase as u8);
        self.version.encode(out);
        self.horizon.encode(out);
        put_latest(out, self.latest);
        put_varint(out, self.sent_ms);
        put_varint(out, self.rows.len() as u64);
        for (region, row) in &self.rows {
            put_varint(out, region.0.into());
            row.encode(out);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let phase = Phase::decode(reader)?;
        let (version, horizon) = (VersionVector::decode(reader)?, VersionVector::decode(reader)?);
        let (latest, sent_ms) = (read_latest(reader)?, reader.varint(Stamp::MILLIS_MAX)?);
        let mut rows: Vec<(RegionId, VersionVector)> = Vec::new();
        for _ in 0..reader.count(2, usize::MAX)? {
            let region = reader.region()?;
            reader.ascending(rows.last().is_none_or(|(last, _)| *last < region))?;
            rows.push((region, VersionVector::decode(reader)?));
        }
        Ok(Self { phase, version, horizon, latest, sent_ms, rows })
    }
}

impl Hashes {
    fn encode(&self, out: &mut Vec<u8>) {
        self.version.encode(out);
        put_varint(out, self.nodes.len() as u64);
        for (node, children) in &self.nodes {
            out.push(node.level);
            put_varint(out, node.index.into());
            children.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let version = VersionVector::decode(reader)?;
        let mut nodes: Vec<(Node, [u64; FANOUT])> = Vec::new();
        for _ in 0..reader.count(2 + 8 * FANOUT, NODES_MAX)? {
            let node = Node { level: reader.u8()?, index: reader.varint(u16::MAX.into())? as u16 };
            reader.consistent(node.exists())?;
            reader
                .ascending(nodes.last().is_none_or(|(last, _)| *last < node && last.level == node.level))?;
            let mut children = [0; FANOUT];
            for hash in &mut children {
                *hash = reader.u64()?;
            }
            nodes.push((node, children));
        }
        Ok(Self { version, nodes })
    }
}

impl Leaves {
    fn encode(&self, out: &mut Vec<u8>) {
        self.version.encode(out);
        put_varint(out, self.leaves.len() as u64);
        for (leaf, items) in &self.leaves {
            put_varint(out, (*leaf).into());
            put_varint(out, items.len() as u64);
            for (key_hash, item_hash) in items {
                out.extend_from_slice(&key_hash.to_le_bytes());
                out.extend_from_slice(&item_hash.to_le_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let version = VersionVector::decode(reader)?;
        let mut leaves: Vec<(u16, Vec<(u64, u64)>)> = Vec::new();
        for _ in 0..reader.count(2, LEAVES_MAX)? {
            let leaf = read_leaf(reader)?;
            reader.ascending(leaves.last().is_none_or(|(last, _)| *last < leaf))?;
            let count = reader.count(16, LEAF_ITEMS_MAX)?;
            let items = (0..count).map(|_| Ok((reader.u64()?, reader.u64()?)));
            leaves.push((leaf, items.collect::<Result<_, DecodeError>>()?));
        }
        Ok(Self { version, leaves })
    }
}

impl Want {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count(9, WANTED_MAX)?;
        let items = (0..count).map(|_| Ok((read_leaf(reader)?, reader.u64()?)));
        Ok(Self { items: items.collect::<Result<_, DecodeError>>()? })
    }
}

fn read_leaf(reader: &mut Reader) -> Result<u16, DecodeError> {
    Ok(reader.varint((*LEAF_NUMBERS.end()).into())? as u16)
}

/// 0: there is none; 1: a key; 2: a key and a cell.
pub(crate) fn put_position(out: &mut Vec<u8>, position: Option<&Position>) {
    let Some(Position { key, cell }) = position else { return out.push(0) };
    out.push(1 + u8::from(cell.is_some()));
    put_prefixed(out, key);
    cell.iter().for_each(|cell| encode_id(cell, out));
}

pub(crate) fn read_position(reader: &mut Reader) -> Result<Option<Position>, DecodeError> {
    let number = reader.u8()?;
    if number == 0 {
        return Ok(None);
    }
    let key = reader.prefixed(KEY_BYTES_MAX)?;
    match number {
        1 => Ok(Some(Position { key, cell: None })),
        2 => Ok(Some(Position { key, cell: Some(decode_id(reader)?) })),
        other => Err(reader.unknown(other)),
    }
}

pub(crate) fn put_latest(out: &mut Vec<u8>, latest: Stamp) {
    put_varint(out, latest.millis());
    put_varint(out, latest.logical().into());
}

pub(crate) fn read_latest(reader: &mut Reader) -> Result<Stamp, DecodeError> {
    Ok(Stamp::new(reader.varint(Stamp::MILLIS_MAX)?, reader.varint(u16::MAX.into())? as u16))
}
