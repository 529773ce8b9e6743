//! Answers that are kept, in Redis that is killed, stopped, begun anew and filled with nonsense.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    identity::Provider,
    support::{Answer, Process, Replica, Store, ask, run, vm, wait_until},
};

const MEMBERS: &str = "/api/v1/consensus/members";
const REGIONS: &str = "/api/v1/regions";
const PASSWORD: &str = "pass-word";

/// Debian's, on a port of its own, without a disk.
struct Redis {
    process: Option<Process>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Redis {
    /// `None`: there is no program for it.
    fn start() -> Option<Self> {
        let found = ["/usr/bin", "/usr/local/bin"]
            .iter()
            .any(|folder| fs::exists(format!("{folder}/redis-server")).unwrap());
        if !found {
            println!("SKIP: there is no redis-server (apt-get install redis-server)");
            return None;
        }
        let (port, folder) = (ports::free(1)[0], tempfile::tempdir().unwrap());
        let mut redis = Self { process: None, port, folder };
        redis.again();
        Some(redis)
    }

    /// Begins anew, with nothing in it.
    fn again(&mut self) {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--requirepass", PASSWORD, "--dir"]).arg(self.folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(Process::new(child));
        wait_until("redis", || self.ask(&[b"PING"]));
    }

    fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port)
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// One command, and the first bytes of what is answered.
    fn ask(&self, words: &[&[u8]]) -> Option<Vec<u8>> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut bytes =
            format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{PASSWORD}\r\n*{}\r\n", PASSWORD.len(), words.len())
                .into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        socket.write_all(&bytes).ok()?;
        socket.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        let answer = answer.strip_prefix(b"+OK\r\n")?.to_vec();
        (!answer.is_empty()).then_some(answer)
    }

    fn keys(&self) -> Vec<String> {
        let answer = self.ask(&[b"KEYS", b"*"]).unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.lines().filter(|line| line.starts_with("novacron:")).map(str::to_owned).collect()
    }
}

