//! A block as its difference from the block at the same place: pages of a machine's memory, of which a counter or a pointer
//! has changed (DELTA-3). Differences are exclusive-or, with runs of zeros left out.

use crate::{DeltaError, varint};

/// Zeros between two literals that cost no more to say than to leave in.
const ZEROS_MIN: usize = 3;
const WORD: usize = size_of::<u64>();

/// Appends the difference of two blocks of one length. `false`, and nothing appended, if it takes more than `max` bytes: that
/// is found out without looking at all of them.
pub fn encode(old: &[u8], new: &[u8], max: usize, out: &mut Vec<u8>) -> bool {
    assert_eq!(old.len(), new.len(), "blocks of one length");
    let begin = out.len();
    let mut at = 0;
    while at < new.len() {
        let start = first_difference(old, new, at);
        if start == new.len() {
            break;
        }
        let end = end_of_difference(old, new, start, max);
        varint::put((start - at) as u64, out);
        varint::put((end - start) as u64, out);
        out.extend(old[start..end].iter().zip(&new[start..end]).map(|(a, b)| a ^ b));
        if out.len() - begin > max {
            out.truncate(begin);
            return false;
        }
        at = end;
    }
    true
}

fn first_difference(old: &[u8], new: &[u8], mut at: usize) -> usize {
    while let (Some(a), Some(b)) = (word(old, at), word(new, at)) {
        if a != b {
            return at + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        at += WORD;
    }
    while at < new.len() && old[at] == new[at] {
        at += 1;
    }
    at
}

/// Behind the last byte that differs before the next run of equal ones; or anywhere, once it is too far.
fn end_of_difference(old: &[u8], new: &[u8], start: usize, max: usize) -> usize {
    let (mut end, mut at) = (start, start);
    while at < new.len() && at - end <= ZEROS_MIN && at - start <= max {
        at += 1;
        if old[at - 1] != new[at - 1] {
            end = at;
        }
    }
    end
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Makes the old block in `block` the new one.
pub fn decode(difference: &[u8], block: &mut [u8]) -> Result<(), DeltaError> {
    let (mut rest, mut at) = (difference, 0);
    while !rest.is_empty() {
        at += varint::take_count(&mut rest, block.len() - at, "difference")?;
        let len = varint::take_count(&mut rest, block.len() - at, "difference")?;
        let literal = varint::take_bytes(&mut rest, len)?;
        block[at..at + len].iter_mut().zip(literal).for_each(|(byte, bits)| *byte ^= bits);
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        /// DELTA-3.1
        #[test]
        fn differences_come_back(
            old in vec(any::<u8>(), 0..3000),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..60),
        ) {
            let mut new = old.clone();
            for (at, byte) in changes.iter().filter(|_| !old.is_empty()) {
                new[at.index(old.len())] = *byte;
            }
            let mut difference = vec![7];
            prop_assert!(encode(&old, &new, usize::MAX, &mut difference));
            prop_assert!(difference.len() <= 1 + 5 * changes.len() + 4);
            let mut block = old;
            decode(&difference[1..], &mut block).unwrap();
            prop_assert_eq!(block, new);
        }

        #[test]
        fn noise_never_panics(noise in vec(any::<u8>(), 0..200), mut block in vec(any::<u8>(), 0..200)) {
            let _ = decode(&noise, &mut block);
        }
    }

    /// DELTA-3.2
    #[test]
    fn what_differs_everywhere_is_given_up() {
        let (old, new) = (vec![0; 4096], vec![1; 4096]);
        let mut out = vec![9];
        assert!(!encode(&old, &new, 512, &mut out));
        assert_eq!(out, [9]);
    }
}
