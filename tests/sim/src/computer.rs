//! A simulated machine: its disks, its clock, and the member that runs on it while it is up.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use consensus_core::sim::{Clock, End, Settings, SteppedMember};
use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk};
use consensus_raft::{LOG, Role, STATE};

use crate::{
    Mistake,
    checks::{Checks, Violation},
    disk::{Failure, SimDisk},
    machine::{Files, Machine, lock},
    network::{Network, SimOutbox},
    plan::Plan,
    random::Random,
};

/// Of a clock, in microseconds.
const DAY: u64 = 86_400_000_000;
/// Turns after which the applier has to do what waits: its queue has a bound at which the host waits for it.
const TURNS_BEHIND_MAX: u64 = 8;

pub(crate) type Running = SteppedMember<SimDisk, Machine, SimOutbox>;

/// Why a machine never starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its member was removed from the cluster, and knows.
    Removed,
    /// Its log is damaged, and it has said so.
    Damaged,
}

pub(crate) struct Computer {
    pub(crate) id: u64,
    mistake: Option<Mistake>,
    pub(crate) log: Arc<SimDisk>,
    pub(crate) files: Arc<Mutex<Files>>,
    pub(crate) member: Option<Running>,
    pub(crate) gone: Option<Gone>,
    /// Its log was damaged.
    pub(crate) rotten: bool,
    /// How often it was started.
    pub(crate) starts: u64,
    pub(crate) down_until: u64,
    pub(crate) paused_until: u64,
    /// Ticks in a thousand steps, and how much of the next has passed.
    rate: u64,
    phase: u64,
    /// Its clock, in microseconds: a tick is a thousand.
    clock: Arc<AtomicU64>,
    leases: bool,
    /// How long one lasts.
    lease_length: Duration,
    /// It was told the time since the last start; and then its clock has gone on by a day, for a mistake.
    ticked: bool,
    jumped: bool,
    /// What readers take for the end of its lease, if they make a mistake.
    believed: Believed,
    turns_behind: u64,
    /// The last entry that was applied since the last start or snapshot.
    last: Option<u64>,
    pub(crate) restored: u64,
    /// What was news last.
    told: Option<(&'static str, u64)>,
}

/// A reader's idea of a lease.
#[derive(Clone, Copy, Debug, Default)]
struct Believed {
    term: u64,
    end: Option<Duration>,
    /// The true end, and the last change of the members, as of the last turn.
    seen: Option<Duration>,
    change: u64,
}

impl Computer {
    /// One that is down, with a log that begins with a batch.
    pub(crate) fn new(
        id: u64,
        begin: Batch,
        plan: &Plan,
        mistake: Option<Mistake>,
        random: &mut Random,
    ) -> Self {
        let log = SimDisk::new(MemoryDisk::default(), mistake);
        log.write(begin, Durability::Synced).expect("a new disk takes a write");
        Self {
            id,
            mistake,
            log: Arc::new(log),
            files: Arc::new(Mutex::new(Files::new(mistake))),
            member: None,
            gone: None,
            rotten: false,
            starts: 0,
            down_until: 0,
            paused_until: 0,
            rate: random.between(1000 - plan.skew, 1000 + plan.skew),
            phase: 0,
            // Clocks begin at any time, so that nobody compares two of them.
            clock: Arc::new(AtomicU64::new(random.below(DAY))),
            leases: plan.leases && !random.one_in(4),
            lease_length: Duration::from_millis(plan.election_ticks as u64) / 10 * 9,
            ticked: false,
            jumped: false,
            believed: Believed::default(),
            turns_behind: 0,
            last: None,
            restored: 0,
            told: None,
        }
    }

