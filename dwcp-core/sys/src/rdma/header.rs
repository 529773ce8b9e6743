//! The header of a message: its kind, and the credit that it gives back. 20 bytes, all integers little endian.

use super::RdmaError;

/// Length of the encoding in bytes.
pub const HEADER_LEN: usize = 20;

const DATA: u32 = 0;
const END: u32 = 1;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its bytes are of the stream. Without any it only gives credit back.
    Data,
    /// No more bytes come.
    End,
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Slots given back since the beginning.
    pub slots: u64,
    /// Bytes of the window given back since the beginning.
    pub bytes: u64,
}

impl Header {
    /// The bytes for the peer.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let kind = match self.kind {
            Kind::Data => DATA,
            Kind::End => END,
        };
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..12].copy_from_slice(&self.slots.to_le_bytes());
        header[12..].copy_from_slice(&self.bytes.to_le_bytes());
        header
    }

    /// Of the peer's bytes; the totals may be anything.
    ///
    /// # Errors
    /// The kind is unknown.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, RdmaError> {
        let (kind, rest) = bytes.split_first_chunk().expect("four bytes");
        let (slots, bytes) = rest.split_first_chunk().expect("eight bytes");
        let bytes = bytes.first_chunk().expect("eight bytes");
        let kind = match u32::from_le_bytes(*kind) {
            DATA => Kind::Data,
            END => Kind::End,
            _ => return Err(RdmaError::Peer { what: "a message is of an unknown kind" }),
        };
        Ok(Self { kind, slots: u64::from_le_bytes(*slots), bytes: u64::from_le_bytes(*bytes) })
    }
}
