//! Copies of the state on their way from one member to another, as the fetcher of a node goes about it.

use std::{collections::BTreeMap, path::PathBuf};

use consensus_core::{StateMachineError, sim::Reply};
use consensus_raft::SnapshotMetadata;

use crate::{computer::Computer, machine::lock, network::Network, random::Random};

/// Steps that a copy travels, at most.
const TRAVEL: u64 = 30;
/// Steps after which one that was not taken is taken for useless.
const TAKEN_WITHIN: u64 = 60;

/// What a member that wants a snapshot waits for.
pub(crate) enum Fetch {
    Copying { from: (u64, u64), copy: PathBuf, reply: Reply<Result<u64, StateMachineError>> },
    Describing { from: (u64, u64), copy: PathBuf, reply: Reply<Option<SnapshotMetadata>> },
    Moving { from: (u64, u64), copy: PathBuf, metadata: SnapshotMetadata, arrives: u64 },
    Offered { until: u64 },
}

/// Names of copies: where nothing can be.
fn folder(number: u64) -> PathBuf {
    PathBuf::from(format!("/dev/null/{number}"))
}

pub(crate) struct Fetches {
    random: Random,
    /// By who fetches.
    under_way: BTreeMap<u64, Fetch>,
    copies: u64,
}

impl Fetches {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, 3), under_way: BTreeMap::new(), copies: 0 }
    }

    /// A member is down: what it waited for is gone.
    pub(crate) fn forget(&mut self, id: u64) {
        self.under_way.remove(&id);
    }

    pub(crate) fn step(&mut self, id: u64, now: u64, computers: &BTreeMap<u64, Computer>, network: &Network) {
        let under_way = self.under_way.remove(&id);
        let Some(member) = &computers[&id].member else { return };
        let Some(least) = member.snapshot_wanted() else { return };
        let next = match under_way {
            None => self.begin(id, computers, network),
            Some(Fetch::Offered { until }) => (now < until).then_some(Fetch::Offered { until }),
            Some(fetch) => self.go_on(id, least, now, fetch, computers, network),
        };
        if let Some(fetch) = next {
            self.under_way.insert(id, fetch);
        }
    }

    fn begin(&mut self, id: u64, computers: &BTreeMap<u64, Computer>, network: &Network) -> Option<Fetch> {
        let known = computers[&id].member.as_ref()?.membership();
        let reachable = computers
            .values()
            .filter(|other| known.members.contains_key(&other.id) && other.id != id)
            .filter(|other| other.member.is_some() && network.connected(id, other.id));
        let from = self.random.pick(&reachable.map(|other| other.id).collect::<Vec<_>>())?;
        let source = &computers[&from];
        self.copies += 1;
        let copy = folder(self.copies);
        let reply = source.member.as_ref()?.copy(copy.join("state"));
        Some(Fetch::Copying { from: (from, source.starts), copy, reply })
    }

    /// The next state; `None`: it has failed, and begins anew.
    fn go_on(
        &mut self,
        id: u64,
        least: u64,
        now: u64,
        fetch: Fetch,
        computers: &BTreeMap<u64, Computer>,
        network: &Network,
    ) -> Option<Fetch> {
        let (Fetch::Copying { from, .. } | Fetch::Describing { from, .. } | Fetch::Moving { from, .. }) =
            &fetch
        else {
            return None;
        };
        let source = &computers[&from.0];
        let up = source.member.as_ref().filter(|_| source.starts == from.1);
        let serving = up.filter(|_| network.connected(id, from.0))?;
        match fetch {
            Fetch::Copying { from, copy, mut reply } => match reply.take() {
                None => Some(Fetch::Copying { from, copy, reply }),
                Some(index) => {
                    let reply = serving.describe(index?.ok()?);
                    Some(Fetch::Describing { from, copy, reply })
                }
            },
            Fetch::Describing { from, copy, mut reply } => match reply.take() {
                None => Some(Fetch::Describing { from, copy, reply }),
                Some(metadata) => {
                    let metadata = metadata?.filter(|metadata| metadata.index >= least)?;
                    let arrives = now + 1 + self.random.below(TRAVEL);
                    Some(Fetch::Moving { from, copy, metadata, arrives })
                }
            },
            Fetch::Moving { from, copy, metadata, arrives } if now < arrives => {
                Some(Fetch::Moving { from, copy, metadata, arrives })
            }
            Fetch::Moving { copy, metadata, .. } => {
                let state = copy.join("state");
                let files = lock(&source.files).copies.remove(&state)?;
                let computer = &computers[&id];
                let mut own = lock(&computer.files);
                own.copies.insert(state, files);
                own.fetched.push((metadata.clone(), copy.clone()));
                computer.member.as_ref()?.fetched(metadata, copy);
                Some(Fetch::Offered { until: now + TAKEN_WITHIN })
            }
            Fetch::Offered { .. } => None,
        }
    }
}
