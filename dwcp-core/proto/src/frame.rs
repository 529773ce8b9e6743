//! The frame header: 32 bytes, little-endian, every field on its natural alignment.
//!
//! ```text
//!  0       1       2       3       4               8              12              16
//! +-------+-------+-------+-------+---------------+---------------+---------------+
//! | magic |version| type  | flags | stream        | wire length   | raw length    |
//! +-------+-------+-------+-------+---------------+---------------+---------------+
//! | offset (64 bits)              | payload CRC-32| header CRC-32 |
//! +-------------------------------+---------------+---------------+
//! ```
//!
//! Owns encoding and decoding of that header, nothing of what frames mean.
//! Specification: `docs/spec/dwcp-1.md`, section 3.

use crate::{error::ProtocolError, limits::CODEC_RAW_LEN_MIN};

/// First byte of every frame. Not ASCII and not a TLS content type, so that a wrong protocol is seen at once.
pub const MAGIC: u8 = 0xd7;
/// Major version of the protocol.
pub const VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 32;
/// Bit of a frame type that says: whoever does not know it may skip it.
pub const OPTIONAL: u8 = 0x80;

/// What a frame is for. The wire value is the discriminant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum FrameType {
    /// First frame of a link in each direction.
    Hello = 0x01,
    /// Bytes of a stream at an offset.
    Data = 0x02,
    /// A one-way message.
    Message = 0x03,
    /// A message that wants an answer.
    Request = 0x04,
    /// The answer to a request.
    Response = 0x05,
    /// The requester no longer wants the answer.
    Cancel = 0x06,
    /// Raises the byte limit of a stream, or of the connection (stream 0).
    Credit = 0x07,
    /// Raises the byte limit of messages of one priority.
    MessageCredit = 0x08,
    /// Raises the number of streams that the peer may open.
    StreamsMax = 0x09,
    /// How many reliable frames arrived on a link.
    LinkAck = 0x0a,
    /// The sender abandons a stream.
    Reset = 0x0b,
    /// The receiver wants no more of a stream.
    Stop = 0x0c,
    /// Asks for a pong.
    Ping = 0x0d,
    /// Answers a ping with its offset field.
    Pong = 0x0e,
    /// Ends the connection.
    Close = 0x0f,
    /// The sender opens no more streams and wants the peer to do the same; or (stream 1) it has nothing left.
    Drain = 0x10,
    /// The sender puts no more reliable frames on this link.
    LinkRetire = 0x11,
    /// How many links the sender would like (only from the side that cannot connect).
    LinksWanted = 0x12,
    /// The sender has given up this link: what it had not acknowledged goes out on others.
    LinkLost = 0x13,
}

impl FrameType {
    /// Every type, in wire order.
    pub const ALL: [Self; 19] = [
        Self::Hello,
        Self::Data,
        Self::Message,
        Self::Request,
        Self::Response,
        Self::Cancel,
        Self::Credit,
        Self::MessageCredit,
        Self::StreamsMax,
        Self::LinkAck,
        Self::Reset,
        Self::Stop,
        Self::Ping,
        Self::Pong,
        Self::Close,
        Self::Drain,
        Self::LinkRetire,
        Self::LinksWanted,
        Self::LinkLost,
    ];

    /// The type of this wire value.
    pub fn from_wire(value: u8) -> Option<Self> {
        let index = usize::from(value).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Whether a lost link means that the frame is sent again on another (clause 6.1).
    pub fn is_reliable(self) -> bool {
        matches!(
            self,
            Self::Data
                | Self::Message
                | Self::Request
                | Self::Response
                | Self::Cancel
                | Self::Reset
                | Self::Stop
                | Self::Drain
        )
    }
}

/// How the payload of a frame is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    Identity = 0,
    /// One Zstandard frame (RFC 8878).
    Zstd = 1,
    /// One LZ4 block, without a size prefix.
    Lz4 = 2,
}

/// The flags byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    const FIN: u8 = 0x01;
    const CODEC_SHIFT: u32 = 1;
    const CODEC_MASK: u8 = 0x06;
    const PAYLOAD_CRC: u8 = 0x08;
    const PRIORITY_SHIFT: u32 = 4;
    const PRIORITY_MASK: u8 = 0x30;
    const RESERVED: u8 = 0xc0;

    /// Sets the last-frame-of-the-stream bit.
    pub fn with_fin(self, fin: bool) -> Self {
        Self(self.0 & !Self::FIN | if fin { Self::FIN } else { 0 })
    }

    /// Sets the codec of the payload.
    pub fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC_MASK | (codec as u8) << Self::CODEC_SHIFT)
    }

    /// Says whether the payload checksum field is in use.
    pub fn with_payload_crc(self, present: bool) -> Self {
        Self(self.0 & !Self::PAYLOAD_CRC | if present { Self::PAYLOAD_CRC } else { 0 })
    }

    /// Sets the priority of a message, 0 (first) to 2.
    pub fn with_priority(self, priority: u8) -> Self {
        Self(self.0 & !Self::PRIORITY_MASK | priority << Self::PRIORITY_SHIFT & Self::PRIORITY_MASK)
    }

    /// Last frame of its stream.
    pub fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Codec of the payload; `None` for the value that is not assigned.
    pub fn codec(self) -> Option<Codec> {
        match (self.0 & Self::CODEC_MASK) >> Self::CODEC_SHIFT {
            0 => Some(Codec::Identity),
            1 => Some(Codec::Zstd),
            2 => Some(Codec::Lz4),
            _ => None,
        }
    }

    /// The payload checksum field is in use.
    pub fn payload_crc(self) -> bool {
        self.0 & Self::PAYLOAD_CRC != 0
    }

    /// Priority of a message, 0..=3.
    pub fn priority(self) -> u8 {
        (self.0 & Self::PRIORITY_MASK) >> Self::PRIORITY_SHIFT
    }
}

