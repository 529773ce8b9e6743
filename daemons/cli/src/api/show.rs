//! Answers of the API for people.

use serde_json::Value;

use crate::{size, store::Table};

/// A field, as text.
fn field(of: &Value, name: &str) -> String {
    match &of[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn vms(all: &[Value]) -> String {
    let mut table = Table::new(["NAME", "REGION", "NODE", "CPUS", "MEMORY", "STATE", "IMAGE"]);
    for vm in all {
        table.row([
            field(vm, "name"),
            field(vm, "region"),
            field(vm, "node"),
            field(vm, "cpus"),
            size::show(vm["memory_bytes"].as_u64().unwrap_or_default()),
            field(vm, "desired_state"),
            field(vm, "image"),
        ]);
    }
    table.to_string()
}

pub(super) fn jobs(all: &[Value]) -> String {
    let mut table = Table::new(["ID", "WHAT", "STATE", "DONE", "ATTEMPTS", "ERROR"]);
    for job in all {
        table.row([
            field(job, "id"),
            what(&job["work"]),
            field(job, "state"),
            done(job),
            field(job, "attempts"),
            field(job, "error"),
        ]);
    }
    table.to_string()
}

pub(super) fn tokens(all: &[Value]) -> String {
    let mut table = Table::new(["ID", "NAME", "GRANTS"]);
    for token in all {
        let grants = token["grants"].as_array().into_iter().flatten();
        let grants = grants.map(|grant| format!("{}@{}", field(grant, "role"), field(grant, "region")));
        table.row([field(token, "id"), field(token, "name"), grants.collect::<Vec<_>>().join(", ")]);
    }
    table.to_string()
}

pub(super) fn schedules(all: &[Value]) -> String {
    let mut table = Table::new(["NAME", "CRON", "ZONE", "WHAT", "NEXT", "LAST", "JOB OR WHY"]);
    for schedule in all {
        let (status, last) = (&schedule["status"], &schedule["status"]["last"]);
        let next = match schedule["suspended"].as_bool() {
            Some(true) => "suspended".to_owned(),
            _ => moment(&status["next_ms"]),
        };
        let outcome = format!("{} {}", moment(&last["due_ms"]), field(last, "outcome"));
        let more = [field(last, "job"), field(last, "why")].concat();
        let work = &schedule["work"];
        let work = match work["kind"].as_str() {
            Some("migrate") => format!("{} to {}", field(work, "vm"), field(work, "to")),
            _ => what(work),
        };
        let (name, cron) = (field(schedule, "name"), field(schedule, "cron"));
        table.row([name, cron, field(schedule, "time_zone"), work, next, outcome.trim().to_owned(), more]);
    }
    table.to_string()
}

pub(super) fn regions(all: &[Value]) -> String {
    let mut table = Table::new(["NAME", "VMS", "NODES", "REPLICATION", "LAG", "ALARMS"]);
    for region in all {
        let replication = &region["replication"];
        let is = |name: &str| replication[name].as_bool() == Some(true);
        let state = match replication {
            Value::Null => "",
            _ if is("removed") => "removed",
            _ if is("joining") => "this one, joining",
            _ if is("is_this_one") => "this one",
            _ if is("connected") => "connected",
            _ => "not connected",
        };
        let lag = replication["lag_ms"].as_f64().map(|ms| format!("{:.1} s", ms / 1000.0));
        let alarms = replication["alarms"].as_array().into_iter().flatten();
        let alarms: Vec<_> = alarms.map(|alarm| field(alarm, "kind")).collect();
        table.row([
            field(region, "name"),
            field(region, "vms"),
            field(region, "nodes"),
            state.to_owned(),
            lag.unwrap_or_default(),
            alarms.join(", "),
        ]);
    }
    table.to_string()
}

pub(super) fn transfers(all: &[Value]) -> String {
    let mut table = Table::new(["NODE", "ID", "WAY", "PEER", "STATE", "DONE", "ERROR"]);
    for one in all {
        let transfer = &one["transfer"];
        let bytes = |name: &str| size::show(transfer[name].as_u64().unwrap_or_default());
        table.row([
            field(one, "node"),
            field(transfer, "id"),
            field(transfer, "direction"),
            field(transfer, "peer"),
            field(transfer, "state"),
            format!("{} of {}", bytes("bytes_done"), bytes("bytes_total")),
            field(transfer, "error"),
        ]);
    }
    table.to_string()
}

pub(super) fn members(all: &[Value]) -> String {
    let mut table = Table::new(["ID", "NAME", "STATE", "TERM", "APPLIED", "LAG", "ERRORS"]);
    for member in all {
        let status = &member["status"];
        let is = |of: &Value, name: &str| of[name].as_bool() == Some(true);
        let state = match status {
            Value::Null => "does not answer",
            _ if is(status, "is_leader") => "leader",
            _ if is(member, "is_learner") => "learner",
            _ => "voter",
        };
        let errors: Vec<_> =
            status["errors"].as_array().into_iter().flatten().map(Value::to_string).collect();
        table.row([
            field(member, "id"),
            field(member, "name"),
            state.to_owned(),
            field(status, "term"),
            field(status, "applied_index"),
            field(status, "lag_entries"),
            errors.join(", "),
        ]);
    }
    table.to_string()
}

/// Milliseconds since 1970 as a time, in UTC.
fn moment(ms: &Value) -> String {
    let time = ms.as_i64().and_then(|ms| time::OffsetDateTime::from_unix_timestamp(ms / 1000).ok());
    time.map_or_else(String::new, |time| format!("{} {:02}:{:02}Z", time.date(), time.hour(), time.minute()))
}

/// As it is, over several lines.
pub(super) fn raw(all: &[Value]) -> String {
    let texts = all.iter().map(|one| serde_json::to_string_pretty(one).unwrap_or_default());
    texts.collect::<Vec<_>>().join("\n")
}

/// One line of a job that is watched.
pub(super) fn progress(job: &Value) -> String {
    let error = job["error"].as_str().map(|error| format!(", {error}")).unwrap_or_default();
    format!("{} {}: {}{error}", what(&job["work"]), field(job, "state"), done(job))
}

fn what(work: &Value) -> String {
    match work["kind"].as_str() {
        Some("migrate") => {
            format!("{} from {} to {}", field(work, "vm"), field(work, "from"), field(work, "to"))
        }
        Some(kind) => format!("{kind} from {} to {}", field(work, "from"), field(work, "to")),
        None => String::new(),
    }
}

/// In bytes or in numbers.
fn done(job: &Value) -> String {
    let is_bytes = job["work"]["kind"] == "migrate";
    let show = |count: &Value| match (count.as_u64(), is_bytes) {
        (Some(bytes), true) => size::show(bytes),
        (Some(count), false) => count.to_string(),
        (None, _) => "?".to_owned(),
    };
    format!("{} of {}", show(&job["progress"]["done"]), show(&job["progress"]["total"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schedules_say_when_and_what_became_of_it() {
        let schedule = json!({
            "name": "n", "cron": "0 8 * * *", "time_zone": "UTC", "suspended": false,
            "work": {"kind": "migrate", "vm": "db", "to": "b"},
            "status": {"next_ms": 1_774_771_200_000_u64, "last": {
                "due_ms": 1_774_684_800_000_u64, "outcome": "refused", "job": null, "why": "no such VM",
            }},
        });
        let shown = schedules(&[schedule]);
        for words in ["db to b", "2026-03-29 08:00Z", "2026-03-28 08:00Z refused", "no such VM"] {
            assert!(shown.contains(words), "{shown}");
        }
    }

    #[test]
    fn jobs_say_what_they_are_about_and_how_far_they_are() {
        let migrate = json!({
            "id": "1", "work": {"kind": "migrate", "vm": "db", "from": "a", "to": "b"}, "state": "running",
            "progress": {"done": 1 << 20, "total": null}, "attempts": 1, "error": null,
        });
        assert_eq!(progress(&migrate), "db from a to b running: 1.00 MiB of ?");
        let moved = json!({
            "id": "2", "work": {"kind": "move_region", "from": "x", "to": "y"}, "state": "failed",
            "progress": {"done": 3, "total": 7}, "attempts": 8, "error": "no store",
        });
        assert_eq!(progress(&moved), "move_region from x to y failed: 3 of 7, no store");
        assert_eq!(jobs(&[migrate, moved]).lines().count(), 3);
    }
}
