//! What there is of a schedule in the store, and how a due instant becomes a job: one transaction.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use consensus_proto::{etcdserverpb::Compare, mvccpb::KeyValue};
use novacron_store::StoreError;
use serde::de::DeserializeOwned;

use super::{
    record::{Kept, LATE_MS, NewWork, Run, RunOutcome, Runs},
    timing::Timing,
    worker::SCHEDULES_MAX,
};
use crate::{
    app::{App, now_ms},
    audit::{self, Recording, Was},
    http::{
        condition::etag_text,
        problem::{Kind, Problem},
    },
    jobs::{
        queue::{self, Change},
        record::{Job, Origin, Work},
    },
    store::{Store, is_at, name_of, put},
};

/// What somebody wrote.
pub(crate) const SCHEDULES: &str = "/novacron/schedules/";
/// What became of it.
pub(crate) const RUNS: &str = "/novacron/schedule-runs/";
const ROUTE: &str = "/api/v1/schedules/{name}";

/// An entry as it is in the store; `None`, and a line in the log, for what somebody else wrote there.
pub(crate) fn parsed<T: DeserializeOwned>(kv: &KeyValue) -> Option<T> {
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| {
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "an entry of a schedule");
        })
        .ok()
}

/// A schedule, as the leader knows it.
pub(super) struct Entry {
    name: String,
    kept: Kept,
    revision: i64,
    runs: Runs,
    runs_revision: i64,
    timing: Timing,
    /// There is nothing to do before.
    pub(super) next_ms: Option<u64>,
}

/// What became of a due instant.
enum HandOut {
    /// It was dealt with.
    Done,
    /// It cannot be now.
    Later(String),
    /// Somebody has changed something meanwhile: everything is to be read again.
    Stale,
}

/// All schedules.
pub(super) async fn read_all(store: &Store) -> Result<Vec<Entry>, StoreError> {
    // Those that are made at the same time may go beyond the bound.
    let limit = 2 * SCHEDULES_MAX;
    let mut runs = std::collections::HashMap::new();
    for kv in store.list(RUNS, "", limit, 0).await?.kvs {
        if let (Some(name), Some(found)) = (name_of(RUNS, &kv.key), parsed::<Runs>(&kv)) {
            runs.insert(name.to_owned(), (found, kv.mod_revision));
        }
    }
    let kvs = store.list(SCHEDULES, "", limit, 0).await?.kvs;
    let entries = kvs.iter().filter_map(|kv| {
        let name = name_of(SCHEDULES, &kv.key)?.to_owned();
        let kept: Kept = parsed(kv)?;
        let timing = Timing::new(&kept.schedule.cron, &kept.schedule.time_zone)
            .inspect_err(|error| tracing::warn!(name, detail = error.detail, "a schedule"))
            .ok()?;
        let (runs, runs_revision) = runs.remove(&name).unwrap_or_default();
        let mut entry =
            Entry { name, kept, revision: kv.mod_revision, runs, runs_revision, timing, next_ms: None };
        entry.look_ahead();
        Some(entry)
    });
    Ok(entries.collect())
}

impl Entry {
    fn look_ahead(&mut self) {
        let next = self.timing.next(self.kept.after_ms(&self.runs));
        self.next_ms = next.filter(|_| !self.kept.schedule.suspended);
    }

    /// Hands out what is due, for as long as this replica is the leader. Whether all of it was, or has to wait; if not, it is to
    /// be read again.
    pub(super) async fn hand_out(&mut self, app: &App, leads: &Compare) -> Result<bool, StoreError> {
        let plan = self.kept.plan(&self.timing, &self.runs, now_ms());
        let mut missed = plan.missed;
        for due_ms in plan.due {
            match self.run(app, leads, due_ms, missed.take()).await? {
                HandOut::Done => {}
                HandOut::Later(why) => {
                    tracing::debug!(schedule = self.name, due_ms, why, "it waits");
                    return Ok(true);
                }
                HandOut::Stale => return Ok(false),
            }
        }
        if let Some(due_ms) = missed {
            let runs =
                self.with(Run { due_ms, at_ms: now_ms(), outcome: RunOutcome::Missed, job: None, why: None });
            if !self.write(app, leads, runs, Change::default()).await? {
                return Ok(false);
            }
        }
        self.look_ahead();
        Ok(true)
    }

