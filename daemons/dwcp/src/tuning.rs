//! Tuning of the node: set at the start if the settings say so, and put back at the end. What a process that was killed
//! has left is put back by the next.

use dwcp_node::tune::{self, Outcome, Report};
use novacron_control::schema::{Tuned, TunedState};

use crate::settings::Settings;

/// Sets, or puts back what an earlier process has set; it blocks.
pub(crate) fn begin(settings: &Settings) -> Vec<Tuned> {
    let done = match settings.tune {
        true => tune::apply(&settings.tuning, &settings.tune_state),
        false => tune::restore(&settings.tune_state),
    };
    told(done)
}

/// Puts back; it blocks.
pub(crate) fn end(settings: &Settings) {
    if settings.tune {
        told(tune::restore(&settings.tune_state));
    }
}

/// What tuning would do.
pub(crate) fn plan(settings: &Settings) -> Vec<Tuned> {
    tune::plan(&settings.tuning).iter().map(tuned).collect()
}

fn told(done: Result<Vec<Report>, dwcp_node::state::StateError>) -> Vec<Tuned> {
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
            tracing::error!(%error, "this node is not tuned");
            Vec::new()
        }
    }
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
