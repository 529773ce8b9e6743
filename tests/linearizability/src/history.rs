//! What clients did and saw.
//!
//! Owns operations and putting them together from calls and returns. Knows nothing of what they mean.

/// An operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<K, I, O> {
    /// Who asked; for the reader of a violation only.
    pub client: u64,
    /// Operations on different keys do not affect each other.
    pub key: K,
    /// What was asked.
    pub input: I,
    /// When it was asked. The unit is the caller's: only the order counts.
    pub call: u64,
    /// What came back; `None` if nothing did. Then it may take effect at any time after its call, or never.
    pub answer: Option<Answer<O>>,
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<O> {
    /// When it came; not before the call.
    pub at: u64,
    /// What it was.
    pub output: O,
}

/// Names an operation of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(usize);

/// Operations that are still going on or over.
#[derive(Clone, Debug)]
pub struct History<K, I, O> {
    operations: Vec<Operation<K, I, O>>,
}

impl<K, I, O> Default for History<K, I, O> {
    fn default() -> Self {
        Self { operations: Vec::new() }
    }
}

impl<K, I, O> History<K, I, O> {
    /// A client asks for something.
    pub fn call(&mut self, client: u64, key: K, input: I, now: u64) -> OperationId {
        self.operations.push(Operation { client, key, input, call: now, answer: None });
        OperationId(self.operations.len() - 1)
    }

    /// It has its answer. An operation that never gets here has an unknown outcome.
    pub fn returned(&mut self, id: OperationId, output: O, now: u64) {
        let operation = &mut self.operations[id.0];
        assert!(operation.answer.is_none(), "an operation returns once");
        operation.answer = Some(Answer { at: now, output });
    }

    /// Adds what another recorded. Times must be of one clock.
    pub fn extend(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// All operations, in the order of their calls as far as one recorder saw them.
    pub fn operations(&self) -> &[Operation<K, I, O>] {
        &self.operations
    }

    /// The operations themselves, to be altered.
    pub fn into_operations(self) -> Vec<Operation<K, I, O>> {
        self.operations
    }
}
