//! What the leader of a region does for the other regions. A value: messages and time in, messages and proposals out.
//!
//! Nothing in here has to survive: a new leader begins with what is replicated ([`Replica`], [`Items`], [`Tree`]), asks the others
//! how far they are, and sends again what nobody has acknowledged, which costs bytes and nothing else.
//!
//! *Vectors* say what a peer lacks; the index of changes finds it; a delta brings it. *The tree* finds what vectors do not know:
//! something that was lost or damaged. `ship` has the first, `compare` the second, `rows` decides what all regions know,
//! and `fetch` takes snapshots.

mod compare;
mod config;
mod fetch;
mod lag;
mod peer;
mod rows;
mod ship;
mod suspects;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{
    clock::{Stamp, check_skew},
    command::Command,
    delta::Delta,
    items::Items,
    limits::{MERGES_MAX, SILENT_INTERVALS},
    message::{Ack, Body, Message, Status},
    replica::{Phase, Replica},
    topology::{Link, ranked, targets},
    tree::Tree,
    vector::{RegionId, VersionVector},
};

pub use config::{Alarm, Config, Output};

use fetch::Fetch;
use lag::Lag;
use peer::Peer;
use rows::Rows;
use suspects::Suspects;

/// The replicated state, as this leader has applied it: everything that was committed when it began to lead, at least.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Local<'a, I> {
    pub replica: &'a Replica,
    pub items: &'a I,
    pub tree: &'a Tree,
}

impl<I> Clone for Local<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Local<'_, I> {}

/// Begins when a member of the region begins to lead, and ends when it does not lead any more.
#[derive(Debug)]
pub struct Replicator {
    config: Config,
    region: RegionId,
    peers: BTreeMap<RegionId, Peer>,
    rows: Rows,
    /// What was known an interval ago: who has not heard of it since then, directly, is told.
    older: VersionVector,
    recent: VersionVector,
    interval_at_ms: u64,
    comparison_at_ms: u64,
    round: u64,
    sweep_after: Option<Bytes>,
    suspects: Vec<Suspects>,
    fetch: Option<Fetch>,
    /// Deltas that are proposed and not applied.
    merging: usize,
    lag: Lag,
    outputs: VecDeque<Output>,
}

impl Replicator {
    /// The first interval begins now. `seed` keeps regions that begin together from comparing together.
    pub fn new(config: Config, region: RegionId, now_ms: u64, seed: u64) -> Self {
        let comparison_at_ms = now_ms + config.interval_ms + seed % config.anti_entropy_interval_ms.max(1);
        Self {
            config,
            region,
            peers: BTreeMap::new(),
            rows: Rows::default(),
            older: VersionVector::default(),
            recent: VersionVector::default(),
            interval_at_ms: now_ms,
            comparison_at_ms,
            round: seed,
            sweep_after: None,
            suspects: Vec::new(),
            fetch: None,
            merging: 0,
            lag: Lag::default(),
            outputs: VecDeque::new(),
        }
    }

