//! A rollout: three replicas behind a proxy (HAProxy) are replaced one after the other while clients ask, and none of them notices.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    auth::first_token,
    support::{Answer, Over, Process, Replica, Store, ask, vm, wait_until},
};

const REPLICAS: usize = 3;
const CLIENTS: usize = 8;
/// Requests of all clients before the first and after the last is replaced.
const ENOUGH: usize = 200;
/// The replicas' settings: long enough for the proxy to hear of a drain several times over.
const FLAGS: [&str; 6] = ["--auth-tokens", "true", "--drain-delay", "2s", "--drain-timeout", "20s"];

/// HAProxy, which asks each replica whether it is ready and repeats nothing by itself.
struct Proxy {
    _process: Process,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// `None`: there is no program for it.
    fn start(replicas: &[Replica]) -> Option<Self> {
        let found = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| fs::exists(path).unwrap());
        let Some(program) = found else {
            println!("SKIP: there is no haproxy (apt-get install haproxy)");
            return None;
        };
        let (port, folder) = (ports::free(1)[0], tempfile::tempdir().unwrap());
        let file = folder.path().join("haproxy.cfg");
        // Connections to replicas are kept and shared among clients, as the proxies of clusters do.
        let mut config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n retries 0\n http-reuse always\n\
             frontend all\n bind 127.0.0.1:{port}\n default_backend api\n\
             backend api\n balance roundrobin\n option httpchk GET /ready\n http-check expect status 200\n"
        );
        for (n, replica) in replicas.iter().enumerate() {
            config += &format!(" server r{n} 127.0.0.1:{} check inter 200ms fall 1 rise 1\n", replica.port);
        }
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        let child = command
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self { _process: Process::new(child), port, _folder: folder };
        wait_until("the proxy", || {
            ask(port, "GET", "/ready", &[], None).ok().filter(|answer| answer.status == 200)
        });
        Some(proxy)
    }
}

/// What a client does again and again: what it asks, what it expects.
fn changes(
    port: u16,
    token: &str,
    name: &str,
    expect: &dyn Fn(&str, u16, std::io::Result<Answer>) -> String,
) {
    let headers = |more: (&'static str, String)| [("Authorization", token.to_owned()), more];
    let send = |method: &str, path: &str, more: (&'static str, String), body| {
        let headers = headers(more);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(port, method, path, &headers, body)
    };
    let (path, body) = (format!("/api/v1/vms/{name}"), vm(name, "eu"));
    let any = || ("Accept", "*/*".to_owned());
    let etag = expect("POST", 201, send("POST", "/api/v1/vms", any(), Some(&body)));
    expect("GET", 200, send("GET", &path, any(), None));
    let etag = expect("PUT", 200, send("PUT", &path, ("If-Match", etag), Some(&body)));
    expect("GET", 200, send("GET", "/api/v1/vms?limit=10", any(), None));
    expect("DELETE", 204, send("DELETE", &path, ("If-Match", etag), None));
}

#[test]
fn no_request_fails_while_replicas_behind_a_proxy_are_replaced() {
    let Some(store) = Store::start() else { return };
    let mut replicas: Vec<_> =
        (0..REPLICAS).map(|n| Replica::ready(&format!("r{n}"), &store, &FLAGS)).collect();
    let Some(proxy) = Proxy::start(&replicas) else { return };
    let token = first_token(&store, replicas[0].data.path());
    let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let over_at_the_end = Over(&over);
        for client in 0..CLIENTS {
            let (asked, over, failures, token, port) = (&asked, &over, &failures, &token, proxy.port);
            scope.spawn(move || {
                let expect = |what: &str, status: u16, answer: std::io::Result<Answer>| {
                    asked.fetch_add(1, Relaxed);
                    match answer {
                        Ok(answer) if answer.status == status => answer.header("etag").to_owned(),
                        other => {
                            failures.lock().unwrap().push(format!("{what}: {other:?}"));
                            String::new()
                        }
                    }
                };
                for n in (0..).take_while(|_| !over.load(Relaxed)) {
                    changes(port, token, &format!("c{client}-{n}"), &expect);
                }
            });
        }
        let wait_for = |count| wait_until("requests", || (asked.load(Relaxed) >= count).then_some(()));
        wait_for(ENOUGH);
        for (n, replica) in replicas.iter_mut().enumerate() {
            replica.process.signal(Signal::TERM);
            assert_eq!(replica.process.exit_code(), Some(0), "replica {n}");
            *replica = Replica::ready_at(replica.port, &format!("r{n}-new"), &store, &FLAGS);
            // As a cluster does, which lets the next one go when this one takes requests.
            wait_until("requests at the new one", || (served(replica) >= ENOUGH / 10).then_some(()));
        }
        wait_for(asked.load(Relaxed) + ENOUGH);
        drop(over_at_the_end);
    });
    let failures = failures.into_inner().unwrap();
    println!("{} requests", asked.load(Relaxed));
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), asked.load(Relaxed));
}

/// How many VMs it was asked about since it began.
fn served(replica: &Replica) -> usize {
    thread::sleep(Duration::from_millis(50));
    let metrics = ask(replica.metrics, "GET", "/metrics", &[], None).unwrap().body;
    let of_vms = metrics
        .lines()
        .filter(|line| line.starts_with("http_requests_total") && line.contains("/api/v1/vms"));
    of_vms.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}
