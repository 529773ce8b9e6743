//! The controller of links and congestion control. A change is a first guess from evidence, confirmed by a bounded trial
//! that compares goodput before and after; a trial that fails is undone, and the next of its kind waits twice as long.

mod trial;

use std::time::Duration;

use super::{
    Action, Change, CongestionControl, LONG_RTT, Limit, LinkSample, PathSample, SHORT_RTT,
    ceiling::Ceiling,
    evidence::{Evidence, Loss},
    goodput::{Goodput, SLOT_MIN},
    links_at_first,
};
use crate::config::StreamsConfig;
use trial::{PAUSE_MIN, Pause, TRIAL_SLOTS, Trial, TrialKind};

/// Start-up has ended after this many slots without growth of a fifth.
const STARTUP_FLAT_SLOTS: usize = 3;
const STARTUP_GROWTH: f64 = 1.2;
/// Slots of the baseline for a decision on evidence, which should not wait.
const BASELINE_SLOTS: usize = 3;
/// Pause before the first trial of links: on a short path a trial costs nothing, on a long one some percent of ten
/// seconds, which only a connection that lives for minutes earns back.
const PAUSE_FIRST: Duration = Duration::from_secs(30);
const PAUSE_FIRST_SHORT: Duration = Duration::from_secs(1);
/// Unsure whether losses are random: the other congestion control is tried after this time.
const UNSURE: Duration = Duration::from_secs(2);
/// Random loss has had its effect on CUBIC after this many round trips: what it carries then is what BBR is held against.
const RANDOM_RTTS: u32 = 10;
/// The path is another one if goodput differs from what it was by this factor.
const PATH_CHANGE: f64 = 1.4;
const PATH_CHANGE_SLOTS: usize = 12;
/// Share of the time that a link must have been short of send buffer for it to be the limit.
const BUFFER_LIMITED: f64 = 0.3;
/// Links that did not come up are asked for again after this time, doubled each time, at most three times.
const REDIAL: Duration = Duration::from_secs(2);
const REDIALS_MAX: u32 = 3;

/// What the controller may do.
#[derive(Clone, Debug)]
pub struct LinkControllerConfig {
    /// Bounds of the number of links.
    pub streams: StreamsConfig,
    /// Congestion controls that the kernel lets this process set, the one that links begin with first. Empty if the
    /// setting names one: it is never changed.
    pub available: Vec<CongestionControl>,
    /// The one that the setting names, if the controller knows it.
    pub pinned: Option<CongestionControl>,
}

/// Decides about links and congestion control of one connection's sending direction.
#[derive(Debug)]
pub struct LinkController {
    config: LinkControllerConfig,
    congestion_control: Option<CongestionControl>,
    /// Links that should be open.
    target: u16,
    startup: Option<Startup>,
    trial: Option<Trial>,
    evidence: Evidence,
    ceiling: Ceiling,
    goodput: Goodput,
    /// Goodput after the last change, to notice another path.
    settled: Option<f64>,
    /// Start-up has ended or a trial was undone: goodput says something about the path only from this time on.
    calm_at: Duration,
    links_pause: Pause,
    cubic_pause: Pause,
    bbr_pause: Pause,
    /// Since when losses look random.
    random_since: Option<Duration>,
    last_step: Step,
    redial: Redial,
    buffers: BufferTime,
    last_decision: String,
}

#[derive(Debug, Default)]
struct Startup {
    flat_slots: usize,
    best: f64,
    ramped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    More,
    Fewer,
}

#[derive(Debug, Default)]
struct Redial {
    at: Option<Duration>,
    tries: u32,
}

/// Time that links were short of buffers, summed, to take differences.
#[derive(Debug, Default)]
struct BufferTime {
    at: Duration,
    limited: Duration,
    /// Share of the time since the last sample, smoothed.
    share: f64,
}