    /// What is to be done next: messages to send, entries to propose.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> u64 {
        let deadlines = self.peers.values().filter_map(Peer::deadline_ms);
        let fetch = self.fetch.as_ref().map(|fetch| fetch.deadline_ms);
        let next = self.interval_at_ms.min(self.comparison_at_ms);
        deadlines.chain(fetch).fold(next, u64::min)
    }

    /// For how long a region has not heard of the oldest change of this region that it is not known to know, in milliseconds.
    pub fn lag_ms(&self, region: RegionId, now_ms: u64) -> u64 {
        let known = self.peers.get(&region).map_or(0, |peer| peer.known.get(self.region));
        self.lag.of(known, now_ms)
    }

    /// A client's change is applied. An urgent one is sent at once, with all before it.
    pub fn handle_change<I: Items>(
        &mut self,
        now_ms: u64,
        is_urgent: bool,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        self.lag.mark(now_ms, local.replica.version().get(self.region));
        if is_urgent {
            for peer in self.targets(now_ms, local) {
                self.flush(now_ms, peer, local)?;
            }
        }
        Ok(())
    }

    /// A delta of `from` that was proposed is applied, or not: then it is sent again.
    pub fn handle_merged<I: Items>(
        &mut self,
        now_ms: u64,
        from: RegionId,
        is_applied: bool,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        self.merging = self.merging.saturating_sub(1);
        if !is_applied {
            return Ok(());
        }
        self.rows.settle(local.replica);
        self.send(from, Body::Ack(Ack { version: local.replica.version().clone(), echo_ms: 0 }));
        if self.config.topology.is_tree() {
            for peer in self.tree_neighbors(local).into_iter().filter(|peer| *peer != from) {
                self.flush(now_ms, peer, local)?;
            }
        }
        Ok(())
    }

    /// It is time for something.
    pub fn handle_timeout<I: Items>(&mut self, now_ms: u64, local: Local<'_, I>) -> Result<(), I::Error> {
        for peer in self.peers.values_mut().filter(|peer| peer.deadline_ms().is_some_and(|at| at <= now_ms)) {
            peer.lose();
        }
        if self.interval_at_ms <= now_ms {
            self.interval_at_ms = now_ms + self.config.interval_ms;
            self.interval(now_ms, local)?;
        }
        if self.comparison_at_ms <= now_ms {
            self.comparison_at_ms = now_ms + self.config.anti_entropy_interval_ms;
            self.begin_comparison(local);
        }
        self.fetch_on(now_ms, local);
        Ok(())
    }

    fn interval<I: Items>(&mut self, now_ms: u64, local: Local<'_, I>) -> Result<(), I::Error> {
        self.round += 1;
        self.older = std::mem::replace(&mut self.recent, local.replica.version().clone());
        self.lag.mark(now_ms, local.replica.version().get(self.region));
        self.rows.settle(local.replica);
        self.judge(local)?;
        let targets = self.targets(now_ms, local);
        for peer in self.neighbors(now_ms, local) {
            let is_target = targets.contains(&peer);
            let status = self.status(now_ms, peer, is_target, local);
            self.send(peer, Body::Status(status));
            if is_target {
                self.flush(now_ms, peer, local)?;
            }
        }
        self.collect(local)
    }

    fn status<I>(&self, now_ms: u64, to: RegionId, with_rows: bool, local: Local<'_, I>) -> Status {
        let replica = local.replica;
        Status {
            phase: replica.phase(),
            version: replica.version().clone(),
            horizon: replica.horizon().clone(),
            latest: replica.latest(),
            sent_ms: now_ms,
            rows: if with_rows { self.rows.told_without(to) } else { Vec::new() },
        }
    }

    /// A peer has said something. What a region says that is no member has no effect.
    pub fn handle_message<I: Items>(
        &mut self,
        now_ms: u64,
        message: Message,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        let Message { from, to, body } = message;
        if to != self.region
            || !self.speaks_with(from, local.replica)
            || !self.check_clock(now_ms, from, &body)
        {
            return Ok(());
        }
        if let Some(version) = version_of(&body) {
            let (theirs, ours) = (version.get(self.region), local.replica.version().get(self.region));
            if theirs > ours {
                self.alarm(Alarm::Forgotten { region: from, theirs, ours });
                return Ok(());
            }
            self.rows.tell(from, version);
            self.peer(from).hear(now_ms, version);
        }
        match body {
            Body::Status(status) => self.handle_status(now_ms, from, status, local),
            Body::Ack(ack) => {
                if ack.echo_ms > 0 {
                    self.peer(from).measure(now_ms, ack.echo_ms);
                }
                self.ship(now_ms, from, local)
            }
            Body::Delta(delta) => {
                self.handle_delta(from, delta, local.replica);
                Ok(())
            }
            Body::Hashes(hashes) => self.handle_hashes(from, &hashes, local),
            Body::Leaves(leaves) => self.handle_leaves(from, &leaves, local),
            Body::Want(want) => self.handle_want(from, &want, local),
            Body::SnapshotRequest(request) => self.handle_request(from, request, local),
            Body::Chunk(chunk) => {
                self.handle_chunk(now_ms, chunk);
                Ok(())
            }
        }
    }

    fn handle_status<I: Items>(
        &mut self,
        now_ms: u64,
        from: RegionId,
        status: Status,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        let peer = self.peers.entry(from).or_default();
        (peer.phase, peer.horizon) = (Some(status.phase), status.horizon);
        for (region, row) in status.rows.iter().filter(|(region, _)| *region != self.region) {
            self.rows.tell(*region, row);
        }
        let version = local.replica.version().clone();
        if local.replica.phase() == Phase::Active && !version.includes(&self.peer(from).horizon) {
            self.alarm(Alarm::Behind { region: from });
        }
        self.send(from, Body::Ack(Ack { version, echo_ms: status.sent_ms }));
        if self.neighbors(now_ms, local).contains(&from) {
            return self.ship(now_ms, from, local);
        }
        // It makes a detour: it gets an answer, and nothing by itself.
        self.flush(now_ms, from, local)
    }

    fn handle_delta(&mut self, from: RegionId, delta: Delta, replica: &Replica) {
        let is_whole = replica.phase() == Phase::Active;
        if is_whole && self.merging < MERGES_MAX {
            self.merging += 1;
            self.outputs.push_back(Output::Propose(Command::Merge(delta)));
        } else if self.merging >= MERGES_MAX {
            self.alarm(Alarm::Busy { region: from });
        }
    }

    /// Who is removed says nothing any more; who is added late knows only whom it was told to ask.
    fn speaks_with(&self, region: RegionId, replica: &Replica) -> bool {
        let members = replica.membership();
        let is_asked = replica.phase() == Phase::Joining && self.config.seeds.contains(&region);
        region != self.region && !members.is_removed(self.region) && (members.contains(region) || is_asked)
    }

    fn check_clock(&mut self, now_ms: u64, from: RegionId, body: &Body) -> bool {
        let latest: Option<Stamp> = match body {
            Body::Status(status) => Some(status.latest),
            Body::Delta(delta) => Some(delta.latest),
            Body::Chunk(chunk) => Some(chunk.latest),
            _ => None,
        };
        let checked = latest.map(|latest| check_skew(latest, now_ms, self.config.skew_max_ms));
        if let Some(Err(error)) = checked {
            self.alarm(Alarm::ClockAhead { region: from, error });
        }
        !matches!(checked, Some(Err(_)))
    }

    fn tree_neighbors<I>(&self, local: Local<'_, I>) -> BTreeSet<RegionId> {
        self.config.topology.neighbors(self.region, &self.others(local))
    }

    fn others<I>(&self, local: Local<'_, I>) -> BTreeSet<RegionId> {
        let is_asking = local.replica.phase() == Phase::Joining;
        let seeds = self.config.seeds.iter().copied().filter(|_| is_asking);
        let all = local.replica.membership().regions().chain(seeds);
        all.filter(|region| self.speaks_with(*region, local.replica)).collect()
    }

    /// In a tree whose branch is silent, everybody: it may be that others can be reached without it.
    fn neighbors<I>(&self, now_ms: u64, local: Local<'_, I>) -> BTreeSet<RegionId> {
        let neighbors = self.tree_neighbors(local);
        let silence_ms = SILENT_INTERVALS * self.config.interval_ms;
        let is_silent =
            |peer: &RegionId| self.peers.get(peer).is_none_or(|peer| peer.heard_ms + silence_ms < now_ms);
        let is_settled = self.round > SILENT_INTERVALS;
        if self.config.topology.is_tree() && is_settled && neighbors.iter().any(is_silent) {
            return self.others(local);
        }
        neighbors
    }

    fn targets<I>(&self, now_ms: u64, local: Local<'_, I>) -> Vec<RegionId> {
        let neighbors = self.neighbors(now_ms, local);
        if self.config.topology.is_tree() {
            return neighbors.into_iter().collect(); // each is the only way to somebody
        }
        targets(&self.ranked(&neighbors), self.config.fanout, self.round)
    }

    fn ranked(&self, regions: &BTreeSet<RegionId>) -> Vec<RegionId> {
        let link = |region: &RegionId| {
            let configured = self.config.links.get(region).copied().unwrap_or_default();
            let measured = self.peers.get(region).and_then(|peer| peer.rtt_ms);
            (*region, Link { rtt_ms: measured.or(configured.rtt_ms), ..configured })
        };
        ranked(&regions.iter().map(link).collect(), self.config.preference)
    }

    fn peer(&mut self, region: RegionId) -> &mut Peer {
        self.peers.entry(region).or_default()
    }

    fn send(&mut self, to: RegionId, body: Body) {
        self.outputs.push_back(Output::Send(Message { from: self.region, to, body }));
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.outputs.push_back(Output::Alarm(alarm));
    }
}

fn version_of(body: &Body) -> Option<&VersionVector> {
    match body {
        Body::Status(status) => Some(&status.version),
        Body::Ack(ack) => Some(&ack.version),
        Body::Delta(delta) => Some(&delta.version),
        Body::Hashes(hashes) => Some(&hashes.version),
        Body::Leaves(leaves) => Some(&leaves.version),
        Body::Chunk(chunk) => Some(&chunk.version),
        Body::Want(_) | Body::SnapshotRequest(_) => None,
    }
}
