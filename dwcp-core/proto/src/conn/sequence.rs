//! Exactly once: which messages of a priority have arrived (clause 7.2).

use crate::{error::ProtocolError, limits::MESSAGE_SEQUENCE_WINDOW};

/// Which sequence numbers were seen: all below `next`, and those whose bit is set.
#[derive(Debug, Default)]
pub(super) struct SequenceWindow {
    next: u64,
    bits: Vec<u64>,
    ahead: usize,
}

impl SequenceWindow {
    const WORDS: usize = (MESSAGE_SEQUENCE_WINDOW / 64) as usize;

    pub(super) fn contains(&self, sequence: u64) -> bool {
        let Some(ahead) = sequence.checked_sub(self.next) else { return true };
        let (word, bit) = Self::position(sequence);
        ahead < MESSAGE_SEQUENCE_WINDOW && self.bits.get(word).is_some_and(|word| word & bit != 0)
    }

    /// `Ok(false)`: seen before.
    pub(super) fn insert(&mut self, sequence: u64) -> Result<bool, ProtocolError> {
        if sequence < self.next {
            return Ok(false);
        }
        if sequence - self.next >= MESSAGE_SEQUENCE_WINDOW {
            let limit = MESSAGE_SEQUENCE_WINDOW;
            return Err(ProtocolError::LimitExceeded { what: "message sequence", limit });
        }
        if sequence == self.next && self.ahead == 0 {
            self.next += 1;
            return Ok(true);
        }
        self.bits.resize(Self::WORDS, 0);
        let (word, bit) = Self::position(sequence);
        if self.bits[word] & bit != 0 {
            return Ok(false);
        }
        self.bits[word] |= bit;
        self.ahead += 1;
        while self.ahead > 0 {
            let (word, bit) = Self::position(self.next);
            if self.bits[word] & bit == 0 {
                break;
            }
            self.bits[word] &= !bit;
            self.ahead -= 1;
            self.next += 1;
        }
        Ok(true)
    }

    fn position(sequence: u64) -> (usize, u64) {
        ((sequence / 64) as usize % Self::WORDS, 1 << (sequence % 64))
    }
}
