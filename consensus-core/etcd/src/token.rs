//! Tokens that stand for users whose password was right.
//!
//! Assigned through the log, so that every member knows them, and kept in memory only: after a restart a client authenticates
//! again. Each member lets a token live as long as it is used there.
//!
//! Deliberately not here: passwords, signed tokens, which nobody has to keep.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::Status;

/// Tokens that a member keeps. With more, the one that ends first gives way.
const TOKENS_MAX: usize = 65_536;
/// Tokens whose time is over are looked for at most this often.
const SWEEP: Duration = Duration::from_secs(60);
/// As in etcd: letters, and how many.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LEN: usize = 16;

/// A text that nobody can guess. As in etcd a number follows: how far the log was.
pub(crate) fn random(index: u64) -> Result<String, Status> {
    let mut text = String::with_capacity(LEN + 21);
    // Of 256 values as many as make every letter equally likely.
    let usable = u8::MAX - u8::MAX % LETTERS.len() as u8;
    while text.len() < LEN {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes)
            .map_err(|error| Status::internal(format!("etcdserver: no random numbers: {error}")))?;
        let letters = bytes.iter().filter(|byte| **byte < usable);
        text.extend(
            letters
                .take(LEN - text.len())
                .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])),
        );
    }
    Ok(format!("{text}.{index}"))
}

struct Assigned {
    user: String,
    until: Duration,
}

/// The tokens that are in use. Times are since some beginning of the host's.
pub(crate) struct Tokens {
    ttl: Duration,
    assigned: HashMap<String, Assigned>,
    swept: Duration,
}

/// Without the tokens.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("assigned", &self.assigned.len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// None yet; each lives for `ttl` after its last use.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, assigned: HashMap::new(), swept: Duration::ZERO }
    }

    /// From now on a token stands for a user.
    pub(crate) fn assign(&mut self, token: String, user: String, now: Duration) {
        if now >= self.swept + SWEEP || self.assigned.len() >= TOKENS_MAX {
            self.assigned.retain(|_, assigned| assigned.until > now);
            self.swept = now;
        }
        if self.assigned.len() >= TOKENS_MAX {
            let first = self.assigned.iter().min_by_key(|(_, assigned)| assigned.until);
            if let Some(first) = first.map(|(token, _)| token.clone()) {
                self.assigned.remove(&first);
            }
        }
        self.assigned.insert(token, Assigned { user, until: now + self.ttl });
    }

    /// For whom a token stands; it lives on.
    pub(crate) fn user_of(&mut self, token: &str, now: Duration) -> Option<String> {
        let assigned = self.assigned.get_mut(token).filter(|assigned| assigned.until > now)?;
        assigned.until = now + self.ttl;
        Some(assigned.user.clone())
    }

    /// All of a user's are gone.
    pub(crate) fn forget_user(&mut self, user: &str) {
        self.assigned.retain(|_, assigned| assigned.user != user);
    }

    /// All are gone.
    pub(crate) fn forget_all(&mut self) {
        self.assigned.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let mut tokens = Tokens::new(3 * S);
        tokens.assign("t".to_owned(), "alice".to_owned(), S);
        for second in [2, 4, 6, 8] {
            assert_eq!(tokens.user_of("t", second * S).as_deref(), Some("alice"));
        }
        assert_eq!(tokens.user_of("t", 11 * S), None);
        assert_eq!(tokens.user_of("other", S), None);
    }

    #[test]
    fn a_users_tokens_go_together() {
        let mut tokens = Tokens::new(S);
        for (token, user) in [("a", "alice"), ("b", "bob"), ("c", "alice")] {
            tokens.assign(token.to_owned(), user.to_owned(), Duration::ZERO);
        }
        tokens.forget_user("alice");
        let left = ["a", "b", "c"].map(|token| tokens.user_of(token, Duration::ZERO).is_some());
        assert_eq!(left, [false, true, false]);
        tokens.forget_all();
        assert_eq!(tokens.user_of("b", Duration::ZERO), None);
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut tokens = Tokens::new(100 * S);
        for n in 0..=TOKENS_MAX as u32 {
            tokens.assign(n.to_string(), "alice".to_owned(), S + n * Duration::from_nanos(1));
        }
        assert_eq!(tokens.assigned.len(), TOKENS_MAX);
        assert_eq!(tokens.user_of("0", 2 * S), None, "it would have ended first");
        assert!(tokens.user_of("1", 2 * S).is_some());
    }

    #[test]
    fn random_texts_look_like_etcds() {
        let (one, other) = (random(7).unwrap(), random(7).unwrap());
        assert_ne!(one, other);
        let (letters, number) = one.split_once('.').unwrap();
        assert!(letters.len() == LEN && letters.bytes().all(|letter| LETTERS.contains(&letter)), "{one}");
        assert_eq!(number, "7");
    }
}
