//! What a schedule is, what became of it, and what there is to be done: values that know neither the store nor a clock.

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use utoipa::ToSchema;

use super::timing::Timing;
use crate::{
    auth::role::ALL,
    http::problem::FieldError,
    jobs::record::Work,
    routes::migrations::NewMigration,
    vm::{LABEL, is_label},
};

/// Regions of a schedule.
const REGIONS_MAX: usize = 16;
/// An instant that nobody has handed out for so long was missed. It is more than another replica takes to become the leader.
pub(crate) const LATE_MS: u64 = 60_000;
/// Missed instants that are looked at, and made up for at most.
pub(crate) const MISSED_MAX: usize = 100;
/// Runs that are told of.
const RUNS_KEPT: usize = 10;
/// Longest reason of a refusal in bytes.
const WHY_BYTES_MAX: usize = 256;

/// What makes jobs, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// A DNS label.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "follow-the-sun")]
    pub(crate) name: String,
    /// When it is due: minute, hour, day of month, month, day of week.
    #[schema(min_length = 9, max_length = 128, example = "30 2 * * mon-fri")]
    pub(crate) cron: String,
    /// Whose clocks that is by: a name of the IANA database.
    #[serde(default = "utc")]
    #[schema(max_length = 64, example = "Europe/Berlin")]
    pub(crate) time_zone: String,
    /// What becomes of instants at which no replica was there.
    #[serde(default)]
    pub(crate) missed: Missed,
    /// It is not due. What falls into that time is not made up for.
    #[serde(default)]
    pub(crate) suspended: bool,
    /// The regions that its jobs may be about, whatever has moved meanwhile; `*` for all of them, and for nodes without one. Who
    /// writes the schedule is an operator of each.
    #[schema(min_items = 1, max_items = 16, example = json!(["eu-1", "eu-2"]))]
    pub(crate) regions: Vec<String>,
    /// What its jobs are to do.
    pub(crate) work: NewWork,
    /// What became of it. Whatever is written there is not looked at.
    #[serde(default, deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub(crate) status: Option<Status>,
}

/// What becomes of instants at which no replica was there for a minute or longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// One job, for the last of them.
    Once,
    /// A job for each, for the last hundred.
    All,
}

/// What a job is to do, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NewWork {
    /// The VMs of one region get another, as in a job of this kind.
    MoveRegion {
        /// The region that loses its VMs: a DNS label.
        #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "eu-1")]
        from: String,
        /// The one that gets them: another DNS label.
        #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "eu-2")]
        to: String,
    },
    /// A VM is migrated from the node on which it is then.
    Migrate(NewMigration),
}

/// What became of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ScheduleStatus)]
pub(crate) struct Status {
    /// Who wrote it last.
    written_by: String,
    /// Since when it is due at these times, in milliseconds since 1970.
    since_ms: u64,
    /// When it is due next; null if it is suspended.
    next_ms: Option<u64>,
    /// The last run.
    last: Option<Run>,
    /// The last ten, the newest first.
    runs: Vec<Run>,
}

/// What became of a due instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Run {
    /// The instant, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// When it was dealt with.
    pub(crate) at_ms: u64,
    /// What became of it.
    pub(crate) outcome: RunOutcome,
    /// The id of the job that was made.
    pub(crate) job: Option<String>,
    /// Why none was made.
    pub(crate) why: Option<String>,
}

/// What becomes of a due instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunOutcome {
    /// There is a job.
    Started,
    /// There could not be one.
    Refused,
    /// No replica was there, for this one and those before it that are not told of.
    Missed,
}

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) schedule: Schedule,
    /// Instants until then are none of it.
    pub(crate) since_ms: u64,
    pub(crate) written_by: String,
}

/// What became of a schedule, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// Until then everything was dealt with.
    pub(crate) done_ms: u64,
    /// The newest first.
    pub(crate) runs: Vec<Run>,
}

/// What there is to be done at a moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Instants that get a job, the oldest first.
    pub(crate) due: Vec<u64>,
    /// The last of those that get none.
    pub(crate) missed: Option<u64>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn ignored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Status>, D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Ok(None)
}

