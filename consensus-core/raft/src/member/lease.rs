//! The leader's side of lease reads: which rounds count, and until when it may answer reads without a round.
//!
//! A lease rests on what voters promise with their answers to a round (`promise.rs`): to elect nobody for a while. It is
//! counted from before the round began, and is shorter than the promise, so it is over first, whatever the round took. Not
//! here: time, and who reads; the host shares the end of the lease with its readers.

use std::{collections::VecDeque, time::Duration};

use consensus_disk::Disk;
use raft::StateRole;

use super::Member;

/// Rounds of this leader that are not confirmed yet; of more, the oldest cannot make the lease longer.
pub(super) const ROUNDS_MAX: usize = 64;
/// Longest promise that is asked for or given, whatever the election timeout is.
pub(super) const PROMISE_MAX: Duration = Duration::from_secs(600);
/// Numbers from here on are of a leader's rounds; no host asks with them.
pub(super) const RENEWALS: u64 = 1 << 63;

/// By which raft-rs tells rounds apart, and members whose they are: id, seed and number, eight bytes each. That of a leader with
/// leases goes on with the promise that it asks for, in nanoseconds.
pub(super) struct Context {
    pub(super) id: u64,
    pub(super) seed: u64,
    pub(super) number: u64,
    pub(super) promise: Option<Duration>,
}

impl Context {
    pub(super) fn encode(&self) -> Vec<u8> {
        let promise = self.promise.map(|promise| promise.as_nanos() as u64);
        [self.id, self.seed, self.number].into_iter().chain(promise).flat_map(u64::to_le_bytes).collect()
    }

    /// `None`: of nobody who speaks this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (id, seed, number) = (words.next()?, words.next()?, words.next()?);
        let promise = words.next().map(Duration::from_nanos);
        words.next().is_none().then_some(Self { id, seed, number, promise })
    }
}

/// What is known of the lease in one term.
#[derive(Debug, Default)]
pub(super) struct Lease {
    term: u64,
    /// Number and begin of rounds that are not confirmed, in order.
    rounds: VecDeque<(u64, Duration)>,
    /// When the last round began.
    last_began: Option<Duration>,
    until: Option<Duration>,
    /// Leadership was offered to another member: its election does not ask who promised what.
    given_up: bool,
    /// Somebody has read since the last round began.
    used: bool,
}

impl Lease {
    /// A term begins without a lease.
    fn enter(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, used: self.used, ..Self::default() };
        }
    }

    fn begin(&mut self, number: u64, now: Duration) {
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back((number, now));
        (self.last_began, self.used) = (Some(now), false);
    }

    /// A quorum has answered this round. Those before it are confirmed with it, or never.
    fn confirm(&mut self, number: u64, length: Duration) {
        let Some(place) = self.rounds.iter().position(|(begun, _)| *begun == number) else { return };
        let until = self.rounds.drain(..=place).next_back().map(|(_, began)| began + length);
        self.until = self.until.max(until);
    }
}

impl<D: Disk> Member<D> {
    /// Until when this member may answer reads at its commit index without a round, by the clock that it is told of. `None`: it may
    /// not. Changes with every call; a host that shares it does so before it sends what the call has brought.
    pub fn lease_end(&self) -> Option<Duration> {
        let raft = &self.raw.raft;
        let leads = raft.state == StateRole::Leader && self.lease.term == raft.term;
        self.lease.until.filter(|_| leads && !self.lease.given_up)
    }

    /// Somebody reads from the lease: it is worth renewing.
    pub fn lease_used(&mut self) {
        self.lease.used = true;
    }

    /// What voters are asked for with each round of this leader.
    pub(super) fn asks_for(&self) -> Option<Duration> {
        let leads = self.raw.raft.state == StateRole::Leader;
        (self.config.leases && leads).then(|| self.config.election_timeout.min(PROMISE_MAX))
    }

    /// A round begins. What it asks voters for, if it counts for a lease.
    pub(super) fn begin_lease(&mut self, number: u64) -> Option<Duration> {
        let promise = self.asks_for();
        if promise.is_some() {
            self.lease.enter(self.raw.raft.term);
            self.lease.begin(number, self.now);
        }
        promise
    }

    /// Begins a round that nobody waits for when half of the lease is gone, if somebody has read since the last one.
    pub(super) fn renew_lease(&mut self) {
        let Some(promise) = self.asks_for() else { return };
        self.lease.enter(self.raw.raft.term);
        let lease = &self.lease;
        let due = lease.last_began.is_none_or(|began| self.now >= began + length(promise) / 2);
        if due && lease.used && !lease.given_up && self.raw.raft.commit_to_current_term() {
            self.begin_round();
        }
    }

    /// A round of this member's is confirmed.
    pub(super) fn confirm_round(&mut self, number: u64) {
        if let Some(promise) = self.asks_for()
            && self.lease.term == self.raw.raft.term
        {
            self.lease.confirm(number, length(promise));
        }
    }

    /// Leadership is offered to another member. Whether or not that takes it, there is no lease any more in this term: its request
    /// for votes may be on its way for as long as it likes.
    pub(super) fn give_up_lease(&mut self) {
        self.lease.enter(self.raw.raft.term);
        self.lease.given_up = true;
    }

    /// Other voters than before: what those of before have promised, in whichever round, does not count.
    pub(super) fn forget_rounds(&mut self) {
        self.lease.rounds.clear();
        (self.lease.until, self.lease.last_began) = (None, None);
    }
}

/// A lease lasts nine tenths of the promise: a voter's clock may gain a ninth on the leader's.
fn length(promise: Duration) -> Duration {
    promise / 10 * 9
}

#[cfg(test)]
mod tests;
