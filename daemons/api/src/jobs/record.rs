//! A job's record, and what can become of it: a state machine that knows neither the store nor a clock.
//!
//! Another kind of job is another variant of [`Work`] with what it is about.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::role::ALL;

/// How often a job is begun before it has failed.
pub(crate) const ATTEMPTS_MAX: u32 = 8;
/// Before the second attempt; twice that before each further one, and at most the maximum.
const BACKOFF_FIRST_MS: u64 = 1000;
const BACKOFF_MAX_MS: u64 = 5 * 60 * 1000;
/// The kind of a job that moves a VM.
pub(crate) const MIGRATE: &str = "migrate";
/// The id of the job that moves a VM, by the VM's name.
const MIGRATING: &str = "/novacron/migrating/";
/// Hexadecimal digits of an id: of the time in milliseconds, and of what tells jobs of the same one apart.
pub(crate) const ID_DIGITS: usize = 12 + 16;
/// Longest reason of a failure in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Work {
    /// The VMs that are in one region when the job comes to them get another: a region was renamed, or merged with that.
    /// Nothing but the inventory changes.
    MoveRegion {
        /// The region that loses its VMs: a DNS label.
        #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "eu-1")]
        from: String,
        /// The one that gets them: another DNS label.
        #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "eu-2")]
        to: String,
    },
    /// A VM's data goes from one node to another. Progress is in bytes.
    Migrate(Migration),
}

/// A VM's data that goes from one node to another: a folder of its name, in the folders that nodes have for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Migration {
    /// The VM.
    pub(crate) vm: String,
    /// The node that has the data.
    pub(crate) from: String,
    /// The one that gets it.
    pub(crate) to: String,
    /// The VM as it was when the job was made: only that one is moved. None in jobs that older versions have made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moves: Option<Moves>,
    /// The VM's region when the job was made.
    pub(crate) region: String,
    /// The region of the node that has the data; none if the node has none.
    #[serde(default)]
    pub(crate) from_region: Option<String>,
    /// The region of the node that gets it, which will be the VM's; none if the node has none.
    pub(crate) to_region: Option<String>,
}

/// Which VM of the name, and where it says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Moves {
    /// The store's revision at which it was made. One that is made later under its name is another one.
    pub(crate) made_at: i64,
    /// Its node.
    pub(crate) node: Option<String>,
}

