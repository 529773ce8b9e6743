//! A replicated state machine for services to embed.
//!
//! A [`Node`] is one member of a Raft group. It stores its log on RocksDB, talks DWCP to its peers, and applies what is
//! committed to a [`StateMachine`] of the user's. The Raft core is `consensus-raft`, which knows no I/O; this crate gives it
//! threads, a disk and a network:
//!
//! - the *raft* thread owns the member and writes its log; everything comes to it through one bounded queue;
//! - the *apply* thread owns the state machine;
//! - the *snapshot* thread saves and copies the state beside it;
//! - the *scrub* thread reads what is stored, slowly, to find what has rotted;
//! - messages go from the raft thread to the sockets without a task in between, as far as there is room; tasks connect, receive,
//!   and send what had to wait, which is bounded. A peer that does not keep up loses messages, which Raft repeats.
//!
//! # What is guaranteed
//!
//! - An answer to [`Node::propose`] means that a majority has the request on disk, synced, and this member has applied it.
//! - An error of [`Node::propose`] other than [`ProposeError::NoLeader`] and [`ProposeError::Busy`] leaves open whether the
//!   request will be applied.
//! - After [`Node::read_index`], the state machine of this member has everything that was acknowledged, by whichever member,
//!   before the call.
//!
//! Deliberately not here: gRPC, configuration files, signals, what requests mean.

mod apply;
mod clock;
mod config;
mod engine;
mod error;
mod host;
mod inbox;
mod lease;
mod links;
mod metrics;
mod node;
mod peers;
mod readers;
mod regions;
mod scrub;
#[doc(hidden)]
pub mod sim;
mod snapshot;
mod state_machine;

pub use config::{NodeConfig, Reads, Scrub, Snapshots, Start, Timing};
pub use consensus_raft::{
    BOOTSTRAP_INDEX, MemberChange, MemberInfo, Membership, Role, Status, limits::REQUEST_BYTES_MAX,
    proposal::Request,
};
pub use dwcp_core::{ConfigError, TlsConfig};
pub use error::{ProposeError, StartError};
pub use metrics::describe as describe_metrics;
pub use node::{Node, PeerQuestion, log_owner, prepare};
pub use peers::{FoundCluster, find_cluster};
pub use regions::{RegionNetwork, RegionNetworkConfig};
pub use scrub::Damage;
pub use snapshot::StateCopy;
pub use state_machine::{Job, ScrubError, Scrubbed, StateMachine, StateMachineError};