impl LinkController {
    /// A controller for a connection that opens `streams.initial` links.
    pub fn new(config: LinkControllerConfig) -> Self {
        Self {
            congestion_control: config.available.first().copied(),
            target: config.streams.initial,
            config,
            startup: Some(Startup::default()),
            trial: None,
            evidence: Evidence::default(),
            ceiling: Ceiling::default(),
            goodput: Goodput::default(),
            settled: None,
            calm_at: Duration::ZERO,
            links_pause: Pause::new(),
            cubic_pause: Pause::new(),
            bbr_pause: Pause::new(),
            random_since: None,
            last_step: Step::More,
            redial: Redial::default(),
            buffers: BufferTime::default(),
            last_decision: String::from("initial"),
        }
    }

    /// What new links should use; `None`: the configured one.
    pub fn congestion_control(&self) -> Option<CongestionControl> {
        self.congestion_control
    }

    /// Links that should be open now.
    pub fn links_target(&self) -> u16 {
        self.target
    }

    /// Why the last action was taken.
    pub fn last_decision(&self) -> &str {
        &self.last_decision
    }

    /// The kernel refused to set this congestion control: it is not chosen again.
    pub fn on_congestion_control_refused(&mut self, refused: CongestionControl) {
        self.config.available.retain(|cc| *cc != refused);
        if self.congestion_control == Some(refused) {
            self.congestion_control = self.config.available.first().copied();
        }
        self.trial = None;
    }

    /// Takes a sample and says what to do, usually nothing.
    pub fn on_sample(&mut self, sample: &PathSample<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.evidence.on_sample(sample.now, sample.links);
        self.buffers.on_sample(sample);
        self.goodput.count(sample.links);
        self.replace_lost_links(sample, &mut actions);
        self.ramp(sample, &mut actions);
        if sample.limit != Limit::Network {
            // Whatever is measured now says nothing about the network.
            self.goodput.interrupt();
            if self.ceiling.expire(sample.now) {
                self.goodput.restart();
            }
            return actions;
        }
        let rtt = sample.links.iter().map(|link| link.rtt).max().unwrap_or_default();
        let slot_done = self.goodput.measure(sample.now, rtt);
        if self.startup.is_some() && slot_done {
            self.follow_startup(sample.now, rtt);
        }
        if slot_done {
            self.follow_ceiling(sample, rtt);
        }
        if self.trial.is_some() {
            self.follow_trial(sample, rtt, &mut actions);
        } else if self.startup.is_none() {
            self.notice_path_change(sample.now);
            self.consider_congestion_control(sample, rtt, &mut actions);
            if self.trial.is_none() {
                self.consider_links(sample, rtt, &mut actions);
            }
        }
        actions
    }

    fn act(&mut self, change: Change, reason: String, actions: &mut Vec<Action>) {
        self.last_decision.clone_from(&reason);
        actions.push(Action { change, reason });
    }

    fn replace_lost_links(&mut self, sample: &PathSample<'_>, actions: &mut Vec<Action>) {
        let open = sample.links.len() as u16;
        if open >= self.target {
            self.redial = Redial::default();
            return;
        }
        match self.redial.at {
            // Links that were just asked for may be on their way.
            None => self.redial.at = Some(sample.now + REDIAL),
            Some(at) if sample.now < at => {}
            Some(_) if self.redial.tries >= REDIALS_MAX && open >= self.config.streams.min => {
                self.target = open;
                self.trial = None;
                self.links_pause.longer(sample.now);
            }
            Some(_) => {
                let wait = REDIAL * (1 << self.redial.tries.min(REDIALS_MAX));
                self.redial.tries += 1;
                self.redial.at = Some(sample.now + wait);
                let missing = self.target - open;
                let reason = format!("{missing} of {} links are gone: opening them again", self.target);
                self.act(Change::AddLinks(missing), reason, actions);
            }
        }
    }

    /// More links on a long path, as soon as it is known to be one.
    fn ramp(&mut self, sample: &PathSample<'_>, actions: &mut Vec<Action>) {
        let (Some(rtt_min), Some(startup)) = (self.evidence.rtt_min(), &mut self.startup) else {
            return;
        };
        if startup.ramped {
            return;
        }
        startup.ramped = true;
        let goal = links_at_first(self.config.streams, rtt_min);
        if goal > self.target {
            let more = goal - self.target;
            self.target = goal;
            self.redial.at = Some(sample.now + REDIAL + 4 * rtt_min);
            let reason = format!("round trip {rtt_min:.0?}: {goal} links shorten slow start");
            self.act(Change::AddLinks(more), reason, actions);
        }
    }

