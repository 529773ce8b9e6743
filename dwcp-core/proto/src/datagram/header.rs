//! The header of datagrams: 24 bytes, little-endian, in front of an encrypted payload.
//!
//! Owns encoding, decoding and the checks that need no key. `dwcp-ebpf/src/bpf` checks the same in the kernel.

/// First byte of every datagram.
pub const MAGIC: u8 = 0xda;
/// Version of the format.
pub const VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 24;
/// Bytes of the AEAD's tag, which every payload has.
pub const TAG_LEN: usize = 16;
/// Bytes of a payload, tag included.
pub const PAYLOAD_LEN_MAX: usize = 8948;
/// Packet numbers are below this.
pub const NUMBER_END: u64 = 1 << 62;

const OPTIONAL: u8 = 0x80;
const KEY_PHASE: u8 = 0x01;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatagramType {
    /// Asks for a reply.
    Probe,
    /// Answers a probe.
    ProbeReply,
    /// What nodes tell each other about others.
    Gossip,
    /// An application's.
    Message,
    /// One that this version does not know and may ignore, 0x80 or more.
    Optional(u8),
}

impl DatagramType {
    /// The type of this wire value; `None` if it is neither known nor optional.
    pub fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Probe),
            2 => Some(Self::ProbeReply),
            3 => Some(Self::Gossip),
            4 => Some(Self::Message),
            OPTIONAL.. => Some(Self::Optional(value)),
            _ => None,
        }
    }

    /// The wire value.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Probe => 1,
            Self::ProbeReply => 2,
            Self::Gossip => 3,
            Self::Message => 4,
            Self::Optional(value) => value | OPTIONAL,
        }
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader {
    /// What the datagram is for.
    pub ty: DatagramType,
    /// Which of two keys encrypts it.
    pub key_phase: bool,
    /// Bytes of payload, tag included.
    pub payload_len: u16,
    /// The connection, for one direction.
    pub flow: u64,
    /// Its number in the flow.
    pub number: u64,
}

/// What is wrong with a datagram. Nobody is told: it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// Shorter than a header and a tag.
    #[error("a datagram of {0} bytes is too short")]
    Short(usize),
    /// Not DWCP.
    #[error("the magic is {0:#04x}")]
    Magic(u8),
    /// Another version.
    #[error("version {0}")]
    Version(u8),
    /// A type that is neither known nor optional.
    #[error("unknown type {0:#04x}")]
    Type(u8),
    /// Flags or the reserved field are not 0 where they must be.
    #[error("reserved bits are set")]
    Reserved,
    /// Length is not that of the payload, or out of bounds.
    #[error("the length {said} does not fit a payload of {found} bytes")]
    Length {
        /// What the header says.
        said: u16,
        /// What is there.
        found: usize,
    },
    /// The flow is 0.
    #[error("the flow is 0")]
    Flow,
    /// The packet number is too large.
    #[error("packet number {0}")]
    Number(u64),
}

impl DatagramHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&[
            MAGIC,
            VERSION,
            self.ty.to_wire(),
            u8::from(self.key_phase) * KEY_PHASE,
        ]);
        bytes[4..6].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.flow.to_le_bytes());
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// The header of a datagram, and its payload.
    ///
    /// # Errors
    /// [`DatagramError`] names the first clause of section 2 that is broken.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), DatagramError> {
        let Some((header, payload)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(DatagramError::Short(datagram.len()));
        };
        if payload.len() < TAG_LEN {
            return Err(DatagramError::Short(datagram.len()));
        }
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let [magic, version, ty, flags, ..] = *header;
        if magic != MAGIC {
            return Err(DatagramError::Magic(magic));
        }
        if version != VERSION {
            return Err(DatagramError::Version(version));
        }
        let decoded = Self {
            ty: DatagramType::from_wire(ty).ok_or(DatagramError::Type(ty))?,
            key_phase: flags & KEY_PHASE != 0,
            payload_len: u16::from_le_bytes([header[4], header[5]]),
            flow: u64_at(8),
            number: u64_at(16),
        };
        if flags & !KEY_PHASE != 0 || header[6..8] != [0, 0] {
            return Err(DatagramError::Reserved);
        }
        if usize::from(decoded.payload_len) != payload.len() || payload.len() > PAYLOAD_LEN_MAX {
            return Err(DatagramError::Length { said: decoded.payload_len, found: payload.len() });
        }
        if decoded.flow == 0 {
            return Err(DatagramError::Flow);
        }
        if decoded.number >= NUMBER_END {
            return Err(DatagramError::Number(decoded.number));
        }
        Ok((decoded, payload))
    }
}
