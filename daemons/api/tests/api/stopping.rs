//! Migrations that do not come to their goal: what has become of the transfer, and of the VM.

use serde_json::{Value, json};

use crate::{
    pretended::Agent,
    support::{Answer, Replica, Store, vm, wait_until},
};

const MIGRATIONS: &str = "/api/v1/dwcp/migrations";

/// A store, a replica, and a pretended agent of `here`, from which VMs of `eu` go to `there`, which is in `ap`.
struct World {
    store: Store,
    agent: Agent,
    replica: Replica,
}

impl World {
    /// `None`: there is no program for the store.
    fn start() -> Option<Self> {
        let (store, agent) = (Store::start()?, Agent::new());
        let replica = replica("a", &store, &agent);
        for (node, region) in [("here", "eu"), ("there", "ap")] {
            enter(&store, node, region);
        }
        Some(Self { store, agent, replica })
    }

    fn make_vm(&self, name: &str) {
        let mut vm = vm(name, "eu");
        vm["node"] = json!("here");
        let made = self.replica.post("/api/v1/vms", &vm);
        assert_eq!(made.status, 201, "{made:?}");
    }

    fn migrate(&self, name: &str) -> Answer {
        self.replica.post(MIGRATIONS, &json!({ "vm": name, "to": "there" }))
    }

    /// One whose transfer runs; its path.
    fn migrating(&self, name: &str) -> String {
        let begun = self.migrate(name);
        assert_eq!(begun.status, 202, "{begun:?}");
        let path = begun.header("location").to_owned();
        wait_until("progress", || (self.replica.get(&path).json()["progress"]["done"] == 10).then_some(()));
        path
    }

    fn state(&self, path: &str) -> Value {
        self.replica.get(path).json()["state"].clone()
    }

    fn ended(&self, path: &str, state: &str) -> Value {
        let job = wait_until("the end of a migration", || {
            let job = self.replica.get(path).json();
            ["done", "failed", "cancelled"].contains(&job["state"].as_str()?).then_some(job)
        });
        assert_eq!(job["state"], state, "{job}");
        job
    }
}

fn replica(name: &str, store: &Store, agent: &Agent) -> Replica {
    Replica::ready(name, store, &["--agents-sockets", &format!("here={}", agent.socket().display())])
}

fn enter(store: &Store, node: &str, region: &str) {
    store.put(&format!("/novacron/nodes/{node}"), &json!({ "address": "127.0.0.1:1", "region": region }));
}

#[test]
fn a_vm_is_changed_only_if_it_is_what_it_was() {
    let Some(world) = World::start() else { return };
    let World { replica, agent, .. } = &world;
    let remade = |name: &str| {
        let removed = replica.ask("DELETE", &format!("/api/v1/vms/{name}"), &[("If-Match", "*")], None);
        assert_eq!(removed.status, 204, "{removed:?}");
        let mut vm = vm(name, "us");
        vm["node"] = json!("here");
        assert_eq!(replica.post("/api/v1/vms", &vm).status, 201);
    };
    let changed = |name: &str, field: &str, value: &str| {
        let path = format!("/api/v1/vms/{name}");
        let mut vm = replica.get(&path).json();
        vm[field] = json!(value);
        let put = replica.ask("PUT", &path, &[("If-Match", "*")], Some(&vm));
        assert_eq!(put.status, 200, "{put:?}");
    };
    let (elsewhere, abroad) =
        (|name: &str| changed(name, "node", "elsewhere"), |name: &str| changed(name, "region", "us"));
    let table: [(&str, &dyn Fn(&str), &str); 3] = [
        ("remade", &remade, "another one was made"),
        ("elsewhere", &elsewhere, "another node"),
        ("abroad", &abroad, "another region"),
    ];
    for (name, change, words) in table {
        world.make_vm(name);
        let path = world.migrating(name);
        change(name);
        let before = replica.get(&format!("/api/v1/vms/{name}"));
        agent.state().transfers.last_mut().unwrap().1 = "done";
        let job = world.ended(&path, "failed");
        assert!(job["error"].as_str().unwrap().contains(words), "{job}");
        assert_eq!(job["attempts"], 1, "{job}");
        let after = replica.get(&format!("/api/v1/vms/{name}"));
        assert_eq!((after.header("etag"), &after.body), (before.header("etag"), &before.body), "{name}");
    }
    // What else of it is changed is kept, and the node may have been entered by hand already.
    for (name, field, value) in [("bigger", "image", "another.img"), ("there-already", "node", "there")] {
        world.make_vm(name);
        let path = world.migrating(name);
        changed(name, field, value);
        agent.state().transfers.last_mut().unwrap().1 = "done";
        world.ended(&path, "done");
        let vm = replica.get(&format!("/api/v1/vms/{name}")).json();
        assert_eq!((&vm[field], &vm["node"]), (&json!(value), &json!("there")), "{vm}");
    }
}

