//! One key of a store that speaks the etcd v3 API.
//!
//! A write gets a revision above all earlier ones of the store. Other keys take revisions too, so a key sees them grow but
//! not by how much; of a write whose answer nobody saw, the revision shows in the next get.

use std::{fmt::Debug, hash::Hash, marker::PhantomData};

use super::Model;

/// A key that does not exist at first.
#[derive(Clone, Copy, Debug)]
pub struct EtcdKey<V>(PhantomData<V>);

impl<V> Default for EtcdKey<V> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// What a key is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdKeyInput<V> {
    /// A linearizable range of this key.
    Get,
    /// A put.
    Put(V),
    /// A delete of this key.
    Delete,
    /// A transaction: if the value is `expected` (`None`: if there is no such key), put `new`.
    Cas {
        /// What it has to be.
        expected: Option<V>,
        /// What it becomes.
        new: V,
    },
}

/// What a key answers. Revisions are those of the answer's header, `None` if they were not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdKeyOutput<V> {
    /// To a get: the value and its `mod_revision`, or that there is none.
    Got(Option<(V, u64)>),
    /// To a put.
    Put {
        /// The write's own.
        revision: Option<u64>,
    },
    /// To a delete.
    Deleted {
        /// Whether there was anything to delete.
        existed: bool,
        /// The deletion's own, if there was.
        revision: Option<u64>,
    },
    /// To a compare-and-swap.
    Swapped {
        /// Whether it was put.
        succeeded: bool,
        /// The write's own, if it was.
        revision: Option<u64>,
    },
}

/// What is known of the revision of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// This one.
    Is(u64),
    /// Above this one.
    Above(u64),
}

impl Revision {
    /// After a change that had this revision; `None` if that is too low.
    fn change(self, seen: Option<u64>) -> Option<Self> {
        let (Self::Is(least) | Self::Above(least)) = self;
        match seen {
            None => Some(Self::Above(least)),
            Some(revision) => (revision > least).then_some(Self::Is(revision)),
        }
    }

    /// After it was seen.
    fn seen(self, revision: u64) -> Option<Self> {
        let possible = match self {
            Self::Is(known) => revision == known,
            Self::Above(least) => revision > least,
        };
        possible.then_some(Self::Is(revision))
    }
}

/// What a key remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EtcdKeyState<V> {
    /// Its value, if it exists.
    pub value: Option<V>,
    /// Of the last put or deletion.
    pub revision: Revision,
}

impl<V: Clone + Eq + Hash + Debug> Model for EtcdKey<V> {
    type State = EtcdKeyState<V>;
    type Input = EtcdKeyInput<V>;
    type Output = EtcdKeyOutput<V>;

    fn initial(&self) -> Self::State {
        EtcdKeyState { value: None, revision: Revision::Is(0) }
    }

    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State> {
        use {EtcdKeyInput as Input, EtcdKeyOutput as Output};
        let changed = |value: Option<&V>, seen: Option<u64>| {
            Some(EtcdKeyState { value: value.cloned(), revision: state.revision.change(seen)? })
        };
        let existed = state.value.is_some();
        let unchanged = || Some(state.clone());
        match (input, output) {
            (Input::Get, None) => unchanged(),
            (Input::Get, Some(Output::Got(None))) if !existed => unchanged(),
            (Input::Get, Some(Output::Got(Some((value, revision)))))
                if state.value.as_ref() == Some(value) =>
            {
                Some(EtcdKeyState { value: Some(value.clone()), revision: state.revision.seen(*revision)? })
            }
            (Input::Put(value), None) => changed(Some(value), None),
            (Input::Put(value), Some(Output::Put { revision })) => changed(Some(value), *revision),
            (Input::Delete, None) if existed => changed(None, None),
            (Input::Delete, None) => unchanged(),
            (Input::Delete, Some(Output::Deleted { existed: true, revision })) if existed => {
                changed(None, *revision)
            }
            (Input::Delete, Some(Output::Deleted { existed: false, .. })) if !existed => unchanged(),
            (Input::Cas { expected, new }, _) => {
                let succeeds = state.value == *expected;
                match output {
                    None if succeeds => changed(Some(new), None),
                    None => unchanged(),
                    Some(Output::Swapped { succeeded: true, revision }) if succeeds => {
                        changed(Some(new), *revision)
                    }
                    Some(Output::Swapped { succeeded: false, .. }) if !succeeds => unchanged(),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Key = EtcdKey<char>;

    /// The states that these operations lead through; `None` where one is impossible.
    fn run(operations: &[(EtcdKeyInput<char>, Option<EtcdKeyOutput<char>>)]) -> Option<EtcdKeyState<char>> {
        let model = Key::default();
        operations
            .iter()
            .try_fold(model.initial(), |state, (input, output)| model.step(&state, input, output.as_ref()))
    }

    #[test]
    fn revisions_grow_and_are_seen_again() {
        use {EtcdKeyInput::*, EtcdKeyOutput as Out};
        let put = |value, revision| (Put(value), Some(Out::Put { revision: Some(revision) }));
        let got = |value, revision| (Get, Some(Out::Got(Some((value, revision)))));
        assert!(run(&[put('a', 5), got('a', 5), put('b', 6), got('b', 6)]).is_some());
        assert!(run(&[put('a', 5), put('b', 5)]).is_none(), "two writes with one revision");
        assert!(run(&[put('a', 5), got('a', 6)]).is_none(), "a get with another revision than the put");
        // Nobody saw the second put's revision: the first get that shows it decides.
        assert!(run(&[put('a', 5), (Put('b'), None), got('b', 9), got('b', 9)]).is_some());
        assert!(run(&[put('a', 5), (Put('b'), None), got('b', 9), got('b', 8)]).is_none());
        assert!(run(&[put('a', 5), (Put('b'), None), got('b', 5)]).is_none());
        assert!(run(&[put('a', 5), (Put('b'), None), put('c', 5)]).is_none());
    }

    #[test]
    fn deletes_and_swaps_say_whether_they_did_anything() {
        use {EtcdKeyInput::*, EtcdKeyOutput as Out};
        let delete = |existed, revision| (Delete, Some(Out::Deleted { existed, revision: Some(revision) }));
        let swap = |expected, new, succeeded, revision| {
            (Cas { expected, new }, Some(Out::Swapped { succeeded, revision: Some(revision) }))
        };
        let absent = (Get, Some(Out::Got(None)));
        // What does not change anything has the store's revision, which may be any.
        assert!(
            run(&[delete(false, 1), absent.clone(), swap(None, 'a', true, 2), delete(true, 3)]).is_some()
        );
        assert!(run(&[swap(None, 'a', true, 2), swap(Some('b'), 'c', false, 2), delete(true, 3)]).is_some());
        assert!(run(&[swap(None, 'a', true, 2), absent.clone()]).is_none());
        assert!(run(&[delete(true, 2)]).is_none());
        assert!(run(&[swap(Some('a'), 'b', true, 2)]).is_none());
        assert!(run(&[swap(None, 'a', false, 2)]).is_none());
        assert!(run(&[swap(None, 'a', true, 2), delete(true, 2)]).is_none(), "its revision is not new");
        // An answer to another question.
        assert!(run(&[(Get, Some(Out::Put { revision: None }))]).is_none());
    }
}
