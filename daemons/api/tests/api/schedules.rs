//! Schedules, and what becomes of due instants while replicas are killed.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    identity::Provider,
    support::{Replica, Store, vm, wait_until},
};

const SCHEDULES: &str = "/api/v1/schedules";
const MINUTE_MS: u64 = 60_000;
/// Schedules whose instants were missed, and how many of each.
const KILLED: usize = 6;
const MISSED: u64 = 60;

/// A schedule that is not due for long.
pub(crate) fn schedule(name: &str, regions: &[&str]) -> Value {
    json!({
        "name": name, "cron": "0 0 29 2 *", "time_zone": "Europe/Berlin", "regions": regions,
        "work": {"kind": "migrate", "vm": "absent", "to": "absent"},
    })
}

fn moving(name: &str, cron: &str) -> Value {
    json!({
        "name": name, "cron": cron, "time_zone": "UTC", "missed": "all", "regions": ["eu", "us"],
        "work": {"kind": "move_region", "from": "eu", "to": "us"},
    })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Has the store hold a schedule that was written some time ago.
fn kept(store: &Store, schedule: &Value, since_ms: u64) {
    let kept = json!({ "schedule": schedule, "since_ms": since_ms, "written_by": "local" });
    store.put(&format!("/novacron/schedules/{}", schedule["name"].as_str().unwrap()), &kept);
}

/// All jobs that a schedule has made, by the instant.
fn jobs(replica: &Replica, name: &str) -> HashMap<u64, Vec<Value>> {
    let (mut found, mut cursor) = (HashMap::new(), String::new());
    loop {
        let page = replica.get(&format!("/api/v1/jobs?limit=500{cursor}")).json();
        for job in page["items"].as_array().unwrap() {
            if job["origin"]["schedule"] == name {
                let due = job["origin"]["due_ms"].as_u64().unwrap();
                found.entry(due).or_insert_with(Vec::new).push(job.clone());
            }
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn schedules_are_resources_like_others() {
    let Some(store) = Store::start() else { return };
    let (a, b) = (Replica::ready("a", &store, &[]), Replica::ready("b", &store, &[]));
    let one = schedule("one", &["eu"]);
    let made = a.ask("POST", SCHEDULES, &[("Idempotency-Key", "k")], Some(&one));
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/schedules/one"), "{made:?}");
    let again = b.ask("POST", SCHEDULES, &[("Idempotency-Key", "k")], Some(&one));
    assert_eq!((again.status, again.header("idempotency-replayed"), &again.body), (201, "true", &made.body));
    assert_eq!(b.post(SCHEDULES, &one).problem(), "exists");

    let path = "/api/v1/schedules/one";
    let found = b.get(path);
    let value = found.json();
    assert_eq!(found.header("etag"), made.header("etag"));
    assert_eq!((&value["missed"], &value["suspended"]), (&json!("skip"), &json!(false)));
    assert!(value["status"]["next_ms"].as_u64().unwrap() > now_ms(), "{value}");
    assert_eq!((&value["status"]["last"], &value["status"]["written_by"]), (&Value::Null, &json!("local")));

    // What is answered can be written back.
    let mut changed = value.clone();
    changed["suspended"] = json!(true);
    let put = |headers: &[(&str, &str)]| b.ask("PUT", path, headers, Some(&changed));
    assert_eq!(put(&[]).problem(), "condition-missing");
    assert_eq!(put(&[("If-None-Match", "*")]).problem(), "condition-failed");
    let replaced = put(&[("If-Match", found.header("etag"))]);
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_eq!(replaced.json()["status"]["next_ms"], Value::Null);
    assert_eq!(put(&[("If-Match", found.header("etag"))]).problem(), "condition-failed");
    assert_eq!(
        a.ask("PUT", "/api/v1/schedules/two", &[("If-None-Match", "*")], Some(&changed)).problem(),
        "invalid"
    );
    let two = schedule("two", &["eu", "*"]);
    assert_eq!(a.ask("PUT", "/api/v1/schedules/two", &[("If-None-Match", "*")], Some(&two)).status, 201);

    let listed = a.get("/api/v1/schedules?limit=1").json();
    assert_eq!((&listed["items"][0]["name"], listed["items"].as_array().unwrap().len()), (&json!("one"), 1));
    let next = b.get(&format!("/api/v1/schedules?cursor={}", listed["next"].as_str().unwrap())).json();
    assert_eq!((&next["items"][0]["name"], &next["next"]), (&json!("two"), &Value::Null));

    assert_eq!(a.ask("DELETE", path, &[], None).problem(), "condition-missing");
    assert_eq!(
        a.ask("DELETE", path, &[("If-Match", found.header("etag"))], None).problem(),
        "condition-failed"
    );
    assert_eq!(a.ask("DELETE", path, &[("If-Match", "*")], None).status, 204);
    assert_eq!(a.get(path).problem(), "not-found");
    for (field, wrong) in [
        ("cron", json!("* * * * * *")),
        ("cron", json!("0 0 31 2 *")),
        ("time_zone", json!("CET-1")),
        ("missed", json!("some")),
        ("regions", json!([])),
        ("work", json!({"kind": "sleep"})),
    ] {
        let mut schedule = schedule("wrong", &["eu"]);
        schedule[field] = wrong;
        assert_eq!(a.post(SCHEDULES, &schedule).problem(), "invalid", "{field}");
    }
    let audit = a.get("/api/v1/audit?resource=/api/v1/schedules/one").json();
    assert!(audit["items"].as_array().unwrap().len() >= 3, "{audit}");
}

#[test]
fn a_schedule_acts_in_its_regions_and_is_of_their_operators() {
    let Some(store) = Store::start() else { return };
    let provider = Provider::new();
    let flags = provider.flags();
    let replica = Replica::ready("a", &store, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let ask = |roles: &[&str], method: &str, path: &str, body: Option<&Value>| {
        let bearer = provider.bearer(roles);
        replica.ask(method, path, &[("Authorization", &bearer), ("If-Match", "*")], body)
    };
    let eu = ["operator@eu"];
    assert_eq!(ask(&eu, "POST", SCHEDULES, Some(&schedule("eu", &["eu"]))).status, 201);
    for regions in [&["us"][..], &["eu", "us"], &["eu", "*"]] {
        assert_eq!(ask(&eu, "POST", SCHEDULES, Some(&schedule("more", regions))).problem(), "forbidden");
        assert_eq!(
            ask(&eu, "PUT", "/api/v1/schedules/eu", Some(&schedule("eu", regions))).problem(),
            "forbidden"
        );
    }
    let both = ["operator@eu", "operator@us"];
    assert_eq!(ask(&both, "POST", SCHEDULES, Some(&schedule("both", &["eu", "us"]))).status, 201);
    // Who may in one of them may neither see it nor take it.
    let both_path = "/api/v1/schedules/both";
    assert_eq!(ask(&eu, "GET", both_path, None).problem(), "forbidden");
    assert_eq!(ask(&eu, "DELETE", both_path, None).problem(), "forbidden");
    assert_eq!(ask(&eu, "PUT", both_path, Some(&schedule("both", &["eu"]))).problem(), "forbidden");
    let listed = ask(&eu, "GET", SCHEDULES, None).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");

    // A VM that has gone where the schedule may not act, and one that is not there: no job, and a reason.
    let mut elsewhere = vm("elsewhere", "us");
    elsewhere["node"] = json!("agent-1");
    assert_eq!(ask(&["admin@*"], "POST", "/api/v1/vms", Some(&elsewhere)).status, 201);
    wait_until("both agents", || {
        let nodes = ask(&["viewer@*"], "GET", "/api/v1/nodes", None).json();
        (nodes["items"].as_array()?.len() == 2).then_some(())
    });
    for (name, vm, words) in [("gone", "absent", "there is no"), ("left", "elsewhere", "not all among")] {
        let mut due = schedule(name, &["eu"]);
        // Three minutes ago; what is younger may wait for a while.
        let minute = (now_ms() / MINUTE_MS - 3) % 60;
        (due["time_zone"], due["missed"]) = (json!("UTC"), json!("once"));
        due["cron"] = json!(format!("{minute} * * * *"));
        due["work"] = json!({"kind": "migrate", "vm": vm, "to": "agent-2"});
        kept(&store, &due, now_ms() - 5 * MINUTE_MS);
        let last = wait_until("a reason", || {
            let found = ask(&eu, "GET", &format!("/api/v1/schedules/{name}"), None).json();
            let last = found["status"]["last"].clone();
            (last["outcome"] == "refused").then_some(last)
        });
        assert!(last["why"].as_str().unwrap().contains(words), "{last}");
        assert_eq!(last["job"], Value::Null);
    }
    assert!(store.values("/novacron/jobs/").is_empty());
}

#[test]
fn every_due_instant_has_one_job_whichever_replicas_are_killed() {
    let Some(store) = Store::start() else { return };
    let seed = std::env::var("NOVACRON_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x5eed);
    println!("NOVACRON_SEED={state}");
    let mut random = move |below: u64| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    // The one that is looked at lives, and does neither jobs nor, for long, schedules: others come first.
    let mut mortals: Vec<_> = (0..2).map(|n| Some(Replica::ready(&format!("m{n}"), &store, &[]))).collect();
    let looked_at = Replica::ready("looked-at", &store, &[]);
    let since = now_ms() / MINUTE_MS * MINUTE_MS - MISSED * MINUTE_MS;
    let names: Vec<_> = (0..KILLED).map(|n| format!("s{n}")).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        let (stop, store, mortals) = (&stop, &store, &mut mortals);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let victim = random(2) as usize;
                // SIGKILL.
                mortals[victim] = None;
                thread::sleep(Duration::from_millis(random(400)));
                mortals[victim] = Some(Replica::spawn(&format!("m{victim}"), &store.endpoints, &[]));
                thread::sleep(Duration::from_millis(300 + random(2500)));
            }
        });
        for name in &names {
            kept(store, &moving(name, "* * * * *"), since);
            thread::sleep(Duration::from_millis(500));
        }
        // One that is not due changes nothing.
        let mut suspended = moving("suspended", "* * * * *");
        suspended["suspended"] = json!(true);
        kept(store, &suspended, since);
        for name in &names {
            wait_until("all of its instants", || {
                (jobs(&looked_at, name).len() as u64 >= MISSED).then_some(())
            });
        }
        drop(stopping);
    });
    for name in &names {
        let found = jobs(&looked_at, name);
        for n in 1..=MISSED {
            let due = since + n * MINUTE_MS;
            let of_it = found.get(&due).unwrap_or_else(|| panic!("{name}: none for {due}"));
            assert_eq!(of_it.len(), 1, "{name}: {of_it:?}");
        }
        let status = looked_at.get(&format!("{SCHEDULES}/{name}")).json()["status"].clone();
        assert_eq!((&status["last"]["outcome"], &status["since_ms"]), (&json!("started"), &json!(since)));
        assert_eq!(status["runs"].as_array().unwrap().len(), 10);
        let first = &status["runs"][9];
        assert_eq!(looked_at.get(&format!("/api/v1/jobs/{}", first["job"].as_str().unwrap())).status, 200);
    }
    assert!(jobs(&looked_at, "suspended").is_empty());
    // A schedule of a name that there was before does not do again what that one did.
    let path = format!("{SCHEDULES}/{}", names[0]);
    wait_until("its end", || {
        (looked_at.ask("DELETE", &path, &[("If-Match", "*")], None).status == 204).then_some(())
    });
    let before = jobs(&looked_at, &names[0]);
    kept(&store, &moving(&names[0], "* * * * *"), since);
    wait_until("its runs", || {
        let status = looked_at.get(&path).json()["status"].clone();
        (status["last"]["due_ms"].as_u64()? >= since + MISSED * MINUTE_MS).then_some(())
    });
    let after = jobs(&looked_at, &names[0]);
    assert!(before.iter().all(|(due, jobs)| after[due].len() == 1 && after[due][0]["id"] == jobs[0]["id"]));
}

#[test]
fn what_falls_due_now_is_done_soon() {
    let Some(store) = Store::start() else { return };
    let replicas = ["a", "b"].map(|name| Replica::ready(name, &store, &[]));
    assert_eq!(replicas[0].post(SCHEDULES, &moving("now", "* * * * *")).status, 201);
    assert_eq!(replicas[0].post("/api/vms", &vm("v", "eu")).status, 201);
    // A minute at most, and some more where there is much else to do.
    let found = (0..2).find_map(|_| {
        let until = now_ms() + MINUTE_MS;
        std::iter::from_fn(|| (now_ms() < until).then(|| thread::sleep(Duration::from_millis(200))))
            .find_map(|()| jobs(&replicas[1], "now").into_iter().next())
    });
    let (due, made) = found.expect("a job");
    assert_eq!(due % MINUTE_MS, 0);
    assert_eq!(made.len(), 1, "{made:?}");
    wait_until("what it does", || (replicas[1].get("/api/vms/v").json()["region"] == "us").then_some(()));
    // Who asked for it is found by the schedule's name, at the replica that made it.
    let records = replicas.each_ref().map(|replica| {
        let audit = replica.get("/api/v1/audit?principal=schedule:now").json();
        audit["items"].as_array().unwrap().iter().filter(|record| record["outcome"] == "done").count()
    });
    assert!(records.iter().sum::<usize>() >= 1, "{records:?}");
}
