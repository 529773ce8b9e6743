//! The history of jobs: those that have ended, in the database.
//!
//! Each replica writes what it sees come to its end, so that with SQLite each has all of it in its own file; with PostgreSQL a job is
//! one row, whoever writes it and how often. From the store a record goes later, so that each replica has time for that.
//!
//! What always holds: a job that has ended is in the store or in the database. Who removes its record from the store has just
//! written it to the database, and one that is removed was as it was written. So who looks into the store first, and into the
//! database then, finds it.
//!
//! Deliberately not here: how pages of both are made (`http::page`).

use std::{collections::HashSet, sync::Arc, time::Duration};

use consensus_proto::mvccpb::KeyValue;
use novacron_store::StoreError;
use sqlx::Row as _;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep_until},
};

use super::{
    queue::{self, JOBS, KEPT_MAX},
    record::{ID_DIGITS, Job},
};
use crate::{
    app::{App, now_ms},
    changes::News,
    database::{Database, DatabaseError, within},
    store::{delete, is_at, name_of, when},
};

/// How long the record of a job that has ended stays in the store.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Between looks at all records in the store, and what is waited for where the database did not answer.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Records that are read at once, and that are written in one transaction.
const READ_MAX: usize = 500;
const BATCH_MAX: usize = 100;

/// A job that has ended, and the store's revision at which it was written last.
pub(crate) struct Ended {
    pub(crate) revision: i64,
    pub(crate) job: Job,
}

impl Ended {
    /// An entry of the store, if it is one.
    fn of(kv: &KeyValue) -> Option<Self> {
        let job = queue::parsed(kv).filter(|job| job.has_ended() && is_id(&job.id))?;
        Some(Self { revision: kv.mod_revision, job })
    }
}

/// Whether a job can be called that.
fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Writes up to [`BATCH_MAX`] jobs, in one transaction.
async fn write(database: &Database, jobs: &[Ended]) -> Result<(), DatabaseError> {
    const WRITE: &str = "INSERT INTO jobs (id, revision, kind, state, ended_ms, record) VALUES ($1, $2, $3, $4, $5, $6) \
                         ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state, \
                         ended_ms = excluded.ended_ms, record = excluded.record";
    within(async {
        database.ready().await?;
        let mut transaction = database.writes.begin().await?;
        for Ended { revision, job } in jobs {
            let query = sqlx::query(WRITE)
                .bind(&job.id)
                .bind(*revision)
                .bind(job.work.kind())
                .bind(format!("{:?}", job.state).to_lowercase())
                .bind(job.ended_ms.unwrap_or_default() as i64)
                .bind(serde_json::to_string(job).expect("texts and numbers are JSON"));
            query.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    })
    .await
}

/// Jobs behind the one called `after`, in the order of their ids; `None` for a record of a newer version. `kind`: only those, if
/// it is not empty.
pub(crate) async fn list(
    database: &Database,
    after: &str,
    kind: &str,
    limit: usize,
) -> Result<Vec<(String, Option<Job>)>, DatabaseError> {
    const LIST: &str =
        "SELECT id, record FROM jobs WHERE id > $1 AND ($2 = '' OR kind = $2) ORDER BY id LIMIT $3";
    within(async {
        database.ready().await?;
        let query = sqlx::query(LIST).bind(after).bind(kind).bind(limit as i64);
        let rows = query.fetch_all(&database.reads).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, parsed(row.try_get("record")?)))).collect()
    })
    .await
}

/// A job that has ended.
pub(crate) async fn find(database: &Database, id: &str) -> Result<Option<Ended>, DatabaseError> {
    if !is_id(id) {
        return Ok(None);
    }
    within(async {
        database.ready().await?;
        let query = sqlx::query("SELECT revision, record FROM jobs WHERE id = $1").bind(id);
        let Some(row) = query.fetch_optional(&database.reads).await? else { return Ok(None) };
        let revision = row.try_get("revision")?;
        Ok(parsed(row.try_get("record")?).map(|job| Ended { revision, job }))
    })
    .await
}

fn parsed(record: &str) -> Option<Job> {
    serde_json::from_str(record).inspect_err(|error| tracing::warn!(%error, "the record of a job")).ok()
}

