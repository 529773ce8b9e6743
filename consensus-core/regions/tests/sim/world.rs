//! Regions, a network, clients and faults, on one thread, from a seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus_regions::{
    Alarm, Change, Command, Config, Item, Message, Phase, RegionId, Replica, VersionVector,
    topology::{Preference, Topology},
};

use crate::{
    network::Network,
    oracle::Oracle,
    plan::{Mistake, Plan, Shape},
    random::{Random, mix},
    region::{Member, Region, Wanted},
};

/// Members of a region.
const MEMBERS: usize = 3;
/// When runs begin: some day.
const START_MS: u64 = 1_700_000_000_000;
/// For what is left to be told after the last fault: two rounds of anti-entropy.
pub(crate) const HEAL_MS: u64 = 60_000;
/// Until tombstones are gone as well.
const QUIET_MS: u64 = 120_000;
/// Between the proposal of an entry and its application.
const COMMIT_MS: u64 = 4;

#[derive(Debug)]
enum Event {
    Deliver(Bytes, RegionId),
    Commit(RegionId),
    Wake(RegionId),
    Client,
    Partition,
    LoseLeader(RegionId),
    Elect(RegionId),
    Join,
    Remove,
}

/// What a run has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Differs if anything does.
    pub(crate) trace: u64,
    pub(crate) changes: u64,
    pub(crate) deletions: u64,
    /// Bytes of keys and values that clients changed, times the regions they had to get to.
    pub(crate) change_bytes: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) messages: u64,
    pub(crate) leaders_lost: u64,
    pub(crate) collected: u64,
    /// Items of which comparisons found that they differ.
    pub(crate) repaired: u64,
    /// From a change until all regions have it: half of them, and the slowest hundredth.
    pub(crate) p50_ms: u64,
    pub(crate) p99_ms: u64,
    pub(crate) max_ms: u64,
    /// From the last fault until all regions were equal.
    pub(crate) equal_after_ms: u64,
}

impl Report {
    /// Bytes of messages, as they are encoded, to those of the changes that they carry.
    pub(crate) fn bytes_ratio(&self) -> f64 {
        self.wire_bytes as f64 / self.change_bytes as f64
    }

    /// A row of `docs/benchmarks.md`, which `make bench-regions` writes.
    pub(crate) fn row(&self, what: &str) {
        let seconds = |ms| ms as f64 / 1_000.0;
        println!(
            "| {what} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {} | {:.0} |",
            self.changes,
            seconds(self.p50_ms),
            seconds(self.p99_ms),
            seconds(self.max_ms),
            self.wire_bytes as f64 / 1e6,
            self.bytes_ratio(),
            self.leaders_lost,
            seconds(self.equal_after_ms),
        );
    }
}