impl Work {
    /// What `kind` says of it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::MoveRegion { .. } => "move_region",
            Self::Migrate(_) => MIGRATE,
        }
    }

    /// The regions that it is about.
    pub(crate) fn regions(&self) -> Vec<&str> {
        match self {
            Self::MoveRegion { from, to } => vec![from, to],
            // What is on a node without a region is for those who have a role in all of them.
            Self::Migrate(Migration { region, from_region, to_region, .. }) => {
                vec![region, from_region.as_deref().unwrap_or(ALL), to_region.as_deref().unwrap_or(ALL)]
            }
        }
    }

    /// What is in the store while there is such a job, so that there is no other.
    pub(crate) fn lock(&self) -> Option<String> {
        match self {
            Self::MoveRegion { .. } => None,
            Self::Migrate(migration) => Some(format!("{MIGRATING}{}", migration.vm)),
        }
    }

    /// Something elsewhere goes on while no replica has the job, and has to be told of its end.
    fn goes_on_elsewhere(&self) -> bool {
        matches!(self, Self::Migrate(_))
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for a replica, or for its next attempt.
    Queued,
    /// A replica has it, or had it and was lost.
    Running,
    /// It has done what it is for.
    Done,
    /// It has not, and will not.
    Failed,
    /// Somebody asked for that.
    Cancelled,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Progress {
    /// How much is done, over all attempts.
    pub(crate) done: u64,
    /// How much there is in all, as far as is known.
    pub(crate) total: Option<u64>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Job {
    /// Its id; ids sort by the time at which jobs were made.
    pub(crate) id: String,
    /// What is to be done.
    pub(crate) work: Work,
    /// Where it is.
    pub(crate) state: State,
    /// How far it is.
    pub(crate) progress: Progress,
    /// How often it was begun.
    pub(crate) attempts: u32,
    /// When it was made, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Who made it: the principal's id, or `schedule:` and its name. None in jobs that older versions have made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
    /// When its first attempt was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun_ms: Option<u64>,
    /// The next attempt is not before this.
    pub(crate) not_before_ms: u64,
    /// When it came to its end.
    pub(crate) ended_ms: Option<u64>,
    /// The replica that has it, or had it last.
    pub(crate) replica: Option<String>,
    /// Why the last attempt that failed did.
    pub(crate) error: Option<String>,
    /// It is to end.
    pub(crate) cancel_asked: bool,
    /// The trace that the request for it belongs to, and so does what is done for it (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
    /// What has made it, if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
}

/// A schedule at an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Origin {
    /// The schedule's name.
    pub(crate) schedule: String,
    /// When it was due, in milliseconds since 1970.
    pub(crate) due_ms: u64,
}

impl Origin {
    /// The id of the job that it makes: there is no second one.
    pub(crate) fn job_id(&self) -> String {
        let digest = blake3::hash(format!("{} {}", self.due_ms, self.schedule).as_bytes());
        format!("{:012x}{}", self.due_ms, &digest.to_hex()[..16])
    }
}

impl Job {
    /// One that waits. `random` tells it from others of the same millisecond.
    pub(crate) fn new(work: Work, now_ms: u64, random: u64) -> Self {
        Self {
            id: format!("{now_ms:012x}{random:016x}"),
            work,
            state: State::Queued,
            progress: Progress::default(),
            attempts: 0,
            created_ms: now_ms,
            created_by: None,
            begun_ms: None,
            not_before_ms: now_ms,
            ended_ms: None,
            replica: None,
            error: None,
            cancel_asked: false,
            traceparent: None,
            origin: None,
        }
    }

    /// One that waits, made by a schedule.
    pub(crate) fn scheduled(work: Work, now_ms: u64, origin: Origin) -> Self {
        let id = origin.job_id();
        let created_by = Some(format!("schedule:{}", origin.schedule));
        Self { id, created_by, origin: Some(origin), ..Self::new(work, now_ms, 0) }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Done | State::Failed | State::Cancelled)
    }

    /// A replica takes it, which no other has. It may have ended then: it was lost with its replica too often, or somebody
    /// wanted its end. If something goes on elsewhere, it is taken for that to be stopped first.
    pub(crate) fn claim(&mut self, replica: &str, now_ms: u64) {
        assert!(!self.has_ended(), "only what has not ended is claimed");
        let is_over = self.cancel_asked || self.attempts >= ATTEMPTS_MAX;
        if is_over && !self.work.goes_on_elsewhere() {
            return self.give_up(now_ms);
        }
        self.state = State::Running;
        self.begun_ms.get_or_insert(now_ms);
        self.attempts += 1;
        self.replica = Some(replica.to_owned());
    }

    /// Nothing more is to be done for it, as somebody wants its end or no attempt is left.
    pub(crate) fn is_to_end(&self) -> bool {
        self.cancel_asked || self.attempts > ATTEMPTS_MAX
    }

    /// It ends, as nothing more is to be done for it.
    pub(crate) fn give_up(&mut self, now_ms: u64) {
        self.attempts = self.attempts.min(ATTEMPTS_MAX);
        if self.cancel_asked {
            return self.end(State::Cancelled, now_ms);
        }
        let lost = format!("lost with its replica at the last of {ATTEMPTS_MAX} attempts");
        self.error.get_or_insert(lost);
        self.end(State::Failed, now_ms);
    }

    /// It has done what it is for.
    pub(crate) fn finish(&mut self, now_ms: u64) {
        self.end(State::Done, now_ms);
    }

    /// The attempt has failed: there is another one later, unless this was the last or `for_good`.
    pub(crate) fn fail(&mut self, error: &str, for_good: bool, now_ms: u64) {
        assert_eq!(self.state, State::Running, "only what runs fails");
        let end = error.floor_char_boundary(ERROR_BYTES_MAX);
        self.error = Some(error[..end].to_owned());
        if self.cancel_asked {
            self.end(State::Cancelled, now_ms);
        } else if for_good || self.attempts >= ATTEMPTS_MAX {
            self.end(State::Failed, now_ms);
        } else {
            self.state = State::Queued;
            self.not_before_ms = now_ms + backoff_ms(self.attempts);
        }
    }

    /// The replica gives it back; the attempt does not count.
    pub(crate) fn release(&mut self, now_ms: u64) {
        assert_eq!(self.state, State::Running, "only what runs is given back");
        self.state = State::Queued;
        self.attempts -= 1;
        self.not_before_ms = now_ms;
    }

    /// Somebody wants its end: it has come to it if nobody runs it, and will soon if somebody does. Whether that can be.
    pub(crate) fn cancel(&mut self, now_ms: u64) -> bool {
        match self.state {
            State::Queued if self.replica.is_some() && self.work.goes_on_elsewhere() => {
                self.cancel_asked = true;
                self.not_before_ms = now_ms;
            }
            State::Queued => self.end(State::Cancelled, now_ms),
            State::Running => self.cancel_asked = true,
            State::Cancelled => {}
            State::Done | State::Failed => return false,
        }
        true
    }

    fn end(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.ended_ms = Some(now_ms);
    }
}