    fn follow_startup(&mut self, now: Duration, rtt: Duration) {
        let (Some(startup), Some(newest)) = (&mut self.startup, self.goodput.newest(1).next()) else {
            return;
        };
        if newest > STARTUP_GROWTH * startup.best {
            startup.flat_slots = 0;
        } else {
            startup.flat_slots += 1;
        }
        startup.best = startup.best.max(newest);
        if startup.flat_slots >= STARTUP_FLAT_SLOTS {
            self.startup = None;
            // Slots of start-up say nothing about the path.
            self.calm_at = now + PATH_CHANGE_SLOTS as u32 * rtt.max(SLOT_MIN);
            let short = self.short_path();
            self.links_pause.until = now + if short { PAUSE_FIRST_SHORT } else { PAUSE_FIRST };
            self.last_step = if short { Step::Fewer } else { Step::More };
            self.cubic_pause.until = now;
            self.bbr_pause.until = now;
        }
    }

    fn follow_ceiling(&mut self, sample: &PathSample<'_>, rtt: Duration) {
        let rtt_min = self.evidence.rtt_min().filter(|&rtt_min| rtt_min >= LONG_RTT);
        // It is for several flows that take what the others have for theirs.
        let applies = self.is_bbr() && self.startup.is_none() && sample.links.len() > 1;
        match rtt_min {
            Some(rtt_min) if applies => self.ceiling.follow(sample.now, rtt, rtt_min, &self.goodput),
            _ => self.ceiling.lift(),
        }
    }

    fn is_bbr(&self) -> bool {
        self.congestion_control.or(self.config.pinned) == Some(CongestionControl::Bbr)
    }

    /// Bytes per second that all links together should be paced to.
    pub fn pacing_ceiling(&self) -> Option<u64> {
        self.ceiling.bytes_per_second().filter(|_| self.is_bbr())
    }

    fn short_path(&self) -> bool {
        self.evidence.rtt_min().is_some_and(|rtt| rtt < SHORT_RTT)
    }

    fn notice_path_change(&mut self, now: Duration) {
        let Some(current) = self.goodput.median(PATH_CHANGE_SLOTS).filter(|_| now >= self.calm_at) else {
            return;
        };
        let known = *self.settled.get_or_insert(current);
        if current > known * PATH_CHANGE || current * PATH_CHANGE < known {
            self.settled = Some(current);
            self.links_pause.forget(now);
        }
    }

    /// A first guess from evidence.
    fn consider_congestion_control(
        &mut self,
        sample: &PathSample<'_>,
        rtt: Duration,
        actions: &mut Vec<Action>,
    ) {
        let now = sample.now;
        let Some(current) = self.congestion_control else {
            return;
        };
        let loss = self.evidence.loss();
        if !matches!(loss, Loss::Random(_)) {
            self.random_since = None;
        }
        let (to, reason) = match (current, loss) {
            (CongestionControl::Bbr, Loss::Random(_)) => return,
            (CongestionControl::Bbr, Loss::DropTail) => {
                (CongestionControl::Cubic, "losses come only with a long queue".into())
            }
            (CongestionControl::Bbr, _) if self.short_path() => {
                (CongestionControl::Cubic, "short path without random loss".into())
            }
            (CongestionControl::Bbr, Loss::QueueLosses) if now >= self.cubic_pause.until + UNSURE => {
                (CongestionControl::Cubic, "losses with a long queue, cause unsure".into())
            }
            (CongestionControl::Cubic, Loss::Random(rate)) => {
                if now < *self.random_since.get_or_insert(now) + RANDOM_RTTS * rtt {
                    return;
                }
                (CongestionControl::Bbr, format!("{:.2} % random loss", rate * 100.0))
            }
            _ => return,
        };
        let pause = self.pause_of(to);
        if !pause.over(now) || !self.config.available.contains(&to) {
            return;
        }
        if self.goodput.len() < BASELINE_SLOTS {
            return;
        }
        // CUBIC may still be on its way down.
        let baseline = self.goodput.newest(BASELINE_SLOTS).fold(f64::INFINITY, f64::min);
        self.congestion_control = Some(to);
        let kind = TrialKind::CongestionControl { from: current };
        // BBR starts up again, from whatever CUBIC has left it; CUBIC goes on from BBR's window.
        let settle = if to == CongestionControl::Bbr { 15 } else { 4 };
        self.begin(Trial { kind, baseline, settled_at: now + settle * rtt, settled: false });
        let reason =
            format!("{reason}: trying {}, {} carried {}", to.name(), current.name(), megabits(baseline));
        self.act(Change::SetCongestionControl(to), reason, actions);
    }

