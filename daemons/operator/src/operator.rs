//! One operator from its start to its end.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kube::{
    Api, Client, Config,
    runtime::events::{Recorder, Reporter},
};
use novacron_admin::Observed;
use serde::Serialize;

use crate::{
    apply::Applier,
    federation::clusters::Kubeconfigs,
    lease::{Election, Fence},
    plan::FIELD_MANAGER,
    reconcile::{Context, Scope, Stop, WATCH_SECONDS, run},
    settings::Settings,
    store::Network,
};

/// How long the API server may say nothing on a connection from which something is expected: a connection whose other end went
/// without a word would be waited for for ever. Longer than a watch lasts.
const SILENCE_MAX: Duration = Duration::from_secs(75);
const _: () = assert!(WATCH_SECONDS as u64 + 10 < SILENCE_MAX.as_secs());

/// An operator that cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Where the API server is is not known, or how to log in there.
    #[error("no way to the API server: {source}")]
    Client {
        /// Why.
        source: kube::Error,
    },
}

/// An operator.
pub struct Operator {
    client: Client,
    settings: Settings,
    fence: Fence,
    /// It holds the lease, or needs none.
    works: Arc<AtomicBool>,
}

impl Operator {
    /// Finds the API server, as kubectl and pods do; nothing is asked yet.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn new(settings: Settings) -> Result<Self, StartError> {
        let no_way = |source| StartError::Client { source };
        let mut config = Config::infer().await.map_err(|source| no_way(kube::Error::InferConfig(source)))?;
        (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE_MAX), true);
        let client = Client::try_from(config).map_err(no_way)?;
        let fence = if settings.lease.name.is_empty() { Fence::open() } else { Fence::default() };
        Ok(Self { client, settings, fence, works: Arc::default() })
    }

    /// What is told about it.
    pub fn observed(&self) -> Process {
        Process { began: Instant::now(), works: Arc::clone(&self.works) }
    }

    /// Works as soon as it may, until `stop`, and ends what it has begun. Whether that is how it ended: it also ends when another
    /// may hold the lease.
    pub async fn run(&self, stop: Stop) -> bool {
        let Some(election) = self.election() else {
            self.work(stop).await;
            return true;
        };
        tracing::info!(lease = election.name, identity = election.identity, "waiting for the lease");
        tokio::select! {
            () = election.win() => {}
            () = stop.clone() => return true,
        }
        tracing::info!("the lease is held");
        let ended = tokio::select! {
            () = self.work(stop) => true,
            // What is under way is given up: nothing may be written any more.
            () = election.hold() => false,
        };
        self.works.store(false, Relaxed);
        if ended {
            election.give_up().await;
        } else {
            tracing::error!("the lease was lost");
        }
        ended
    }

    async fn work(&self, stop: Stop) {
        self.works.store(true, Relaxed);
        let applier = Applier::new(self.client.clone(), self.fence.clone());
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(self.settings.lease.identity.clone()),
        };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let context =
            Arc::new(Context::new(applier, Arc::new(Network), Arc::new(Kubeconfigs::default()), recorder));
        let scope = Scope {
            namespace: Some(self.settings.namespace.clone()).filter(|name| !name.is_empty()),
            concurrency: self.settings.concurrency,
        };
        run(context, scope, stop).await;
    }

    fn election(&self) -> Option<Election> {
        let lease = &self.settings.lease;
        let namespace = match &*lease.namespace {
            "" => self.client.default_namespace(),
            namespace => namespace,
        };
        (!lease.name.is_empty()).then(|| Election {
            api: Api::namespaced(self.client.clone(), namespace),
            name: lease.name.clone(),
            identity: identity(&lease.identity),
            fence: self.fence.clone(),
        })
    }
}

/// A container that was restarted has the same name and number as before, and is another.
fn identity(name: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}_{}_{:x}", process::id(), since.as_nanos())
}

/// What the process tells.
#[derive(Clone)]
pub struct Process {
    began: Instant,
    works: Arc<AtomicBool>,
}

/// What `/status` says. Fields are added, never given another meaning.
#[derive(Debug, Serialize)]
pub struct ProcessStatus {
    program: &'static str,
    version: &'static str,
    pid: u32,
    uptime_seconds: f64,
    /// It holds the lease, or needs none.
    works: bool,
}

impl Observed for Process {
    type Status = ProcessStatus;

    /// Also one that waits for the lease is as it should be.
    fn is_ready(&self) -> bool {
        true
    }

    fn status(&self) -> ProcessStatus {
        ProcessStatus {
            program: "novacron-operator",
            version: env!("CARGO_PKG_VERSION"),
            pid: process::id(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            works: self.works.load(Relaxed),
        }
    }
}

/// Tells the recorder what the metrics mean.
pub fn describe_metrics() {
    metrics::describe_histogram!(
        "reconcile_duration_seconds",
        metrics::Unit::Seconds,
        "One reconciliation, by controller."
    );
    metrics::describe_counter!(
        "reconcile_errors_total",
        "Reconciliations that did not come to their end, by stage."
    );
    metrics::describe_gauge!("reconcile_queue_depth", "Reconciliations under way, by controller.");
    metrics::describe_counter!(
        "certificates_issued_total",
        "Certificates that were made, by who holds them."
    );
    metrics::describe_gauge!(
        "federation_cluster_serving",
        "Whether a cluster of a federation gets traffic, by federation and cluster."
    );
    metrics::describe_counter!(
        "federation_failovers_total",
        "Clusters that were taken out of a federation's traffic, or put back, by federation, cluster and change."
    );
    metrics::describe_counter!("member_changes_total", "Steps of members and pods, by operation and result.");
}
