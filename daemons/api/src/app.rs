//! What all requests and jobs of a replica share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::body::Bytes;
use novacron_admin::Observed;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    agents::Agents,
    audit::Audit,
    auth::{login::Login, rules::Rules},
    cache::Cache,
    changes::Changes,
    database::Database,
    http::idempotency::KeptAnswers,
    http::rate::Rates,
    http::streams::Streams,
    settings::Settings,
    store::Store,
};

/// How often the store is asked whether it answers.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A replica.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) agents: Arc<Agents>,
    pub(crate) health: Health,
    pub(crate) login: Login,
    pub(crate) rules: Rules,
    pub(crate) rates: Rates,
    pub(crate) database: Arc<Database>,
    pub(crate) audit: Audit,
    pub(crate) cache: Cache,
    pub(crate) changes: Changes,
    pub(crate) streams: Streams,
    pub(crate) kept_answers: KeptAnswers,
    /// Of each request that runs.
    pub(crate) requests: Arc<Semaphore>,
    /// There is a new job.
    pub(crate) jobs_wake: Notify,
    /// The OpenAPI document.
    pub(crate) openapi: Bytes,
    pub(crate) began: Instant,
}

/// Whether requests should come here.
#[derive(Default)]
pub(crate) struct Health {
    store_answers: AtomicBool,
    draining: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Waits until it drains.
    pub(crate) async fn drains(&self) {
        told(&mut self.draining.subscribe()).await;
    }

    pub(crate) fn store_answers(&self) -> bool {
        self.store_answers.load(Relaxed)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.store_answers() && !self.is_draining()
    }
}

/// Asks the store again and again whether it answers.
pub(crate) async fn probe(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = app.store.answers().await;
        let before = app.health.store_answers.swap(answer.is_ok(), Relaxed);
        match answer {
            Err(error) if before => tracing::warn!(%error, "the store does not answer"),
            Ok(()) if !before => tracing::info!("the store answers"),
            _ => {}
        }
    }
}

/// What `/status` of the port for metrics says.
#[derive(Serialize)]
pub(crate) struct Status {
    program: &'static str,
    version: &'static str,
    pid: u32,
    replica: String,
    uptime_seconds: f64,
    ready: bool,
    store_answers: bool,
    draining: bool,
}

/// A replica, seen from the port for metrics.
pub(crate) struct Process(pub(crate) Arc<App>);

impl Observed for Process {
    type Status = Status;

    fn is_ready(&self) -> bool {
        self.0.health.is_ready()
    }

    fn status(&self) -> Status {
        Status {
            program: "novacron-api",
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            replica: self.0.settings.replica.clone(),
            uptime_seconds: self.0.began.elapsed().as_secs_f64(),
            ready: self.0.health.is_ready(),
            store_answers: self.0.health.store_answers(),
            draining: self.0.health.is_draining(),
        }
    }
}

/// Tells the recorder what the metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!("http_requests_total", "Requests that were answered.");
    metrics::describe_histogram!(
        "http_request_duration_seconds",
        metrics::Unit::Seconds,
        "From a request's head to its answer."
    );
    metrics::describe_gauge!("queue_depth", "Jobs that have not come to their end, of all replicas.");
    metrics::describe_counter!(
        "http_logins_refused_total",
        "Requests whose token or certificate proved nothing, or that had none."
    );
    metrics::describe_counter!(
        "cache_answers_total",
        "Answers that may be a moment old: kept here (near), kept in Redis (shared), or asked for (made)."
    );
    metrics::describe_gauge!("active_connections", "Connections of clients.");
    metrics::describe_gauge!(
        "audit_records_waiting",
        "Records of changes, of all replicas, that the database does not have yet."
    );
    metrics::describe_gauge!(
        "history_jobs_waiting",
        "Jobs that have ended, of all replicas, that the database of this one does not have yet."
    );
    metrics::gauge!("queue_depth").increment(0);
    metrics::gauge!("history_jobs_waiting").increment(0);
    metrics::gauge!("active_connections").increment(0);
    metrics::counter!("http_logins_refused_total").increment(0);
}

/// Waits until it is said that something is to end, or nobody is left to say so.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    // What it returns must not be held while something is waited for.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("Linux has randomness");
    u64::from_le_bytes(bytes)
}
