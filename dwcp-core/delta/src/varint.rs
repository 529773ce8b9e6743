//! Unsigned integers, seven bits a byte, least significant first (DELTA-1.2).

use crate::DeltaError;

pub(crate) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one off the front. One that could be shorter is refused: there is one encoding of each value.
pub(crate) fn take(rest: &mut &[u8]) -> Result<u64, DeltaError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(DeltaError::Truncated)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(DeltaError::Invalid("integer"));
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DeltaError::Invalid("integer"))
}

/// One that counts bytes or things in memory, at most `max`.
pub(crate) fn take_count(rest: &mut &[u8], max: usize, what: &'static str) -> Result<usize, DeltaError> {
    let value = take(rest)?;
    usize::try_from(value).ok().filter(|&value| value <= max).ok_or(DeltaError::Invalid(what))
}

/// Takes this many bytes off the front.
pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DeltaError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(DeltaError::Truncated)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// DELTA-1.2
        #[test]
        fn integers_come_back(value: u64) {
            let mut out = Vec::new();
            put(value, &mut out);
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        /// DELTA-1.2
        #[test]
        fn each_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = &bytes[..];
            if let Ok(value) = take(&mut rest) {
                let mut again = Vec::new();
                put(value, &mut again);
                prop_assert_eq!(&bytes[..bytes.len() - rest.len()], again);
            }
        }
    }
}