#[test]
fn a_migration_ends_after_its_transfer() {
    let Some(world) = World::start() else { return };
    let World { replica, agent, store } = &world;
    let cancel = |path: &str| {
        let asked = replica.ask("POST", &format!("{path}/cancel"), &[], None);
        assert_eq!(asked.status, 202, "{asked:?}");
    };
    world.make_vm("a");
    let path = world.migrating("a");
    agent.state().answers = false;
    cancel(&path);
    // Longer than it takes to ask the agent in vain.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let job = replica.get(&path).json();
    assert_eq!((&job["state"], &job["cancel_asked"]), (&json!("running"), &json!(true)), "{job}");
    assert_eq!(world.migrate("a").problem(), "exists");
    agent.state().answers = true;
    world.ended(&path, "cancelled");
    assert_eq!(agent.transfers(), ["cancelled"]);

    // An agent that runs no more has no transfers.
    let path = world.migrating("a");
    agent.state().answers = false;
    cancel(&path);
    store.remove("/novacron/nodes/here");
    world.ended(&path, "cancelled");
    enter(store, "here", "eu");
    {
        let mut state = agent.state();
        state.answers = true;
        state.transfers.clear();
    }

    // A replica that drains gives the job back; another one cancels it.
    let path = world.migrating("a");
    agent.state().answers = false;
    cancel(&path);
    let World { mut replica, agent, store } = world;
    replica.process.signal(rustix::process::Signal::TERM);
    assert_eq!(replica.process.exit_code(), Some(0));
    agent.state().answers = true;
    let replica = self::replica("b", &store, &agent);
    let world = World { store, agent, replica };
    world.ended(&path, "cancelled");
    assert_eq!(world.agent.transfers(), ["cancelled"]);
}

#[test]
fn a_migration_that_was_lost_with_its_last_replica_ends_after_its_transfer() {
    let Some(world) = World::start() else { return };
    let World { agent, store, .. } = &world;
    for (n, (cancel_asked, state)) in [(false, "failed"), (true, "cancelled")].into_iter().enumerate() {
        let (id, name) = (format!("{n:028x}"), format!("v{n}"));
        world.make_vm(&name);
        let job = json!({
            "id": id, "state": "running", "progress": { "done": 10, "total": 100 }, "attempts": 8,
            "work": {
                "kind": "migrate", "vm": name, "from": "here", "to": "there", "region": "eu", "to_region": "ap",
            },
            "created_ms": 0, "not_before_ms": 0, "ended_ms": null, "replica": "lost", "error": null,
            "cancel_asked": cancel_asked,
        });
        {
            let mut state = agent.state();
            state.answers = false;
            state.transfers.push((id.clone(), "running"));
        }
        store.put_all(vec![
            (format!("/novacron/migrating/{name}"), id.clone()),
            (format!("/novacron/jobs/{id}"), job.to_string()),
            (format!("/novacron/jobs-open/{id}"), "0".to_owned()),
        ]);
        let path = format!("{MIGRATIONS}/{id}");
        wait_until("a replica that takes it", || {
            (world.replica.get(&path).json()["replica"] == "a").then_some(())
        });
        assert_eq!(world.state(&path), "running");
        assert_eq!(world.migrate(&name).problem(), "exists");
        agent.state().answers = true;
        let job = world.ended(&path, state);
        assert_eq!(job["attempts"], 8, "{job}");
        assert_eq!(agent.transfers()[n], "cancelled", "{job}");
        assert!(store.values("/novacron/migrating/").is_empty());
    }
}
