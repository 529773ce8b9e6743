//! A replica's part in schedules: one of the replicas is the leader, and hands out what is due.
//!
//! That there is one saves the others the work; that each instant is handed out once does not depend on it.

use std::{sync::Arc, time::Duration};

use consensus_proto::etcdserverpb::Compare;
use novacron_store::StoreError;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::hand_out::{Entry, SCHEDULES, read_all};
use crate::{
    app::{App, now_ms, told},
    store::{is_absent, is_made_at, put},
};

/// Schedules that there are. Replicas that make some at the same time may go beyond it by one each.
pub(crate) const SCHEDULES_MAX: usize = 1000;
/// The leader's name, while there is one.
const LEADER: &str = "/novacron/schedules-leader";
/// The lease is prolonged so often in its time.
const RENEWALS: u32 = 3;
/// How long schedules are known without being read: a watch that is silent for no good reason tells of no change.
const KNOWN_TIME_MAX: Duration = Duration::from_secs(10);

/// This replica is the leader.
struct Leader {
    lease: i64,
    /// Of its entry: no other leader has it.
    made_at: i64,
    renewed: Instant,
}

/// The schedules, as they were read.
struct Known {
    entries: Vec<Entry>,
    /// Of the watch, when they were.
    at: Option<u64>,
    since: Instant,
}

/// Hands out what is due until `stop`, whenever this replica is the leader.
pub(crate) async fn work(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let (mut leader, mut known) = (None, None);
    let mut ticks = interval(app.settings.jobs.poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = told(&mut stop) => break,
        }
        if let Err(error) = turn(&app, &mut leader, &mut known).await {
            tracing::debug!(%error, "handing out scheduled jobs");
            // Nobody knows what was written: what is there decides.
            known = None;
        }
    }
    if let Some(Leader { lease, .. }) = leader {
        // With it goes the entry, and another replica need not wait.
        app.store.revoke(lease).await;
    }
}

async fn turn(app: &App, leader: &mut Option<Leader>, known: &mut Option<Known>) -> Result<(), StoreError> {
    let Some(leads) = lead(app, leader).await? else {
        *known = None;
        return Ok(());
    };
    let at = app.changes.count(SCHEDULES);
    if known.as_ref().is_none_or(|known| !known.is_fresh(at)) {
        *known = Some(Known { entries: read_all(&app.store).await?, at, since: Instant::now() });
    }
    let entries = known.iter_mut().flat_map(|known| &mut known.entries);
    let mut is_stale = false;
    for entry in entries.filter(|entry| entry.next_ms.is_some_and(|next| next <= now_ms())) {
        is_stale |= !entry.hand_out(app, &leads).await?;
        // It may take long, and others wait for nothing if the lease has ended.
        if lead(app, leader).await?.is_none() {
            break;
        }
    }
    if is_stale {
        *known = None;
    }
    Ok(())
}

/// Becomes the leader if there is none, or stays it. What holds in the store while this replica is.
async fn lead(app: &App, leader: &mut Option<Leader>) -> Result<Option<Compare>, StoreError> {
    let lasts = app.settings.jobs.lease;
    if let Some(Leader { lease, renewed, .. }) = leader
        && renewed.elapsed() > lasts / RENEWALS
    {
        let asked = Instant::now();
        match app.store.keep_alive(*lease).await? {
            true => *renewed = asked,
            false => *leader = None,
        }
    }
    if leader.is_none() && app.store.get(LEADER).await?.is_none() {
        let renewed = Instant::now();
        let lease = app.store.grant(lasts.as_secs() as i64).await?;
        let then = vec![put(LEADER, app.settings.replica.clone(), lease)];
        let outcome = app.store.txn("lead", vec![is_absent(LEADER)], then, Vec::new()).await?;
        match outcome.held {
            true => {
                tracing::info!("this replica hands out scheduled jobs");
                *leader = Some(Leader { lease, made_at: outcome.revision, renewed });
            }
            false => app.store.revoke(lease).await,
        }
    }
    Ok(leader.as_ref().map(|leader| is_made_at(LEADER, leader.made_at)))
}

impl Known {
    fn is_fresh(&self, at: Option<u64>) -> bool {
        at.is_some() && at == self.at && self.since.elapsed() < KNOWN_TIME_MAX
    }
}
