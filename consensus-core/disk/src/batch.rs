//! Changes that are written together.

use crate::Space;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    /// Sets a key.
    Put { space: Space, key: Vec<u8>, value: Vec<u8> },
    /// Removes a key if it is there.
    Delete { space: Space, key: Vec<u8> },
    /// Removes the keys with `from <= key < to`.
    DeleteRange { space: Space, from: Vec<u8>, to: Vec<u8> },
}

/// Changes that are written together, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put { space, key: key.into(), value: value.into() });
    }

    /// Removes a key if it is there.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete { space, key: key.into() });
    }

    /// Removes the keys with `from <= key < to`.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.ops.push(Op::DeleteRange { space, from: from.into(), to: to.into() });
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The changes in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The changes in order.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }
}
