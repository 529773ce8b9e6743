//! The HELLO payload: who speaks, what it can do, and to which connection the link belongs.
//!
//! A fixed part of 48 bytes, then type-length-value items. Owns its encoding and the negotiation; not the order
//! of the handshake, which is the driver's (one HELLO from the client, one HELLO or CLOSE from the server).
//! Specification: `docs/spec/dwcp-1.md`, section 4.

use crate::{
    error::ProtocolError,
    frame::{Codec, FrameType},
    limits::{MESSAGE_WINDOW_MIN, WINDOW_MIN},
};

/// First bytes of a HELLO payload; like PNG's, they show line-ending and 8-bit damage.
pub const HELLO_MAGIC: [u8; 8] = *b"\x89DWCP\r\n\x1a";
/// Minor version spoken here.
pub const MINOR_VERSION: u16 = 0;
/// Largest HELLO payload in bytes.
pub const HELLO_LEN_MAX: usize = 4096;
/// Most dictionaries that a side may name.
pub const DICTIONARIES_MAX: usize = 16;
/// Largest node id or region in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// Smallest frame bound that a side may ask for, in bytes.
pub const FRAME_BYTES_MIN: u32 = 4 << 10;
/// Largest frame bound that a side may ask for, in bytes.
pub const FRAME_BYTES_LIMIT: u32 = 4 << 20;

/// Largest connection data for RDMA in bytes.
pub const RDMA_LEN_MAX: usize = 64;

const FIXED_LEN: usize = 48;
const ITEM_OPTIONAL: u16 = 0x8000;

/// Identifies a connection across its links. All zero in the first HELLO of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub [u8; 16]);

/// Proves that a joining link comes from the client that was given the connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinToken(pub [u8; 16]);

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

impl JoinToken {
    /// Equality in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

/// What one side can do and allows. The receiver of data sets the windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name of the node, 1..=255 bytes.
    pub node_id: String,
    /// Region of the node, empty if it has none.
    pub region: String,
    /// Which codecs it decodes, bit `1 << codec`; identity is always among them.
    pub codecs: u32,
    /// BLAKE3 of the dictionaries it has.
    pub dictionaries: Vec<[u8; 32]>,
    /// Most links that it wants in one connection.
    pub links_max: u16,
    /// Largest frame payload it takes, bytes.
    pub frame_bytes_max: u32,
    /// Bytes it lets be in flight over all streams.
    pub connection_window: u64,
    /// Bytes it lets be in flight on a new stream.
    pub stream_window: u64,
    /// Bytes (payload and header) of messages it lets be in flight, per priority.
    pub message_window: u64,
    /// Streams that the peer may have open.
    pub streams_max: u32,
    /// It wants payload checksums; in force if one side does.
    pub payload_crc: bool,
    /// How long it keeps a connection without links, milliseconds.
    pub resume_timeout_ms: u32,
}

/// A HELLO payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Minor version of the sender.
    pub minor: u16,
    /// Number of this link, chosen by the client, never used twice in a connection.
    pub link: u32,
    /// Connection to join; zero for a new one.
    pub connection: ConnectionId,
    /// The connection's token; zero for a new one.
    pub token: JoinToken,
    /// What the sender can do. On a joining link the receiver ignores it.
    pub capabilities: Capabilities,
    /// Where the sender's queue pair for this link is, opaque here, at most [`RDMA_LEN_MAX`] bytes; empty: it offers none.
    pub rdma: Vec<u8>,
    /// UDP port at which the sender takes datagrams of the connection; 0: it takes none. On a joining link the receiver
    /// ignores it.
    pub datagram_port: u16,
}

mod item {
    pub(super) const NODE_ID: u16 = 1;
    pub(super) const REGION: u16 = 2;
    pub(super) const CODECS: u16 = 3;
    pub(super) const DICTIONARIES: u16 = 4;
    pub(super) const LINKS_MAX: u16 = 5;
    pub(super) const FRAME_BYTES_MAX: u16 = 6;
    pub(super) const CONNECTION_WINDOW: u16 = 7;
    pub(super) const STREAM_WINDOW: u16 = 8;
    pub(super) const MESSAGE_WINDOW: u16 = 9;
    pub(super) const STREAMS_MAX: u16 = 10;
    pub(super) const PAYLOAD_CRC: u16 = 11;
    pub(super) const RESUME_TIMEOUT_MS: u16 = 12;
    /// Optional: who does not know it speaks TCP.
    pub(super) const RDMA: u16 = super::ITEM_OPTIONAL | 13;
    /// Optional: who does not know it sends no datagrams.
    pub(super) const DATAGRAM_PORT: u16 = super::ITEM_OPTIONAL | 14;
}

impl Capabilities {
    /// Bit of a codec in [`codecs`](Self::codecs).
    pub fn codec_bit(codec: Codec) -> u32 {
        1 << codec as u32
    }

    /// Whether this side decodes `codec`.
    pub fn decodes(&self, codec: Codec) -> bool {
        codec == Codec::Identity || self.codecs & Self::codec_bit(codec) != 0
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let ok = (1..=NAME_LEN_MAX).contains(&self.node_id.len())
            && self.region.len() <= NAME_LEN_MAX
            && self.links_max >= 1
            && (FRAME_BYTES_MIN..=FRAME_BYTES_LIMIT).contains(&self.frame_bytes_max)
            && self.connection_window >= WINDOW_MIN
            && self.stream_window >= WINDOW_MIN
            && self.message_window >= MESSAGE_WINDOW_MIN;
        if ok { Ok(()) } else { Err(invalid("a capability is out of range")) }
    }
}

