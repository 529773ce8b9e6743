//! A member put together: the host that owns its log, the applier that owns its state machine, and the queues between them.
//!
//! Knows neither threads nor sockets nor time: [`Node`](crate::Node) gives both halves a thread each, the simulator steps
//! them on one.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64, mpsc},
};

use consensus_disk::Disk;
use consensus_raft::{BOOTSTRAP_INDEX, Member, Membership, Status};
use tokio::sync::watch;

use crate::{
    StartError, StateMachine,
    apply::{self, Applier, Done, Task},
    clock::Clock,
    host::{Compaction, Host, Outbox},
    inbox::Desk,
    lease::{LeaseReads, SharedLease},
    metrics::Metrics,
    readers::Readers,
    snapshot,
    state_machine::Job,
};

/// A member that nothing drives yet.
pub(crate) struct Engine<D: Disk, S: StateMachine, O: Outbox> {
    pub(crate) host: Host<D, S::Response, O>,
    pub(crate) applier: Applier<S>,
    /// For whoever reads.
    pub(crate) reads: LeaseReads,
    /// From the host to the applier.
    pub(crate) tasks: mpsc::Receiver<Task>,
    /// What takes too long for the applier.
    pub(crate) jobs: mpsc::Receiver<(Job, Done)>,
}

impl<D: Disk, S: StateMachine, O: Outbox> Engine<D, S, O> {
    /// Both halves, from a member that was opened on `disk` and a state machine that has caught up with its log.
    pub(crate) fn new(
        member: Member<D>,
        disk: Arc<D>,
        machine: S,
        outbox: O,
        membership: watch::Sender<Membership>,
        compaction: Compaction,
        clock: Clock,
    ) -> Self {
        let desk = Arc::new(Desk::default());
        let machine_applied = machine.applied();
        let applied = Arc::new(AtomicU64::new(machine_applied));
        let (to_apply, tasks) = mpsc::sync_channel(apply::QUEUE);
        let (to_jobs, jobs) = mpsc::sync_channel(apply::JOBS);
        let metrics = Metrics::new();
        let readers = Arc::new(Readers::new(Arc::clone(&applied)));
        let lease = Arc::new(SharedLease::default());
        let reads =
            LeaseReads { clock: clock.clone(), lease: Arc::clone(&lease), readers: Arc::clone(&readers) };
        let applier = Applier {
            id: member.id(),
            machine,
            desk: Arc::clone(&desk),
            applied: Arc::clone(&applied),
            readers: Arc::clone(&readers),
            jobs: to_jobs,
            metrics: metrics.clone(),
        };
        let host = Host {
            status: watch::Sender::new(Status { applied: machine_applied, ..member.status() }),
            member,
            disk,
            desk,
            outbox,
            clock,
            lease,
            to_apply,
            applied,
            readers,
            membership,
            ticks: 0,
            proposals: VecDeque::new(),
            changes: Vec::new(),
            changes_passed_on: Vec::new(),
            passed_on: Vec::new(),
            holds: false,
            untold: false,
            reads_wait: false,
            reads: Vec::new(),
            asked: BTreeMap::new(),
            asked_as: BTreeMap::new(),
            next_read: 0,
            asked_of: None,
            proposed: VecDeque::new(),
            proposed_now: 0,
            committed_term: 0,
            waiting_to_apply: VecDeque::new(),
            compaction,
            wanted: watch::Sender::new(None),
            fetched: None,
            removed: false,
            metrics,
        };
        Self { host, applier, reads, tasks, jobs }
    }
}

/// Ends what a stop has interrupted: the log goes on from a snapshot of entry `begin` that the state machine may not have
/// taken yet. The copy that was fetched then is `left_over`.
pub(crate) fn catch_up_with_log(
    machine: &mut impl StateMachine,
    begin: u64,
    left_over: Option<PathBuf>,
) -> Result<(), StartError> {
    if machine.applied() >= begin || begin <= BOOTSTRAP_INDEX {
        return Ok(());
    }
    let applied = machine.applied();
    let copy = left_over.ok_or(StartError::StateBehindLog { begin, applied })?;
    machine.restore(&snapshot::state(&copy)).map_err(StartError::Restore)?;
    let applied = machine.applied();
    if applied != begin {
        return Err(StartError::StateBehindLog { begin, applied });
    }
    snapshot::remove(&copy);
    Ok(())
}