    /// Deals with an instant, for which there is a job then, or a reason why there is none.
    async fn run(
        &mut self,
        app: &App,
        leads: &Compare,
        due_ms: u64,
        missed: Option<u64>,
    ) -> Result<HandOut, StoreError> {
        let now = now_ms();
        let mut runs = self.runs.clone();
        if let Some(due_ms) = missed {
            runs.add(Run { due_ms, at_ms: now, outcome: RunOutcome::Missed, job: None, why: None });
        }
        let origin = Origin { schedule: self.name.clone(), due_ms };
        let started = |id: &str| Run {
            due_ms,
            at_ms: now,
            outcome: RunOutcome::Started,
            job: Some(id.to_owned()),
            why: None,
        };
        let id = origin.job_id();
        // A schedule of this name that was removed has made it.
        if app.store.get(&format!("{}{id}", queue::JOBS)).await?.is_some() {
            runs.add(started(&id));
            return self.written(app, leads, runs, Change::default()).await;
        }
        if let Some(why) = queue::is_full(&app.store).await? {
            return Ok(HandOut::Later(why));
        }
        let work = match self.work(app).await {
            Ok(work) => work,
            Err(problem) if !matches!(problem.kind, Kind::Invalid | Kind::Exists | Kind::Forbidden) => {
                return Ok(HandOut::Later(problem.detail().to_owned()));
            }
            // An agent may come back, another migration may end.
            Err(problem) if problem.kind != Kind::Forbidden && now.saturating_sub(due_ms) < LATE_MS / 2 => {
                return Ok(HandOut::Later(problem.detail().to_owned()));
            }
            Err(problem) => {
                let why = Some(problem.detail().to_owned());
                runs.add(Run { due_ms, at_ms: now, outcome: RunOutcome::Refused, job: None, why });
                return self.written(app, leads, runs, Change::default()).await;
            }
        };
        let job = Job::scheduled(work, now, origin);
        runs.add(started(&job.id));
        let room = app.audit.outbox.room().await;
        let recording = Recording::new(self.record(app));
        let location = format!("/api/v1/jobs/{}", job.id);
        let record = match recording.entry(&app.audit.outbox, StatusCode::ACCEPTED, &location, Was::Absent) {
            Ok(record) => record,
            Err(error) => return Ok(HandOut::Later(error.to_string())),
        };
        let mut change = queue::made(&job);
        change.then.push(record);
        let handed_out = self.written(app, leads, runs, change).await;
        let ended = recording.ended(&answer(&location, self.runs_revision, &handed_out));
        recording.end(&app.audit, &app.store, ended, room).await;
        app.jobs_wake.notify_one();
        handed_out
    }

    /// What its job is to do now.
    async fn work(&self, app: &App) -> Result<Work, Problem> {
        let work = match self.kept.schedule.work.clone() {
            NewWork::MoveRegion { from, to } => Work::MoveRegion { from, to },
            NewWork::Migrate(new) => Work::Migrate(new.migration(app).await?),
        };
        if !self.kept.schedule.allows_work(&work) {
            let regions = work.regions().join(", ");
            return Err(Problem::new(
                Kind::Forbidden,
                format!("it would be about {regions}, which are not all among the schedule's regions"),
            ));
        }
        match work.lock() {
            Some(lock) if app.store.get(&lock).await?.is_some() => {
                Err(Problem::new(Kind::Exists, "the VM is being migrated already"))
            }
            _ => Ok(work),
        }
    }

    fn with(&self, run: Run) -> Runs {
        let mut runs = self.runs.clone();
        runs.add(run);
        runs
    }

    async fn written(
        &mut self,
        app: &App,
        leads: &Compare,
        runs: Runs,
        change: Change,
    ) -> Result<HandOut, StoreError> {
        Ok(if self.write(app, leads, runs, change).await? { HandOut::Done } else { HandOut::Stale })
    }

    /// Says what became of it, with a change beside it, if all is as it is known. Whether it was.
    async fn write(
        &mut self,
        app: &App,
        leads: &Compare,
        runs: Runs,
        change: Change,
    ) -> Result<bool, StoreError> {
        let Change { mut compare, mut then } = change;
        let key = format!("{RUNS}{}", self.name);
        compare.extend([
            leads.clone(),
            is_at(&format!("{SCHEDULES}{}", self.name), self.revision),
            is_at(&key, self.runs_revision),
        ]);
        then.push(put(&key, serde_json::to_vec(&runs).expect("texts and numbers are JSON"), 0));
        let outcome = app.store.txn("hand out", compare, then, Vec::new()).await?;
        if outcome.held {
            (self.runs, self.runs_revision) = (runs, outcome.revision);
        }
        Ok(outcome.held)
    }

    /// What is recorded of a job that is made: who wrote the schedule is in the record of that.
    fn record(&self, app: &App) -> audit::Record {
        audit::Record {
            principal: format!("schedule:{}", self.name),
            name: self.kept.written_by.clone(),
            method: "POST".to_owned(),
            route: ROUTE.to_owned(),
            resource: format!("/api/v1/schedules/{}", self.name),
            replica: app.settings.replica.clone(),
            ..audit::Record::begun()
        }
    }
}

/// What somebody who asked for the job would have been answered.
fn answer(location: &str, revision: i64, handed_out: &Result<HandOut, StoreError>) -> Response {
    match handed_out {
        Ok(HandOut::Done) => {
            let headers = [(header::LOCATION, location), (header::ETAG, &etag_text(revision))];
            (StatusCode::ACCEPTED, headers).into_response()
        }
        Ok(_) => Problem::new(Kind::ConditionFailed, "").into_response(),
        Err(_) => Problem::new(Kind::EffectUnknown, "").into_response(),
    }
}