impl Schedule {
    /// When it is due, if all of it is as it may be.
    pub(crate) fn timing(&self, now_ms: u64) -> Result<Timing, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut check = |good: bool, field: &str, detail: &str| {
            if !good {
                errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
            }
        };
        check(is_label(&self.name), "name", LABEL);
        let is_region = |region: &String| region == ALL || is_label(region);
        let fits = (1..=REGIONS_MAX).contains(&self.regions.len()) && self.regions.iter().all(is_region);
        check(fits, "regions", "expected 1..=16 regions, each a DNS label or *");
        match &self.work {
            NewWork::MoveRegion { from, to } => {
                check(is_label(from), "work.from", LABEL);
                check(is_label(to) && to != from, "work.to", "expected another region");
                let allowed = self.allows(from) && self.allows(to);
                check(!fits || allowed, "regions", "expected those of the work, too");
            }
            NewWork::Migrate(new) => {
                for (field, detail) in new.errors() {
                    check(false, &format!("work.{field}"), detail);
                }
            }
        }
        let timing = Timing::new(&self.cron, &self.time_zone);
        match timing {
            Ok(timing) if timing.next(now_ms).is_none() => {
                check(false, "cron", "expected a time that comes");
                Err(errors)
            }
            Ok(timing) if errors.is_empty() => Ok(timing),
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error);
                Err(errors)
            }
        }
    }

    /// Whether its jobs may be about this region.
    pub(crate) fn allows(&self, region: &str) -> bool {
        self.regions.iter().any(|allowed| allowed == ALL || allowed == region)
    }

    /// Whether its jobs may do this.
    pub(crate) fn allows_work(&self, work: &Work) -> bool {
        work.regions().into_iter().all(|region| self.allows(region))
    }

    /// Whether it is due at other times than before, or is so again.
    pub(crate) fn begins_anew(&self, before: &Self) -> bool {
        (&self.cron, &self.time_zone) != (&before.cron, &before.time_zone)
            || before.suspended && !self.suspended
    }
}

impl Kept {
    /// With what became of it.
    pub(crate) fn shown(self, runs: Runs, now_ms: u64) -> Schedule {
        let next_ms = self.next_ms(&runs, now_ms);
        let Self { mut schedule, since_ms, written_by } = self;
        let last = runs.runs.first().cloned();
        schedule.status = Some(Status { written_by, since_ms, next_ms, last, runs: runs.runs });
        schedule
    }

    /// When it is due next, at this moment or later.
    pub(crate) fn next_ms(&self, runs: &Runs, now_ms: u64) -> Option<u64> {
        let timing = Timing::new(&self.schedule.cron, &self.schedule.time_zone).ok()?;
        // One that is due and was not handed out yet is of this moment.
        let after = self.after_ms(runs).max(now_ms.saturating_sub(LATE_MS));
        (!self.schedule.suspended).then(|| timing.next(after)).flatten()
    }

    /// Instants until then are none of it, or were dealt with.
    pub(crate) fn after_ms(&self, runs: &Runs) -> u64 {
        self.since_ms.max(runs.done_ms)
    }

    /// What there is to be done now.
    pub(crate) fn plan(&self, timing: &Timing, runs: &Runs, now_ms: u64) -> Plan {
        if self.schedule.suspended {
            return Plan { due: Vec::new(), missed: None };
        }
        let all = timing.last(self.after_ms(runs), now_ms, MISSED_MAX);
        let late = all.partition_point(|instant| now_ms - instant >= LATE_MS);
        let from = match self.schedule.missed {
            Missed::Skip => late,
            Missed::Once => all.len().saturating_sub(1),
            Missed::All => 0,
        };
        let missed = from.checked_sub(1).and_then(|last| all.get(last)).copied();
        Plan { due: all[from..].to_vec(), missed }
    }
}

