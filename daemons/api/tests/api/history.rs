//! Jobs that have ended: they go from the store into the database, and lists have each once whatever becomes of replicas and databases.

use std::{
    collections::BTreeSet,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    outbox::Folder,
    postgres::Postgres,
    support::{Over, Replica, Store, ask, wait_until},
};

const JOBS: &str = "/api/v1/jobs";
const MIGRATIONS: &str = "/api/v1/dwcp/migrations";
/// Records in the store.
const RECORDS: &str = "/novacron/jobs/";
/// Ended jobs that stay there, and with which no more are taken on.
const KEPT_MAX: usize = 1000;
const ENDED_MAX: usize = 10_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Jobs that ended long ago, and a moment ago: some more than may stay.
const OLD: usize = 300;
const NEW: usize = KEPT_MAX + 50;
/// Replicas that are killed, one after the other, and jobs that end for each.
const KILLED: u64 = 6;
const OF_EACH: usize = 400;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Entries of jobs that ended then, each third of them a migration. Their ids.
fn ended(store: &Store, jobs: usize, ended_ms: u64) -> BTreeSet<String> {
    let entry = |n: usize| {
        let id = format!("{ended_ms:012x}{n:016x}");
        let work = match n % 3 {
            0 => json!({
                "kind": "migrate", "vm": "v", "from": "a", "to": "b", "region": "eu", "from_region": "eu",
                "to_region": "eu",
            }),
            _ => json!({ "kind": "move_region", "from": "eu", "to": "us" }),
        };
        let job = json!({
            "id": id, "work": work, "state": "done", "progress": {"done": 7, "total": 7}, "attempts": 1,
            "created_ms": ended_ms, "created_by": "local", "begun_ms": ended_ms, "not_before_ms": ended_ms,
            "ended_ms": ended_ms, "replica": "gone", "error": null, "cancel_asked": false,
        });
        (id, job)
    };
    let jobs: Vec<_> = (0..jobs).map(entry).collect();
    store.put_all(jobs.iter().map(|(id, job)| (format!("{RECORDS}{id}"), job.to_string())).collect());
    jobs.into_iter().map(|(id, _)| id).collect()
}

/// The ids that a list has, page by page, in its order; `None`: it is not answered now.
fn listed(port: u16, path: &str, query: &str) -> Option<Vec<String>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(port, "GET", &format!("{path}?limit=97{query}{cursor}"), &[], None).ok()?;
        if page.status != 200 {
            return None;
        }
        let page = page.json();
        found.extend(page["items"].as_array()?.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { return Some(found) };
        cursor = format!("&cursor={next}");
    }
}

fn all(replica: &Replica, query: &str) -> Vec<String> {
    listed(replica.port, JOBS, query).expect("an answer")
}

fn in_order(ids: &BTreeSet<String>) -> Vec<String> {
    ids.iter().cloned().collect()
}

fn stored(store: &Store) -> usize {
    store.values(RECORDS).len()
}

#[test]
fn ended_jobs_go_into_sqlite() {
    let Some(store) = Store::start() else { return };
    go(&store, &[]);
}

#[test]
fn ended_jobs_go_into_postgresql() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    go(&store, &["--database-url", &postgres.url()]);
}

fn go(store: &Store, more: &[&str]) {
    let (long_ago, now) = (now_ms() - 2 * DAY_MS, now_ms());
    let old = ended(store, OLD, long_ago);
    let ids: BTreeSet<_> = old.iter().cloned().chain(ended(store, NEW, now)).collect();
    let replica = Replica::ready("a", store, more);
    // While they go, and when they have gone, each is there once.
    loop {
        let is_over = stored(store) == KEPT_MAX;
        assert_eq!(all(&replica, ""), in_order(&ids));
        if is_over {
            break;
        }
    }
    let stay: Vec<_> = ids.iter().skip(OLD + NEW - KEPT_MAX).cloned().collect();
    assert_eq!(all(&replica, "&history=false"), stay);
    let migrations = listed(replica.port, MIGRATIONS, "").unwrap();
    assert_eq!(migrations.len(), OLD.div_ceil(3) + NEW.div_ceil(3));
    // What has gone is what it was.
    let path = format!("{JOBS}/{}", old.first().unwrap());
    let found = replica.get(&path);
    let job = found.json();
    assert_eq!(
        (&job["created_by"], &job["ended_ms"], &job["progress"]["done"]),
        (&json!("local"), &json!(long_ago), &json!(7))
    );
    assert_eq!(replica.ask("GET", &path, &[("If-None-Match", found.header("etag"))], None).status, 304);
    assert_eq!(replica.ask("POST", &format!("{path}/cancel"), &[], None).problem(), "ended");
    let events = replica.get(&format!("{path}/events"));
    assert!(events.status == 200 && events.body.contains("event: end"), "{events:?}");
    let revision = found.header("etag").trim_matches('"');
    let told = replica.ask("GET", &format!("{path}/events"), &[("Last-Event-ID", revision)], None);
    assert_eq!(told.status, 204);
    let migration = format!("{MIGRATIONS}/{}", old.first().unwrap());
    assert_eq!(replica.get(&migration).status, 200);
    assert_eq!(replica.get(&format!("{MIGRATIONS}/{}", old.last().unwrap())).status, 404, "it is none");
    assert_eq!(replica.get(&format!("{JOBS}/{:028x}", 1)).status, 404);
}

