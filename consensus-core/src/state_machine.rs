//! What a user brings.

use consensus_raft::proposal::Request;

/// A state machine that cannot go on. The member stops.
pub type StateMachineError = Box<dyn std::error::Error + Send + Sync>;

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
}
