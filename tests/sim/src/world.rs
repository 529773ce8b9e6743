//! One run: machines, a network, clients and an operator, step by step, with faults and then without.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use consensus_core::sim::GROUP;
use consensus_raft::{MemberInfo, Membership, Role, bootstrap};

use crate::{
    Mistake, Report,
    ambush::{Ambush, Blow},
    checks::{Checks, Violation},
    client::Clients,
    computer::{Computer, Gone},
    disk::Failure,
    fetch::Fetches,
    machine::{dump, lock},
    network::Network,
    operator::Operator,
    plan::Plan,
    random::Random,
    region::OtherRegion,
    trace::Trace,
    watcher::{self, Watcher},
};

/// Steps without, in which everybody has to get what it wants, and all members to have the same.
const CALM_MAX: u64 = 800;
/// Between two entries that are about regions.
const REGION_STEPS: u64 = 25;
/// Steps that a crashed machine is down, or a process that waits is paused, at most.
const DOWN_MAX: u64 = 80;
const PAUSE_MAX: u64 = 40;
/// A machine that is down for a moment only.
const QUICK_RESTART: u64 = 3;
/// Between two times that a member lets go of what it holds back.
const RELEASE_STEPS: u64 = 3;

pub(crate) struct World {
    seed: u64,
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) network: Rc<RefCell<Network>>,
    pub(crate) computers: BTreeMap<u64, Computer>,
    fetches: Fetches,
    pub(crate) clients: Clients,
    watchers: Vec<Watcher>,
    operator: Operator,
    other_region: OtherRegion,
    ambush: Ambush,
    checks: Checks,
    trace: Trace,
    report: Report,
    rot_left: bool,
}

impl World {
    pub(crate) fn new(seed: u64, mistake: Option<Mistake>, printed: bool) -> Self {
        let mut random = Random::new(seed, 0);
        let plan = Plan::draw(&mut random);
        Self::with(plan, random, seed, mistake, printed)
    }

