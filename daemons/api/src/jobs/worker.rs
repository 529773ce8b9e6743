//! A replica's part in the queue: it takes jobs, runs them, and gives them back when it drains.

use std::{sync::Arc, time::Duration};

use novacron_store::StoreError;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{Instrument as _, Span};

use super::{
    queue::{self, Change, Claim, Written},
    record::{Job, Progress, State},
    work::{Run, StepError},
};
use crate::app::{App, now_ms, told};

/// Between attempts to go on where the store did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Between attempts to stop what goes on elsewhere.
const STOP_INTERVAL: Duration = Duration::from_secs(1);
/// A lease is prolonged so often in its time.
const RENEWALS: u32 = 3;

/// Takes and runs jobs until `stop`, and gives back what runs then.
pub(crate) async fn work(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    let mut ticks = interval(app.settings.jobs.poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.jobs_wake.notified() => {}
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a job; its lease ends, and another attempt comes");
                }
            }
            () = told(&mut stop) => break,
        }
        if let Err(error) = look(&app, &mut running, &stop).await {
            tracing::debug!(%error, "looking for jobs");
        }
    }
    while running.join_next().await.is_some() {}
}

/// Takes what may run, as far as there is room.
async fn look(
    app: &Arc<App>,
    running: &mut JoinSet<()>,
    stop: &watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let open = queue::open(&app.store, now_ms()).await?;
    metrics::gauge!("queue_depth").set(open.count as f64);
    let (jobs, replica) = (&app.settings.jobs, &app.settings.replica);
    for id in open.free {
        if running.len() >= jobs.running_max || *stop.borrow() {
            break;
        }
        let seconds = jobs.lease.as_secs() as i64;
        if let Some(claim) = Claim::take(&app.store, &id, replica, seconds, now_ms()).await? {
            let span = span_of(&claim);
            running.spawn(run(app.clone(), claim, stop.clone()).instrument(span));
        }
    }
    Ok(())
}

/// An attempt at a job, in the trace of the request that asked for it.
fn span_of(claim: &Claim) -> Span {
    let job = &claim.job;
    let span = tracing::info_span!(parent: None, "attempt", job = job.id, attempt = job.attempts);
    if let Some(traceparent) = &job.traceparent {
        novacron_trace::follow(&span, traceparent);
    }
    span
}

/// Runs a job for as long as it is this replica's.
async fn run(app: Arc<App>, mut claim: Claim, stop: watch::Receiver<bool>) {
    let lease = claim.lease;
    tracing::info!("begun");
    tokio::select! {
        ended = course(&app, &mut claim, &stop) => {
            let (state, progress) = (claim.job.state, claim.job.progress.done);
            tracing::info!(ended, ?state, progress, "left");
            // With it goes the leased entry, if it is still there.
            app.store.revoke(lease).await;
        }
        () = until_lost(&app, lease) => tracing::warn!("lost: the lease has ended"),
    }
}

/// Prolongs the lease; returns when it has ended, or may have.
async fn until_lost(app: &App, lease: i64) {
    let lasts = app.settings.jobs.lease;
    let mut end = Instant::now() + lasts;
    loop {
        sleep(lasts / RENEWALS).await;
        let asked = Instant::now();
        match app.store.keep_alive(lease).await {
            Ok(true) => end = asked + lasts,
            Ok(false) => return,
            Err(error) if Instant::now() > end => {
                tracing::warn!(%error, "prolonging a lease");
                return;
            }
            Err(_) => {}
        }
    }
}

/// What a step leaves.
enum Left {
    /// There may be more to do.
    More,
    /// The job is not this replica's any more.
    Nothing,
}

/// Step by step. Whether it was this replica that left the job.
async fn course(app: &App, claim: &mut Claim, stop: &watch::Receiver<bool>) -> bool {
    let mut run = Run::new(&claim.job);
    let mut is_counted = false;
    loop {
        let step = step(app, claim, &mut run, &mut is_counted, stop).await;
        let again = match step {
            Ok(Left::More) => continue,
            Ok(Left::Nothing) => return claim.job.state != State::Running,
            Err(StepError::Failed { why, for_good }) => fail(app, claim, &run, stop, &why, for_good).await,
            Err(StepError::Store(StoreError::Refused { failure, .. })) => {
                fail(app, claim, &run, stop, &failure.to_string(), false).await
            }
            Err(StepError::Store(error)) => Err(error),
        };
        match again {
            Ok(()) => return true,
            Err(error) => tracing::warn!(job = claim.job.id, %error, "a step of a job"),
        }
        // Nobody knows what was written: what is there now decides.
        sleep(RETRY_PAUSE).await;
        let looked = async {
            let is_ours = claim.refresh(&app.store).await?;
            run.look_again(&app.store).await?;
            Ok::<_, StoreError>(is_ours)
        };
        match looked.await {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => tracing::debug!(%error, "looking again"),
        }
    }
}

async fn fail(
    app: &App,
    claim: &mut Claim,
    run: &Run,
    stop: &watch::Receiver<bool>,
    error: &str,
    for_good: bool,
) -> Result<(), StoreError> {
    let mut job = claim.job.clone();
    job.fail(error, for_good, now_ms());
    let job = stopped(app, run, stop, &claim.job, job).await;
    claim.write(&app.store, job, Change::default()).await.map(drop)
}

/// What is to be written of a job: that it has ended only when nothing goes on elsewhere, and if the replica drains before,
/// that the job is given back.
async fn stopped(app: &App, run: &Run, stop: &watch::Receiver<bool>, now: &Job, then: Job) -> Job {
    while then.has_ended() && !run.stop(app).await {
        if *stop.borrow() {
            let mut job = now.clone();
            job.release(now_ms());
            return job;
        }
        sleep(STOP_INTERVAL).await;
    }
    then
}

/// One change, or the end.
async fn step(
    app: &App,
    claim: &mut Claim,
    run: &mut Run,
    is_counted: &mut bool,
    stop: &watch::Receiver<bool>,
) -> Result<Left, StepError> {
    let store = &app.store;
    let mut job = claim.job.clone();
    let mut change = Change::default();
    let mut is_step = false;
    if job.is_to_end() {
        job.give_up(now_ms());
    } else if *stop.borrow() {
        job.release(now_ms());
    } else if !*is_counted {
        job.progress.total = run.left(store).await?.map(|left| job.progress.done + left);
    } else if let Some(next) = run.step(app).await? {
        change = next.change;
        let by_one = Progress { done: job.progress.done + 1, ..job.progress };
        job.progress = next.progress.unwrap_or(by_one);
        is_step = true;
    } else {
        job.finish(now_ms());
    }
    let job = stopped(app, run, stop, &claim.job, job).await;
    let still_runs = job.state == State::Running;
    match claim.write(store, job, change).await? {
        Written::Yes if is_step => run.made(),
        Written::Yes => *is_counted = true,
        Written::Changed => run.look_again(store).await?,
        Written::Lost => return Ok(Left::Nothing),
    }
    // After a change by somebody else it is looked at anew.
    let is_left = !still_runs && claim.job.state != State::Running;
    Ok(if is_left { Left::Nothing } else { Left::More })
}
