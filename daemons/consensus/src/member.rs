//! One member from its start to its end: what is opened in which order, and how it drains. Who it is, and how one whose data
//! is damaged comes back, is [`begin`](crate::begin)'s.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use consensus_etcd::{MetricsText, Server, ServerError};
use novacron_admin::Metrics;
use novacron_process::{CurrentTls, Signals};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    begin::Begin,
    clients::Listeners,
    lock::DataLock,
    observe::{self, Process},
    plan::Plan,
};

/// For answers that are on their way when everything else has stopped, and for clients that keep their connections.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// For closing the disks.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How a member that was told to end has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Drained,
    /// At a second signal, or because it took too long.
    CutShort,
}

/// Runs a member until a signal.
pub(crate) async fn run(mut plan: Plan) -> Result<Ended> {
    let mut signals = Signals::listen()?;
    let _lock = DataLock::take(&plan.data_dir)?;
    let metrics = Metrics::install_for_good(observe::describe_metrics)?;
    plan.server.metrics = Some(MetricsText::new(metrics.renderer()));
    let process = Process::new(&plan.server.name);
    let listeners = Listeners::bind(&plan.clients).await?;
    // From here on it is alive; it has started, and is ready, later.
    let _observing = process.serve(&plan, metrics).await?;
    let begin = Begin::new(plan.server, plan.cluster, plan.joins, plan.data_dir);
    let server = tokio::select! {
        started = begin.start() => started?,
        () = signals.first() => return Ok(Ended::CutShort),
    };
    tracing::info!(
        member = format!("{:x}", server.node().id()),
        cluster = format!("{:x}", server.node().cluster()),
        "member started"
    );
    process.started(server.clone());
    let mut background = JoinSet::new();
    background.spawn(announce(server.clone()));
    let current = plan.client_tls.map(CurrentTls::new);
    let (stop, stopping) = watch::channel(false);
    let serving = listeners.serve(&server, current.as_ref(), &stopping);
    background.spawn({
        let server = server.clone();
        async move {
            if let Err(error) = plan.certificates.keep_fresh(current, server).await {
                tracing::error!("certificates are not read again: {error:#}");
            }
        }
    });
    let ended = work(&server, serving, &stop, &mut signals, plan.drain_timeout).await;
    drop(background);
    let damage = server.node().damage();
    if tokio::time::timeout(CLOSE_MAX, server.stop()).await.is_err() {
        tracing::error!("the member did not stop within {CLOSE_MAX:?}");
    }
    match damage {
        Some(damage) => Err(begin.damaged(&damage).await),
        None => ended,
    }
}

/// etcd's lines: what waits for etcd waits for them.
async fn announce(server: Server) {
    server.published().await;
    let mut status = server.node().watch_status();
    if status.wait_for(|status| status.leader.is_some()).await.is_ok() {
        tracing::info!("enabled capabilities for version {}", consensus_etcd::API_VERSION);
        tracing::info!("ready to serve client requests");
    }
}

async fn work(
    server: &Server,
    mut serving: JoinSet<Result<(), ServerError>>,
    stop: &watch::Sender<bool>,
    signals: &mut Signals,
    drain_timeout: Duration,
) -> Result<Ended> {
    tokio::select! {
        () = server.node().stopped() => bail!("the member cannot go on: the log says why"),
        Some(served) = serving.join_next() => {
            served.context("serving clients")??;
            bail!("clients are not served any more");
        }
        () = signals.first() => {}
    }
    tracing::info!("draining");
    let deadline = Instant::now() + drain_timeout;
    let drained = async {
        let drained = tokio::time::timeout_at(deadline, server.drain()).await.is_ok();
        stop.send_replace(true);
        let last = (Instant::now() + LAST_ANSWERS).min(deadline);
        let answered = async { while serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(last, answered).await;
        drained
    };
    let drained = tokio::select! {
        drained = drained => drained,
        () = signals.stop_now() => false,
    };
    tracing::info!(drained, "the member ends");
    Ok(if drained { Ended::Drained } else { Ended::CutShort })
}