/// After so many attempts.
fn backoff_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(32);
    (BACKOFF_FIRST_MS << doublings).min(BACKOFF_MAX_MS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_migration_is_about_the_regions_of_the_vm_and_of_both_nodes() {
        let region = |name: &str| Some(name.to_owned());
        let migration = Migration {
            vm: "v".to_owned(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            moves: None,
            region: "eu".to_owned(),
            from_region: region("us"),
            to_region: region("ap"),
        };
        assert_eq!(Work::Migrate(migration.clone()).regions(), ["eu", "us", "ap"]);
        let unplaced = Migration { from_region: None, to_region: None, ..migration };
        assert_eq!(Work::Migrate(unplaced).regions(), ["eu", ALL, ALL]);
    }

    fn job() -> Job {
        Job::new(Work::MoveRegion { from: "a".to_owned(), to: "b".to_owned() }, 1000, 7)
    }

    fn running() -> Job {
        let mut job = job();
        job.claim("r", 1000);
        job
    }

    /// A migration that is at its last attempt.
    fn migrating() -> Job {
        let work = json!({ "kind": "migrate", "vm": "v", "from": "a", "to": "b", "region": "eu", "to_region": null });
        let mut job =
            Job { attempts: ATTEMPTS_MAX - 1, ..Job::new(serde_json::from_value(work).unwrap(), 1000, 7) };
        job.claim("r", 1000);
        job
    }

    #[test]
    fn transitions() {
        use State::*;
        let table: [(&str, fn() -> Job, fn(&mut Job), State, u32); 17] = [
            ("claim", job, |j| j.claim("r", 1), Running, 1),
            ("claim of what was lost", running, |j| j.claim("s", 1), Running, 2),
            ("finish", running, |j| j.finish(1), Done, 1),
            ("fail", running, |j| j.fail("e", false, 1), Queued, 1),
            ("fail for good", running, |j| j.fail("e", true, 1), Failed, 1),
            ("release", running, |j| j.release(1), Queued, 0),
            ("cancel", job, |j| assert!(j.cancel(1)), Cancelled, 0),
            ("cancel what runs", running, |j| assert!(j.cancel(1)), Running, 1),
            ("and it is seen", running, |j| (j.cancel(1), j.give_up(1)).1, Cancelled, 1),
            ("cancel, then the replica is lost", running, |j| (j.cancel(1), j.claim("s", 1)).1, Cancelled, 1),
            (
                "cancel, then the attempt fails",
                running,
                |j| (j.cancel(1), j.fail("e", false, 1)).1,
                Cancelled,
                1,
            ),
            (
                "cancel, then the attempt fails for good",
                running,
                |j| (j.cancel(1), j.fail("e", true, 1)).1,
                Cancelled,
                1,
            ),
            // A transfer goes on without its replica: whoever takes the job stops it before the end.
            ("the last attempt is lost", migrating, |j| j.claim("s", 1), Running, ATTEMPTS_MAX + 1),
            ("and it is stopped", migrating, |j| (j.claim("s", 1), j.give_up(1)).1, Failed, ATTEMPTS_MAX),
            (
                "cancel, then the last attempt is lost",
                migrating,
                |j| (j.cancel(1), j.claim("s", 1)).1,
                Running,
                ATTEMPTS_MAX + 1,
            ),
            (
                "and it is stopped",
                migrating,
                |j| (j.cancel(1), j.claim("s", 1), j.give_up(1)).2,
                Cancelled,
                ATTEMPTS_MAX,
            ),
            ("cancel, then it is done", running, |j| (j.cancel(1), j.finish(1)).1, Done, 1),
        ];
        for (name, from, step, state, attempts) in table {
            let mut job = from();
            step(&mut job);
            assert_eq!((job.state, job.attempts), (state, attempts), "{name}");
            assert_eq!(job.ended_ms.is_some(), job.has_ended(), "{name}");
        }
    }

    #[test]
    fn what_has_ended_is_not_cancelled() {
        let mut done = running();
        done.finish(1);
        assert!(!done.cancel(2));
        let mut cancelled = job();
        assert!(cancelled.cancel(1) && cancelled.cancel(2));
        assert_eq!(cancelled.ended_ms, Some(1));
    }

    #[test]
    fn attempts_have_an_end() {
        let (mut failing, mut lost) = (job(), job());
        for _ in 0..ATTEMPTS_MAX {
            failing.claim("r", 1);
            failing.fail("e", false, 1);
            lost.claim("r", 1);
        }
        assert_eq!((failing.state, failing.error.as_deref()), (State::Failed, Some("e")));
        assert_eq!(lost.state, State::Running);
        lost.claim("r", 1);
        assert_eq!(lost.state, State::Failed);
        assert!(lost.error.unwrap().contains("lost with its replica"));
    }

    #[test]
    fn attempts_come_later_and_later() {
        let waits: Vec<_> = (1..12).map(backoff_ms).collect();
        assert_eq!(&waits[..4], [1000, 2000, 4000, 8000]);
        assert!(waits.is_sorted() && waits.iter().all(|wait| *wait <= BACKOFF_MAX_MS));
        assert_eq!(backoff_ms(u32::MAX), BACKOFF_MAX_MS);
        let mut job = running();
        job.fail(&"\u{fc}".repeat(2000), false, 5000);
        assert_eq!(job.not_before_ms, 6000);
        assert_eq!(job.error.unwrap().len(), ERROR_BYTES_MAX);
    }

    #[test]
    fn a_schedule_has_one_job_for_an_instant() {
        let made = |schedule: &str, due_ms, now| {
            Job::scheduled(job().work, now, Origin { schedule: schedule.to_owned(), due_ms }).id
        };
        assert_eq!(made("a", 60_000, 1), made("a", 60_000, 2));
        assert_ne!(made("a", 60_000, 1), made("b", 60_000, 1));
        assert!(made("a", 60_000, 1) < made("a", 120_000, 1));
        assert_eq!([made("a", 60_000, 1).len(), job().id.len()], [ID_DIGITS; 2]);
    }

    #[test]
    fn when_it_was_begun_first_stays() {
        let mut job = job();
        job.claim("r", 5);
        job.release(6);
        job.claim("s", 7);
        assert_eq!(job.begun_ms, Some(5));
    }

    #[test]
    fn a_kind_is_what_the_record_says() {
        for job in [job(), migrating()] {
            assert_eq!(json!(job.work)["kind"], job.work.kind());
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let id = |now, random| Job::new(job().work, now, random).id;
        assert!(id(1, u64::MAX) < id(2, 0));
        assert!(id(0xffff, 3) < id(0x10000, 0));
    }
}
