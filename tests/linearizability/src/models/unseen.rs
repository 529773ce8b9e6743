//! Writes of which nothing was ever seen.
//!
//! A write without an answer whose value appears nowhere else has probably not happened; if it has, nobody can tell its value
//! from that of another such write. With one value for all of them they are equal, and the search tries one instead of all.
//! The verdict stays the same.

use std::{collections::HashMap, hash::Hash};

use crate::{EtcdKeyInput as Input, EtcdKeyOutput as Output, Operation};

/// Gives all writes without an answer whose value appears once in the history the value `stand_in`, which may appear nowhere
/// in it. How many that were.
pub fn merge_unseen_writes<K, V: Clone + Eq + Hash>(
    operations: &mut [Operation<K, Input<V>, Output<V>>],
    stand_in: &V,
) -> usize {
    let mut appearances: HashMap<V, usize> = HashMap::new();
    let mut count = |value: &V| match appearances.get_mut(value) {
        Some(count) => *count += 1,
        None => drop(appearances.insert(value.clone(), 1)),
    };
    for operation in &*operations {
        match &operation.input {
            Input::Put(value) => count(value),
            Input::Cas { expected, new } => expected.iter().chain([new]).for_each(&mut count),
            Input::Get | Input::Delete => {}
        }
        if let Some(Output::Got(Some((value, _)))) = operation.answer.as_ref().map(|answer| &answer.output) {
            count(value);
        }
    }
    assert!(!appearances.contains_key(stand_in), "the value of unseen writes is seen");
    let mut merged = 0;
    for operation in operations.iter_mut().filter(|operation| operation.answer.is_none()) {
        if let Input::Put(value) | Input::Cas { new: value, .. } = &mut operation.input
            && appearances[value] == 1
        {
            *value = stand_in.clone();
            merged += 1;
        }
    }
    merged
}
