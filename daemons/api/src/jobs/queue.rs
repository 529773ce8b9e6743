//! The queue in the store: what is open, claims, and what a claim allows to be written.

use std::collections::HashSet;

use consensus_proto::{
    etcdserverpb::{Compare, RequestOp},
    mvccpb::KeyValue,
};
use novacron_store::StoreError;

use super::record::{Job, State};
use crate::store::{Store, delete, is_absent, is_at, is_made_at, is_there, name_of, put, read};

/// Records.
pub(crate) const JOBS: &str = "/novacron/jobs/";
const OPEN: &str = "/novacron/jobs-open/";
const LEASED: &str = "/novacron/jobs-leased/";

/// Jobs that have not ended; more are not taken on. Replicas that take on jobs at the same time may go beyond it by one each.
const OPEN_MAX: usize = 1000;
/// How many of them a replica looks at.
const LOOKED_AT_MAX: usize = 2 * OPEN_MAX;
/// Jobs that have ended whose records stay in the store, if the database has them: more go at once.
pub(crate) const KEPT_MAX: u64 = 1000;
/// Those that are there while the database is away; with more, no jobs are taken on.
const ENDED_MAX: u64 = 10_000;

/// What becomes of an entry that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was.
    Yes,
    /// Not, as something has changed meanwhile. The claim has the job as it is now.
    Changed,
    /// Not, and nothing will be: the job is not this replica's any more.
    Lost,
}

/// What is written beside a job's record.
#[derive(Default)]
pub(crate) struct Change {
    /// Or nothing is written.
    pub(crate) compare: Vec<Compare>,
    pub(crate) then: Vec<RequestOp>,
}

/// A job that this replica has.
pub(crate) struct Claim {
    pub(crate) job: Job,
    /// Of the record.
    revision: i64,
    /// The revision at which the leased entry was made: no other claim has it.
    made_at: i64,
    pub(crate) lease: i64,
}

/// The store's lease and entries of open jobs.
pub(crate) struct Open {
    /// How many there are.
    pub(crate) count: usize,
    /// Those that nobody has and that may run, the oldest first.
    pub(crate) free: Vec<String>,
}

/// A record as the store has it; `None` for one of a newer version.
pub(crate) fn parsed(kv: &KeyValue) -> Option<Job> {
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| {
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "the record of a job");
        })
        .ok()
}

fn text(job: &Job) -> Vec<u8> {
    serde_json::to_vec(job).expect("texts and numbers are JSON")
}

/// What goes with a job's end.
fn ended(job: &Job) -> impl Iterator<Item = RequestOp> {
    let open = format!("{OPEN}{}", job.id);
    [Some(open), job.work.lock()].into_iter().flatten().map(|key| delete(&key))
}

/// What makes a new job.
pub(crate) fn made(job: &Job) -> Change {
    let (record, open) = (format!("{JOBS}{}", job.id), format!("{OPEN}{}", job.id));
    let mut change = Change {
        compare: vec![is_absent(&record)],
        then: vec![put(&record, text(job), 0), put(&open, job.not_before_ms.to_string(), 0)],
    };
    if let Some(lock) = job.work.lock() {
        change.compare.push(is_absent(&lock));
        change.then.push(put(&lock, job.id.clone(), 0));
    }
    change
}

/// How many jobs have ended and are in the store.
pub(crate) async fn ended_count(store: &Store) -> Result<u64, StoreError> {
    counts(store).await.map(|(_, ended)| ended)
}

/// How many jobs have not ended, and how many have.
async fn counts(store: &Store) -> Result<(u64, u64), StoreError> {
    let (open, all) = tokio::try_join!(store.count(OPEN), store.count(JOBS))?;
    Ok((open, all.saturating_sub(open)))
}

/// Why no job is taken on, if none is.
pub(crate) async fn is_full(store: &Store) -> Result<Option<String>, StoreError> {
    let (open, ended) = counts(store).await?;
    Ok(if open >= OPEN_MAX as u64 {
        Some(format!("{OPEN_MAX} jobs have not come to their end"))
    } else if ended >= ENDED_MAX {
        Some(format!("{ENDED_MAX} jobs that have ended wait for the database"))
    } else {
        None
    })
}

/// What there is to be done.
pub(crate) async fn open(store: &Store, now_ms: u64) -> Result<Open, StoreError> {
    let open = store.list(OPEN, "", LOOKED_AT_MAX, 0).await?;
    let leased = store.list(LEASED, "", LOOKED_AT_MAX, 0).await?;
    let leased: HashSet<_> = leased.kvs.iter().filter_map(|kv| name_of(LEASED, &kv.key)).collect();
    let free = open.kvs.iter().filter_map(|kv| {
        let not_before = std::str::from_utf8(&kv.value).ok()?.parse::<u64>().ok()?;
        let id = name_of(OPEN, &kv.key)?;
        (not_before <= now_ms && !leased.contains(id)).then(|| id.to_owned())
    });
    Ok(Open { count: open.kvs.len(), free: free.collect() })
}