    pub(crate) fn with(
        plan: Plan,
        mut random: Random,
        seed: u64,
        mistake: Option<Mistake>,
        printed: bool,
    ) -> Self {
        let voters = (1..=plan.voters).map(|id| (id, MemberInfo::default())).collect();
        let membership = Membership::of_voters(voters);
        let computers = (1..=plan.voters)
            .map(|id| (id, Computer::new(id, bootstrap(GROUP, &membership), &plan, mistake, &mut random)));
        let computers = computers.collect();
        let clients = Clients::new(seed, &plan, mistake);
        let watchers = (0..plan.watchers)
            .map(|n| Watcher::new(watcher::range(&clients.keys, (n > 0).then_some(n as u8))))
            .collect();
        if printed {
            println!("seed {seed}: {plan:?}");
        }
        Self {
            seed,
            network: Rc::new(RefCell::new(Network::new(seed, &plan, mistake))),
            rot_left: plan.rot,
            random,
            now: 0,
            computers,
            fetches: Fetches::new(seed),
            clients,
            watchers,
            operator: Operator::new(seed, mistake),
            other_region: OtherRegion::new(seed),
            ambush: Ambush::new(seed),
            checks: Checks::default(),
            trace: Trace::new(seed, printed),
            report: Report::default(),
            plan,
        }
    }

    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        while self.now < self.plan.rough_steps {
            self.step(true)?;
        }
        self.end_faults();
        loop {
            self.step(false)?;
            let unfinished = self.unfinished();
            match unfinished {
                None => break,
                Some(what) if self.now >= self.plan.rough_steps + CALM_MAX => {
                    return Err(Violation::NotLive { steps: CALM_MAX, what });
                }
                Some(_) => {}
            }
        }
        self.final_checks()
    }

    /// The run ends as others do when their faults have ended.
    pub(crate) fn finish(mut self) -> Result<Report, Violation> {
        self.plan.rough_steps = self.now;
        self.run()
    }

    pub(crate) fn step(&mut self, rough: bool) -> Result<(), Violation> {
        self.now += 1;
        self.network.borrow_mut().now = self.now;
        self.computers.values_mut().for_each(|computer| computer.elapse(self.now));
        if rough {
            self.strike();
        }
        self.deliver();
        self.tell_of_links();
        let ids: Vec<u64> = self.computers.keys().copied().collect();
        for id in &ids {
            self.start_or_tick(*id)?;
        }
        self.clients.step(self.now, &self.computers, &mut self.checks, &mut self.trace)?;
        self.operate(rough);
        for id in ids {
            self.work(id, rough)?;
            self.fetches.step(id, self.now, &self.computers, &self.network.borrow());
        }
        self.check_leases()?;
        self.watch()
    }

    /// Nobody is elected while a leader of before has a lease.
    fn check_leases(&self) -> Result<(), Violation> {
        let Some(leader) = self.leader().and_then(|computer| computer.member.as_ref()) else { return Ok(()) };
        let later = leader.status().term;
        let mut leases =
            self.computers.values().filter_map(|computer| Some((computer.id, computer.lease()?)));
        match leases.find(|(_, term)| *term < later) {
            Some((member, term)) => Err(Violation::LeaseBroken { member, term, later }),
            None => Ok(()),
        }
    }

    /// Faults that strike from outside.
    fn strike(&mut self) {
        let ids: Vec<u64> = self.computers.keys().copied().collect();
        if self.random.per_mille(self.plan.partitions) {
            let what = match self.random.one_in(3) {
                true => {
                    self.network.borrow_mut().mend();
                    "the network is whole"
                }
                false => self.network.borrow_mut().reshape(&ids),
            };
            self.trace.note(self.now, 0, what, 0);
        }
        if self.random.per_mille(self.plan.resets)
            && let (Some(at), Some(with)) = (self.random.pick(&ids), self.random.pick(&ids))
        {
            self.reset_link(at, with);
        }
        self.ambush(&ids);
        for id in ids {
            if self.random.per_mille(self.plan.crashes) {
                self.crash(id, true, "crashes");
            }
            let computer = self.computers.get_mut(&id).expect("machines stay");
            if self.random.per_mille(self.plan.pauses) {
                let election = self.plan.election_ticks as u64;
                computer.paused_until = self.now + self.random.below(PAUSE_MAX.max(4 * election));
                self.trace.note(self.now, id, "pauses until", computer.paused_until);
            }
            if self.random.per_mille(self.plan.disk_failures) && computer.member.is_some() {
                computer.arm(&mut self.random);
            }
        }
    }

    /// A member loses its links with another that is up, and makes new ones.
    fn reset_link(&mut self, at: u64, with: u64) {
        let mut network = self.network.borrow_mut();
        network.reset(at, with);
        network.relink(at, with);
        self.trace.note(self.now, at, "loses its links with", with);
    }

    fn ambush(&mut self, ids: &[u64]) {
        let leader = self.leader().map(|computer| computer.id);
        let Some(blow) = self.ambush.next(self.now, &self.plan, leader, ids) else { return };
        self.trace.note(self.now, 0, blow.name(), leader.unwrap_or_default());
        self.clients.hushed = matches!(blow, Blow::Hush | Blow::Part(..));
        match blow {
            Blow::Hush => {}
            Blow::Part(a, b) => self.network.borrow_mut().part(a, b),
            Blow::Fall { leader, rival } => {
                ids.iter().for_each(|id| self.network.borrow_mut().part(leader, *id));
                for id in ids.iter().filter(|id| ![leader, rival].contains(id)) {
                    self.crash(*id, false, "is killed");
                    self.computers.get_mut(id).expect("machines stay").down_until = self.now + 1;
                }
            }
            Blow::Mend => self.network.borrow_mut().mend(),
        }
    }

    pub(crate) fn crash(&mut self, id: u64, power_lost: bool, what: &'static str) {
        let others: Vec<u64> = self.computers.keys().copied().filter(|other| *other != id).collect();
        let computer = self.computers.get_mut(&id).expect("machines stay");
        let Some(member) = &computer.member else { return };
        self.report.elections_hinted += member.hinted_elections();
        // A process that is killed leaves everything that it wrote.
        let power_lost = power_lost && !self.random.one_in(4);
        computer.crash(power_lost, &mut self.random);
        // Whoever is back in no time may meet those to whom it has promised something.
        let quick = self.plan.leases && self.random.one_in(2);
        computer.down_until = self.now + self.random.below(if quick { QUICK_RESTART } else { DOWN_MAX });
        self.fetches.forget(id);
        self.network.borrow_mut().close(id, &others);
        self.report.crashes += 1;
        self.trace.note(self.now, id, what, power_lost.into());
        if self.rot_left && self.now < self.plan.rough_steps && self.random.one_in(3) {
            self.rot_left = false;
            computer.rot(&mut self.random);
            self.trace.note(self.now, id, "its log is damaged", 0);
        }
    }

    fn deliver(&mut self) {
        loop {
            let arrived = self.network.borrow_mut().arrived();
            let Some(message) = arrived else { return };
            self.trace.show(self.now, &message);
            if let Some(member) = self.computers.get(&message.to()).and_then(|c| c.member.as_ref()) {
                member.message(message);
            }
        }
    }

    fn tell_of_links(&mut self) {
        loop {
            let changed = self.network.borrow_mut().link_changed();
            let Some((at, with, linked)) = changed else { return };
            let Some(member) = self.computers.get(&at).and_then(|c| c.member.as_ref()) else { continue };
            match linked {
                true => member.links_made(with),
                false => member.links_lost(with),
            }
        }
    }

    fn start_or_tick(&mut self, id: u64) -> Result<(), Violation> {
        let computer = self.computers.get_mut(&id).expect("machines stay");
        if computer.gone.is_some() || computer.paused_until > self.now {
            return Ok(());
        }
        if computer.member.is_some() {
            computer.tick();
        } else if computer.down_until <= self.now {
            computer.start(&self.plan, &self.network, &mut self.random, &mut self.checks)?;
            let applied = computer.member.as_ref().map_or(0, |member| member.status().applied);
            self.trace.note(self.now, id, "starts, has applied", applied);
            self.report.damage_noticed += u64::from(computer.gone == Some(Gone::Damaged));
            let others = self.computers.keys().copied().filter(|other| *other != id);
            others.for_each(|other| self.network.borrow_mut().relink(other, id));
        }
        Ok(())
    }

    fn operate(&mut self, rough: bool) {
        self.operator.look(self.now);
        if self.plan.region && self.now.is_multiple_of(REGION_STEPS) {
            self.replicate(rough);
        }
        if !rough {
            return;
        }
        if self.random.per_mille(self.plan.changes) {
            self.operator.change(self.now, &self.plan, &mut self.computers, &mut self.clients);
        }
        if self.random.per_mille(self.plan.transfers) {
            self.operator.move_leader(&self.computers);
        }
        if self.random.per_mille(self.plan.compactions) {
            let up: Vec<u64> = self.computers.values().filter(|c| c.member.is_some()).map(|c| c.id).collect();
            let member = self.random.pick(&up).and_then(|id| self.computers[&id].member.as_ref());
            member.into_iter().for_each(|member| self.clients.compact(member));
        }
    }

    /// The other region changes something and tells some member; without faults the leader, what it has not heard of.
    fn replicate(&mut self, rough: bool) {
        let up = |computer: &&Computer| computer.member.is_some();
        let told = if rough { self.computers.values().find(up) } else { self.leader() };
        let Some(id) = told.map(|computer| computer.id) else { return };
        let Some(member) = &self.computers[&id].member else { return };
        if rough {
            self.other_region.change(self.now);
        } else if self.other_region.is_heard(member) {
            return;
        }
        let request = self.other_region.request(member, !rough);
        self.clients.propose(member, request);
    }

    /// What the three threads of a member do in a step.
    fn work(&mut self, id: u64, rough: bool) -> Result<(), Violation> {
        let computer = self.computers.get_mut(&id).expect("machines stay");
        if computer.member.is_none() || computer.paused_until > self.now {
            return Ok(());
        }
        let release = (self.now + id).is_multiple_of(RELEASE_STEPS);
        let mut up = computer.turn(release, &mut self.checks)?;
        let waits = rough && computer.may_wait() && self.random.one_in(3);
        if up && !waits {
            up = computer.apply(&mut self.checks)?;
        }
        if up && (!rough || self.random.one_in(3)) {
            up = computer.run_job();
        }
        if !up {
            let failure = computer.failed();
            let power_lost = failure.is_some_and(|failure| failure != Failure::NoSpace);
            self.report.syncs_failed += u64::from(failure == Some(Failure::SyncFailed));
            match computer.gone {
                Some(_) => self.trace.note(self.now, id, "was removed", 0),
                None if failure == Some(Failure::SyncFailed) => self.crash(id, true, "a sync fails"),
                None => self.crash(id, power_lost, "a write fails"),
            }
        } else if let Some((what, value)) = computer.news() {
            self.trace.note(self.now, id, what, value);
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<(), Violation> {
        let up: Vec<u64> = self.computers.values().filter(|c| c.member.is_some()).map(|c| c.id).collect();
        for watcher in &mut self.watchers {
            let there = watcher.at.and_then(|(id, starts)| {
                let computer = self.computers.get(&id).filter(|computer| computer.starts == starts)?;
                computer.member.as_ref()
            });
            match there {
                Some(member) if self.random.one_in(2) => watcher.take(member.machine(), &self.checks)?,
                Some(_) => {}
                None => {
                    let Some(id) = self.random.pick(&up) else { return Ok(()) };
                    let computer = &self.computers[&id];
                    let Some(member) = &computer.member else { continue };
                    watcher.connect((id, computer.starts), member.machine(), &self.checks)?;
                }
            }
        }
        Ok(())
    }

    fn end_faults(&mut self) {
        self.trace.note(self.now, 0, "the faults end", 0);
        self.network.borrow_mut().calm();
        for computer in self.computers.values_mut() {
            (computer.paused_until, computer.down_until) = (0, 0);
            computer.disarm();
        }
        self.clients.calm();
    }

    /// The leader of the newest term.
    pub(crate) fn leader(&self) -> Option<&Computer> {
        let leads = |computer: &&Computer| {
            computer.member.as_ref().is_some_and(|member| member.status().role == Role::Leader)
        };
        let term = |computer: &&Computer| computer.member.as_ref().map(|member| member.status().term);
        self.computers.values().filter(leads).max_by_key(term)
    }

    /// What is still to come before the run may end.
    fn unfinished(&self) -> Option<String> {
        let Some(leader) = self.leader().and_then(|computer| computer.member.as_ref()) else {
            return Some("nobody leads".to_owned());
        };
        if !self.clients.satisfied() {
            return Some("clients wait for answers".to_owned());
        }
        if self.plan.region && !self.other_region.is_heard(leader) {
            return Some("the leader has not heard of another region's changes".to_owned());
        }
        let last = leader.status().last;
        let behind = |id: &&u64| {
            let computer = &self.computers[id];
            let applied = computer.member.as_ref().map(|member| member.machine().store.applied());
            applied != Some(last) && computer.gone != Some(Gone::Damaged)
        };
        let membership = leader.membership();
        membership.members.keys().find(behind).map(|id| format!("member {id:x} has not applied entry {last}"))
    }

    fn final_checks(mut self) -> Result<Report, Violation> {
        let leader = self.leader().and_then(|computer| computer.member.as_ref());
        let members = leader.map(|member| member.membership().members).unwrap_or_default();
        let up: Vec<&Computer> =
            members.keys().map(|id| &self.computers[id]).filter(|c| c.member.is_some()).collect();
        let states: Vec<_> = up.iter().map(|computer| dump(&lock(&computer.files).data)).collect();
        if let Some(other) = states.iter().position(|state| *state != states[0]) {
            return Err(Violation::StatesDiffer { first: up[0].id, second: up[other].id });
        }
        for watcher in &mut self.watchers {
            let computer = up[self.random.below(up.len() as u64) as usize];
            if let Some(member) = &computer.member {
                if watcher.at != Some((computer.id, computer.starts)) {
                    watcher.connect((computer.id, computer.starts), member.machine(), &self.checks)?;
                }
                watcher.check_all(member.machine(), &self.checks)?;
            }
        }
        if let Some((first, member)) = up.first().and_then(|first| Some((first.id, first.member.as_ref()?)))
            && self.plan.region
        {
            self.report.merged = self.other_region.check(first, member)?;
        }
        self.checks.nothing_is_lost()?;
        let report = &mut self.report;
        report.runs = 1;
        let members = self.computers.values().filter_map(|computer| computer.member.as_ref());
        report.elections_hinted += members.map(|member| member.hinted_elections()).sum::<u64>();
        report.trace = self.trace.hash() ^ self.seed;
        report.steps = self.now;
        report.entries = self.checks.last_entry();
        report.terms_led = self.checks.terms_led();
        report.members_changed = self.operator.changed;
        report.snapshots_restored = self.computers.values().map(|computer| computer.restored).sum();
        report.events_watched = self.watchers.iter().map(|watcher| watcher.events).sum();
        report.answered = self.clients.answered;
        report.unanswered = self.clients.unanswered;
        report.lease_reads = self.clients.at_once;
        report.serializable_reads = self.clients.serializable;
        let certain = self.clients.check()?;
        report.uncertain = u64::from(!certain);
        Ok(self.report)
    }
}
