//! Migrations between agents that run, and what becomes of a hundred of them while everything is killed.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Answer, Process, Replica, Store, ask, beside, clean, vm, wait_until};

const MIGRATIONS: &str = "/api/v1/dwcp/migrations";
const ENDED: [&str; 3] = ["done", "failed", "cancelled"];
/// VMs that move while everything is killed, and how many of the moves are cancelled.
const VMS: usize = 100;
const CANCELLED_EACH: usize = 10;
/// For all of them.
const PATIENCE: Duration = Duration::from_secs(240);

fn content(n: usize, bytes: usize) -> Vec<u8> {
    let seed = n as u32 + 1;
    (0..bytes as u32 / 4).flat_map(|at| (at ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A folder with the disk and the memory of a VM.
fn make_data(vms: &Path, name: &str, n: usize, bytes: usize) {
    fs::create_dir_all(vms.join(name)).unwrap();
    fs::write(vms.join(name).join("disk.img"), content(n, bytes)).unwrap();
    fs::write(vms.join(name).join("memory.bin"), content(n + 1000, bytes / 4)).unwrap();
}

fn is_there(vms: &Path, name: &str, n: usize, bytes: usize) -> bool {
    fs::read(vms.join(name).join("disk.img")).is_ok_and(|found| found == content(n, bytes))
        && fs::read(vms.join(name).join("memory.bin"))
            .is_ok_and(|found| found == content(n + 1000, bytes / 4))
}

fn on(mut vm: Value, node: &str) -> Value {
    vm["node"] = json!(node);
    vm
}

fn ended(replica: &Replica, path: &str) -> Value {
    wait_until("the end of a migration", || {
        let job = replica.get(path).json();
        ENDED.contains(&job["state"].as_str()?).then_some(job)
    })
}

#[test]
fn a_vm_moves_with_all_its_data_and_back() {
    const BYTES: usize = 8 << 20;
    let Some(store) = Store::start() else { return };
    let vms = |agent: &str| store.folder.path().join(agent).join("vms");
    let socket =
        |agent: &str| format!("{agent}={}", store.folder.path().join(agent).join("agent.sock").display());
    let sockets = [socket("agent-1"), socket("agent-2")].join(",");
    let replica = Replica::ready("a", &store, &["--agents-sockets", &sockets]);
    wait_until("both agents", || {
        (replica.get("/api/v1/nodes").json()["items"].as_array()?.len() == 2).then_some(())
    });
    make_data(&vms("agent-1"), "db-1", 1, BYTES);
    assert_eq!(replica.post("/api/vms", &on(vm("db-1", "region-1"), "agent-1")).status, 201);

    let migrate = |body: Value| replica.post(MIGRATIONS, &body);
    let begun = wait_until("agents that know each other", || {
        let begun = migrate(json!({"vm": "db-1", "to": "agent-2"}));
        assert_eq!(begun.status, 202, "{begun:?}");
        let job = ended(&replica, begun.header("location"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!(begun["progress"]["done"], begun["progress"]["total"], "{begun}");
    assert!(is_there(&vms("agent-2"), "db-1", 1, BYTES));
    let moved = replica.get("/api/vms/db-1").json();
    assert_eq!((&moved["node"], &moved["region"]), (&json!("agent-2"), &json!("region-2")));

    transfers_and_regions(&replica);

    // Back, with a change: only that is new, and what it overwrites is the former version.
    make_data(&vms("agent-2"), "db-1", 2, BYTES);
    let back = migrate(json!({"vm": "db-1", "to": "agent-1"}));
    assert_eq!(ended(&replica, back.header("location"))["state"], "done");
    assert!(is_there(&vms("agent-1"), "db-1", 2, BYTES));
    assert_eq!(replica.get("/api/vms/db-1").json()["region"], "region-1");
    assert!(store.values("/novacron/migrating/").is_empty());

    let listed = replica.get(MIGRATIONS).json();
    assert!(
        listed["items"].as_array().unwrap().iter().all(|job| job["work"]["kind"] == "migrate"),
        "{listed}"
    );
    let other = replica.post("/api/v1/jobs", &json!({"kind": "move_region", "from": "x", "to": "y"}));
    let id = other.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(replica.get(&format!("{MIGRATIONS}/{id}")).status, 404);

    for (body, status, words) in [
        (json!({"vm": "nobody", "to": "agent-2"}), 422, "there is no"),
        (json!({"vm": "db-1", "to": "agent-1"}), 422, "another node"),
        (json!({"vm": "db-1", "to": "agent-9"}), 422, "whose agent runs"),
        (json!({"vm": "db-1", "from": "a/b", "to": "agent-2"}), 422, "without /"),
        (json!({"vm": "db-1"}), 422, "to"),
    ] {
        let refused = migrate(body);
        assert!(refused.status == status && refused.body.contains(words), "{refused:?}");
    }
    assert_eq!(replica.post("/api/v1/jobs", &json!({"kind": "migrate", "vm": "db-1"})).status, 422);

    // Its data is not where it is said to be: refused for good by the agent.
    assert_eq!(replica.post("/api/vms", &on(vm("empty", "region-1"), "agent-1")).status, 201);
    let failed = migrate(json!({"vm": "empty", "to": "agent-2"}));
    let job = ended(&replica, failed.header("location"));
    assert_eq!((&job["state"], &job["attempts"]), (&json!("failed"), &json!(1)), "{job}");
    assert!(job["error"].as_str().unwrap().contains("transfers.from"), "{job}");
    assert!(store.values("/novacron/migrating/").is_empty());
}

/// What is told of a VM that has gone from one region to the other.
fn transfers_and_regions(replica: &Replica) {
    let all = replica.get("/api/v1/transfers").json();
    assert_eq!((&all["unanswered"], &all["next"]), (&json!([]), &Value::Null), "{all}");
    let items = all["items"].as_array().unwrap();
    let of = |node: &str, direction: &str| {
        let found = items
            .iter()
            .find(|one| one["node"] == node && one["transfer"]["direction"] == direction)
            .unwrap_or_else(|| panic!("{node}: {all}"));
        assert_eq!(found["transfer"]["state"], "done", "{found}");
        found["transfer"]["id"].as_u64().unwrap()
    };
    let (sent, _) = (of("agent-1", "send"), of("agent-2", "receive"));
    let first = replica.get("/api/v1/transfers?limit=1").json();
    assert!(first["items"].as_array().unwrap().iter().all(|one| one["node"] == "agent-1"), "{first}");
    let next = replica.get(&format!("/api/v1/transfers?cursor={}", first["next"].as_str().unwrap())).json();
    assert!(next["items"].as_array().unwrap().iter().all(|one| one["node"] == "agent-2"), "{next}");
    let cancel =
        |id: &str| replica.ask("POST", &format!("/api/v1/nodes/agent-1/transfers/{id}/cancel"), &[], None);
    assert_eq!(cancel(&sent.to_string()).problem(), "ended");
    assert_eq!(cancel("4711").problem(), "not-found");
    assert_eq!(cancel("x").problem(), "not-found");
    assert_eq!(replica.get("/api/v1/transfers?limit=101").problem(), "malformed");

    let region = wait_until("a count that is not kept any more", || {
        let region = replica.get("/api/v1/regions/region-2").json();
        (region["vms"] == 1).then_some(region)
    });
    assert_eq!((&region["nodes"], &region["replication"]), (&json!(1), &Value::Null));
    let names = replica.get("/api/v1/regions").json();
    let names: Vec<_> =
        names["items"].as_array().unwrap().iter().map(|region| region["name"].clone()).collect();
    assert_eq!(names, ["region-1", "region-2"]);
    assert_eq!(replica.get("/api/v1/regions/nowhere").problem(), "not-found");
}

/// Something that is killed and started again.
struct Mortal {
    command: Box<dyn Fn() -> Command + Send>,
    process: Option<Process>,
}

impl Mortal {
    fn new(command: impl Fn() -> Command + Send + 'static) -> Self {
        let mut mortal = Self { command: Box::new(command), process: None };
        mortal.start();
        mortal
    }

    fn start(&mut self) {
        let mut command = (self.command)();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(Process::new(child));
    }

    fn kill(&mut self) {
        // SIGKILL, by the value's end.
        self.process = None;
    }
}

/// Three members, two agents and two replicas.
struct Everything {
    mortals: Vec<Mortal>,
    replicas: [u16; 2],
    vms: [PathBuf; 2],
    _folder: tempfile::TempDir,
}

impl Everything {
    /// `None`: a program is not there.
    fn start() -> Option<Self> {
        let (consensus, dwcp) = (beside("novacron-consensus")?, beside("novacron-dwcp")?);
        let folder = tempfile::tempdir().unwrap();
        let ports = ports::free(12);
        let list: Vec<_> = (0..3).map(|n| format!("m{n}=http://127.0.0.1:{}", ports[3 + n])).collect();
        let members: Vec<_> = (0..3).map(|n| format!("http://127.0.0.1:{}", ports[n])).collect();
        let mut mortals = Vec::new();
        for (n, member) in members.iter().enumerate() {
            let args = [
                format!("--name=m{n}"),
                format!("--data-dir={}", folder.path().join(format!("m{n}")).display()),
                format!("--listen-client-urls={member}"),
                format!("--listen-peer-urls=http://127.0.0.1:{}", ports[3 + n]),
                format!("--initial-cluster={}", list.join(",")),
                "--metrics-listen=off".to_owned(),
            ];
            let program = consensus.clone();
            mortals.push(Mortal::new(move || {
                let mut command = clean(Command::new(&program));
                command.args(&args);
                command
            }));
        }
        let folders = [0, 1].map(|n| folder.path().join(format!("node-{n}")));
        let vms = [0, 1].map(|n| folders[n].join("vms"));
        let agent_ports = ports::free(4);
        for n in 0..2 {
            fs::create_dir_all(&vms[n]).unwrap();
            let args = [
                format!("--node-id=node-{n}"),
                format!("--region=r{n}"),
                format!("--listen=127.0.0.1:{}", agent_ports[2 * n]),
                format!("--datagrams-listen=127.0.0.1:{}", agent_ports[2 * n + 1]),
                format!("--discovery-store={}", members.join(",")),
                "--discovery-interval=300ms".to_owned(),
                format!("--control-socket={}", folders[n].join("agent.sock").display()),
                format!("--transfers-into={}", vms[n].display()),
                format!("--transfers-from={}", vms[n].display()),
                "--metrics-listen=off".to_owned(),
            ];
            let program = dwcp.clone();
            mortals.push(Mortal::new(move || {
                let mut command = clean(Command::new(&program));
                command.args(&args);
                command
            }));
        }
        let sockets =
            [0, 1].map(|n| format!("node-{n}={}", folders[n].join("agent.sock").display())).join(",");
        let replicas = [ports[6], ports[7]];
        for (n, port) in replicas.into_iter().enumerate() {
            let args = [
                format!("--replica=r{n}"),
                format!("--listen=127.0.0.1:{port}"),
                format!("--store-endpoints={}", members.join(",")),
                format!("--agents-sockets={sockets}"),
                format!("--data-dir={}", folder.path().join(format!("api-{n}")).display()),
                "--metrics-listen=off".to_owned(),
                "--jobs-lease=3s".to_owned(),
                "--jobs-poll-interval=200ms".to_owned(),
                "--limits-rate=off".to_owned(),
            ];
            mortals.push(Mortal::new(move || {
                let mut command = clean(Command::new(env!("CARGO_BIN_EXE_novacron-api")));
                command.args(&args);
                command
            }));
        }
        Some(Self { mortals, replicas, vms, _folder: folder })
    }
}

/// Asks one replica after the other until an answer is certain.
fn ask_until_certain(
    replicas: [u16; 2],
    method: &str,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let began = Instant::now();
    for replica in replicas.into_iter().cycle() {
        let headers: Vec<_> = key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
        if let Ok(answer) = ask(replica, method, path, &headers, body)
            && answer.status < 500
        {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "no answer to {method} {path}");
        thread::sleep(Duration::from_millis(100));
    }
    unreachable!("replicas are asked for ever")
}

#[test]
fn a_hundred_migrations_survive_kills_of_everything() {
    const BYTES: usize = 512 << 10;
    let Some(everything) = Everything::start() else { return };
    let Everything { mut mortals, replicas, vms, _folder } = everything;
    let seed = std::env::var("NOVACRON_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0xabcd);
    println!("NOVACRON_SEED={seed}");
    let certain = |method: &str, path: &str, key: Option<&str>, body: Option<&Value>| {
        ask_until_certain(replicas, method, path, key, body)
    };
    let name = |n: usize| format!("vm-{n}");
    for n in 0..VMS {
        make_data(&vms[n % 2], &name(n), n, BYTES);
        let vm = on(vm(&name(n), &format!("r{}", n % 2)), &format!("node-{}", n % 2));
        let made = certain("POST", "/api/vms", Some(&format!("make-{n}")), Some(&vm));
        assert_eq!(made.status, 201, "{made:?}");
    }
    wait_until("both agents", || {
        let nodes = certain("GET", "/api/v1/nodes", None, None).json();
        (nodes["items"].as_array()?.len() == 2).then_some(())
    });

    let stop = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        let (stop, mortals) = (&stop, &mut mortals);
        scope.spawn(move || {
            let mut state = seed;
            let mut random = move |below: u64| {
                // splitmix64
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (z ^ (z >> 31)) % below
            };
            while !stop.load(Ordering::Relaxed) {
                let victim = random(mortals.len() as u64) as usize;
                mortals[victim].kill();
                thread::sleep(Duration::from_millis(random(500)));
                mortals[victim].start();
                thread::sleep(Duration::from_millis(500 + random(1500)));
            }
        });
        let jobs: Vec<_> = (0..VMS)
            .map(|n| {
                let body = json!({"vm": name(n), "to": format!("node-{}", (n + 1) % 2)});
                let begun = wait_until("a target that is there", || {
                    let begun = certain("POST", MIGRATIONS, Some(&format!("migrate-{n}")), Some(&body));
                    // An agent that was killed may be out of the register for a while.
                    (begun.status == 202).then_some(begun)
                });
                if n % CANCELLED_EACH == 0 {
                    let cancelled =
                        certain("POST", &format!("{}/cancel", begun.header("location")), None, None);
                    assert!([200, 202, 409].contains(&cancelled.status), "{cancelled:?}");
                }
                begun.header("location").to_owned()
            })
            .collect();
        let began = Instant::now();
        let mut ended = HashMap::new();
        while ended.len() < VMS {
            assert!(began.elapsed() < PATIENCE, "{} of {VMS} have ended", ended.len());
            for (n, path) in
                jobs.iter().enumerate().filter(|(n, _)| !ended.contains_key(n)).collect::<Vec<_>>()
            {
                let job = certain("GET", path, None, None).json();
                if ENDED.contains(&job["state"].as_str().unwrap()) {
                    ended.insert(n, job);
                }
            }
        }
        drop(stopping);
        ended
    });

    let mut cancelled = 0;
    for n in 0..VMS {
        let (job, vm) = (&ended[&n], certain("GET", &format!("/api/vms/{}", name(n)), None, None).json());
        let again =
            certain("GET", &format!("{MIGRATIONS}/{}", job["id"].as_str().unwrap()), None, None).json();
        assert_eq!(&again, job, "what has ended stays so");
        let is_done = job["state"] == "done";
        assert!(is_done || n % CANCELLED_EACH == 0 && job["state"] == "cancelled", "{job}");
        cancelled += usize::from(!is_done);
        let at = if is_done { (n + 1) % 2 } else { n % 2 };
        assert_eq!(
            (&vm["node"], &vm["region"]),
            (&json!(format!("node-{at}")), &json!(format!("r{at}"))),
            "{job}"
        );
        assert!(is_there(&vms[at], &name(n), n, BYTES), "{job}");
        // Where it was, nothing is lost either.
        assert!(is_there(&vms[n % 2], &name(n), n, BYTES), "{job}");
    }
    let retried = ended.values().filter(|job| job["attempts"].as_u64() > Some(1)).count();
    println!("{} done, {cancelled} cancelled; {retried} took more than one attempt", VMS - cancelled);
    // What has ended goes on nowhere. The receivers of senders that were killed have to find that out.
    wait_until("agents without a transfer that runs", || {
        let all = certain("GET", "/api/v1/transfers", None, None).json();
        let runs = |one: &Value| one["transfer"]["state"] == "running";
        let told = all["unanswered"].as_array()?.is_empty();
        (told && !all["items"].as_array()?.iter().any(runs)).then_some(())
    });
    // Nobody is kept from moving them again.
    let again = certain("POST", MIGRATIONS, Some("again"), Some(&json!({"vm": name(1), "to": "node-1"})));
    assert_eq!(again.status, 202, "{again:?}");
    for mortal in &mortals {
        if let Some(process) = &mortal.process {
            process.signal(Signal::KILL);
        }
    }
}