impl Hello {
    /// The payload bytes of this HELLO.
    pub fn encode(&self) -> Vec<u8> {
        let c = &self.capabilities;
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&HELLO_MAGIC);
        out.extend_from_slice(&self.minor.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.link.to_le_bytes());
        out.extend_from_slice(&self.connection.0);
        out.extend_from_slice(&self.token.0);
        let mut put = |ty: u16, value: &[u8]| {
            out.extend_from_slice(&ty.to_le_bytes());
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(value);
        };
        put(item::NODE_ID, c.node_id.as_bytes());
        if !c.region.is_empty() {
            put(item::REGION, c.region.as_bytes());
        }
        put(item::CODECS, &c.codecs.to_le_bytes());
        if !c.dictionaries.is_empty() {
            put(item::DICTIONARIES, c.dictionaries.as_flattened());
        }
        put(item::LINKS_MAX, &c.links_max.to_le_bytes());
        put(item::FRAME_BYTES_MAX, &c.frame_bytes_max.to_le_bytes());
        put(item::CONNECTION_WINDOW, &c.connection_window.to_le_bytes());
        put(item::STREAM_WINDOW, &c.stream_window.to_le_bytes());
        put(item::MESSAGE_WINDOW, &c.message_window.to_le_bytes());
        put(item::STREAMS_MAX, &c.streams_max.to_le_bytes());
        put(item::PAYLOAD_CRC, &[u8::from(c.payload_crc)]);
        put(item::RESUME_TIMEOUT_MS, &c.resume_timeout_ms.to_le_bytes());
        if !self.rdma.is_empty() {
            put(item::RDMA, &self.rdma);
        }
        if self.datagram_port != 0 {
            put(item::DATAGRAM_PORT, &self.datagram_port.to_le_bytes());
        }
        out
    }

    /// Decodes a payload. Unknown optional items are skipped; every bound is checked.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        if payload.len() > HELLO_LEN_MAX {
            return Err(invalid("longer than 4096 bytes"));
        }
        let Some((fixed, mut rest)) = payload.split_first_chunk::<FIXED_LEN>() else {
            return Err(invalid("shorter than its fixed part"));
        };
        if fixed[..8] != HELLO_MAGIC {
            return Err(invalid("magic does not match"));
        }
        let mut hello = Self {
            minor: u16::from_le_bytes([fixed[8], fixed[9]]),
            link: u32::from_le_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]),
            connection: ConnectionId(*array(&fixed[16..32])?),
            token: JoinToken(*array(&fixed[32..48])?),
            capabilities: Capabilities {
                node_id: String::new(),
                region: String::new(),
                codecs: Capabilities::codec_bit(Codec::Identity),
                dictionaries: Vec::new(),
                links_max: 1,
                frame_bytes_max: FRAME_BYTES_MIN,
                connection_window: 0,
                stream_window: 0,
                message_window: 0,
                streams_max: 0,
                payload_crc: true,
                resume_timeout_ms: 0,
            },
            rdma: Vec::new(),
            datagram_port: 0,
        };
        while !rest.is_empty() {
            let Some((head, tail)) = rest.split_first_chunk::<4>() else {
                return Err(invalid("an item is cut off"));
            };
            let ty = u16::from_le_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let Some((value, tail)) = tail.split_at_checked(len) else {
                return Err(invalid("an item is cut off"));
            };
            match ty {
                item::RDMA if value.len() > RDMA_LEN_MAX => return Err(invalid("RDMA data")),
                item::RDMA => hello.rdma = value.to_vec(),
                item::DATAGRAM_PORT => hello.datagram_port = u16::from_le_bytes(*array(value)?),
                _ => hello.capabilities.set(ty, value)?,
            }
            rest = tail;
        }
        hello.capabilities.check()?;
        Ok(hello)
    }
}

impl Capabilities {
    fn set(&mut self, ty: u16, value: &[u8]) -> Result<(), ProtocolError> {
        match ty {
            item::NODE_ID => self.node_id = text(value)?,
            item::REGION => self.region = text(value)?,
            item::CODECS => self.codecs = u32::from_le_bytes(*array(value)?),
            item::DICTIONARIES => {
                let (ids, rest) = value.as_chunks::<32>();
                if !rest.is_empty() || ids.len() > DICTIONARIES_MAX {
                    return Err(invalid("dictionary list"));
                }
                self.dictionaries = ids.to_vec();
            }
            item::LINKS_MAX => self.links_max = u16::from_le_bytes(*array(value)?),
            item::FRAME_BYTES_MAX => self.frame_bytes_max = u32::from_le_bytes(*array(value)?),
            item::CONNECTION_WINDOW => self.connection_window = u64::from_le_bytes(*array(value)?),
            item::STREAM_WINDOW => self.stream_window = u64::from_le_bytes(*array(value)?),
            item::MESSAGE_WINDOW => self.message_window = u64::from_le_bytes(*array(value)?),
            item::STREAMS_MAX => self.streams_max = u32::from_le_bytes(*array(value)?),
            item::PAYLOAD_CRC => self.payload_crc = array::<1>(value)?[0] != 0,
            item::RESUME_TIMEOUT_MS => self.resume_timeout_ms = u32::from_le_bytes(*array(value)?),
            _ if ty & ITEM_OPTIONAL != 0 => {}
            _ => return Err(invalid("unknown mandatory item")),
        }
        Ok(())
    }
}

fn invalid(what: &'static str) -> ProtocolError {
    ProtocolError::Invalid { ty: FrameType::Hello, what }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], ProtocolError> {
    bytes.try_into().map_err(|_| invalid("an item has the wrong size"))
}

fn text(bytes: &[u8]) -> Result<String, ProtocolError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= NAME_LEN_MAX => Ok(text.to_owned()),
        _ => Err(invalid("a name is not UTF-8 or longer than 255 bytes")),
    }
}
