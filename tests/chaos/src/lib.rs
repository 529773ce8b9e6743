//! Real `novacron-consensus` processes under faults, and whether what their clients saw is linearizable.
//!
//! Three members, each in a network namespace of its own, clients that read, write, delete and swap a few keys, and from a
//! seed what happens to the members meanwhile: kill, stop, cut. At the end everything heals, all members are read once more,
//! and the whole history goes to the checker. Owns the cluster, the faults and the clients. Deliberately not here: what is
//! linearizable (`linearizability`) and how namespaces are made (`dwcp-lab`).
//!
//! A seed repeats the faults and what the clients ask, not how the kernel schedules them.

pub mod client;
pub mod cluster;
pub mod fault;
mod load;
pub mod network;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use linearizability::{EtcdKey, EtcdKeyInput, EtcdKeyOutput, Operation, Verdict, check, merge_unseen_writes};

pub use client::Reads;
pub use cluster::Cluster;
pub use fault::{Fault, Round, Schedule};
pub use load::Load;
pub use network::{Cut, Network};

/// Members of the cluster.
pub const MEMBERS: usize = 3;
/// Keys that clients fight for.
pub const KEYS: u64 = 5;
/// Of the checker, for each key: far more than a history that is linearizable takes, and few enough to be remembered.
const STEPS_MAX: u64 = 10_000_000;
/// Rounds of a run. Clients have turns for twice as many.
pub const ROUNDS_MAX: u16 = 500;
/// What no client writes.
const UNSEEN: &str = "unseen";
/// Clients alone, before the first fault.
const CALM: Duration = Duration::from_millis(500);

/// An operation on one of the keys.
pub type KeyOperation = Operation<u64, EtcdKeyInput<String>, EtcdKeyOutput<String>>;

/// What the clients saw.
#[derive(Debug)]
pub struct Recording {
    /// All operations that were sent, in the order of their calls. Times are nanoseconds.
    pub operations: Vec<KeyOperation>,
    /// How often clients were told what instead of an answer.
    pub errors: BTreeMap<String, u64>,
}

impl Recording {
    /// Whether it is linearizable.
    pub fn verdict(&self) -> Verdict<u64> {
        let mut operations = self.operations.clone();
        merge_unseen_writes(&mut operations, &UNSEEN.to_owned());
        check(&EtcdKey::default(), &operations, STEPS_MAX)
    }

    /// Operations that somebody saw the answer of.
    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| operation.answer.is_some()).count()
    }
}

/// Lets clients at a cluster, does to it what the rounds say, heals it, reads once more.
///
/// An error if a member ends by itself, or does not serve again when everything is healed.
pub fn run(cluster: &mut Cluster, load: &Load, rounds: &[Round]) -> Result<Recording> {
    assert!(
        rounds.len() <= ROUNDS_MAX.into(),
        "{} rounds: clients would stop before their end",
        rounds.len()
    );
    load.during(cluster, |cluster| {
        std::thread::sleep(CALM);
        for (n, round) in rounds.iter().enumerate() {
            eprintln!("round {}: {round}", n + 1);
            cluster.strike(round)?;
            std::thread::sleep(round.lasts);
            cluster.heal(round)?;
            std::thread::sleep(round.rest);
            cluster.ensure_alive()?;
        }
        Ok(())
    })
}
