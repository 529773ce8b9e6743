//! What members send each other.

use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{Message as Raw, MessageType};

use crate::codec::{self, DecodeError, Reader};

/// Largest encoded message. A message holds at least one entry, and one of more than
/// [`APPEND_BYTES`](crate::limits::APPEND_BYTES) not more than that one.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Entries in one message.
const ENTRIES_MAX: usize = 1 << 16;
const VERSION: u8 = 1;
const WHAT: &str = "peer message";

/// A message of one member to another, within a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Which of the groups of a process it is for.
    pub group: u64,
    pub(crate) raw: Raw,
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Small, and an election or a read waits for it.
    Control,
    /// Carries entries, acknowledges them, or says that they are committed.
    Append,
    /// Says that a snapshot should be fetched.
    Snapshot,
}

/// A voter has lost the links to the leader of its term; `log_term` and `index` say where its log ends. For
/// raft-rs this type is local and means something else: it never gets to see these.
pub(crate) const LEADER_LOST: MessageType = MessageType::MsgUnreachable;

/// A leader says that the entry at `index`, of `log_term`, is committed. Nobody answers. As above, raft-rs never sees it.
pub(crate) const COMMITTED: MessageType = MessageType::MsgCheckQuorum;

/// The types that travel, by their number on the wire. Local ones are missing on purpose.
const TYPES: [(u8, MessageType); 15] = [
    (1, MessageType::MsgPropose),
    (2, MessageType::MsgAppend),
    (3, MessageType::MsgAppendResponse),
    (4, MessageType::MsgRequestVote),
    (5, MessageType::MsgRequestVoteResponse),
    (6, MessageType::MsgSnapshot),
    (7, MessageType::MsgHeartbeat),
    (8, MessageType::MsgHeartbeatResponse),
    (9, MessageType::MsgTimeoutNow),
    (10, MessageType::MsgReadIndex),
    (11, MessageType::MsgReadIndexResp),
    (12, MessageType::MsgRequestPreVote),
    (13, MessageType::MsgRequestPreVoteResponse),
    (14, LEADER_LOST),
    (15, COMMITTED),
];

impl Message {
    /// Who sent it.
    pub fn from(&self) -> u64 {
        self.raw.from
    }

    /// Whom it is for.
    pub fn to(&self) -> u64 {
        self.raw.to
    }

    /// The sender's term; 0 for what belongs to none.
    pub fn term(&self) -> u64 {
        self.raw.term
    }

    /// Whether it carries requests to the leader. It must not be delivered twice.
    pub fn is_proposal(&self) -> bool {
        self.raw.get_msg_type() == MessageType::MsgPropose
    }

    /// Whether it carries nothing but requests for the state machine.
    pub fn is_request(&self) -> bool {
        self.is_proposal() && self.raw.get_entries().iter().all(|entry| entry.context.is_empty())
    }

    /// Bytes of the entries that it carries.
    pub fn payload_bytes(&self) -> usize {
        self.raw.get_entries().iter().map(|entry| entry.data.len() + entry.context.len()).sum()
    }

    /// How urgent it is.
    pub fn class(&self) -> Class {
        match self.raw.get_msg_type() {
            // What is committed is not to overtake the entries.
            MessageType::MsgAppend | MessageType::MsgAppendResponse | MessageType::MsgPropose | COMMITTED => {
                Class::Append
            }
            MessageType::MsgSnapshot => Class::Snapshot,
            _ => Class::Control,
        }
    }

    /// The bytes that travel.
    pub fn encode(&self, out: &mut BytesMut) {
        let raw = &self.raw;
        let number = TYPES.iter().find(|(_, kind)| *kind == raw.get_msg_type());
        let (number, _) = number.expect("only messages for peers are sent");
        out.put_u8(VERSION);
        out.put_u8(*number);
        for value in [
            self.group,
            raw.to,
            raw.from,
            raw.term,
            raw.log_term,
            raw.index,
            raw.commit,
            raw.commit_term,
            raw.request_snapshot,
            raw.reject_hint,
            raw.priority as u64,
        ] {
            out.put_u64_le(value);
        }
        out.put_u8(raw.reject.into());
        codec::put_prefixed(out, &raw.context);
        out.put_u32_le(raw.get_entries().len() as u32);
        raw.get_entries().iter().for_each(|entry| codec::put_entry(out, entry));
        out.put_u8(raw.has_snapshot().into());
        if raw.has_snapshot() {
            let snapshot = raw.get_snapshot();
            let metadata = snapshot.get_metadata();
            out.put_u64_le(metadata.index);
            out.put_u64_le(metadata.term);
            codec::put_conf_state(out, metadata.get_conf_state());
            codec::put_prefixed(out, &snapshot.data);
        }
    }

    /// Reads one message, which is all of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            let (value, max) = (bytes.len() as u64, MESSAGE_BYTES_MAX as u64);
            return Err(DecodeError::TooMany { what: WHAT, value, max });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "version of a peer message", value: version.into() });
        }
        let number = reader.u8()?;
        let mut raw = Raw::default();
        let kind = TYPES.iter().find(|(known, _)| *known == number);
        let unknown = DecodeError::Unknown { what: "type of a peer message", value: number.into() };
        raw.set_msg_type(kind.ok_or(unknown)?.1);
        let group = reader.u64()?;
        raw.to = reader.u64()?;
        raw.from = reader.u64()?;
        raw.term = reader.u64()?;
        raw.log_term = reader.u64()?;
        raw.index = reader.u64()?;
        raw.commit = reader.u64()?;
        raw.commit_term = reader.u64()?;
        raw.request_snapshot = reader.u64()?;
        raw.reject_hint = reader.u64()?;
        raw.priority = reader.u64()? as i64;
        raw.reject = reader.flag()?;
        raw.context = reader.prefixed()?;
        let entries = reader.count(codec::ENTRY_OVERHEAD, ENTRIES_MAX)?;
        let entries: Result<Vec<_>, _> = (0..entries).map(|_| reader.entry()).collect();
        raw.set_entries(entries?.into());
        if reader.flag()? {
            let snapshot = raw.mut_snapshot();
            let metadata = snapshot.mut_metadata();
            metadata.index = reader.u64()?;
            metadata.term = reader.u64()?;
            metadata.set_conf_state(reader.conf_state()?);
            snapshot.data = reader.prefixed()?;
        }
        reader.end()?;
        Ok(Self { group, raw })
    }
}
