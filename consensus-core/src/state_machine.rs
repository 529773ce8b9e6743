//! What a user brings.

use std::path::{Path, PathBuf};

use consensus_disk::DiskError;
use consensus_raft::proposal::Request;
use consensus_rocks::Slice;

/// A state machine that cannot go on. The member stops.
pub type StateMachineError = Box<dyn std::error::Error + Send + Sync>;

/// Work for another thread, while the state machine goes on. Gives an index of the log.
pub type Job = Box<dyn FnOnce() -> Result<u64, StateMachineError> + Send>;

/// Applies committed requests in order. The same requests give the same state on every member: no clock, no randomness,
/// nothing that differs between machines.
pub trait StateMachine: Send + 'static {
    /// What whoever proposed a request gets.
    type Response: Send + 'static;

    /// Index of the last entry whose requests are in the state, as it is after a crash; 0: none. What comes after it is applied
    /// again.
    fn applied(&self) -> u64;

    /// Applies requests; stores `index` with their effects, all or nothing. One response for each request.
    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<Self::Response>, StateMachineError>;

    /// Has what is applied now survive a crash. Gives the index up to which the state does: the log may forget entries up to
    /// there.
    fn save(&mut self) -> Job;

    /// Writes a consistent copy of the state as files into `folder`, which is not there yet, on the file system of
    /// [`NodeConfig::snapshot_dir`](crate::NodeConfig::snapshot_dir). Gives the index of the last entry that is in the copy.
    fn copy(&mut self, folder: PathBuf) -> Job;

    /// Replaces the state by a copy, made by another member, whose files it may take. When it returns, the new state survives a
    /// crash.
    fn restore(&mut self, folder: &Path) -> Result<(), StateMachineError>;

    /// What reads the state beside it, to find what has rotted. `None`: nothing of it is stored.
    fn scrubbed(&self) -> Option<Box<dyn Scrubbed>> {
        None
    }
}

/// Something stored that is read from its beginning to its end, a slice at a time.
pub trait Scrubbed: Send {
    /// Reads the next slice, of about so many bytes, and checks it. After the last one it begins anew.
    fn read_slice(&mut self, bytes_max: usize) -> Result<Slice, ScrubError>;
}

/// What came out of reading something stored.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ScrubError {
    /// What was written is lost, as opposed to a disk that cannot be read now.
    pub is_damage: bool,
    /// What was found.
    pub source: StateMachineError,
}

impl From<DiskError> for ScrubError {
    fn from(error: DiskError) -> Self {
        Self { is_damage: error.is_damage(), source: error.into() }
    }
}
