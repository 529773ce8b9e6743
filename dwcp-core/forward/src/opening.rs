//! How a forwarded stream begins, and how it is answered (FORWARD-2). Pure.

use crate::{Address, address::ADDRESS_BYTES_MAX};

/// First bytes of a stream: magic, version, three zeros.
const PREAMBLE: [u8; 8] = *b"DWFW\x01\0\0\0";
/// Preamble and the length of the address.
pub(crate) const HEAD_BYTES: usize = PREAMBLE.len() + 2;

/// Why a node does not connect to where a stream should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its operator has not allowed it.
    #[error("the node does not allow this target")]
    NotAllowed,
    /// Nobody listens there, or it does not answer.
    #[error("the node cannot connect to the target")]
    Unreachable,
    /// As many sockets are forwarded as there can be.
    #[error("the node forwards as many sockets as it can")]
    Busy,
    /// What the stream began with is no forwarding.
    #[error("the node does not understand how the stream begins")]
    NotUnderstood,
}

/// The byte that answers an opening.
const ACCEPTED: u8 = 0;

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::NotAllowed => 1,
            Self::Unreachable => 2,
            Self::Busy => 3,
            Self::NotUnderstood => 4,
        }
    }
}

pub(crate) fn answer(result: Result<(), Refusal>) -> u8 {
    result.map_or_else(Refusal::code, |()| ACCEPTED)
}

pub(crate) fn read_answer(byte: u8) -> Result<(), Refusal> {
    match byte {
        ACCEPTED => Ok(()),
        1 => Err(Refusal::NotAllowed),
        2 => Err(Refusal::Unreachable),
        3 => Err(Refusal::Busy),
        _ => Err(Refusal::NotUnderstood),
    }
}

pub(crate) fn encode(target: &Address) -> Vec<u8> {
    let text = target.to_string();
    let mut out = PREAMBLE.to_vec();
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}

/// How long the address is that follows a head.
pub(crate) fn address_len(head: [u8; HEAD_BYTES]) -> Result<usize, Refusal> {
    let (preamble, len) = head.split_at(PREAMBLE.len());
    let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
    if preamble == PREAMBLE && (1..=ADDRESS_BYTES_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(Refusal::NotUnderstood)
    }
}

pub(crate) fn address(bytes: &[u8]) -> Result<Address, Refusal> {
    let text = str::from_utf8(bytes).map_err(|_| Refusal::NotUnderstood)?;
    text.parse().map_err(|_| Refusal::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// FORWARD-2.1, FORWARD-2.2
    #[test]
    fn openings_and_answers_come_back() {
        let target: Address = "tcp:db.example:5432".parse().unwrap();
        let bytes = encode(&target);
        let len = address_len(*bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(len, bytes.len() - HEAD_BYTES);
        assert_eq!(address(&bytes[HEAD_BYTES..]), Ok(target));
        for result in [
            Ok(()),
            Err(Refusal::NotAllowed),
            Err(Refusal::Unreachable),
            Err(Refusal::Busy),
            Err(Refusal::NotUnderstood),
        ] {
            assert_eq!(read_answer(answer(result)), result);
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(head: [u8; HEAD_BYTES], bytes in vec(any::<u8>(), 0..600), byte: u8) {
            let _ = (address_len(head), address(&bytes), read_answer(byte));
        }
    }
}
