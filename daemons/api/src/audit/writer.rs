//! Records on their way into the database: those that come while others are written are written together, next.
//!
//! With one sync for each record, a disk that syncs a thousand times a second would make five hundred changes a second of all
//! that replicas and store can do.

use std::{slice, sync::Arc, time::Duration};

use sqlx::{Any, AnyPool, AssertSqlSafe, query::Query};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    database::AuditError,
    outbox::{Entry, Outbox, Room},
    record::Record,
};
use crate::database::{DatabaseError, within};

/// Records that are written in one transaction.
pub(super) const BATCH_MAX: usize = 512;
/// Those of one statement: that of so many is prepared once, and to read a longer one takes as long as to do it.
const STATEMENT_MAX: usize = 64;
/// How long records that nobody waits for wait for more.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Records that wait to be taken into a batch. Who comes then waits as well, or leaves its record in the store.
const WAITING_MAX: usize = 4096;

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
    /// Where the record waits in the store; that may be written again when it is written here.
    entry: Option<(Entry, Room)>,
    /// `None`: nobody waits.
    done: Option<oneshot::Sender<Result<(), String>>>,
}

impl Job {
    /// Who does not wait any more has refused the change.
    fn is_wanted(&self) -> bool {
        self.done.as_ref().is_none_or(|done| !done.is_closed())
    }
}

/// Where records are written.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) pool: AnyPool,
    pub(super) is_postgres: bool,
}

/// Writes records, until it is dropped.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// A task of this runtime that writes to where the tables have been made.
    pub(super) fn start(target: Target, outbox: Arc<Outbox>) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_jobs(target, waiting, outbox));
        Self { jobs }
    }

    /// Writes a record, or completes the one with its id. When this returns, it is on the disk.
    pub(super) async fn write(&self, record: Record) -> Result<(), AuditError> {
        self.wait(Some(record)).await
    }

    /// Writes a record, or completes the one with its id, soon.
    pub(super) async fn write_soon(&self, record: Record) -> Result<(), AuditError> {
        self.send(Job { record: Some(record), entry: None, done: None }).await
    }

    /// Writes a record that waits in the store, soon; or leaves it there, if there is much to do.
    pub(super) fn take(&self, record: Record, entry: Entry, room: Room) {
        let _ = self.jobs.try_send(Job { record: Some(record), entry: Some((entry, room)), done: None });
    }

    /// Waits until what was to be written before is on the disk.
    pub(super) async fn flush(&self) -> Result<(), AuditError> {
        self.wait(None).await
    }

    async fn wait(&self, record: Option<Record>) -> Result<(), AuditError> {
        let (done, answer) = oneshot::channel();
        self.send(Job { record, entry: None, done: Some(done) }).await?;
        answer.await.map_err(|_| gone())?.map_err(AuditError::Batch)
    }

    async fn send(&self, job: Job) -> Result<(), AuditError> {
        self.jobs.send(job).await.map_err(|_| gone())
    }
}

fn gone() -> AuditError {
    AuditError::Batch("the runtime ends".to_owned())
}

async fn write_jobs(target: Target, mut waiting: mpsc::Receiver<Job>, outbox: Arc<Outbox>) {
    let mut jobs = Vec::new();
    while next_batch(&mut waiting, &mut jobs).await {
        jobs.retain(Job::is_wanted);
        let records: Vec<_> = jobs.iter().filter_map(|job| job.record.as_ref()).collect();
        let outcomes = target.write_all(&records).await.map_err(|error| error.to_string());
        if let Err(error) = &outcomes {
            tracing::warn!(%error, records = records.len(), "records of changes are not in the database");
        }
        let mut outcomes = outcomes.map(Vec::into_iter);
        for Job { record, entry, done } in jobs.drain(..) {
            let outcome = match (&mut outcomes, record) {
                (Err(error), _) => Err(error.clone()),
                (Ok(_), None) => Ok(()),
                (Ok(taken), Some(_)) => match taken.next() {
                    Some(true) => Ok(()),
                    _ => Err("the database does not take it".to_owned()),
                },
            };
            if let (Some((entry, _room)), Ok(())) = (entry, &outcome) {
                outbox.free_again(entry);
            }
            if let Some(done) = done {
                let _ = done.send(outcome);
            }
        }
    }
}

/// Jobs that are done together. Where nobody waits, more are waited for.
async fn next_batch(waiting: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
    let mut looked_at = 0;
    let mut until = None;
    while jobs.len() < BATCH_MAX {
        let more = waiting.recv_many(jobs, BATCH_MAX - jobs.len());
        let came = match until {
            None => more.await,
            Some(until) => timeout_at(until, more).await.unwrap_or(0),
        };
        if came == 0 || jobs[looked_at..].iter().any(|job| job.done.is_some()) {
            break;
        }
        looked_at = jobs.len();
        until.get_or_insert_with(|| Instant::now() + BATCH_TIME);
    }
    !jobs.is_empty()
}

impl Target {
    /// Writes records. Whether each was: one that the database does not take is nobody else's business.
    pub(super) async fn write_all(&self, records: &[&Record]) -> Result<Vec<bool>, AuditError> {
        match self.write(records).await {
            Ok(()) => return Ok(vec![true; records.len()]),
            Err(AuditError::Database(DatabaseError::Statement(sqlx::Error::Database(error)))) => {
                tracing::warn!(%error, records = records.len(), "records that are to be written");
            }
            Err(error) => return Err(error),
        }
        let mut written = Vec::new();
        for record in records {
            let outcome = self.write(slice::from_ref(record)).await;
            if let Err(error) = &outcome {
                tracing::error!(%error, id = record.id, "a record of a change is not in the database");
            }
            written.push(outcome.is_ok());
        }
        Ok(written)
    }

    /// In one transaction.
    async fn write(&self, records: &[&Record]) -> Result<(), AuditError> {
        if records.is_empty() {
            return Ok(());
        }
        within(async {
            let mut transaction = self.pool.begin().await?;
            for records in records.chunks(STATEMENT_MAX) {
                let sql = AssertSqlSafe(statement(records.len(), self.is_postgres));
                // There is one for each number of records, which would push others out of the cache of prepared ones.
                let query = sqlx::query(sql).persistent(records.len() == STATEMENT_MAX);
                let query = records.iter().fold(query, |query, record| bind(query, record));
                query.execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        })
        .await
    }
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
    // Of what was done nobody knows better: who was not answered does not know that it was.
    format!(
        "INSERT INTO audit ({columns}) VALUES {rows} ON CONFLICT (id) DO UPDATE SET {completed} \
         WHERE audit.outcome <> 'done'"
    )
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
