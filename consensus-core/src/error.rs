//! What can go wrong with a node.

use std::{io, path::Path};

use consensus_disk::DiskError;
use consensus_raft::OpenError;

use crate::StateMachineError;

/// A node that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its log cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot listen for its peers.
    #[error("listening for peers: {0}")]
    Listen(#[from] dwcp_core::BindError),
    /// It cannot connect to its peers.
    #[error("connecting to peers: {0}")]
    Connect(#[from] dwcp_core::ConfigError),
    /// No thread could be started.
    #[error("starting a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The log is of another cluster or member.
    #[error(
        "the log in {folder} is of member {found_member:x} of cluster {found_cluster:x}, not of member {member:x} of cluster {cluster:x}"
    )]
    OtherMember {
        /// The folder.
        folder: String,
        /// Whose log it is.
        found_cluster: u64,
        /// Whose log it is.
        found_member: u64,
        /// Who was to be started.
        cluster: u64,
        /// Who was to be started.
        member: u64,
    },
    /// The log begins after what the state machine has.
    #[error(
        "the log begins after entry {begin}, and the state has only what is up to entry {applied}: part of this member's data is lost; remove the member and add it as a new one"
    )]
    StateBehindLog {
        /// Everything up to it is in snapshots only.
        begin: u64,
        /// What the state machine has.
        applied: u64,
    },
    /// The state machine cannot take a snapshot over that was fetched before the last stop.
    #[error("restoring a snapshot: {0}")]
    Restore(StateMachineError),
    /// A folder cannot be used.
    #[error("the folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no log, and no members to begin one with.
    #[error("the folder {folder} has no log, and no first members were given to begin one with")]
    NoLog {
        /// The folder.
        folder: String,
    },
}

impl StartError {
    /// Whether this member's data is lost, so that it can only come back as a new member.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_damage(),
            Self::Open(error) => error.is_damage(),
            Self::StateBehindLog { .. } => true,
            _ => false,
        }
    }

    /// A folder that cannot be used.
    pub(crate) fn folder(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let folder = path.display().to_string();
        move |source| Self::Folder { folder, source }
    }
}

/// A request or a read that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// No leader is known, and there is no room to wait for one. The request was not applied and will not be.
    #[error("there is no leader")]
    NoLeader,
    /// Too many requests are on their way. It was not taken.
    #[error("too many requests are on their way")]
    Busy,
    /// It is longer than a request may be. It was not taken.
    #[error("a request of {bytes} bytes is more than {max}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// Another change of the membership is under way. It was not taken.
    #[error("another change of the membership is under way")]
    ChangePending,
    /// A change of the membership that no longer makes sense. It was not done.
    #[error("this change of the membership makes no sense any more")]
    ChangeRefused,
    /// The leader that it went to is none any more, and it did not come back with the next one's log; or the way there has ended.
    /// It may be applied yet.
    #[error("the leader that had it is gone")]
    LeaderGone,
    /// No answer in time; it may be applied yet.
    #[error("no answer in time")]
    Timeout,
    /// The node has stopped; it may be applied yet.
    #[error("the node has stopped")]
    Stopped,
}

impl From<consensus_raft::ProposeError> for ProposeError {
    fn from(error: consensus_raft::ProposeError) -> Self {
        match error {
            consensus_raft::ProposeError::Busy => Self::Busy,
            consensus_raft::ProposeError::ChangePending => Self::ChangePending,
            _ => Self::NoLeader,
        }
    }
}
