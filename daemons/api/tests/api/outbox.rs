//! Records of changes that wait in the store: replicas that are killed before the database has them, databases that are away.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    audit::{AUDIT, OUTBOX},
    postgres::Postgres,
    support::{Replica, Store, ask, vm, wait_until},
};

const VMS: &str = "/api/v1/vms";
/// As many records as may wait.
const OUTBOX_MAX: usize = 10_000;
/// Replicas that are killed, one after the other, and clients that ask each.
const KILLED: usize = 3;
const CLIENTS: usize = 4;

/// A folder for SQLite in which it can write nothing, until it is told that it may.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn closed() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.file()).unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("audit.sqlite")
    }

    pub(crate) fn open(&self) {
        fs::remove_dir(self.file()).unwrap();
    }

    pub(crate) fn replica(&self, name: &str, store: &Store) -> Replica {
        Replica::ready(name, store, &["--data-dir", self.0.path().to_str().unwrap()])
    }
}

fn records(replica: &Replica, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = replica.get(&format!("{AUDIT}?limit=500{query}{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        found.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { return found };
        cursor = format!("&cursor={next}");
    }
}

/// Outcome and ETags, the oldest first.
fn told(records: &[Value]) -> Vec<[&str; 3]> {
    let fields = |record| ["outcome", "etag_before", "etag_after"].map(|name| text(record, name));
    records.iter().rev().map(fields).collect()
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap()
}

#[test]
fn a_replica_that_was_killed_finds_its_records_when_it_is_back() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::closed();
    let replica = folder.replica("a", &store);
    let made = replica.post(VMS, &vm("one", "eu"));
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("{VMS}/one");
    let replaced = replica.ask("PUT", &path, &[("If-Match", "*")], Some(&vm("one", "us")));
    assert_eq!(replaced.status, 200);
    assert_eq!(replica.ask("DELETE", &path, &[("If-Match", "*")], None).status, 204);
    assert_eq!(replica.ask("PUT", &path, &[("If-Match", "\"1\"")], Some(&vm("one", "us"))).status, 404);
    assert_eq!(store.values(OUTBOX).len(), 3, "what changed nothing leaves nothing there");
    // SIGKILL.
    drop(replica);
    folder.open();
    let replica = folder.replica("a", &store);
    let (one, two) = (made.header("etag"), replaced.header("etag"));
    for _ in 0..2 {
        let found = records(&replica, "");
        assert_eq!(told(&found), [["done", "", one], ["done", one, two], ["done", two, ""]]);
        assert_eq!(text(&found[2], "resource"), path);
    }
    wait_until("nothing that waits", || store.values(OUTBOX).is_empty().then_some(()));
}

#[test]
fn records_of_a_replica_that_does_not_come_back_are_taken_by_another() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::closed();
    let (killed, other) = (folder.replica("a", &store), Replica::ready("b", &store, &[]));
    let made = killed.post(VMS, &vm("one", "eu"));
    assert_eq!(made.status, 201);
    drop(killed);
    wait_until("nothing that waits", || store.values(OUTBOX).is_empty().then_some(()));
    let found = records(&other, "");
    assert_eq!(told(&found), [["done", "", made.header("etag")]]);
    assert_eq!(text(&found[0], "replica"), "a");
}

#[test]
fn with_too_many_records_that_wait_nothing_is_changed() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::closed();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - 60_000;
    let entry = |n: usize| {
        let id = format!("{since:012x}{n:016x}");
        let record = json!({
            "id": id, "at_ms": since, "principal": "before", "name": "", "address": "", "method": "PUT",
            "route": "", "resource": format!("/{n}"), "request_id": "", "replica": "gone", "outcome": "done",
            "status": 200, "etag_before": "", "etag_after": "",
        });
        let waiting = json!({ "record": record, "before_of": "", "has_etag": true });
        (format!("{OUTBOX}{id}"), waiting.to_string())
    };
    store.put_all((0..OUTBOX_MAX).map(entry).collect());
    let replica = folder.replica("a", &store);
    let mut n = 0;
    let mut made = Vec::new();
    // It counts them when it has started, and some may be faster.
    let refused = wait_until("too many", || {
        n += 1;
        let answer = replica.post(VMS, &vm(&format!("early-{n}"), "eu"));
        if answer.status == 201 {
            made.push(answer.header("location").to_owned());
        }
        (answer.status != 201).then_some(answer)
    });
    assert_eq!((refused.status, refused.problem().as_str()), (503, "audit-unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(replica.get(&format!("{VMS}/early-{n}")).status, 404, "it was not done");
    assert_eq!(replica.ask("DELETE", &format!("{VMS}/none"), &[("If-Match", "*")], None).status, 503);
    assert_eq!(replica.get(VMS).status, 200, "reads go on");
    folder.open();
    wait_until("changes again", || {
        n += 1;
        let answer = replica.post(VMS, &vm(&format!("late-{n}"), "eu"));
        if answer.status == 201 {
            made.push(answer.header("location").to_owned());
        }
        (answer.status == 201).then_some(())
    });
    wait_until("nothing that waits", || store.values(OUTBOX).is_empty().then_some(()));
    assert_eq!(records(&replica, "&principal=before").len(), OUTBOX_MAX);
    let found = records(&replica, "&principal=local&outcome=done");
    let mut resources: Vec<_> = found.iter().map(|record| text(record, "resource")).collect();
    resources.sort_unstable();
    made.sort_unstable();
    assert_eq!(resources, made);
}

#[test]
fn every_change_has_one_record_whichever_replicas_are_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    let url = postgres.url();
    let looked_at = Replica::ready("looked-at", &store, &["--database-url", &url]);
    let mut answered = Vec::new();
    for life in 0..KILLED {
        let mortal = Replica::ready("mortal", &store, &["--database-url", &url]);
        let port = mortal.port;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                thread::spawn(move || {
                    // Until it is killed.
                    let names = (0..).map(|n| format!("vm-{life}-{client}-{n}"));
                    let made = names.map_while(|name| {
                        let answer = ask(port, "POST", VMS, &[], Some(&vm(&name, "eu"))).ok()?;
                        assert_eq!(answer.status, 201, "{answer:?}");
                        Some((name, answer.header("etag").to_owned()))
                    });
                    made.collect::<Vec<_>>()
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        if life == 1 {
            postgres.stop();
            thread::sleep(Duration::from_millis(500));
        }
        mortal.process.signal(Signal::KILL);
        answered.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
        if life == 1 {
            postgres.run();
        }
    }
    // At once: whoever was answered is found.
    let found =
        wait_until("the database", || (looked_at.get(AUDIT).status == 200).then(|| records(&looked_at, "")));
    let mut of = HashMap::new();
    for record in &found {
        *of.entry(text(record, "resource")).or_insert(0) += 1;
    }
    for (name, etag) in &answered {
        let path = format!("{VMS}/{name}");
        assert_eq!(of.get(path.as_str()), Some(&1), "{name}");
        let record = found.iter().find(|record| text(record, "resource") == path).unwrap();
        assert_eq!((text(record, "outcome"), text(record, "etag_after")), ("done", etag.as_str()));
    }
    // What was made and nobody was told of has a record as well, and there is none of what was not made.
    let made = store.values("/novacron/vms/").len();
    assert!(made >= answered.len());
    assert_eq!(found.iter().filter(|record| record["outcome"] == "done").count(), made);
    wait_until("nothing that waits", || store.values(OUTBOX).is_empty().then_some(()));
    assert_eq!(records(&looked_at, "").len(), found.len());
}
