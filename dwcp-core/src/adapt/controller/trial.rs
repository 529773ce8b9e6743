//! Trials: measuring whether a change paid, undoing it if not, and waiting longer before the next. What to try is
//! decided in the parent module.

use std::time::Duration;

use super::{LinkController, Step, megabits};
use crate::adapt::{Action, Change, CongestionControl, PathSample, evidence::Loss};

/// Slots that a trial measures, and that its baseline comes from.
pub(super) const TRIAL_SLOTS: usize = 6;
/// A trial of congestion control is given up at once if this many slots in a row...
const ABORT_SLOTS: usize = 2;
/// ...carry less than this share of the baseline.
const ABORT_SHARE: f64 = 0.6;
/// A congestion control chosen from evidence stays if it keeps this share.
const CONGESTION_CONTROL_SHARE: f64 = 0.93;
/// More links stay if they bring this much; fewer if they keep this share.
const LINKS_GAIN: f64 = 1.05;
const LINKS_KEEP: f64 = 0.97;
/// First pause between trials, and the longest.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(20);
const PAUSE_MAX: Duration = Duration::from_secs(1280);
/// Round trips after a trial was undone in which goodput says nothing: links fill up again.
const CALM_RTTS: u32 = 15;

/// Waits longer after each trial.
#[derive(Debug)]
pub(super) struct Pause {
    pub(super) until: Duration,
    pub(super) length: Duration,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { until: Duration::ZERO, length: PAUSE_MIN }
    }

    pub(super) fn over(&self, now: Duration) -> bool {
        now >= self.until
    }

    pub(super) fn longer(&mut self, now: Duration) {
        self.until = now + self.length;
        self.length = (2 * self.length).min(PAUSE_MAX);
    }

    pub(super) fn again(&mut self, now: Duration) {
        self.until = now + self.length;
    }

    /// After a change of the path, old failures count for less.
    pub(super) fn forget(&mut self, now: Duration) {
        self.length = (self.length / 2).max(PAUSE_MIN);
        self.until = self.until.min(now + self.length);
    }
}

#[derive(Debug)]
pub(super) struct Trial {
    pub(super) kind: TrialKind,
    pub(super) baseline: f64,
    /// Measured from here on.
    pub(super) settled_at: Duration,
    pub(super) settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialKind {
    CongestionControl { from: CongestionControl },
    Links { from: u16 },
}

impl LinkController {
    pub(super) fn begin(&mut self, trial: Trial) {
        self.trial = Some(trial);
        self.goodput.restart();
        self.settled = None;
    }

    pub(super) fn follow_trial(&mut self, sample: &PathSample<'_>, rtt: Duration, actions: &mut Vec<Action>) {
        let now = sample.now;
        let Some(trial) = &self.trial else {
            return;
        };
        let (kind, baseline) = (trial.kind, trial.baseline);
        if let TrialKind::CongestionControl { from } = kind {
            let to_cubic = self.congestion_control == Some(CongestionControl::Cubic);
            if let (true, Loss::Random(rate)) = (to_cubic, self.evidence.loss()) {
                let reason = format!("{:.2} % random loss: back to {}", rate * 100.0, from.name());
                return self.undo_congestion_control(from, now, reason, actions);
            }
            let collapsed = to_cubic
                && self.goodput.len() >= ABORT_SLOTS + 2
                && self.goodput.newest(ABORT_SLOTS).all(|slot| slot < ABORT_SHARE * baseline);
            if collapsed {
                let carried = self.goodput.median(ABORT_SLOTS).unwrap_or_default();
                let reason = format!(
                    "only {} instead of {}: back to {}",
                    megabits(carried),
                    megabits(baseline),
                    from.name()
                );
                return self.undo_congestion_control(from, now, reason, actions);
            }
        }
        if sample.links.len() as u16 != self.target {
            // Links on their way take their time, and what they carry at first does not count.
            self.trial =
                self.trial.take().map(|t| Trial { settled_at: t.settled_at.max(now + 4 * rtt), ..t });
            return;
        }
        if now < trial.settled_at {
            return;
        }
        if !trial.settled {
            self.trial = self.trial.take().map(|trial| Trial { settled: true, ..trial });
            self.goodput.restart();
            return;
        }
        let Some(carried) = self.goodput.median(TRIAL_SLOTS) else {
            return;
        };
        self.trial = None;
        self.settled = None;
        match kind {
            TrialKind::CongestionControl { from } if carried < CONGESTION_CONTROL_SHARE * baseline => {
                let reason = format!(
                    "{} instead of {}: back to {}",
                    megabits(carried),
                    megabits(baseline),
                    from.name()
                );
                self.undo_congestion_control(from, now, reason, actions);
            }
            TrialKind::CongestionControl { from } => {
                // The way back waits too, unless evidence is new: this is what keeps noise from switching.
                self.pause_of(from).longer(now);
            }
            TrialKind::Links { from } => self.judge_links(sample, from, baseline, carried, actions),
        }
    }

    pub(super) fn calm(&mut self, now: Duration) {
        self.goodput.restart();
        self.calm_at = now + CALM_RTTS * self.evidence.rtt_min().unwrap_or_default();
    }

    pub(super) fn undo_congestion_control(
        &mut self,
        to: CongestionControl,
        now: Duration,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        if let Some(failed) = self.congestion_control.replace(to) {
            // Four times as long: what loses at random today does so for a while.
            let pause = self.pause_of(failed);
            pause.longer(now);
            pause.length = (2 * pause.length).min(PAUSE_MAX);
        }
        self.settled = self.trial.take().map(|trial| trial.baseline);
        self.calm(now);
        self.act(Change::SetCongestionControl(to), reason, actions);
    }

    pub(super) fn judge_links(
        &mut self,
        sample: &PathSample<'_>,
        from: u16,
        baseline: f64,
        carried: f64,
        actions: &mut Vec<Action>,
    ) {
        let now = sample.now;
        let step = self.last_step;
        let keep = match step {
            Step::More => carried >= LINKS_GAIN * baseline,
            Step::Fewer => carried >= LINKS_KEEP * baseline,
        };
        if keep {
            // The same direction again, soon.
            self.links_pause.until = now;
            return;
        }
        self.last_step = if step == Step::More { Step::Fewer } else { Step::More };
        self.links_pause.longer(now);
        let reason = format!(
            "{} links carry {} instead of {}: back to {from}",
            self.target,
            megabits(carried),
            megabits(baseline),
        );
        self.settled = Some(baseline);
        self.calm(now);
        self.set_links(from, sample.links, now, reason, actions);
    }
}