/// Removes jobs that ended before this time.
async fn forget(database: &Database, before_ms: u64) -> Result<(), DatabaseError> {
    within(async {
        database.ready().await?;
        let query = sqlx::query("DELETE FROM jobs WHERE ended_ms < $1").bind(before_ms as i64);
        query.execute(&database.writes).await?;
        Ok(())
    })
    .await
}

/// Writes jobs that have ended into the database, and removes them from the store, for as long as the replica runs.
pub(crate) async fn keep(app: Arc<App>) {
    let mut news = app.changes.listen();
    let mut keeper = Keeper::default();
    let mut next = Instant::now();
    loop {
        let heard = tokio::select! {
            () = sleep_until(next) => None,
            heard = news.recv() => Some(heard),
        };
        match heard {
            Some(Ok(News::Written(kv))) => {
                let ended = Ended::of(&kv).filter(|_| keeper.waiting == 0);
                if let Some(ended) = ended
                    && let Err(error) = keeper.write(&app.database, vec![ended]).await
                {
                    tracing::warn!(%error, "a job that has ended waits in the store");
                    keeper.waiting = 1;
                    next = Instant::now() + RETRY_PAUSE;
                }
            }
            Some(Ok(News::Gone(_))) => {}
            Some(Err(RecvError::Closed)) => return,
            None | Some(Ok(News::Missed) | Err(RecvError::Lagged(_))) => {
                if let Err(error) = keeper.look(&app).await {
                    tracing::debug!(%error, "looking for jobs that have ended");
                    keeper.waiting = keeper.waiting.max(1);
                }
                metrics::gauge!("history_jobs_waiting").set(keeper.waiting as f64);
                next = Instant::now() + if keeper.waiting == 0 { LOOK_INTERVAL } else { RETRY_PAUSE };
            }
        }
    }
}

/// What a replica knows of jobs that have ended and are in the store.
#[derive(Default)]
struct Keeper {
    /// Those that the database has.
    written: HashSet<String>,
    /// How many it has not, at the last look.
    waiting: usize,
}

impl Keeper {
    async fn write(&mut self, database: &Database, jobs: Vec<Ended>) -> Result<(), DatabaseError> {
        for batch in jobs.chunks(BATCH_MAX) {
            write(database, batch).await?;
        }
        self.written.extend(jobs.into_iter().map(|ended| ended.job.id));
        Ok(())
    }

    /// Looks at all records. Those that are old, or too many, go from the store.
    async fn look(&mut self, app: &App) -> Result<(), StoreError> {
        let mut too_many = queue::ended_count(&app.store).await?.saturating_sub(KEPT_MAX);
        let old = now_ms().saturating_sub(KEPT_MS);
        let (mut seen, mut after) = (HashSet::new(), String::new());
        let (mut waiting, mut away) = (0, None);
        loop {
            let page = app.store.list(JOBS, &after, READ_MAX, 0).await?;
            let (mut jobs, mut removals) = (Vec::new(), Vec::new());
            let mut unwritten = 0;
            for ended in page.kvs.iter().filter_map(Ended::of) {
                let id = &ended.job.id;
                let goes = too_many > 0 || ended.job.ended_ms.is_none_or(|ended_ms| ended_ms < old);
                too_many = too_many.saturating_sub(1);
                if goes {
                    let key = format!("{JOBS}{id}");
                    removals.push(when(vec![is_at(&key, ended.revision)], vec![delete(&key)]));
                }
                let is_written = self.written.contains(id);
                unwritten += usize::from(!is_written);
                seen.insert(id.clone());
                // What goes is written in any case: the database may have been lost since it was.
                if goes || !is_written {
                    jobs.push(ended);
                }
            }
            if away.is_none() {
                match self.write(&app.database, jobs).await {
                    Ok(()) => app.store.do_all("remove jobs", removals).await?,
                    Err(error) => away = Some(error),
                }
            }
            if away.is_some() {
                waiting += unwritten;
            }
            match page.kvs.last().and_then(|kv| name_of(JOBS, &kv.key)) {
                Some(last) if page.more => last.clone_into(&mut after),
                _ => break,
            }
        }
        self.written.retain(|id| seen.contains(id));
        self.waiting = waiting;
        if away.is_none() {
            let kept = app.settings.database.audit_kept.as_millis() as u64;
            away = forget(&app.database, now_ms().saturating_sub(kept)).await.err();
        }
        if let Some(error) = away {
            tracing::warn!(%error, waiting, "jobs that have ended wait in the store");
        }
        Ok(())
    }
}