    fn pause_of(&mut self, cc: CongestionControl) -> &mut Pause {
        match cc {
            CongestionControl::Bbr => &mut self.bbr_pause,
            CongestionControl::Cubic => &mut self.cubic_pause,
        }
    }

    /// Tries more or fewer links now and then, and more at once if buffers hold them back.
    fn consider_links(&mut self, sample: &PathSample<'_>, rtt: Duration, actions: &mut Vec<Action>) {
        let now = sample.now;
        let streams = self.config.streams;
        if sample.links.len() as u16 != self.target {
            return;
        }
        let buffers = !self.short_path() && self.buffers.share > BUFFER_LIMITED;
        // Once a trial has failed, buffers are no reason to hurry any more.
        let hurry = buffers && self.links_pause.length == PAUSE_MIN;
        if !hurry && !self.links_pause.over(now) {
            return;
        }
        let Some(baseline) = self.goodput.median(TRIAL_SLOTS) else {
            return;
        };
        let from = self.target;
        // Where buffers are the limit, twice the links carry nearly twice as much.
        let more = if buffers { 2 * from } else { from + (from / 2).max(1) }.min(streams.max);
        // On a long path a second link stays: losing one then stalls nothing.
        let least = if self.short_path() { streams.min } else { streams.initial };
        let step = if buffers { Step::More } else { self.last_step };
        let (to, step) = match step {
            Step::More if more > from => (more, Step::More),
            Step::Fewer if from > least => (from - 1, Step::Fewer),
            _ => {
                // Nothing to try in this direction: the other one is next.
                self.last_step = if step == Step::More { Step::Fewer } else { Step::More };
                self.links_pause.again(now);
                return;
            }
        };
        self.last_step = step;
        let carried = megabits(baseline);
        let settle = if to > from { 10 * rtt } else { 4 * rtt };
        self.begin(Trial {
            kind: TrialKind::Links { from },
            baseline,
            settled_at: now + settle,
            settled: false,
        });
        let reason = match (step, buffers) {
            (Step::More, true) => format!("send buffers limit {from} links at {carried}: trying {to}"),
            _ => format!("{from} links carried {carried}: trying {to}"),
        };
        self.set_links(to, sample.links, now, reason, actions);
    }

    fn set_links(
        &mut self,
        to: u16,
        links: &[LinkSample],
        now: Duration,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        let open = links.len() as u16;
        self.target = to;
        if to > open {
            self.redial = Redial { at: Some(now + REDIAL), tries: 0 };
            self.act(Change::AddLinks(to - open), reason, actions);
            return;
        }
        // The newest first: they are the ones that were added, and their windows are the smallest.
        let mut ids: Vec<u32> = links.iter().map(|link| link.id).collect();
        ids.sort_unstable();
        for id in ids.into_iter().rev().take(usize::from(open - to)) {
            self.act(Change::RetireLink(id), reason.clone(), actions);
        }
    }
}

impl BufferTime {
    fn on_sample(&mut self, sample: &PathSample<'_>) {
        let limited: Duration = sample.links.iter().map(|link| link.sndbuf_limited + link.rwnd_limited).sum();
        let elapsed = sample.now.saturating_sub(self.at).as_secs_f64() * sample.links.len() as f64;
        if elapsed > 0.0 {
            let share = limited.saturating_sub(self.limited).as_secs_f64() / elapsed;
            self.share += 0.3 * (share.min(1.0) - self.share);
        }
        self.at = sample.now;
        self.limited = limited;
    }
}

fn megabits(bytes_per_second: f64) -> String {
    format!("{:.0} Mbit/s", bytes_per_second * 8.0 / 1e6)
}
