//! What happens to the members, and when: all of it from a seed.

use std::{fmt, time::Duration};

use dwcp_lab::random::SplitMix64;

use crate::{MEMBERS, network::Cut};

/// How long a fault lasts: from less than an election takes to several elections.
const LASTS_MS: std::ops::Range<u64> = 300..2_500;
/// How long there is none after it.
const REST_MS: std::ops::Range<u64> = 200..1_500;
/// The stream of random numbers that faults are drawn from.
const PURPOSE: u64 = 1;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A member is killed at once, and started again at the end.
    Kill,
    /// All members are.
    KillAll,
    /// A member is stopped, and goes on at the end as if nothing had happened.
    Stop,
    /// A member is cut off.
    Cut(Cut),
}

/// What needs no network of its own.
const OF_PROCESSES: [Fault; 4] = [Fault::Kill, Fault::Stop, Fault::KillAll, Fault::Kill];
const OF_THE_NETWORK: [Fault; 4] = [
    Fault::Cut(Cut::Everything),
    Fault::Cut(Cut::Members),
    Fault::Cut(Cut::ToMembers),
    Fault::Cut(Cut::FromMembers),
];

/// One fault and the time after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// What goes wrong.
    pub fault: Fault,
    /// Which member it happens to.
    pub member: usize,
    /// How long.
    pub lasts: Duration,
    /// How long nothing happens then.
    pub rest: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, member, lasts, rest } = self;
        write!(f, "{fault:?}, member {member}, for {lasts:?}, then none for {rest:?}")
    }
}

/// Rounds without an end. Each fault occurs once before any occurs again.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: SplitMix64,
    faults: Vec<Fault>,
    next: usize,
}

impl Schedule {
    /// Of a seed; with faults of the network, or of processes alone.
    pub fn new(seed: u64, network: bool) -> Self {
        let mut faults = OF_PROCESSES.to_vec();
        if network {
            faults.extend(OF_THE_NETWORK);
        }
        Self { random: SplitMix64::new(seed, PURPOSE), next: faults.len(), faults }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    /// Puts the faults into a new order (Fisher and Yates).
    fn shuffle(&mut self) {
        for last in (1..self.faults.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            self.faults.swap(last, other);
        }
        self.next = 0;
    }
}

impl Iterator for Schedule {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        if self.next == self.faults.len() {
            self.shuffle();
        }
        let fault = self.faults[self.next];
        self.next += 1;
        let member = self.below(MEMBERS as u64) as usize;
        Some(Round { fault, member, lasts: self.within(LASTS_MS), rest: self.within(REST_MS) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn rounds(seed: u64, network: bool) -> Vec<Round> {
        Schedule::new(seed, network).take(100).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(rounds(7, true), rounds(7, true));
        assert_ne!(rounds(7, true), rounds(8, true));
    }

    #[test]
    fn everything_happens_to_everyone() {
        let happened: BTreeSet<_> = rounds(7, true).iter().map(|round| (round.fault, round.member)).collect();
        assert_eq!(happened.len(), 7 * MEMBERS);
        assert!(rounds(7, false).iter().all(|round| !matches!(round.fault, Fault::Cut(_))));
        let first: BTreeSet<_> = rounds(9, true)[..8].iter().map(|round| round.fault).collect();
        assert_eq!(first.len(), 7);
    }
}