/// Wants the end of a job, as it is at a revision, with an entry of the audit. `None`: it has changed meanwhile.
pub(crate) async fn cancel(
    store: &Store,
    revision: i64,
    job: &Job,
    recorded: RequestOp,
) -> Result<Option<i64>, StoreError> {
    let record = format!("{JOBS}{}", job.id);
    let mut then = vec![put(&record, text(job), 0), recorded];
    match job.has_ended() {
        true => then.extend(ended(job)),
        // Whoever takes it looks at once.
        false => then.push(put(&format!("{OPEN}{}", job.id), job.not_before_ms.to_string(), 0)),
    }
    let outcome = store.txn("cancel", vec![is_at(&record, revision)], then, Vec::new()).await?;
    Ok(outcome.held.then_some(outcome.revision))
}

impl Claim {
    /// Takes a job, for `lease_seconds` at first. `None`: it is somebody else's, or has come to its end.
    pub(crate) async fn take(
        store: &Store,
        id: &str,
        replica: &str,
        lease_seconds: i64,
        now_ms: u64,
    ) -> Result<Option<Self>, StoreError> {
        let (record, open, leased) = (format!("{JOBS}{id}"), format!("{OPEN}{id}"), format!("{LEASED}{id}"));
        let Some(kv) = store.get(&record).await? else { return Ok(None) };
        let Some(mut job) = parsed(&kv).filter(|job| !job.has_ended()) else { return Ok(None) };
        job.claim(replica, now_ms);
        let compare = vec![is_at(&record, kv.mod_revision), is_there(&open), is_absent(&leased)];
        if job.has_ended() {
            let then = [put(&record, text(&job), 0)].into_iter().chain(ended(&job)).collect();
            store.txn("end job", compare, then, Vec::new()).await?;
            return Ok(None);
        }
        let lease = store.grant(lease_seconds).await?;
        let then = vec![put(&record, text(&job), 0), put(&leased, replica, lease)];
        // If nobody knows what became of it: the lease is not prolonged, and the job is free again soon.
        let outcome = store.txn("claim job", compare, then, Vec::new()).await?;
        if !outcome.held {
            store.revoke(lease).await;
            return Ok(None);
        }
        Ok(Some(Self { job, revision: outcome.revision, made_at: outcome.revision, lease }))
    }

    /// Writes the record, and a change beside it, if the job is still this replica's and nothing else has changed. A job that
    /// does not run any more is nobody's then.
    pub(crate) async fn write(
        &mut self,
        store: &Store,
        job: Job,
        change: Change,
    ) -> Result<Written, StoreError> {
        let Change { mut compare, mut then } = change;
        let [record, open, leased] = [JOBS, OPEN, LEASED].map(|prefix| format!("{prefix}{}", job.id));
        compare.extend([is_made_at(&leased, self.made_at), is_at(&record, self.revision)]);
        then.push(put(&record, text(&job), 0));
        match job.state {
            State::Running => {}
            State::Queued => {
                then.extend([put(&open, job.not_before_ms.to_string(), 0), delete(&leased)]);
            }
            State::Done | State::Failed | State::Cancelled => {
                then.extend(ended(&job).chain([delete(&leased)]));
            }
        }
        let mut outcome = store.txn("write job", compare, then, vec![read(&leased), read(&record)]).await?;
        if outcome.held {
            (self.job, self.revision) = (job, outcome.revision);
            return Ok(Written::Yes);
        }
        let (leased, record) = (outcome.read(0), outcome.read(1));
        Ok(if self.accept(leased, record) { Written::Changed } else { Written::Lost })
    }

    /// Reads the job again, where nobody knows what was written; whether it is still this replica's.
    pub(crate) async fn refresh(&mut self, store: &Store) -> Result<bool, StoreError> {
        let reads = [LEASED, JOBS].map(|prefix| read(&format!("{prefix}{}", self.job.id)));
        let mut outcome = store.txn("read job", Vec::new(), reads.to_vec(), Vec::new()).await?;
        let (leased, record) = (outcome.read(0), outcome.read(1));
        Ok(self.accept(leased, record))
    }

    fn accept(&mut self, leased: Option<KeyValue>, record: Option<KeyValue>) -> bool {
        let is_ours = leased.is_some_and(|leased| leased.create_revision == self.made_at);
        let found = record.and_then(|kv| Some((parsed(&kv)?, kv.mod_revision)));
        match found.filter(|_| is_ours) {
            Some(found) => {
                (self.job, self.revision) = found;
                true
            }
            None => false,
        }
    }
}
