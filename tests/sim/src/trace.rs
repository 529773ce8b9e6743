//! What happened in a run, as a number that differs if anything does, and as lines for a person.

use crate::random::mix;

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    printed: bool,
}

impl Trace {
    pub(crate) fn new(seed: u64, printed: bool) -> Self {
        Self { hash: mix(seed), printed }
    }

    pub(crate) fn note(&mut self, now: u64, member: u64, what: &str, value: u64) {
        let what_hash = what.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte));
        for word in [now, member, what_hash, value] {
            self.hash = mix(self.hash ^ word).wrapping_add(word);
        }
        if self.printed {
            println!("{now:5} member {member:x}: {what} {value}");
        }
    }

    /// For a person only.
    pub(crate) fn show(&self, now: u64, what: &dyn std::fmt::Debug) {
        if self.printed {
            println!("{now:5} {what:?}");
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
