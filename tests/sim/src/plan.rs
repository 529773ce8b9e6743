//! What a seed draws before its run begins: how many members, and which kinds of trouble.
//!
//! Not every run has every kind (Groce et al., "Swarm Testing", 2012): one that never lets a write get through finds nothing
//! else.

use crate::random::Random;

/// A mistake that is made on purpose in one of the simulator's own seams. The checks must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The network acknowledges entries that it has lost: the leader commits without a quorum.
    AcknowledgedByNobody,
    /// A crash takes votes that were promised to be on the disk, and the wait after a start that would hide it is over at once.
    VoteForgotten,
    /// Who believes to lead reads without asking the others.
    ReadWithoutAsking,
    /// The disk of the log says that it has synced, and has not.
    SyncDropped,
    /// A sync of the log has failed, and is done again: the system has forgotten what it could not write, and says that all is
    /// well (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
    SyncRepeated,
    /// A copy of the state says that it has its last entries, and has not.
    SnapshotWithoutEnd,
    /// The state machine applies what it applies first after a start twice.
    AppliedTwice,
    /// A lease is counted from when it is confirmed, and not from before it was asked for.
    LeaseFromAnswer,
    /// A lease goes on although leadership was offered to another member.
    LeaseKeptInTransfer,
    /// A lease goes on although there are other voters than those who promised something for it.
    LeaseKeptInChange,
    /// The time that a voter has to wait after a start is over at once.
    PromiseForgotten,
    /// The clock of a member that is paused stands still.
    ClockStandsStill,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::AcknowledgedByNobody,
        Self::VoteForgotten,
        Self::ReadWithoutAsking,
        Self::SyncDropped,
        Self::SyncRepeated,
        Self::SnapshotWithoutEnd,
        Self::AppliedTwice,
        Self::LeaseFromAnswer,
        Self::LeaseKeptInTransfer,
        Self::LeaseKeptInChange,
        Self::PromiseForgotten,
        Self::ClockStandsStill,
    ];
}

/// Leases assume that no clock gains a ninth on another: 1.05 / 0.95 is less.
const SKEW_WITH_LEASES: u64 = 50;

/// The kinds and rates of one run. Rates are in a thousand; 0 is never.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) election_ticks: usize,
    pub(crate) heartbeat_ticks: usize,
    /// The member that should lead.
    pub(crate) preferred: Option<u64>,
    /// Steps with faults.
    pub(crate) rough_steps: u64,
    pub(crate) voters: u64,
    pub(crate) clients: u64,
    pub(crate) watchers: u64,
    /// Of a message.
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    pub(crate) delays: u64,
    /// Of a step.
    pub(crate) partitions: u64,
    /// Of a member's step.
    pub(crate) crashes: u64,
    pub(crate) pauses: u64,
    pub(crate) disk_failures: u64,
    /// Links that are reset although both ends are up.
    pub(crate) resets: u64,
    /// Of a step.
    pub(crate) transfers: u64,
    pub(crate) changes: u64,
    pub(crate) compactions: u64,
    /// The store is one of several regions: all keys are items as well.
    pub(crate) region: bool,
    /// Clocks run this much too fast or too slow at most, in a thousand.
    pub(crate) skew: u64,
    /// Most members read from leases when they lead.
    pub(crate) leases: bool,
    /// Of a step: somebody begins what `ambush.rs` says.
    pub(crate) ambushes: u64,
    /// One member's log is damaged while it is down.
    pub(crate) rot: bool,
    pub(crate) entries_per_message_max: usize,
    pub(crate) snapshot_entries: u64,
    pub(crate) snapshot_interval_ticks: u64,
}

impl Plan {
    /// No trouble at all, and elections that take long if they wait for the timer.
    pub(crate) fn calm(voters: u64) -> Self {
        Self {
            election_ticks: 50,
            heartbeat_ticks: 10,
            preferred: None,
            rough_steps: 400,
            voters,
            clients: 2,
            watchers: 0,
            loss: 0,
            duplicates: 0,
            delays: 0,
            partitions: 0,
            crashes: 0,
            pauses: 0,
            disk_failures: 0,
            resets: 0,
            transfers: 0,
            changes: 0,
            compactions: 0,
            region: false,
            skew: 0,
            leases: false,
            ambushes: 0,
            rot: false,
            entries_per_message_max: 1000,
            snapshot_entries: 1000,
            snapshot_interval_ticks: 1000,
        }
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut maybe = |rate: u64| if random.below(3) < 2 { random.between(1, rate) } else { 0 };
        let (loss, duplicates, delays) = (maybe(150), maybe(100), maybe(200));
        let (partitions, crashes, pauses, disk_failures) = (maybe(30), maybe(8), maybe(8), maybe(10));
        let (transfers, changes, compactions, skew) = (maybe(15), maybe(25), maybe(10), maybe(250));
        let resets = maybe(10);
        // Who loses a member for ever must not lose others to an operator.
        let leases = random.one_in(2);
        let ambushes = if leases { 2 * random.below(8) } else { 0 };
        let rot = changes == 0 && crashes > 0 && random.one_in(2);
        let mut plan = Self {
            // There has to be time for something to go wrong in a lease.
            election_ticks: if leases { [10, 25, 40][random.below(3) as usize] } else { 10 },
            heartbeat_ticks: 2,
            preferred: None,
            rough_steps: [400, 500, 600, 1500][random.below(4) as usize],
            voters: [3, 3, 3, 5, 5, 7][random.below(6) as usize],
            clients: random.between(2, 5),
            watchers: random.between(1, 3),
            loss,
            duplicates,
            delays,
            partitions,
            crashes,
            pauses,
            disk_failures,
            resets,
            transfers,
            changes,
            compactions,
            region: false,
            skew: if leases { skew.min(SKEW_WITH_LEASES) } else { skew },
            leases,
            ambushes,
            rot,
            entries_per_message_max: [1, 3, 1000][random.below(3) as usize],
            snapshot_entries: random.between(4, 40),
            snapshot_interval_ticks: random.between(50, 1000),
        };
        // Not drawn: what is drawn after it stays what it was.
        plan.region = plan.snapshot_entries.is_multiple_of(3);
        plan
    }
}
