//! What sequential objects answer.

pub(crate) mod etcd_key;
pub(crate) mod register;
pub(crate) mod text;
pub(crate) mod unseen;

use std::{fmt::Debug, hash::Hash};

/// A deterministic sequential object: one key of whatever is tested.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash + Debug;
    /// What it is asked.
    type Input: PartialEq;
    /// What it answers.
    type Output;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after an operation that answered this; `None` if it cannot have answered this here.
    ///
    /// No output means that nobody saw the answer: every answer is possible, so there always is a next state.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}
