//! Jobs whose replica is killed, or stopped for so long that it is taken for dead.

use consensus_proto::etcdserverpb::RangeRequest;
use novacron_store::{Client, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Replica, Store, vm, wait_until};

/// VMs that a job moves. It takes long enough to be caught in the middle.
const VMS: usize = 300;
/// And is, when it has moved these.
const MIDDLE: u64 = 20;

#[test]
fn a_job_whose_replica_is_killed_is_taken_over_once() {
    moved(Signal::KILL);
}

#[test]
fn a_replica_that_was_taken_for_dead_and_is_not_does_nothing_any_more() {
    moved(Signal::STOP);
}

/// Has two replicas move VMs, the one of which gets this signal in the middle.
fn moved(signal: Signal) {
    let Some(store) = Store::start() else { return };
    let (a, b) = (Replica::ready("a", &store, &[]), Replica::ready("b", &store, &[]));
    std::thread::scope(|scope| {
        let replicas = [&a, &b, &a, &b];
        for (n, replica) in replicas.into_iter().enumerate() {
            scope.spawn(move || {
                for vm_number in (n..VMS).step_by(replicas.len()) {
                    assert_eq!(replica.post("/api/vms", &vm(&format!("v{vm_number}"), "old")).status, 201);
                }
            });
        }
    });
    let made = a.post("/api/v1/jobs", &json!({ "kind": "move_region", "from": "old", "to": "new" }));
    assert_eq!(made.status, 202, "{made:?}");
    let path = made.header("location").to_owned();
    let running = wait_until("progress", || {
        let job = a.get(&path).json();
        (job["progress"]["done"].as_u64()? >= MIDDLE).then_some(job)
    });
    assert_eq!(running["state"], "running", "it was caught in the middle: {running}");
    let (hit, other) = if running["replica"] == "a" { (a, b) } else { (b, a) };
    hit.process.signal(signal);
    let ended = wait_until("the end of the job", || {
        let job = other.get(&path).json();
        (job["state"] == "done").then_some(job)
    });
    let name = if running["replica"] == "a" { "b" } else { "a" };
    assert_eq!((&ended["replica"], &ended["attempts"]), (&json!(name), &json!(2)), "{ended}");
    if signal == Signal::STOP {
        hit.process.signal(Signal::CONT);
        // It answers again, so what it was at is over.
        wait_until("its readiness", || (hit.get("/ready").status == 200).then_some(()));
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(other.get(&path).json(), ended);
    }
    assert_eq!(ended["progress"], json!({ "done": VMS, "total": VMS }));
    for (vm, version) in versions(&store) {
        // Once made, once moved.
        assert_eq!((&vm["region"], version), (&json!("new"), 2), "{vm}");
    }
}

/// All VMs, and how often each was written.
fn versions(store: &Store) -> Vec<(Value, i64)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let options = Options { tls: None, user: None, timeout: PATIENCE };
        let client = Client::new(store.endpoints.iter().map(String::as_str), options).unwrap();
        let range = RangeRequest {
            key: "/novacron/vms/".into(),
            range_end: "/novacron/vms0".into(),
            ..RangeRequest::default()
        };
        client.read("vms", range, |link, range| async move { link.kv().range(range).await }).await.unwrap()
    });
    assert_eq!(answer.kvs.len(), VMS);
    answer.kvs.iter().map(|kv| (serde_json::from_slice(&kv.value).unwrap(), kv.version)).collect()
}
