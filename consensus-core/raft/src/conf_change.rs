//! Changes of the membership, in the one form that travels.
//!
//! raft-rs parses the data of such an entry with protobuf when it is proposed. So this writes protobuf, and reads only what
//! it would have written: a list of single changes, nothing unknown, nothing nested deeper.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

use crate::codec::{DecodeError, MEMBERS_MAX};

const WHAT: &str = "membership change";

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Field 1: transition; field 2: changes, each with field 1 (type) and field 2 (member). Zeroes are left out.
pub(crate) fn encode(change: &ConfChangeV2) -> Bytes {
    let mut out = Vec::new();
    let put = |out: &mut Vec<u8>, field: u8, value: u64| {
        if value != 0 {
            out.push(field << 3);
            put_varint(out, value);
        }
    };
    put(&mut out, 1, change.get_transition() as u64);
    for single in change.get_changes() {
        let mut inner = Vec::new();
        put(&mut inner, 1, single.get_change_type() as u64);
        put(&mut inner, 2, single.node_id);
        out.push(2 << 3 | 2);
        put_varint(&mut out, inner.len() as u64);
        out.extend_from_slice(&inner);
    }
    out.into()
}

/// Reads what [`encode`] writes and refuses everything else.
pub(crate) fn decode(bytes: &[u8]) -> Result<ConfChangeV2, DecodeError> {
    let mut rest = bytes;
    let mut change = ConfChangeV2::default();
    while let Some(tag) = byte(&mut rest) {
        match tag {
            0x08 => change.set_transition(match varint(&mut rest)? {
                1 => ConfChangeTransition::Implicit,
                2 => ConfChangeTransition::Explicit,
                value => return Err(DecodeError::Unknown { what: WHAT, value }),
            }),
            0x12 => {
                let len = varint(&mut rest)? as usize;
                let Some((mut inner, after)) = rest.split_at_checked(len) else {
                    return Err(DecodeError::Truncated { what: WHAT, needed: len, left: rest.len() });
                };
                rest = after;
                change.mut_changes().push(single(&mut inner)?);
                if change.get_changes().len() > MEMBERS_MAX {
                    let (value, max) = (change.get_changes().len() as u64, MEMBERS_MAX as u64);
                    return Err(DecodeError::TooMany { what: WHAT, value, max });
                }
            }
            tag => return Err(DecodeError::Unknown { what: WHAT, value: tag.into() }),
        }
    }
    Ok(change)
}

fn single(rest: &mut &[u8]) -> Result<ConfChangeSingle, DecodeError> {
    let mut single = ConfChangeSingle::default();
    while let Some(tag) = byte(rest) {
        let value = varint(rest)?;
        match (tag, value) {
            (0x08, 1) => single.set_change_type(ConfChangeType::RemoveNode),
            (0x08, 2) => single.set_change_type(ConfChangeType::AddLearnerNode),
            (0x10, id) => single.node_id = id,
            (_, value) => return Err(DecodeError::Unknown { what: WHAT, value }),
        }
    }
    if single.node_id == 0 {
        return Err(DecodeError::Unknown { what: "member id", value: 0 });
    }
    Ok(single)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(rest).ok_or(DecodeError::Truncated { what: WHAT, needed: 1, left: 0 })?;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::Unknown { what: "variable-length integer", value: u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kinds: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        for (kind, id) in kinds {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(*kind);
            single.node_id = *id;
            change.mut_changes().push(single);
        }
        change
    }

    #[test]
    fn reads_what_it_writes_as_raft_rs_does() {
        use raft::eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let mut explicit = change(&[(AddNode, u64::MAX), (RemoveNode, 7)]);
        explicit.set_transition(ConfChangeTransition::Explicit);
        for change in [change(&[]), change(&[(AddNode, 1)]), change(&[(AddLearnerNode, 1 << 40)]), explicit] {
            let bytes = encode(&change);
            assert_eq!(decode(&bytes).unwrap(), change);
            assert_eq!(bytes, protobuf::Message::write_to_bytes(&change).unwrap(), "as protobuf has it");
        }
    }

    #[test]
    fn refuses_everything_else() {
        // A group in a group in a group: what overflows the stack of protobuf 2.
        for bytes in
            [&[0x0b; 1000][..], &[0x12, 0x05, 0x08], &[0x12, 0x02, 0x08, 0x09], &[0x08, 0x03], &[0x12, 0x00]]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