    fn stopped(&self, why: impl ToString) -> Violation {
        Violation::Stopped { member: self.id, why: why.to_string() }
    }

    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        network: &Rc<RefCell<Network>>,
        random: &mut Random,
        checks: &mut Checks,
    ) -> Result<(), Violation> {
        self.starts += 1;
        (self.last, self.turns_behind) = (None, 0);
        (self.believed, self.ticked, self.jumped) = (Believed::default(), false, false);
        let clock = Arc::clone(&self.clock);
        let machine =
            Machine::open(Arc::clone(&self.files), self.mistake).map_err(|error| self.stopped(error))?;
        let settings = Settings {
            id: self.id,
            election_ticks: plan.election_ticks,
            heartbeat_ticks: plan.heartbeat_ticks,
            priority: u32::from(plan.preferred == Some(self.id)),
            election_timeout: Duration::from_millis(plan.election_ticks as u64),
            leases: self.leases,
            clock: Clock::new(move || Duration::from_micros(clock.load(Relaxed))),
            entries_per_message_max: plan.entries_per_message_max,
            seed: random.next(),
            snapshot_entries: plan.snapshot_entries,
            snapshot_interval_ticks: plan.snapshot_interval_ticks,
        };
        let outbox = SimOutbox { id: self.id, network: Rc::clone(network), members: BTreeSet::new() };
        let left_over = |begin| lock(&self.files).left_over(begin);
        let opened = SteppedMember::open(settings, Arc::clone(&self.log), machine, outbox, left_over);
        match opened {
            Ok(_) if self.rotten => return Err(Violation::DamageUnnoticed { member: self.id }),
            Ok(member) => {
                checks.found(self.id, member.machine())?;
                self.member = Some(member);
            }
            Err(_) if self.rotten => self.gone = Some(Gone::Damaged),
            Err(error) => return Err(self.stopped(error)),
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, power_lost: bool, random: &mut Random) {
        self.member = None;
        self.log.crash(power_lost, random);
        lock(&self.files).data.crash(power_lost, random);
    }

    /// Damages its log, while it is down.
    pub(crate) fn rot(&mut self, random: &mut Random) {
        assert!(self.member.is_none(), "the log of a running member is not looked at");
        self.rotten = true;
        self.log.rot(&[LOG, STATE], random);
    }

    /// The next write of one of its disks, or one soon after, fails.
    pub(crate) fn arm(&self, random: &mut Random) {
        let failures = [Failure::CrashBefore, Failure::CrashAfter, Failure::NoSpace, Failure::SyncFailed];
        let failure = failures[random.below(4) as usize];
        let after = random.below(6);
        match random.one_in(3) {
            true => lock(&self.files).data.arm(after, failure),
            false => self.log.arm(after, failure),
        }
    }

    /// A step passes on its clock, whether or not anything runs.
    pub(crate) fn elapse(&mut self, now: u64) {
        let stands = self.mistake == Some(Mistake::ClockStandsStill) && self.paused_until > now;
        if !stands {
            self.clock.fetch_add(self.rate, Relaxed);
        }
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.clock.load(Relaxed))
    }

    /// The term of its lease, if that is not over.
    pub(crate) fn lease(&self) -> Option<u64> {
        let member = self.member.as_ref()?;
        member.lease_end().filter(|end| self.time() < *end).map(|_| member.status().term)
    }

    /// Whether a reader that makes a mistake about leases takes its member for one that has a lease.
    pub(crate) fn believed_to_lead(&self) -> bool {
        self.believed.end.is_some_and(|end| self.time() < end)
    }

    /// A step passes.
    pub(crate) fn tick(&mut self) {
        self.phase += self.rate;
        while self.phase >= 1000 {
            self.phase -= 1000;
            if let Some(member) = &self.member {
                member.tick();
                self.ticked = true;
            }
        }
    }

