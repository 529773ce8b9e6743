//! What a check comes to, and why.

use std::fmt::{self, Debug, Display};

use crate::Operation;

/// Operations of the linearizable prefix that an explanation shows.
const PREFIX_SHOWN_MAX: usize = 12;

/// What a check comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<K> {
    /// There is an order that explains every answer.
    Linearizable,
    /// For one key there is none.
    Violation(Violation<K>),
    /// The limit was reached at this key before either was certain; no other key is violated.
    Unknown {
        /// The first such key.
        key: K,
    },
}

/// Why a history is not linearizable: how far one can get, and what cannot come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<K> {
    /// Where.
    pub key: K,
    /// The longest order of operations that explains their answers, as indices into the checked operations.
    pub prefix: Vec<usize>,
    /// The operations of which one would have to come next, as indices. Each of them was called before the first of them
    /// returned, and none can have its answer here.
    pub stuck: Vec<usize>,
    /// The object's state after the prefix.
    pub state: String,
}

impl<K> Violation<K> {
    /// The end of the prefix and what is stuck, a line each, for a person to read.
    pub fn explain<'a, I: Debug, O: Debug>(
        &'a self,
        operations: &'a [Operation<K, I, O>],
    ) -> impl Display + 'a
    where
        K: Debug,
    {
        fmt::from_fn(move |f| {
            let skipped = self.prefix.len().saturating_sub(PREFIX_SHOWN_MAX);
            writeln!(
                f,
                "key {:?}: no order explains the answers. The longest that does, without its first {skipped}:",
                self.key
            )?;
            for index in &self.prefix[skipped..] {
                writeln!(f, "    {}", line(&operations[*index]))?;
            }
            writeln!(f, "then it is {}, and none of these can come next:", self.state)?;
            self.stuck.iter().try_for_each(|index| writeln!(f, "    {}", line(&operations[*index])))
        })
    }
}

fn line<K, I: Debug, O: Debug>(operation: &Operation<K, I, O>) -> impl Display {
    fmt::from_fn(move |f| {
        write!(f, "client {} {:?} at {}", operation.client, operation.input, operation.call)?;
        match &operation.answer {
            Some(answer) => write!(f, ", {:?} at {}", answer.output, answer.at),
            None => f.write_str(", no answer"),
        }
    })
}