pub(crate) struct World {
    plan: Plan,
    random: Random,
    now_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
    regions: BTreeMap<RegionId, Region>,
    network: Network,
    oracle: Oracle,
    /// When each change was applied in its region.
    made_ms: BTreeMap<RegionId, Vec<u64>>,
    spread: BTreeMap<(RegionId, u64), (usize, u64)>,
    report: Report,
    violation: Option<String>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            plan,
            random: Random::new(plan.seed, 0),
            now_ms: START_MS,
            events: BTreeMap::new(),
            number: 0,
            regions: BTreeMap::new(),
            network: Network::default(),
            oracle: Oracle::default(),
            made_ms: BTreeMap::new(),
            spread: BTreeMap::new(),
            report: Report::default(),
            violation: None,
        };
        let founders: Vec<_> =
            (1..=plan.regions).map(|id| (RegionId(id), Bytes::from(format!("r{id}")))).collect();
        for (id, _) in &founders {
            let (replica, members) = Replica::founder(*id, &founders);
            world.found(*id, |skew_ms| Member::new(replica.clone(), Some(&members), skew_ms));
        }
        world.at(0, Event::Client);
        if plan.has_faults {
            world.at(5_000, Event::Partition);
        }
        if plan.joins {
            world.at(plan.duration_ms / 3, Event::Join);
        }
        if plan.removes {
            world.at(plan.duration_ms / 2, Event::Remove);
        }
        world
    }

    fn found(&mut self, id: RegionId, member: impl Fn(i64) -> Member) {
        let members = (0..MEMBERS).map(|_| member(self.skew())).collect();
        self.regions.insert(id, Region::new(id, members));
        self.made_ms.insert(id, Vec::new());
        // Regions begin at different times of the interval.
        let wait_ms = self.random.below(5_000);
        self.at(wait_ms, Event::Elect(id));
        if self.plan.has_faults {
            let lives_ms = self.random.between(5_000, 40_000);
            self.at(lives_ms, Event::LoseLeader(id));
        }
    }

    fn skew(&mut self) -> i64 {
        let skew_ms = self.plan.skew_ms;
        self.random.below(2 * skew_ms + 1) as i64 - skew_ms as i64
    }

    fn at(&mut self, in_ms: u64, event: Event) {
        self.number += 1;
        self.events.insert((self.now_ms + in_ms, self.number), event);
    }

    fn config(&self, id: RegionId) -> Config {
        let topology = match self.plan.topology {
            Shape::Mesh => Topology::Mesh,
            Shape::HubSpoke => Topology::HubSpoke { hub: RegionId(1) },
            Shape::Chain => Topology::Hierarchical {
                parents: (2..=self.plan.regions + 1).map(|id| (RegionId(id), RegionId(id - 1))).collect(),
            },
        };
        let is_late = id.0 > self.plan.regions;
        let seeds = if is_late { vec![RegionId(1), RegionId(2), RegionId(3)] } else { Vec::new() };
        Config { topology, preference: Preference::Latency, seeds, ..Config::default() }
    }

    fn has_faults(&self) -> bool {
        self.plan.has_faults && self.now_ms < START_MS + self.plan.duration_ms
    }

    /// Runs until all is told, or something is wrong.
    pub(crate) fn run(mut self) -> Result<Report, String> {
        let faults_end_ms = START_MS + self.plan.duration_ms;
        self.run_until(faults_end_ms)?;
        self.network.heal();
        let mut ends_ms = faults_end_ms;
        // Leaders that were lost are replaced, and what clients asked for last is applied.
        while !self.is_equal() {
            if ends_ms > faults_end_ms + HEAL_MS {
                return Err(format!("not equal {HEAL_MS} ms after the last fault: {}", self.difference()));
            }
            ends_ms += 1_000;
            self.run_until(ends_ms)?;
        }
        self.report.equal_after_ms = ends_ms - faults_end_ms;
        self.check()?;
        self.run_until(ends_ms + QUIET_MS)?;
        self.check()?;
        self.check_collected()?;
        self.finish()
    }

    fn run_until(&mut self, end_ms: u64) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end_ms
        {
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = at_ms;
            self.trace(at_ms);
            self.step(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        self.now_ms = end_ms;
        Ok(())
    }

    fn trace(&mut self, what: u64) {
        self.report.trace = mix(self.report.trace ^ what);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver(bytes, to) => self.deliver(bytes, to),
            Event::Commit(id) => self.commit(id),
            Event::Wake(id) => self.wake(id),
            Event::Client => self.client(),
            Event::Partition if self.has_faults() => {
                let ids: Vec<_> = self.regions.keys().copied().collect();
                self.network.shuffle(&ids, &mut self.random);
                let lasts_ms = self.random.between(2_000, 45_000);
                self.at(lasts_ms, Event::Partition);
            }
            Event::LoseLeader(id) if self.has_faults() => self.lose_leader(id),
            Event::Partition | Event::LoseLeader(_) => {}
            Event::Elect(id) => {
                let (config, seed) = (self.config(id), self.random.next() % 1_000_000);
                let region = self.regions.get_mut(&id).expect("it exists");
                region.lead(config, self.now_ms, seed);
                self.at(0, Event::Wake(id));
            }
            Event::Join => self.join(),
            Event::Remove => self.remove(),
        }
    }

    fn lose_leader(&mut self, id: RegionId) {
        let (skew_ms, loses) = (self.skew(), self.random.one_in(2));
        let region = self.regions.get_mut(&id).expect("it exists");
        region.lose_leader(loses, skew_ms);
        if self.plan.mistake == Some(Mistake::ReusesDots) {
            region.members.iter_mut().for_each(|member| {
                consensus_regions::sabotage::forget_changes(&mut member.replica, 3);
            });
        }
        self.report.leaders_lost += 1;
        let (election_ms, lives_ms) = (self.random.between(500, 3_000), self.random.between(8_000, 60_000));
        self.at(election_ms, Event::Elect(id));
        self.at(lives_ms, Event::LoseLeader(id));
    }

    fn join(&mut self) {
        let id = RegionId(self.plan.regions + 1);
        let wall_ms = self.now_ms;
        self.propose(RegionId(1), Command::AddRegion { wall_ms, region: id, info: Bytes::from("late") });
        let is_known = self.regions[&RegionId(1)].leader().replica.membership().contains(id);
        if is_known {
            self.found(id, |skew_ms| Member::new(Replica::joining(id), None, skew_ms));
        } else {
            self.at(1_000, Event::Join);
        }
    }

    /// The region is still there and goes on, but nobody listens to it.
    fn remove(&mut self) {
        let (id, wall_ms) = (RegionId(self.plan.regions), self.now_ms);
        self.propose(RegionId(1), Command::RemoveRegion { wall_ms, region: id });
        if self.regions[&RegionId(1)].leader().replica.membership().is_removed(id) {
            self.regions.get_mut(&id).expect("it exists").is_gone = true;
        } else {
            self.at(1_000, Event::Remove);
        }
    }

    fn deliver(&mut self, bytes: Bytes, to: RegionId) {
        let mut message = Message::decode(bytes).expect("what was sent can be read");
        if let consensus_regions::Body::Delta(delta) = &mut message.body
            && self.plan.mistake == Some(Mistake::IgnoresGaps)
        {
            delta.ranges.iter_mut().for_each(|range| range.after = 0);
        }
        self.call(to, |replicator, now_ms, local| {
            let Ok(()) = replicator.handle_message(now_ms, message, local);
        });
    }

    fn wake(&mut self, id: RegionId) {
        self.call(id, |replicator, now_ms, local| {
            let Ok(()) = replicator.handle_timeout(now_ms, local);
        });
        let region = &self.regions[&id];
        let Some(replicator) = &region.replicator else { return };
        let in_ms = replicator.poll_timeout().saturating_sub(region.wall_ms(self.now_ms)).clamp(1, 5_000);
        self.at(in_ms, Event::Wake(id));
        if matches!(self.plan.mistake, Some(Mistake::CollectsEarly | Mistake::CollectsSilently)) {
            self.collect_early(id);
        }
    }

    fn collect_early(&mut self, id: RegionId) {
        let member = self.regions[&id].leader();
        let known = member.replica.version().clone();
        let keys = member.items.iter().filter(|(_, item)| item.is_collectable(&known));
        let keys: Vec<_> = keys.map(|(key, _)| key.clone()).take(1000).collect();
        self.propose(id, Command::Collect { keys, known });
    }

    fn call(
        &mut self,
        id: RegionId,
        call: impl FnOnce(
            &mut consensus_regions::Replicator,
            u64,
            consensus_regions::Local<'_, consensus_regions::MemoryItems>,
        ),
    ) {
        let Some(region) = self.regions.get_mut(&id) else { return };
        let wanted = region.with_leader(self.now_ms, call);
        self.fulfil(id, wanted);
    }

    fn fulfil(&mut self, id: RegionId, wanted: Wanted) {
        for message in wanted.messages {
            let bytes = message.encode();
            self.trace(bytes.len() as u64);
            let has_faults = self.has_faults();
            let way = (message.from, message.to);
            let arrivals =
                self.network.send(way, bytes.len(), self.plan.delay_ms, has_faults, &mut self.random);
            for in_ms in arrivals {
                self.at(in_ms, Event::Deliver(bytes.clone(), message.to));
            }
        }
        wanted.proposals.into_iter().for_each(|command| self.propose(id, command));
        for alarm in wanted.alarms {
            match alarm {
                Alarm::Differs { items, .. } => self.report.repaired += items as u64,
                Alarm::Busy { .. } => {}
                alarm => self.violation = Some(format!("region {id}: {alarm:?}")),
            }
        }
    }

    fn propose(&mut self, id: RegionId, command: Command) {
        let region = self.regions.get_mut(&id).expect("it exists");
        if region.replicator.is_some() {
            region.pending.push_back(command);
            self.at(COMMIT_MS, Event::Commit(id));
        }
    }

    fn commit(&mut self, id: RegionId) {
        let region = self.regions.get_mut(&id).expect("it exists");
        let Some(command) = region.pending.pop_front() else { return };
        let before = region.leader().replica.version().clone();
        let outcome = region.apply(&command, self.plan.mistake);
        let after = region.leader().replica.version().clone();
        self.spread(id, &before, &after);
        match command {
            Command::Change { key, change, .. } => {
                for changed in outcome.into_iter().flatten() {
                    self.report.changes += 1;
                    self.report.deletions += u64::from(!changed.after.as_ref().is_some_and(Item::is_visible));
                    self.report.change_bytes += (key.len() + change_bytes(&change)) as u64;
                    self.oracle.changed(&changed);
                }
                let is_urgent = self.plan.has_faults && self.random.per_mille(20);
                self.call(id, |replicator, now_ms, local| {
                    let Ok(()) = replicator.handle_change(now_ms, is_urgent, local);
                });
            }
            Command::Merge(delta) => self.call(id, |replicator, now_ms, local| {
                let Ok(()) = replicator.handle_merged(now_ms, delta.from, outcome.is_ok(), local);
            }),
            Command::Take(_) => {
                self.call(id, |replicator, now_ms, local| replicator.handle_taken(now_ms, local))
            }
            Command::Collect { .. } if self.plan.mistake == Some(Mistake::CollectsSilently) => {
                let members = self.regions.get_mut(&id).expect("it exists").members.iter_mut();
                members.for_each(|member| consensus_regions::sabotage::forget_horizon(&mut member.replica));
            }
            Command::Collect { .. } => self.report.collected += outcome.map_or(0, |all| all.len() as u64),
            _ => {}
        }
    }

    /// Changes that a region knows of now: when was the last one to hear of them?
    fn spread(&mut self, id: RegionId, before: &VersionVector, after: &VersionVector) {
        for (origin, to) in after.iter() {
            for counter in before.get(origin) + 1..=to {
                if origin == id {
                    self.made_ms.get_mut(&id).expect("it exists").push(self.now_ms);
                    continue;
                }
                let (regions, last_ms) = self.spread.entry((origin, counter)).or_default();
                (*regions, *last_ms) = (*regions + 1, self.now_ms);
            }
        }
    }

    fn client(&mut self) {
        if self.now_ms >= START_MS + self.plan.duration_ms {
            return;
        }
        let between_us = self.plan.duration_ms * 1_000 / self.plan.changes;
        let in_ms = self.random.below(2 * between_us + 1).div_ceil(1_000);
        self.at(in_ms, Event::Client);
        let writers: Vec<_> =
            self.regions.iter().filter(|(_, region)| region.serves()).map(|(id, _)| *id).collect();
        let Some(id) = self.random.pick(&writers) else { return };
        let region = &self.regions[&id];
        let member = self.random.below(region.members.len() as u64) as usize;
        let wall_ms = region.members[member].wall_ms(self.now_ms);
        let (key, change) = self.change();
        self.propose(id, Command::Change { wall_ms, key, change });
    }

    fn change(&mut self) -> (Bytes, Change) {
        let random = &mut self.random;
        let number = random.below(self.plan.keys);
        let len = random.between(40, 200) as usize;
        let value = Bytes::from(vec![random.next() as u8; len]);
        let field = Bytes::from(format!("field-{}", random.below(4)));
        let kind = if self.plan.has_faults { random.below(20) } else { random.below(14) };
        let (family, change) = match kind {
            0..=10 => ("registers", Change::Put(value)),
            11..=13 => ("registers", Change::Delete),
            14 => ("counters", Change::CounterAdd(random.between(1, 10) as i64 - 5)),
            15 => ("sets", Change::OrSetAdd { element: field }),
            16 => ("sets", Change::OrSetRemove { element: field }),
            17 if random.one_in(2) => ("maps", Change::OrMapPut { field, value }),
            17 => ("maps", Change::OrMapRemove { field }),
            18 if random.one_in(2) => ("fields", Change::RegisterMapPut { field, value }),
            18 => ("fields", Change::RegisterMapDelete { field }),
            // Whatever it is.
            _ => (random.pick(&["counters", "sets", "maps", "fields"]).expect("four"), Change::Delete),
        };
        (Bytes::from(format!("{family}/{number:06}")), change)
    }

    fn members(&self) -> impl Iterator<Item = &Region> {
        self.regions.values().filter(|region| !region.is_gone)
    }

    /// Whether all know everything.
    fn is_equal(&self) -> bool {
        let mut all = VersionVector::default();
        self.members().for_each(|region| all.join(region.leader().replica.version()));
        let is_done = |region: &Region| {
            region.pending.is_empty()
                && region.leader().replica.version() == &all
                && region.leader().replica.phase() == Phase::Active
        };
        self.members().all(is_done)
    }

    fn difference(&self) -> String {
        let versions = self.members().map(|region| {
            format!(
                "{} {:?} {:?}",
                region.id,
                region.leader().replica.phase(),
                region.leader().replica.version()
            )
        });
        versions.collect::<Vec<_>>().join("; ")
    }

    /// Whoever knows the same has the same, and it is what clients have done.
    fn check(&self) -> Result<(), String> {
        for region in self.regions.values() {
            region.check_members()?;
        }
        let roots: Vec<_> = self.members().map(|region| region.leader().tree.root()).collect();
        // What the removed region told nobody is lost: then nobody but the regions themselves can say what is right.
        if !self.plan.removes {
            for region in self.members() {
                let differences = self.oracle.differences(&region.leader().items);
                if let Some(first) = differences.first() {
                    return Err(format!("region {}: {} of {}", region.id, first, differences.len()));
                }
            }
        }
        if roots.iter().any(|root| *root != roots[0]) {
            return Err(format!("regions that know the same differ: {roots:?}"));
        }
        Ok(())
    }

    fn check_collected(&self) -> Result<(), String> {
        for region in self.members() {
            let known = region.leader().replica.version();
            let left = region.leader().items.iter().filter(|(_, item)| item.is_collectable(known)).count();
            if left > 0 {
                return Err(format!("region {}: {left} items with tombstones are left", region.id));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report, String> {
        let others = self.plan.regions as usize - 1;
        let mut took: Vec<_> = self
            .spread
            .iter()
            .filter(|(_, (regions, _))| *regions >= others)
            .map(|((origin, counter), (_, last_ms))| last_ms - self.made_ms[origin][*counter as usize - 1])
            .collect();
        took.sort_unstable();
        let part = |percent| took.get(took.len() * percent / 100).copied().unwrap_or(0);
        (self.report.p50_ms, self.report.p99_ms) = (part(50), part(99));
        self.report.max_ms = took.last().copied().unwrap_or(0);
        self.report.change_bytes *= others as u64;
        (self.report.wire_bytes, self.report.messages) = (self.network.bytes, self.network.messages);
        Ok(self.report)
    }
}

fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Put(value) => value.len(),
        Change::OrMapPut { field, value } | Change::RegisterMapPut { field, value } => {
            field.len() + value.len()
        }
        Change::OrSetAdd { element: field } | Change::OrSetRemove { element: field } => field.len(),
        Change::OrMapRemove { field } | Change::RegisterMapDelete { field } => field.len(),
        Change::CounterAdd(_) => 8,
        Change::Delete => 0,
    }
}
