//! Records on their way into the database: those that come while others are written are written together, next.
//!
//! With one sync for each record, a disk that syncs a thousand times a second would make five hundred changes a second of all
//! that replicas and store can do.

use std::slice;

use sqlx::{Any, AnyPool, AssertSqlSafe, query::Query};
use tokio::sync::{mpsc, oneshot};

use super::{
    database::{AuditError, within},
    record::Record,
};

/// Records of one statement. SQLite takes 32,766 values in one, PostgreSQL 65,535.
const BATCH_MAX: usize = 256;
/// Records that wait to be taken into a batch. Who comes then waits as well.
const WAITING_MAX: usize = 1024;

const COLUMNS: [&str; 14] = [
    "id",
    "at_ms",
    "principal",
    "name",
    "address",
    "method",
    "route",
    "resource",
    "request_id",
    "replica",
    "outcome",
    "status",
    "etag_before",
    "etag_after",
];
/// What is known only when the change has been made.
const COMPLETED: [&str; 5] = ["resource", "outcome", "status", "etag_before", "etag_after"];

struct Job {
    /// `None`: nothing but what was before it.
    record: Option<Record>,
    /// `None`: nobody waits.
    done: Option<oneshot::Sender<Result<(), String>>>,
}

impl Job {
    /// Who does not wait any more has refused the change.
    fn is_wanted(&self) -> bool {
        self.done.as_ref().is_none_or(|done| !done.is_closed())
    }

    fn answer(self, outcome: Result<(), String>) {
        match (self.done, outcome) {
            (Some(done), outcome) => drop(done.send(outcome)),
            (None, Ok(())) => {}
            (None, Err(error)) => tracing::error!(%error, "the record of a change stays as it was begun"),
        }
    }
}

/// Writes records, until it is dropped.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// A task of this runtime that writes through `pool`, whose tables have been made.
    pub(super) fn start(pool: AnyPool, is_postgres: bool) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(pool, is_postgres, waiting));
        Self { jobs }
    }

    /// Writes a record, or completes the one with its id. When this returns, it is on the disk.
    pub(super) async fn write(&self, record: Record) -> Result<(), AuditError> {
        self.wait(Some(record)).await
    }

    /// Writes a record, or completes the one with its id, soon.
    pub(super) async fn write_soon(&self, record: Record) -> Result<(), AuditError> {
        self.send(Job { record: Some(record), done: None }).await
    }

    /// Waits until what was to be written before is on the disk.
    pub(super) async fn flush(&self) -> Result<(), AuditError> {
        self.wait(None).await
    }

    async fn wait(&self, record: Option<Record>) -> Result<(), AuditError> {
        let (done, answer) = oneshot::channel();
        self.send(Job { record, done: Some(done) }).await?;
        answer.await.map_err(|_| gone())?.map_err(AuditError::Batch)
    }

    async fn send(&self, job: Job) -> Result<(), AuditError> {
        self.jobs.send(job).await.map_err(|_| gone())
    }
}

fn gone() -> AuditError {
    AuditError::Batch("the runtime ends".to_owned())
}

async fn write_all(pool: AnyPool, is_postgres: bool, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.recv_many(&mut jobs, BATCH_MAX).await > 0 {
        jobs.retain(Job::is_wanted);
        let outcome = write(&pool, is_postgres, &jobs).await;
        if jobs.len() > 1 && matches!(outcome, Err(AuditError::Database(sqlx::Error::Database(_)))) {
            // One that the database does not take, a text with a zero byte for instance, is nobody else's business.
            for job in jobs.drain(..) {
                let outcome = write(&pool, is_postgres, slice::from_ref(&job)).await;
                job.answer(outcome.map_err(|error| error.to_string()));
            }
            continue;
        }
        let outcome = outcome.map_err(|error| error.to_string());
        jobs.drain(..).for_each(|job| job.answer(outcome.clone()));
    }
}

/// With one statement.
async fn write(pool: &AnyPool, is_postgres: bool, jobs: &[Job]) -> Result<(), AuditError> {
    let records: Vec<_> = jobs.iter().filter_map(|job| job.record.as_ref()).collect();
    if records.is_empty() {
        return Ok(());
    }
    // There is one for each number of records, which would push others out of the cache of prepared ones.
    let query = sqlx::query(AssertSqlSafe(statement(records.len(), is_postgres))).persistent(false);
    let query = records.into_iter().fold(query, bind);
    within(async { Ok(query.execute(pool).await.map(drop)?) }).await
}

/// Of so many records. PostgreSQL wants its parameters numbered; SQLite would look for each numbered one among all of them.
fn statement(records: usize, is_postgres: bool) -> String {
    let value = |n: usize| if is_postgres { format!("${n}") } else { "?".to_owned() };
    let row = |n: usize| {
        let values = (1..=COLUMNS.len()).map(|column| value(n * COLUMNS.len() + column));
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    let rows = (0..records).map(row).collect::<Vec<_>>().join(", ");
    let completed = COMPLETED.map(|column| format!("{column} = excluded.{column}")).join(", ");
    let columns = COLUMNS.join(", ");
    format!("INSERT INTO audit ({columns}) VALUES {rows} ON CONFLICT (id) DO UPDATE SET {completed}")
}

type Statement<'q> = Query<'q, Any, <Any as sqlx::Database>::Arguments>;

/// In the order of [`COLUMNS`].
fn bind<'q>(query: Statement<'q>, record: &'q Record) -> Statement<'q> {
    query
        .bind(&record.id)
        .bind(record.at_ms)
        .bind(&record.principal)
        .bind(&record.name)
        .bind(&record.address)
        .bind(&record.method)
        .bind(&record.route)
        .bind(&record.resource)
        .bind(&record.request_id)
        .bind(&record.replica)
        .bind(record.outcome.to_string())
        .bind(record.status)
        .bind(&record.etag_before)
        .bind(&record.etag_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_a_value_for_each_column_of_each_record() {
        let sql = statement(3, true);
        assert!(sql.contains("$42)") && !sql.contains("$43"), "{sql}");
        assert_eq!(statement(3, false).matches('?').count(), 42);
    }
}
