//! The records in the database.

use std::{sync::Arc, time::Duration};

use novacron_store::StoreError;
use sqlx::{Row as _, any::AnyRow};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{MissedTickBehavior, interval},
};

use super::{
    drain::Place,
    outbox::{Entry, OUTBOX_MAX, Outbox, Room},
    record::{Filter, Outcome, Record, time_of},
    writer::{Target, Writer},
};
use crate::{
    app::{App, now_ms},
    database::{Database, DatabaseError, within},
};

/// How often old records are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// What keeps records from being written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Too many records wait for it.
    #[error("database: {OUTBOX_MAX} records wait for it")]
    Full,
    /// The store, in which records wait for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it said of a statement that had the records of several changes.
    #[error("{0}")]
    Batch(String),
}

impl From<sqlx::Error> for AuditError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The records.
pub(crate) struct Audit {
    database: Arc<Database>,
    target: Target,
    /// Once the tables are there.
    writer: OnceCell<Writer>,
    /// Those that are still in the store.
    pub(crate) outbox: Arc<Outbox>,
    /// How far is known that none are.
    pub(super) place: Mutex<Place>,
}

impl Audit {
    /// Connects to nothing yet.
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let target = Target { pool: database.writes.clone(), is_postgres: database.is_postgres };
        Self { database, target, writer: OnceCell::new(), outbox: Arc::default(), place: Mutex::default() }
    }

    /// Makes the tables, and begins to write.
    async fn ready(&self) -> Result<&Writer, AuditError> {
        let start = || async {
            self.database.ready().await?;
            Ok(Writer::start(self.target.clone(), self.outbox.clone()))
        };
        self.writer.get_or_try_init(start).await
    }

    /// Makes the tables, if it answers.
    pub(crate) async fn prepare(&self) -> Result<(), AuditError> {
        within(self.ready()).await.map(drop)
    }

    /// Writes a record, or completes the one with its id.
    pub(crate) async fn write(&self, record: Record) -> Result<(), AuditError> {
        within(async { self.ready().await?.write(record).await }).await
    }

    /// Completes a record, soon: who lists records here afterwards finds it completed.
    pub(crate) async fn complete(&self, record: Record) -> Result<(), AuditError> {
        within(async { self.ready().await?.write_soon(record).await }).await
    }

    /// Writes a record that waits in this entry, soon: who lists records here afterwards finds it. While the database is away, it
    /// stays in the store.
    pub(super) fn take(&self, record: Record, entry: Entry, room: Option<Room>) {
        if let (Some(writer), Some(room)) = (self.writer.get(), room) {
            writer.take(record, entry, room);
        }
    }

    /// Writes records that wait in the store; whether each was.
    pub(super) async fn write_all(&self, records: &[Record]) -> Result<Vec<bool>, AuditError> {
        within(self.ready()).await?;
        self.target.write_all(&records.iter().collect::<Vec<_>>()).await
    }

    /// Waits until all that was to be completed is.
    pub(crate) async fn flush(&self) -> Result<(), AuditError> {
        within(async { self.ready().await?.flush().await }).await
    }

    /// Records that fit, the newest first.
    pub(crate) async fn list(&self, filter: &Filter) -> Result<Vec<Record>, AuditError> {
        const LIST: &str = "SELECT id, at_ms, principal, name, address, method, route, resource, request_id, replica, outcome, \
                            status, etag_before, etag_after FROM audit \
                            WHERE ($1 = '' OR id < $1) AND ($2 = '' OR principal = $2) AND ($3 = '' OR method = $3) \
                            AND ($4 = '' OR resource = $4) AND ($5 = '' OR outcome = $5) AND at_ms >= $6 AND at_ms <= $7 \
                            ORDER BY id DESC LIMIT $8";
        within(async {
            let query = sqlx::query(LIST)
                .bind(&filter.before)
                .bind(&filter.principal)
                .bind(&filter.method)
                .bind(&filter.resource)
                .bind(&filter.outcome)
                .bind(filter.from_ms)
                .bind(filter.to_ms)
                .bind(filter.limit);
            self.ready().await?.flush().await?;
            let rows = query.fetch_all(&self.database.reads).await?;
            Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes what is from before this time.
    async fn forget(&self, before_ms: u64) -> Result<u64, AuditError> {
        within(async {
            let query = sqlx::query("DELETE FROM audit WHERE id < $1").bind(time_of(before_ms));
            self.ready().await?;
            Ok(query.execute(&self.target.pool).await?.rows_affected())
        })
        .await
    }
}

fn read(row: &AnyRow) -> Result<Record, sqlx::Error> {
    let outcome: String = row.try_get("outcome")?;
    Ok(Record {
        id: row.try_get("id")?,
        at_ms: row.try_get("at_ms")?,
        principal: row.try_get("principal")?,
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        method: row.try_get("method")?,
        route: row.try_get("route")?,
        resource: row.try_get("resource")?,
        request_id: row.try_get("request_id")?,
        replica: row.try_get("replica")?,
        // Of a later version.
        outcome: outcome.parse().unwrap_or(Outcome::Unknown),
        status: row.try_get("status")?,
        etag_before: row.try_get("etag_before")?,
        etag_after: row.try_get("etag_after")?,
    })
}

/// Removes old records, again and again.
pub(crate) async fn keep_small(app: Arc<App>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let kept = app.settings.database.audit_kept.as_millis() as u64;
        match app.audit.forget(now_ms().saturating_sub(kept)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "old records of the audit are gone"),
            Err(error) => tracing::warn!(%error, "removing old records of the audit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{database::FILE, settings::DatabaseSettings};

    fn opened(settings: &DatabaseSettings) -> Audit {
        Audit::new(Arc::new(Database::open(settings).unwrap()))
    }

    fn settings(folder: &tempfile::TempDir) -> DatabaseSettings {
        DatabaseSettings { data_dir: folder.path().join("a b%"), ..DatabaseSettings::default() }
    }

    fn record(principal: &str) -> Record {
        Record { principal: principal.to_owned(), method: "PUT".to_owned(), ..Record::begun() }
    }

    #[tokio::test]
    async fn records_are_kept_completed_found_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let audit = opened(&settings(&folder));
        let records: Vec<_> = ["a", "b", "a"].into_iter().map(record).collect();
        for record in &records {
            audit.write(record.clone()).await.unwrap();
        }
        let done = Record {
            outcome: Outcome::Done,
            status: 200,
            etag_after: "\"7\"".to_owned(),
            ..records[0].clone()
        };
        audit.complete(done.clone()).await.unwrap();
        audit.flush().await.unwrap();
        // Another process, or a replica that was started again.
        let audit = opened(&settings(&folder));
        let list = async |filter: Filter| audit.list(&Filter { to_ms: i64::MAX, ..filter }).await.unwrap();
        let all = list(Filter { limit: 10, ..Filter::default() }).await;
        assert_eq!(all.len(), 3);
        assert!(all.contains(&done) && all.contains(&records[1]));
        assert!(all.is_sorted_by(|a, b| a.id > b.id));
        let page = list(Filter { limit: 1, ..Filter::default() }).await;
        let rest = list(Filter { limit: 10, before: page[0].id.clone(), ..Filter::default() }).await;
        assert_eq!([page, rest].concat(), all);
        let of = |principal: &str| Filter { principal: principal.to_owned(), limit: 10, ..Filter::default() };
        assert_eq!(list(of("b")).await, records[1..2]);
        assert_eq!(list(of("' OR '1' = '1")).await, []);
        assert_eq!(list(Filter { outcome: "done".to_owned(), limit: 10, ..Filter::default() }).await, [done]);
        assert_eq!(audit.forget(0).await.unwrap(), 0);
        assert_eq!(audit.forget(now_ms() + 1000).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn many_at_a_time_are_all_written_and_completed() {
        const RECORDS: usize = 1000;
        let folder = tempfile::tempdir().unwrap();
        let audit = Arc::new(opened(&settings(&folder)));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..RECORDS {
            let (audit, begun) = (audit.clone(), record(&format!("p{}", n % 7)));
            tasks.spawn(async move {
                audit.write(begun.clone()).await.unwrap();
                let done = Record { outcome: Outcome::Done, status: 200 + n as i64, ..begun };
                audit.write(done.clone()).await.unwrap();
                done
            });
        }
        let mut expected = tasks.join_all().await;
        expected.sort_by(|a, b| b.id.cmp(&a.id));
        let filter = Filter { to_ms: i64::MAX, limit: 2 * RECORDS as i64, ..Filter::default() };
        assert_eq!(audit.list(&filter).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_an_error_and_may_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder);
        let audit = opened(&settings);
        // Where the file should be there is a folder.
        let file = settings.data_dir.join(FILE);
        fs::create_dir(&file).unwrap();
        assert!(audit.write(record("a")).await.is_err());
        fs::remove_dir(&file).unwrap();
        audit.write(record("a")).await.unwrap();
    }
}