/// How many answers of a kind came from there.
fn count(replica: &Replica, kind: &str, from: &str) -> u64 {
    let metrics = ask(replica.metrics, "GET", "/metrics", &[], None).unwrap().body;
    let series = format!("cache_answers_total{{kind=\"{kind}\",from=\"{from}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Asks both until the second one has what the first one has kept.
fn shared(a: &Replica, b: &Replica) {
    let before = count(b, "members", "shared");
    wait_until("an answer that is shared", || {
        assert_eq!(names(&a.get(MEMBERS)), ["m1", "m2", "m3"]);
        assert_eq!(names(&b.get(MEMBERS)), ["m1", "m2", "m3"]);
        (count(b, "members", "shared") > before).then_some(())
    });
}

#[test]
fn a_cache_that_is_dead_slow_or_lying_breaks_nothing() {
    let Some(mut redis) = Redis::start() else { return };
    let Some(store) = Store::start() else { return };
    let url = redis.url();
    let flags = ["--cache-url", url.as_str()];
    let (a, b) = (Replica::ready("a", &store, &flags), Replica::ready("b", &store, &flags));
    shared(&a, &b);
    assert!(count(&a, "members", "made") >= 1 && !redis.keys().is_empty());

    // It says nothing.
    redis.signal(Signal::STOP);
    for _ in 0..20 {
        assert_eq!(names(&a.get(MEMBERS)).len(), 3);
        thread::sleep(Duration::from_millis(100));
    }
    redis.signal(Signal::CONT);
    shared(&a, &b);

    // It is gone, and comes back with nothing.
    redis.process = None;
    for _ in 0..20 {
        assert_eq!(names(&b.get(MEMBERS)).len(), 3);
        thread::sleep(Duration::from_millis(100));
    }
    redis.again();
    shared(&a, &b);

    // It says what was never asked, under every key, again and again: other values, other keys' values, other types.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (stop, redis) = (&stop, &redis);
        scope.spawn(move || {
            let forged =
                json!([{"id": "1", "name": "evil", "client_urls": [], "peer_urls": [], "is_learner": false}]);
            let sealed = [vec![0xff; 40], forged.to_string().into_bytes()].concat();
            while !stop.load(Ordering::Relaxed) {
                let mut keys = redis.keys();
                keys.extend(["novacron:members ", "novacron:regions "].map(str::to_owned));
                for key in &keys {
                    let key = key.as_bytes();
                    for value in [&b"nonsense"[..], b"", forged.to_string().as_bytes(), &sealed] {
                        redis.ask(&[b"SET", key, value]);
                        thread::sleep(Duration::from_millis(10));
                    }
                    redis.ask(&[b"COPY", b"novacron:regions ", key, b"REPLACE"]);
                    thread::sleep(Duration::from_millis(10));
                    redis.ask(&[b"DEL", key]);
                    redis.ask(&[b"LPUSH", key, b"a list"]);
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        assert_eq!(a.post("/api/vms", &vm("v", "eu")).status, 201);
        for _ in 0..60 {
            for replica in [&a, &b] {
                assert_eq!(names(&replica.get(MEMBERS)), ["m1", "m2", "m3"]);
                let regions = names(&replica.get(REGIONS));
                assert!(
                    regions.iter().all(|name| name == "eu" || name.starts_with("region-")),
                    "{regions:?}"
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    redis.ask(&[b"FLUSHALL"]);
    shared(&a, &b);
}

#[test]
fn what_is_kept_for_one_is_not_shown_to_another() {
    let Some(redis) = Redis::start() else { return };
    let Some(store) = Store::start() else { return };
    let (provider, url) = (Provider::new(), redis.url());
    let flags = [provider.flags(), vec!["--cache-url".to_owned(), url]].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let (a, b) = (Replica::ready("a", &store, &flags), Replica::ready("b", &store, &flags));
    let get = |replica: &Replica, roles: &[&str], path: &str| {
        replica.ask("GET", path, &[("Authorization", &provider.bearer(roles))], None)
    };
    let admin = provider.bearer(&["admin@*"]);
    for region in ["eu", "us"] {
        let made = a.ask("POST", "/api/vms", &[("Authorization", &admin)], Some(&vm(region, region)));
        assert_eq!(made.status, 201);
    }
    wait_until("both regions", || {
        names(&get(&a, &["viewer@*"], REGIONS)).contains(&"us".to_owned()).then_some(())
    });
    for _ in 0..40 {
        assert!(names(&get(&a, &["viewer@*"], REGIONS)).contains(&"us".to_owned()));
        for replica in [&a, &b] {
            assert_eq!(names(&get(replica, &["viewer@eu"], REGIONS)), ["eu"]);
            assert_eq!(get(replica, &["viewer@eu"], "/api/v1/regions/us").problem(), "forbidden");
            assert_eq!(get(replica, &["viewer@eu"], MEMBERS).problem(), "forbidden");
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert!(count(&b, "regions", "shared") > 0, "nothing was shared, so nothing was tested");
    let eu = get(&b, &["viewer@eu"], "/api/v1/regions/eu").json();
    assert_eq!((&eu["vms"], &eu["replication"]), (&json!(1), &Value::Null));
}

#[test]
fn without_redis_answers_are_kept_in_the_process() {
    let Some(store) = Store::start() else { return };
    let (kept, none) =
        (Replica::ready("a", &store, &[]), Replica::ready("b", &store, &["--cache-bytes-max", "0"]));
    wait_until("an answer that was kept", || {
        names(&kept.get(MEMBERS));
        (count(&kept, "members", "near") > 0).then_some(())
    });
    for _ in 0..20 {
        names(&none.get(MEMBERS));
    }
    assert_eq!((count(&none, "members", "near"), count(&none, "members", "made")), (0, 20));
}

#[test]
fn passwords_are_not_printed() {
    let args = [
        "--database-url",
        "postgres://u:hidden-1@h/d?password=hidden-2",
        "--cache-url",
        "redis://:hidden-3@h",
    ];
    let (code, printed) = run(&[&args[..], &["--print-config"]].concat(), None);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("postgres://u:***@h/d") && printed.contains("redis://:***@h"), "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
}
