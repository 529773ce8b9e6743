//! What a node is told when it starts.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use consensus_raft::{MemberInfo, Membership};

/// Settings of a [`Node`](crate::Node).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Which cluster; members of different clusters refuse each other.
    pub cluster: u64,
    /// This member's id, not 0.
    pub id: u64,
    /// Where its log is.
    pub log_dir: PathBuf,
    /// Where it listens for its peers.
    pub listen: SocketAddr,
    /// How it begins; used only if `log_dir` is new.
    pub start: Start,
    /// Where copies of the state are, on their way to and from other members. On the file system of the state machine's
    /// data, which then shares files with copies of it.
    pub snapshot_dir: PathBuf,
    /// When the log gets shorter.
    pub snapshots: Snapshots,
    /// The last resort when a majority is gone for ever: this member goes on alone, with what it knows to be committed. What
    /// only the others had is lost, and none of them may run any more.
    pub force_new_cluster: bool,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// A leader hands leadership over to a voter of higher priority that has all of the log, after a while.
    pub priority: u32,
    /// How it answers linearizable reads while it leads.
    pub reads: Reads,
    /// TLS to peers, or `None`: plaintext.
    pub tls: Option<Arc<dwcp_core::TlsConfig>>,
    /// Allows plaintext on other addresses than loopback.
    pub allow_plaintext: bool,
    /// Entries of one message to a peer at most, whatever else bounds them.
    pub entries_per_message_max: usize,
    /// False: writes of the log are not synced, and a power cut loses what was acknowledged.
    pub sync_writes: bool,
    /// When everything that is stored is read, to find what has rotted.
    pub scrub: Scrub,
}

/// When everything that is stored is read, to find what has rotted. The first time is right after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// From the end of one time to the next.
    pub interval: Duration,
    /// Bytes a second that are read at most.
    pub bytes_per_second: u64,
}

impl Default for Scrub {
    /// Once a day; slowly enough that nothing else feels it.
    fn default() -> Self {
        Self { interval: Duration::from_secs(24 * 3600), bytes_per_second: 16 << 20 }
    }
}

/// How a member without a log begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// Not at all: the log must be there.
    Never,
    /// As one of the first members of a new cluster; the same on all of them.
    Bootstrap(Membership),
    /// As a new member of a cluster that has added it; these are the members, by id, as [`find_cluster`](crate::find_cluster)
    /// gives them.
    Join(BTreeMap<u64, MemberInfo>),
}

/// When the state is saved, so that the log can get shorter, and how copies of it travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// After this many entries. Half as many stay in the log for members that are a little behind.
    pub entries: u64,
    /// Or after this long, whichever comes first.
    pub interval: Duration,
    /// Bytes a second that a copy is sent with at most.
    pub bytes_per_second: Option<u64>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { entries: 10_000, interval: Duration::from_secs(3600), bytes_per_second: None }
    }
}

/// Heartbeats and elections. The same on all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Without a heartbeat, a follower campaigns after this to twice this.
    pub election_timeout: Duration,
}

/// How a leader answers linearizable reads. Members may differ; what a voter has to do for it, all of them do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// After a round to a quorum, that confirms that it still leads.
    #[default]
    Confirmed,
    /// From a lease of nine tenths of the election timeout, without a round, as long as rounds renew it. Rests on clocks: none may
    /// gain a ninth on another, and none may stand still, as that of a virtual machine can that is paused or moved. The
    /// election timeout must be the same on all members, and must not become shorter while any of them reads so.
    Lease,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(100), election_timeout: Duration::from_secs(1) }
    }
}

impl NodeConfig {
    /// A member of a cluster, with its log in a folder, and snapshots beside it.
    pub fn new(cluster: u64, id: u64, log_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            cluster,
            id,
            snapshot_dir: log_dir.with_file_name("snapshots"),
            log_dir,
            listen,
            start: Start::Never,
            snapshots: Snapshots::default(),
            force_new_cluster: false,
            timing: Timing::default(),
            priority: 0,
            reads: Reads::default(),
            tls: None,
            allow_plaintext: false,
            entries_per_message_max: 1000,
            sync_writes: true,
            scrub: Scrub::default(),
        }
    }
}