#[test]
fn a_job_that_ends_is_in_the_database_soon() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    let more = ["--database-url", &postgres.url()];
    let replica = Replica::ready("a", &store, &more);
    let made = replica.post(JOBS, &json!({ "kind": "move_region", "from": "x", "to": "y" }));
    let path = made.header("location").to_owned();
    wait_until("its end", || (replica.get(&path).json()["state"] == "done").then_some(()));
    let found = replica.get(&path);
    assert_eq!(found.json()["created_by"], "local");
    assert!(found.json()["begun_ms"].is_u64());
    let id = path.rsplit('/').next().unwrap();
    // Long before it goes from the store.
    wait_until("its row", || {
        (postgres.ask(&format!("SELECT state FROM jobs WHERE id = '{id}'")) == "done").then_some(())
    });
    assert_eq!(stored(&store), 1);
    drop(replica);
    // The replica was killed before it removed what the database had; a day goes by.
    let mut job = found.json();
    job["ended_ms"] = json!(now_ms() - 2 * DAY_MS);
    store.put(&format!("{RECORDS}{id}"), &job);
    let replica = Replica::ready("b", &store, &more);
    wait_until("its end in the store", || (stored(&store) == 0).then_some(()));
    assert_eq!(all(&replica, ""), [id]);
    assert_eq!(replica.get(&path).json(), job);
    assert_eq!(postgres.ask("SELECT count(*) FROM jobs"), "1");
}

#[test]
fn each_ended_job_is_listed_once_whichever_replicas_are_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    let more = ["--database-url", &postgres.url()];
    let looked_at = Replica::ready("looked-at", &store, &more);
    let mut ids: BTreeSet<String> = BTreeSet::new();
    let (over, lives) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let stop = Over(&over);
        let lists = scope.spawn(|| {
            let mut lists = Vec::new();
            while !over.load(Relaxed) {
                let lives = lives.load(SeqCst);
                lists.extend(listed(looked_at.port, JOBS, "").map(|list| (lives, list)));
            }
            lists
        });
        let mut of_life = Vec::new();
        for life in 0..KILLED {
            of_life.push(ended(&store, OF_EACH, now_ms() - 2 * DAY_MS));
            lives.store(of_life.len(), SeqCst);
            let mortal = Replica::spawn("mortal", &store.endpoints, &more);
            thread::sleep(Duration::from_millis(25 * life));
            mortal.process.signal(Signal::KILL);
        }
        let last = Replica::ready("last", &store, &more);
        wait_until("an empty store", || (stored(&store) == 0).then_some(()));
        drop(last);
        drop(stop);
        for (lives, list) in lists.join().unwrap() {
            assert!(list.is_sorted_by(|a, b| a < b), "each once");
            let list: BTreeSet<_> = list.into_iter().collect();
            for (life, ids) in of_life.iter().take(lives).enumerate() {
                assert!(ids.is_subset(&list), "none of life {life} is missing");
            }
        }
        ids = of_life.into_iter().flatten().collect();
    });
    assert_eq!(all(&looked_at, ""), in_order(&ids));
    assert_eq!(postgres.ask("SELECT count(*) FROM jobs"), ids.len().to_string());
}

#[test]
fn while_postgresql_is_away_jobs_run_and_stay_in_the_store() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    let replica = Replica::ready("a", &store, &["--database-url", &postgres.url()]);
    postgres.stop();
    let mut ids = ended(&store, 3, now_ms() - 2 * DAY_MS);
    let made = replica.post(JOBS, &json!({ "kind": "move_region", "from": "x", "to": "y" }));
    assert_eq!(made.status, 202, "{made:?}");
    let path = made.header("location").to_owned();
    wait_until("its end", || (replica.get(&path).json()["state"] == "done").then_some(()));
    ids.insert(path.rsplit('/').next().unwrap().to_owned());
    let refused = replica.get(JOBS);
    assert_eq!((refused.status, refused.problem().as_str()), (503, "history-unavailable"));
    assert_eq!(replica.get(&format!("{JOBS}/{:028x}", 1)).problem(), "history-unavailable");
    assert_eq!(replica.get(&format!("{JOBS}/absent")).problem(), "not-found");
    wait_until("what waits", || (waiting(&replica) == 4).then_some(()));
    assert_eq!(all(&replica, "&history=false"), in_order(&ids));
    postgres.run();
    wait_until("the old ones to go", || (stored(&store) == 1).then_some(()));
    wait_until("nothing that waits", || (waiting(&replica) == 0).then_some(()));
    assert_eq!(all(&replica, ""), in_order(&ids));
}

/// What the metric says.
fn waiting(replica: &Replica) -> u64 {
    let metrics = ask(replica.metrics, "GET", "/metrics", &[], None).unwrap().body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("history_jobs_waiting "));
    line.unwrap().parse().unwrap()
}

#[test]
fn with_too_many_that_wait_for_the_database_no_more_are_taken_on() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::closed();
    let new = json!({ "kind": "move_region", "from": "x", "to": "y" });
    let mut ids = ended(&store, ENDED_MAX - 1, now_ms() - 2 * DAY_MS);
    let replica = folder.replica("a", &store);
    let mut post = |status| {
        let answer = replica.post(JOBS, &new);
        assert_eq!(answer.status, status, "{answer:?}");
        ids.extend(answer.json()["id"].as_str().map(str::to_owned));
        answer
    };
    let path = post(202).header("location").to_owned();
    wait_until("its end", || (replica.get(&path).json()["state"] == "done").then_some(()));
    assert_eq!(post(503).problem(), "busy");
    assert_eq!(stored(&store), ENDED_MAX, "nothing is lost");
    folder.open();
    wait_until("the old ones to go", || (stored(&store) == 1).then_some(()));
    post(202);
    assert_eq!(all(&replica, ""), in_order(&ids));
}
