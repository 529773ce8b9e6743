//! The `consensus_*` metrics of a member, through the `metrics` facade: whoever embeds a node chooses the exporter.
//!
//! Handles are taken once, when a node starts: a lookup by name at each request would cost more than what is measured. So the
//! exporter has to be there before the node, and must not forget what is idle.

use std::time::{Duration, Instant};

use consensus_disk::Durability;
use consensus_raft::{Membership, Role, Status};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tokio::{sync::watch, time::MissedTickBehavior};

/// How often gauges are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the recorder what the metrics mean, and makes those appear that count from zero. To be called once there is a
/// recorder.
pub fn describe() {
    describe_histogram!(
        "consensus_commit_duration_seconds",
        "From a request of this member to its answer: committed and applied."
    );
    describe_histogram!(
        "consensus_apply_duration_seconds",
        "For the state machine to apply what came together."
    );
    describe_histogram!("consensus_fsync_duration_seconds", "For a write of the log with its sync.");
    describe_gauge!("consensus_leader_id", "Id of the leader that this member knows; 0: none.");
    describe_gauge!("consensus_term", "The current term.");
    describe_gauge!("consensus_is_leader", "1 if this member leads.");
    describe_gauge!("consensus_quorum_size", "Voters that make a majority.");
    describe_gauge!("consensus_members", "Members, learners included.");
    describe_gauge!("consensus_log_last_index", "Index of the last entry of this member's log.");
    describe_gauge!("consensus_log_commit_index", "Index up to which entries are committed.");
    describe_gauge!("consensus_applied_index", "Index up to which this member has applied them.");
    describe_gauge!("consensus_proposals_pending", "Requests of this member that are not answered yet.");
    describe_counter!("consensus_leader_changes_total", "Leaders that this member has seen come.");
    describe_counter!(
        "consensus_hinted_elections_total",
        "Elections that this member began because the leader's links were reset, before the election timeout."
    );
    describe_counter!(
        "consensus_snapshot_total",
        "Times that this member has saved its state, so that its log can get shorter."
    );
    for name in
        ["consensus_leader_changes_total", "consensus_hinted_elections_total", "consensus_snapshot_total"]
    {
        counter!(name).increment(0);
    }
    crate::scrub::describe();
}

/// What the threads of a member record.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    commit: Histogram,
    apply: Histogram,
    fsync: Histogram,
    leader_changes: Counter,
    hinted_elections: Counter,
    snapshots: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            commit: histogram!("consensus_commit_duration_seconds"),
            apply: histogram!("consensus_apply_duration_seconds"),
            fsync: histogram!("consensus_fsync_duration_seconds"),
            leader_changes: counter!("consensus_leader_changes_total"),
            hinted_elections: counter!("consensus_hinted_elections_total"),
            snapshots: counter!("consensus_snapshot_total"),
        }
    }

    /// A request that began then has its answer.
    pub(crate) fn committed(&self, began: Instant) {
        self.commit.record(began.elapsed());
    }

    /// What came together, and began to be applied then, is.
    pub(crate) fn applied(&self, began: Instant) {
        self.apply.record(began.elapsed());
    }

    /// A write that began then is done.
    pub(crate) fn written(&self, began: Instant, durability: Durability) {
        if durability == Durability::Synced {
            self.fsync.record(began.elapsed());
        }
    }

    /// The state is saved as of this index, or could not be.
    pub(crate) fn state_saved(&self, index: Option<u64>) {
        if index.is_some() {
            self.snapshots.increment(1);
        }
    }

    /// So often this member has campaigned since its start because a leader's links were reset.
    pub(crate) fn elections_hinted(&self, since_start: u64) {
        self.hinted_elections.absolute(since_start);
    }

    /// This member knows another leader than before.
    pub(crate) fn leader_changed(&self, leader: Option<u64>) {
        if leader.is_some() {
            self.leader_changes.increment(1);
        }
    }
}

/// Sets the gauges until the member is gone.
pub(crate) async fn keep_gauges(
    status: watch::Receiver<Status>,
    membership: watch::Receiver<Membership>,
    pending: impl Fn() -> Option<usize>,
) {
    let names = [
        "consensus_leader_id",
        "consensus_term",
        "consensus_is_leader",
        "consensus_log_last_index",
        "consensus_log_commit_index",
        "consensus_applied_index",
        "consensus_quorum_size",
        "consensus_members",
        "consensus_proposals_pending",
    ];
    let gauges: [Gauge; 9] = names.map(|name| gauge!(name));
    let mut ticks = tokio::time::interval(GAUGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(pending) = pending() {
        let (quorum, members) = {
            let membership = membership.borrow();
            let voters = membership.members.keys().filter(|id| membership.is_voter(**id)).count();
            (voters / 2 + 1, membership.members.len())
        };
        let status = status.borrow().clone();
        let leads = u64::from(status.role == Role::Leader);
        // An id has 64 bits, of which a gauge keeps 53: enough to tell members apart.
        let values = [
            status.leader.unwrap_or_default(),
            status.term,
            leads,
            status.last,
            status.commit,
            status.applied,
        ];
        let counts = [quorum, members, pending].map(|count| count as u64);
        for (gauge, value) in gauges.iter().zip(values.into_iter().chain(counts)) {
            gauge.set(value as f64);
        }
        ticks.tick().await;
    }
}