    /// The raft thread's part. `false`: the machine has crashed.
    pub(crate) fn turn(&mut self, release: bool, checks: &mut Checks) -> Result<bool, Violation> {
        let Some(member) = &mut self.member else { return Ok(false) };
        self.turns_behind += 1;
        match member.turn(release) {
            Ok(()) => {
                let status = member.status();
                checks.leader(self.id, &status)?;
                checks.applied(self.id, status.applied, member.machine())?;
                self.mistake_lease();
                Ok(true)
            }
            Err(End::Removed) => {
                self.gone = Some(Gone::Removed);
                self.member = None;
                Ok(false)
            }
            Err(End::Disk(_)) if self.log.failed().is_some() => Ok(false),
            Err(end) => Err(self.stopped(format!("{end:?}"))),
        }
    }

    /// After a turn: what a mistake makes of the lease, and of the time.
    fn mistake_lease(&mut self) {
        let Some(member) = &self.member else { return };
        let (status, end, time) = (member.status(), member.lease_end(), self.time());
        let change = member.membership().index;
        if status.role != Role::Leader || self.believed.term != status.term {
            self.believed = Believed { term: status.term, ..Believed::default() };
        }
        match self.mistake {
            Some(Mistake::LeaseFromAnswer) if end != self.believed.seen => {
                // All that a promise allows, from now on.
                self.believed.end = end.map(|_| time + self.lease_length);
            }
            Some(Mistake::LeaseKeptInTransfer) => self.believed.end = self.believed.end.max(end),
            Some(Mistake::LeaseKeptInChange) if change != self.believed.change => {
                self.believed.end = self.believed.end.max(self.believed.seen);
            }
            // Who waits after a start does not vote twice, whatever was forgotten.
            Some(Mistake::PromiseForgotten | Mistake::VoteForgotten) if self.ticked && !self.jumped => {
                self.jumped = true;
                self.clock.fetch_add(DAY, Relaxed);
            }
            _ => {}
        }
        (self.believed.seen, self.believed.change) = (end, change);
    }

    /// Whether the applier may be late by another turn.
    pub(crate) fn may_wait(&self) -> bool {
        self.turns_behind < TURNS_BEHIND_MAX
    }

    /// The apply thread's part. `false`: the machine has crashed.
    pub(crate) fn apply(&mut self, checks: &mut Checks) -> Result<bool, Violation> {
        self.turns_behind = 0;
        let Some(member) = &mut self.member else { return Ok(false) };
        while let Some((entries, applied)) = member.apply() {
            if let Err(error) = applied {
                return match lock(&self.files).data.failed() {
                    Some(_) => Ok(false),
                    None => Err(Violation::Stopped { member: self.id, why: error.to_string() }),
                };
            }
            let news = std::mem::take(&mut *lock(&member.machine().news));
            if news.restored > 0 {
                self.last = None;
                self.restored += news.restored;
            }
            checks.entries(self.id, &mut self.last, entries)?;
            checks.news(self.id, news)?;
        }
        Ok(true)
    }

    /// The snapshot thread's part. `false`: the machine has crashed.
    pub(crate) fn run_job(&mut self) -> bool {
        if let Some(member) = &mut self.member {
            member.run_job();
        }
        lock(&self.files).data.failed().is_none()
    }

    /// What it has become or come to, if that is new. The number is the term and the commit index, eight digits.
    pub(crate) fn news(&mut self) -> Option<(&'static str, u64)> {
        let status = self.member.as_ref()?.status();
        let what = match status.role {
            Role::Leader => "leads, has committed",
            Role::Candidate => "campaigns, has committed",
            Role::Follower => "follows, has committed",
        };
        let now = Some((what, status.term * 100_000_000 + status.commit));
        let is_new = now != self.told;
        self.told = now;
        now.filter(|_| is_new)
    }

    /// No write will fail.
    pub(crate) fn disarm(&self) {
        self.log.disarm();
        lock(&self.files).data.disarm();
    }

    /// How a disk failed, if one did.
    pub(crate) fn failed(&self) -> Option<Failure> {
        self.log.failed().or_else(|| lock(&self.files).data.failed())
    }
}
