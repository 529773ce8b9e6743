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
