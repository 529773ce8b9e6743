//! Where the search has been.
//!
//! A configuration is which operations have their moment, and the state they lead to (Lowe 2017). Owns sets of operations
//! and the memory of configurations. What is remembered is bounded by the steps of the search.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// A set of operations.
pub(crate) struct Set {
    words: Vec<u64>,
}

impl Set {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { words: vec![0; capacity.div_ceil(64)] }
    }

    pub(crate) fn insert(&mut self, member: usize) {
        self.words[member / 64] |= 1 << (member % 64);
    }

    pub(crate) fn remove(&mut self, member: usize) {
        self.words[member / 64] &= !(1 << (member % 64));
    }

    pub(crate) fn contains(&self, member: usize) -> bool {
        self.words[member / 64] & (1 << (member % 64)) != 0
    }

    /// The set with its full words at the start and empty words at the end left out.
    fn snapshot(&self) -> Snapshot {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let end = self.words.iter().rposition(|word| *word != 0).map_or(full, |last| last + 1).max(full);
        Snapshot { full, words: self.words[full..end].into() }
    }
}

/// A set as it was. Operations get their moments nearly in the order of their calls, so little is left of a long history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Snapshot {
    full: usize,
    words: Box<[u64]>,
}

impl Snapshot {
    fn word(&self, at: usize) -> u64 {
        if at < self.full { u64::MAX } else { self.words.get(at - self.full).copied().unwrap_or(0) }
    }

    fn is_subset_of(&self, other: &Self) -> bool {
        let end = self.full + self.words.len();
        (0..end).all(|at| self.word(at) & !other.word(at) == 0)
    }
}

/// The configurations that the search has been in.
pub(crate) struct Visited<S> {
    /// For the operations with an answer that have their moment, and a state: which of those without an answer were used to
    /// get there.
    seen: HashMap<(Snapshot, S), Vec<Snapshot>>,
}

impl<S: Clone + Eq + Hash> Visited<S> {
    pub(crate) fn new() -> Self {
        Self { seen: HashMap::new() }
    }

    /// False if the search has been here, or here with more left to use: it would find nothing new.
    pub(crate) fn is_new(&mut self, done: &Set, used: &Set, state: &S) -> bool {
        let used = used.snapshot();
        match self.seen.entry((done.snapshot(), state.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(vec![used]);
                true
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                if known.iter().any(|less| less.is_subset_of(&used)) {
                    return false;
                }
                known.retain(|more| !used.is_subset_of(more));
                known.push(used);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: impl IntoIterator<Item = usize>) -> Set {
        let mut set = Set::new(200);
        members.into_iter().for_each(|member| set.insert(member));
        set
    }

    #[test]
    fn a_configuration_with_less_to_use_is_not_new() {
        let mut visited = Visited::new();
        let done = set(0..130);
        assert!(visited.is_new(&done, &set([1, 150]), &'a'));
        assert!(!visited.is_new(&done, &set([1, 150]), &'a'));
        assert!(!visited.is_new(&done, &set([1, 2, 150]), &'a'));
        assert!(visited.is_new(&done, &set([150]), &'a'));
        assert!(!visited.is_new(&done, &set([1, 150, 199]), &'a'));
        assert!(visited.is_new(&done, &set([1]), &'a'));
        assert!(visited.is_new(&done, &set([1, 150]), &'b'));
        assert!(visited.is_new(&set(0..131), &set([1, 150]), &'a'));
        assert!(visited.is_new(&set((0..130).chain([180])), &set([1, 150]), &'a'));
    }

    #[test]
    fn sets_are_compared_as_sets() {
        let snapshot = |members: &[usize]| set(members.iter().copied()).snapshot();
        let full: Vec<_> = (0..128).collect();
        assert_eq!(set(full.clone()).snapshot().words.len(), 0);
        assert!(snapshot(&[]).is_subset_of(&snapshot(&[])));
        assert!(snapshot(&[5, 127]).is_subset_of(&snapshot(&full)));
        assert!(!snapshot(&full).is_subset_of(&snapshot(&full[1..])));
        assert!(!snapshot(&[5, 199]).is_subset_of(&snapshot(&full)));
        let mut all = set(0..200);
        assert!(all.contains(64));
        all.remove(64);
        assert!(!all.contains(64) && all.contains(65));
    }
}