/// A frame header without its checksum of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is for.
    pub ty: FrameType,
    /// Flags.
    pub flags: Flags,
    /// Stream id, or what the type says.
    pub stream: u32,
    /// Payload bytes that follow on the wire.
    pub wire_len: u32,
    /// Payload bytes after decoding; equal to `wire_len` for [`Codec::Identity`].
    pub raw_len: u32,
    /// Stream offset in raw bytes, or what the type says.
    pub offset: u64,
    /// CRC-32 of the wire payload if [`Flags::payload_crc`], else 0.
    pub payload_crc: u32,
}

/// What a header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A frame to handle.
    Frame(FrameHeader),
    /// An unknown optional frame: skip this many payload bytes.
    Skip(u32),
}

impl FrameHeader {
    /// A frame of this type with everything else zero.
    pub fn new(ty: FrameType) -> Self {
        Self { ty, flags: Flags::default(), stream: 0, wire_len: 0, raw_len: 0, offset: 0, payload_crc: 0 }
    }

    /// The 32 bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = MAGIC;
        out[1] = VERSION;
        out[2] = self.ty as u8;
        out[3] = self.flags.0;
        out[4..8].copy_from_slice(&self.stream.to_le_bytes());
        out[8..12].copy_from_slice(&self.wire_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes and checks a header. `payload_max` bounds both lengths, also those of frames to skip, so that a
    /// length can be trusted before the payload is read.
    pub fn decode(bytes: &[u8; HEADER_LEN], payload_max: u32) -> Result<Decoded, ProtocolError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[0] != MAGIC {
            return Err(ProtocolError::BadMagic(bytes[0]));
        }
        // The version comes before the checksum: another major version may place the checksum elsewhere.
        if bytes[1] != VERSION {
            return Err(ProtocolError::VersionMismatch { theirs: bytes[1], ours: VERSION });
        }
        let (found, expected) = (u32_at(28), crc32fast::hash(&bytes[..28]));
        if found != expected {
            return Err(ProtocolError::HeaderChecksum { found, expected });
        }
        let wire_len = u32_at(8);
        let Some(ty) = FrameType::from_wire(bytes[2]) else {
            if bytes[2] & OPTIONAL == 0 {
                return Err(ProtocolError::UnknownMandatory(bytes[2]));
            }
            if wire_len > payload_max {
                return Err(ProtocolError::FrameTooLarge { ty: bytes[2], len: wire_len, max: payload_max });
            }
            return Ok(Decoded::Skip(wire_len));
        };
        let header = Self {
            ty,
            flags: Flags(bytes[3]),
            stream: u32_at(4),
            wire_len,
            raw_len: u32_at(12),
            offset: u64::from_le_bytes([
                bytes[16], bytes[17], bytes[18], bytes[19], bytes[20], bytes[21], bytes[22], bytes[23],
            ]),
            payload_crc: u32_at(24),
        };
        header.check(payload_max)?;
        Ok(Decoded::Frame(header))
    }

    fn check(&self, payload_max: u32) -> Result<(), ProtocolError> {
        let ty = self.ty;
        let len = self.wire_len.max(self.raw_len);
        if len > payload_max {
            return Err(ProtocolError::FrameTooLarge { ty: ty as u8, len, max: payload_max });
        }
        let invalid = |what| Err(ProtocolError::Invalid { ty, what });
        if self.flags.0 & Flags::RESERVED != 0 {
            return invalid("reserved flags are set");
        }
        match self.flags.codec() {
            None => return invalid("codec is not assigned"),
            Some(Codec::Identity) if self.wire_len != self.raw_len => {
                return invalid("lengths differ without a codec");
            }
            Some(Codec::Identity) => {}
            Some(_) if ty != FrameType::Data => return invalid("only data frames have a codec"),
            Some(_) if self.raw_len < CODEC_RAW_LEN_MIN => return invalid("too short for a codec"),
            // So what a receiver holds is never more than what credit paid for.
            Some(_) if self.wire_len >= self.raw_len => return invalid("the codec does not make it shorter"),
            Some(_) if self.wire_len == 0 => return invalid("an empty payload has no codec"),
            Some(_) => {}
        }
        if self.flags.fin() && ty != FrameType::Data {
            return invalid("only data frames have a FIN");
        }
        if self.offset.checked_add(u64::from(self.raw_len)).is_none() {
            return invalid("offset overflows");
        }
        Ok(())
    }

    /// Checks the payload against the checksum field, if that is in use.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), ProtocolError> {
        if !self.flags.payload_crc() {
            return Ok(());
        }
        let expected = crc32fast::hash(payload);
        if expected == self.payload_crc {
            return Ok(());
        }
        Err(ProtocolError::PayloadChecksum { ty: self.ty, found: self.payload_crc, expected })
    }
}
