//! What the completion queue says of a work request.

use super::{CompletionStatus, abi};

/// A work request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// This one was sent and is acknowledged, and so are all before it.
    Sent(u64),
    /// A message of this length came into the part of this receive request.
    Received { request: u64, len: usize },
    /// The peer has written this many bytes into the window; the receive request is used up.
    Written { request: u64, len: usize },
    /// The queue pair has failed.
    Failed(CompletionStatus),
}

impl From<&abi::WorkCompletion> for Completion {
    fn from(raw: &abi::WorkCompletion) -> Self {
        if raw.status != abi::WC_SUCCESS {
            return Completion::Failed(CompletionStatus(raw.status));
        }
        match raw.opcode {
            abi::WC_RECV => Completion::Received { request: raw.wr_id, len: raw.byte_len as usize },
            abi::WC_RECV_RDMA_WITH_IMM => {
                Completion::Written { request: raw.wr_id, len: u32::from_be(raw.imm_data) as usize }
            }
            _ => Completion::Sent(raw.wr_id),
        }
    }
}