impl Runs {
    /// One more.
    pub(crate) fn add(&mut self, mut run: Run) {
        if let Some(why) = &mut run.why {
            why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
        }
        self.done_ms = self.done_ms.max(run.due_ms);
        self.runs.insert(0, run);
        self.runs.truncate(RUNS_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MINUTE: u64 = 60_000;

    fn value() -> Value {
        json!({
            "name": "s", "cron": "* * * * *", "regions": ["eu"],
            "work": {"kind": "migrate", "vm": "a", "to": "n"},
        })
    }

    fn kept(missed: Missed, since_ms: u64) -> Kept {
        let schedule = Schedule { missed, ..serde_json::from_value(value()).unwrap() };
        Kept { schedule, since_ms, written_by: "local".to_owned() }
    }

    #[test]
    fn missed_instants() {
        use Missed::{All, Once, Skip};
        let all = |from: u64, to: u64| (from..=to).map(|n| n * MINUTE).collect::<Vec<_>>();
        for (missed, since, now, due, gone) in [
            (Skip, 10 * MINUTE, 10 * MINUTE, vec![], None),
            (Skip, 10 * MINUTE, 11 * MINUTE, all(11, 11), None),
            // It was not handed out at once, and not missed either.
            (Skip, 10 * MINUTE, 12 * MINUTE - 1, all(11, 11), None),
            (Skip, 10 * MINUTE, 20 * MINUTE, all(20, 20), Some(19 * MINUTE)),
            (Once, 10 * MINUTE, 20 * MINUTE, all(20, 20), Some(19 * MINUTE)),
            (All, 10 * MINUTE, 20 * MINUTE, all(11, 20), None),
            (All, 0, 5000 * MINUTE, all(4901, 5000), None),
        ] {
            let plan =
                kept(missed, since).plan(&Timing::new("* * * * *", "UTC").unwrap(), &Runs::default(), now);
            assert_eq!(plan, Plan { due, missed: gone }, "{missed:?} {since} {now}");
        }
        let hourly = Timing::new("0 * * * *", "UTC").unwrap();
        for (missed, due, gone) in
            [(Skip, vec![], Some(600 * MINUTE)), (Once, all(600, 600), Some(540 * MINUTE))]
        {
            let plan = kept(missed, 400 * MINUTE).plan(&hourly, &Runs::default(), 610 * MINUTE);
            assert_eq!(plan, Plan { due, missed: gone }, "{missed:?}");
        }
    }

    #[test]
    fn what_was_dealt_with_and_what_is_suspended_is_not_due() {
        let timing = Timing::new("* * * * *", "UTC").unwrap();
        let mut kept = kept(Missed::All, 0);
        let mut runs = Runs::default();
        for n in 1..=20 {
            let plan = kept.plan(&timing, &runs, n * MINUTE);
            assert_eq!(plan.due, [n * MINUTE]);
            let (due_ms, why) = (n * MINUTE, Some("\u{fc}".repeat(200)));
            runs.add(Run { due_ms, at_ms: due_ms, outcome: RunOutcome::Refused, job: None, why });
            assert!(kept.plan(&timing, &runs, n * MINUTE).due.is_empty());
            // A clock that goes back repeats nothing.
            assert!(kept.plan(&timing, &runs, 0).due.is_empty());
        }
        assert_eq!((runs.runs.len(), runs.runs[0].due_ms), (RUNS_KEPT, 20 * MINUTE));
        assert_eq!(runs.runs[0].why.as_ref().unwrap().len(), WHY_BYTES_MAX);
        assert_eq!(kept.next_ms(&runs, 20 * MINUTE), Some(21 * MINUTE));
        kept.schedule.suspended = true;
        assert!(kept.plan(&timing, &runs, 30 * MINUTE).due.is_empty());
        assert_eq!(kept.next_ms(&runs, 20 * MINUTE), None);
    }

    #[test]
    fn what_is_answered_can_be_asked_for() {
        let shown = kept(Missed::Once, 5).shown(Runs::default(), 1000);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(text.contains("\"since_ms\":5"), "{text}");
        let again: Schedule = serde_json::from_str(&text).unwrap();
        assert_eq!(again, Schedule { status: None, ..shown });
        let kept = kept(Missed::All, 7);
        assert_eq!(serde_json::from_value::<Kept>(serde_json::to_value(&kept).unwrap()).unwrap(), kept);
    }

    #[test]
    fn bounds() {
        let many: Vec<_> = (0..17).map(|n| format!("r{n}")).collect();
        for (pointer, value_of, field) in [
            ("/name", json!("A"), "name"),
            ("/cron", json!("* * * *"), "cron"),
            ("/cron", json!("0 0 30 2 *"), "cron"),
            ("/time_zone", json!("Mars/Base"), "time_zone"),
            ("/regions", json!([]), "regions"),
            ("/regions", json!(["a b"]), "regions"),
            ("/regions", json!(many), "regions"),
            ("/work", json!({"kind": "migrate", "vm": "a", "to": "a/b"}), "work.to"),
            ("/work", json!({"kind": "migrate", "vm": "A", "to": "a"}), "work.vm"),
            ("/work", json!({"kind": "move_region", "from": "eu", "to": "us"}), "regions"),
            ("/work", json!({"kind": "move_region", "from": "eu", "to": "eu"}), "work.to"),
        ] {
            let mut changed = value();
            changed["time_zone"] = json!("UTC");
            *changed.pointer_mut(pointer).unwrap() = value_of;
            let errors = serde_json::from_value::<Schedule>(changed).unwrap().timing(0).unwrap_err();
            assert_eq!(errors[0].field, field, "{errors:?}");
        }
        for wrong in [
            json!({"kind": "nonsense"}),
            json!({"kind": "migrate", "vm": "a", "to": "b", "more": 1}),
            json!({"kind": "migrate", "vm": "a"}),
        ] {
            let mut changed = value();
            changed["work"] = wrong;
            assert!(serde_json::from_value::<Schedule>(changed).is_err());
        }
        assert!(serde_json::from_value::<Schedule>(value()).unwrap().timing(0).is_ok());
    }

    #[test]
    fn a_schedule_is_of_its_regions() {
        let mut schedule: Schedule = serde_json::from_value(value()).unwrap();
        let work = Work::MoveRegion { from: "eu".to_owned(), to: "us".to_owned() };
        assert!(schedule.allows("eu") && !schedule.allows("us") && !schedule.allows(ALL));
        assert!(!schedule.allows_work(&work));
        schedule.regions.push(ALL.to_owned());
        assert!(schedule.allows_work(&work) && schedule.allows(ALL));
    }
}
