//! The loads: which there are, and the sizes that they share.
//!
//! Each has a cluster of its own in each round, so that none meets what another has left.

mod crash;
mod join;
mod memory;
mod planned;
mod steady;
mod watch;

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    crash::CASES as CRASH_CASES, planned::CASE as PLANNED_CASE, steady::case as steady_case,
    watch::case as watch_case,
};
use crate::{
    clients::Operation,
    contender::{Contender, Kind},
    figure::Figure,
};

/// One of them. The order is that of the document.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Load {
    /// Puts.
    Put,
    /// Memory after many puts.
    Memory,
    /// Linearizable and serializable reads.
    Read,
    /// Four reads for each put.
    Mixed,
    /// Compare and swap.
    Txn,
    /// Many watchers of one key.
    Watch,
    /// `kill -9` of the leader.
    Crash,
    /// SIGTERM to the leader.
    Planned,
    /// A new member takes over a large state.
    Join,
}

/// How much of everything.
pub(crate) struct Sizes {
    /// Where data is, on the disk that is measured.
    pub(crate) folder: PathBuf,
    /// Of each measurement.
    pub(crate) time: Duration,
    /// Before each of them.
    pub(crate) rest: Duration,
    /// Clients at a time that put.
    pub(crate) clients: Vec<usize>,
    /// Clients at a time of the other loads.
    pub(crate) readers: usize,
    pub(crate) watchers: usize,
    /// Before memory is looked at.
    pub(crate) puts: u64,
    /// How often the leader of a cluster is ended.
    pub(crate) ends: usize,
    /// What a new member takes over.
    pub(crate) state_bytes: u64,
}

/// One line of a table in the making.
pub(crate) struct Case {
    pub(crate) name: String,
    /// One value or more of each.
    pub(crate) figures: Vec<(Figure, Vec<f64>)>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for (figure, values) in &self.figures {
            for (heading, summary, digits) in figure.columns() {
                let value = summary(values).unwrap_or(f64::NAN);
                write!(f, ", {heading} {value:.digits$}")?;
            }
        }
        Ok(())
    }
}

impl Load {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Memory => "memory of a member",
            Self::Read => "read",
            Self::Mixed => "mixed, 4 linearizable reads for each put",
            Self::Txn => "compare and swap",
            Self::Watch => "watchers of one key",
            Self::Crash => "kill -9 of the leader until the first accepted write",
            Self::Planned => "SIGTERM to the leader, longest time without an accepted write",
            Self::Join => "a new member takes over the state",
        }
    }

    /// What differs between kinds of ours is how they read, which is all that answers alone can stand for, too.
    pub(crate) fn takes(self, kind: Kind) -> bool {
        self == Self::Read || matches!(kind, Kind::Novacron | Kind::Etcd)
    }

    /// Once, on a new cluster.
    pub(crate) async fn measure(self, sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
        let readers = |operation| [(operation, sizes.readers)];
        match self {
            Self::Put => {
                let puts: Vec<_> = sizes.clients.iter().map(|count| (Operation::Put, *count)).collect();
                steady::measure(sizes, contender, &puts).await
            }
            Self::Read => {
                let both = [Operation::LinearizableRead, Operation::SerializableRead];
                steady::measure(sizes, contender, &both.map(|operation| (operation, sizes.readers))).await
            }
            Self::Memory => memory::measure(sizes, contender).await,
            Self::Mixed => steady::measure(sizes, contender, &readers(Operation::Mixed)).await,
            Self::Txn => steady::measure(sizes, contender, &readers(Operation::Swap)).await,
            Self::Watch => watch::measure(sizes, contender).await,
            Self::Crash => crash::measure(sizes, contender).await,
            Self::Planned => planned::measure(sizes, contender).await,
            Self::Join => join::measure(sizes, contender).await,
        }
    }
}
