//! The recorder behind the `metrics` facade, and its text.

use std::{io, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::task::JoinSet;

use crate::AdminError;

/// How often samples of histograms are put into their buckets, and what is idle is looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// A series that nothing touched for this long is forgotten: peers come and go, and each has its own.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Buckets of every histogram. All of ours are times, from a memory access to a patient person.
const SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6,
    5.0, 15.0, 60.0,
];

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
    /// Ends with the value.
    _upkeep: JoinSet<()>,
}

impl Metrics {
    /// Records what goes through the facade from now on; once in a process, inside a tokio runtime.
    ///
    /// `describe` tells what the metrics mean and touches those that are always there. It is called again and again:
    /// what nobody touches is forgotten.
    pub fn install(describe: fn()) -> Result<Self, AdminError> {
        Self::install_with(Some(IDLE_TIMEOUT), describe)
    }

    /// The same, and nothing is ever forgotten: for programs that look their metrics up once, whose peers are few.
    pub fn install_for_good(describe: fn()) -> Result<Self, AdminError> {
        Self::install_with(None, describe)
    }

    fn install_with(idle_timeout: Option<Duration>, describe: fn()) -> Result<Self, AdminError> {
        let builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::ALL, idle_timeout);
        let builder = builder.set_buckets(&SECONDS).expect("there are buckets");
        let handle = builder.install_recorder().map_err(|_| AdminError::RecorderTaken)?;
        describe();
        let mut upkeep = JoinSet::new();
        upkeep.spawn(keep_up(handle.clone(), describe));
        Ok(Self { handle, _upkeep: upkeep })
    }

    /// The text.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Gives the text, for whoever serves it elsewhere too.
    pub fn renderer(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let handle = self.handle.clone();
        move || handle.render()
    }
}

async fn keep_up(handle: PrometheusHandle, describe: fn()) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        describe();
        // Rendering is what forgets, besides emptying the histograms.
        let _ = handle.render_to_write(&mut io::sink());
    }
}
