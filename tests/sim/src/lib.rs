//! Members of the consensus store on a simulated disk, network and clock: one thread, one seed, one run.
//!
//! Everything between a client's request and its answer is the code that runs in production: the Raft member, the host that
//! writes its log and sends its messages, the applier, the store, the hub of watchers. Simulated are what they stand on
//! (disks that lose what was not synced, fail and rot; a network that loses, doubles, delays, reorders and is cut; clocks that
//! run unevenly) and who stands on them (clients, watchers, an operator). A run has faults for some hundred steps and then
//! none, until everybody has got what it wanted.
//!
//! Deliberately not here: DWCP, gRPC, RocksDB and threads. `tests/chaos` has those, and cannot repeat a run.

mod ambush;
mod checks;
mod client;
mod computer;
mod disk;
mod fetch;
mod machine;
mod network;
mod operator;
mod plan;
mod random;
mod region;
pub mod scenario;
mod trace;
mod watcher;
mod world;

use std::{
    ops::{AddAssign, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

pub use checks::Violation;
pub use plan::Mistake;

use world::World;

/// What runs have done, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Report {
    pub runs: u64,
    /// A number that differs if anything in the runs does.
    pub trace: u64,
    pub steps: u64,
    pub entries: u64,
    pub terms_led: u64,
    pub crashes: u64,
    /// Of these, because a sync had failed.
    pub syncs_failed: u64,
    /// Elections that began because links of a leader were reset.
    pub elections_hinted: u64,
    pub damage_noticed: u64,
    pub snapshots_restored: u64,
    pub members_changed: u64,
    pub events_watched: u64,
    pub answered: u64,
    /// Operations of which nobody knows whether they happened.
    pub unanswered: u64,
    /// Reads that were answered at once, from a lease.
    pub lease_reads: u64,
    pub serializable_reads: u64,
    /// Changes of another region that were merged.
    pub merged: u64,
    /// Histories that took too long to judge.
    pub uncertain: u64,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.trace ^= other.trace;
        self.steps += other.steps;
        self.entries += other.entries;
        self.terms_led += other.terms_led;
        self.crashes += other.crashes;
        self.syncs_failed += other.syncs_failed;
        self.elections_hinted += other.elections_hinted;
        self.damage_noticed += other.damage_noticed;
        self.snapshots_restored += other.snapshots_restored;
        self.members_changed += other.members_changed;
        self.events_watched += other.events_watched;
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.lease_reads += other.lease_reads;
        self.serializable_reads += other.serializable_reads;
        self.merged += other.merged;
        self.uncertain += other.uncertain;
    }
}

/// One run. A panic, of production code or of the simulator, is a violation as well.
pub fn run(seed: u64, mistake: Option<Mistake>, printed: bool) -> Result<Report, Violation> {
    let run = || World::new(seed, mistake, printed).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::Panicked { message: message.unwrap_or_default() })
    })
}

/// A seed whose run went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}: {violation}\nreplay it: cargo run --release --locked --bin sim -- --seed {seed} --trace"
)]
pub struct Found {
    /// Which.
    pub seed: u64,
    /// What.
    pub violation: Violation,
}

/// Runs many seeds on all processors, until one goes wrong.
pub fn run_all(seeds: Range<u64>, mistake: Option<Mistake>) -> Result<Report, Found> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let outcome = Mutex::new(Ok(Report::default()));
    let work = || {
        while !stop.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let ran = run(seed, mistake, false);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *outcome, ran) {
                (Ok(sum), Ok(report)) => *sum += report,
                (Ok(_), Err(violation)) => {
                    stop.store(true, Relaxed);
                    *outcome = Err(Found { seed, violation });
                }
                (Err(_), _) => {}
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}
