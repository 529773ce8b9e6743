//! What stands in Redis: an answer, sealed together with its question and its end. Pure.
//!
//! ```text
//! end, milliseconds since 1970, little endian: 8 | BLAKE3, keyed, over question, end and answer: 32 | answer
//! ```

use axum::body::Bytes;

pub(super) const KEY_BYTES: usize = 32;
const END_BYTES: usize = 8;
const SEAL_BYTES: usize = 32;
/// What an answer grows by.
pub(super) const HEAD_BYTES: usize = END_BYTES + SEAL_BYTES;

/// What answers are sealed with.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) [u8; KEY_BYTES]);

impl Key {
    fn seal(&self, question: &str, end: [u8; END_BYTES], answer: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(question.len() as u64).to_le_bytes()).update(question.as_bytes());
        hasher.update(&end).update(answer);
        hasher.finalize()
    }

    pub(super) fn sealed(&self, question: &str, ends_ms: u64, answer: &[u8]) -> Vec<u8> {
        let end = ends_ms.to_le_bytes();
        [&end[..], self.seal(question, end, answer).as_bytes(), answer].concat()
    }

    /// The answer, and its end, if it was sealed for this question and has not ended; nor does it end later than an answer that
    /// is made now would: then somebody's clock is ahead, and it is not known how old it is.
    pub(super) fn opened(
        &self,
        question: &str,
        sealed: Vec<u8>,
        now_ms: u64,
        age_max_ms: u64,
    ) -> Option<(Bytes, u64)> {
        let (end, rest) = sealed.split_first_chunk::<END_BYTES>()?;
        let (seal, answer) = rest.split_first_chunk::<SEAL_BYTES>()?;
        // Compared in constant time, which is a property of this type.
        if self.seal(question, *end, answer) != blake3::Hash::from_bytes(*seal) {
            return None;
        }
        let ends_ms = u64::from_le_bytes(*end);
        let is_fresh = ends_ms > now_ms && ends_ms - now_ms <= age_max_ms;
        is_fresh.then(|| (Bytes::from(sealed).slice(HEAD_BYTES..), ends_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_nothing_else() {
        let key = Key([3; KEY_BYTES]);
        let sealed = key.sealed("members a", 1000, b"answer");
        let open = |question: &str, sealed: &[u8], now| key.opened(question, sealed.to_vec(), now, 100);
        assert_eq!(open("members a", &sealed, 950), Some((Bytes::from_static(b"answer"), 1000)));
        assert_eq!(open("members a", &sealed, 1000), None, "it has ended");
        assert_eq!(open("members a", &sealed, 899), None, "it would end too late");
        assert_eq!(open("members b", &sealed, 950), None, "another question's");
        assert_eq!(Key([4; KEY_BYTES]).opened("members a", sealed.clone(), 950, 100), None);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut wrong = sealed.clone();
                wrong[at] ^= 1 << bit;
                assert_eq!(open("members a", &wrong, 950), None, "{at}: {bit}");
            }
            assert_eq!(open("members a", &sealed[..at], 950), None, "{at}");
        }
        assert_eq!(open("members a", &[sealed, vec![0]].concat(), 950), None);
        assert_eq!(open("members a", b"", 950), None);
        assert_eq!(open("", &key.sealed("", 1000, b""), 950), Some((Bytes::new(), 1000)));
    }
}
