//! A register: read, write, compare-and-swap.

use std::{fmt::Debug, hash::Hash, marker::PhantomData};

use super::Model;

/// A register that holds nothing at first.
#[derive(Clone, Copy, Debug)]
pub struct Register<V>(PhantomData<V>);

impl<V> Default for Register<V> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// What a register is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterInput<V> {
    /// What does it hold?
    Read,
    /// Hold this.
    Write(V),
    /// Hold `new` if it holds `expected`.
    Cas {
        /// What it has to hold.
        expected: V,
        /// What it holds then.
        new: V,
    },
}

/// What a register answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOutput<V> {
    /// To a read.
    Value(Option<V>),
    /// To a write.
    Written,
    /// To a compare-and-swap: whether it held what was expected.
    Swapped(bool),
}

impl<V: Clone + Eq + Hash + Debug> Model for Register<V> {
    type State = Option<V>;
    type Input = RegisterInput<V>;
    type Output = RegisterOutput<V>;

    fn initial(&self) -> Option<V> {
        None
    }

    fn step(
        &self,
        state: &Option<V>,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Option<V>> {
        let (next, answer) = match input {
            RegisterInput::Read => (state.clone(), RegisterOutput::Value(state.clone())),
            RegisterInput::Write(value) => (Some(value.clone()), RegisterOutput::Written),
            RegisterInput::Cas { expected, new } if state.as_ref() == Some(expected) => {
                (Some(new.clone()), RegisterOutput::Swapped(true))
            }
            RegisterInput::Cas { .. } => (state.clone(), RegisterOutput::Swapped(false)),
        };
        output.is_none_or(|output| *output == answer).then_some(next)
    }
}
