//! Tuning of the node: set at the start if the settings say so, and put back at the end. What a process that was killed
//! has left is put back by the next; what one has set that runs is left.

use dwcp_node::{
    state::{Lock, StateError},
    tune::{self, Outcome, Report},
};
use novacron_control::schema::{Tuned, TunedState};

use crate::settings::Settings;

/// What was tuned at the start.
#[derive(Default)]
pub(crate) struct Tuning {
    /// For as long as what was set is this agent's.
    lock: Option<Lock>,
    told: Vec<Tuned>,
    /// Nothing was done.
    failed: bool,
}

impl Tuning {
    /// Sets, or puts back what an earlier process has set; it blocks.
    pub(crate) fn begin(settings: &Settings) -> Self {
        match Lock::take_if(settings.tune, &settings.tune_state) {
            Ok(Some(lock)) => {
                let done = match settings.tune {
                    true => tune::apply(&settings.tuning, &settings.tune_state),
                    false => tune::restore(&settings.tune_state),
                };
                let failed = done.is_err();
                // What is not tuned now, another may.
                let lock = Some(lock).filter(|_| settings.tune);
                Self { lock, told: told(done), failed }
            }
            Ok(None) => Self::default(),
            Err(error) => Self { lock: None, told: told(Err(error)), failed: true },
        }
    }

    /// Puts back; it blocks.
    pub(crate) fn end(&self, settings: &Settings) {
        if self.lock.is_some() {
            told(tune::restore(&settings.tune_state));
        }
    }

    /// What was done, or would be; and what went wrong. It blocks.
    pub(crate) fn view(&self, settings: &Settings) -> Vec<Tuned> {
        let planned = match settings.tune {
            true => Vec::new(),
            false => tune::plan(&settings.tuning).iter().map(tuned).collect(),
        };
        let shown = settings.tune || self.failed;
        self.told.iter().filter(|_| shown).cloned().chain(planned).collect()
    }
}

fn told(done: Result<Vec<Report>, StateError>) -> Vec<Tuned> {
    match done {
        Ok(reports) => {
            for report in &reports {
                match report.outcome {
                    Outcome::Cannot { .. } => tracing::warn!("{report}"),
                    _ => tracing::info!("{report}"),
                }
            }
            reports.iter().map(tuned).collect()
        }
        Err(error) => {
            tracing::error!(%error, "this node is not tuned, and nothing is put back");
            vec![failed("tuning", &error)]
        }
    }
}

/// Of what could not be begun.
pub(crate) fn failed(item: &str, error: &impl ToString) -> Tuned {
    Tuned { item: item.to_owned(), state: TunedState::Cannot, detail: error.to_string() }
}

fn tuned(report: &Report) -> Tuned {
    let state = match report.outcome {
        Outcome::WouldSet { .. } => TunedState::WouldSet,
        Outcome::Set { .. } => TunedState::Set,
        Outcome::Already { .. } => TunedState::Already,
        Outcome::Restored { .. } => TunedState::Restored,
        Outcome::Left { .. } => TunedState::Left,
        _ => TunedState::Cannot,
    };
    Tuned { item: report.item.to_string(), state, detail: report.outcome.to_string() }
}
