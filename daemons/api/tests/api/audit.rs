//! Records of changes, in SQLite and PostgreSQL, and what is refused without them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    identity::Provider,
    support::{Answer, Replica, Store, run, vm, wait_until},
};

const AUDIT: &str = "/api/v1/audit";

#[test]
fn every_change_is_recorded_in_sqlite() {
    let Some(store) = Store::start() else { return };
    recorded(&store, &[]);
}

#[test]
fn every_change_is_recorded_in_postgresql() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    recorded(&store, &["--database-url", &postgres.url()]);
    away(&store, &postgres);
}

fn recorded(store: &Store, more: &[&str]) {
    let provider = Provider::new();
    let flags = provider.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let replica = Replica::ready("a", store, &flags);
    let (admin, viewer) = (provider.bearer(&["admin@*"]), provider.bearer(&["viewer@eu"]));
    let ask = |who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>| {
        let headers = [&[("Authorization", who)], headers].concat();
        replica.ask(method, path, &headers, body)
    };
    let first = vm("one", "eu");
    let made = ask(&admin, "POST", "/api/vms", &[("X-Request-Id", "r-1")], Some(&first));
    assert_eq!(made.status, 201, "{made:?}");
    let path = "/api/v1/vms/one";
    let replaced = ask(&admin, "PUT", path, &[("If-Match", made.header("etag"))], Some(&first));
    assert_eq!(replaced.status, 200);
    assert_eq!(ask(&admin, "PUT", path, &[("If-Match", "\"1\"")], Some(&first)).status, 412);
    assert_eq!(ask(&viewer, "DELETE", path, &[("If-Match", "*")], None).status, 403);
    assert_eq!(replica.ask("DELETE", path, &[("If-Match", "*")], None).status, 401);
    assert_eq!(ask(&admin, "DELETE", path, &[("If-Match", "*")], None).status, 204);
    assert_eq!(ask(&viewer, "GET", "/api/v1/vms", &[], None).status, 200);

    let list = |query: &str| -> Answer { ask(&admin, "GET", &format!("{AUDIT}{query}"), &[], None) };
    let all = list("").json();
    let items = all["items"].as_array().unwrap();
    let told: Vec<_> = items
        .iter()
        .rev()
        .map(|record| {
            let field = |name: &str| record[name].as_str().unwrap_or_else(|| panic!("{record}")).to_owned();
            (
                field("method"),
                record["status"].as_i64().unwrap(),
                field("outcome"),
                field("etag_before"),
                field("etag_after"),
            )
        })
        .collect();
    let (one, two) = (made.header("etag"), replaced.header("etag"));
    let expected = [
        ("POST", 201, "done", "", one),
        ("PUT", 200, "done", one, two),
        ("PUT", 412, "refused", "", ""),
        ("DELETE", 403, "refused", "", ""),
        ("DELETE", 204, "done", two, ""),
    ];
    let expected =
        expected.map(|(a, b, c, d, e)| (a.to_owned(), b, c.to_owned(), d.to_owned(), e.to_owned()));
    assert_eq!(told, expected, "{all}");
    let oldest = items.last().unwrap();
    assert_eq!(
        (
            &oldest["principal"],
            &oldest["route"],
            &oldest["resource"],
            &oldest["request_id"],
            &oldest["address"]
        ),
        (&json!("jwt:alice"), &json!("/api/vms"), &json!(path), &json!("r-1"), &json!("127.0.0.1")),
    );
    for (query, count) in [
        ("?outcome=done", 3),
        ("?outcome=refused&method=PUT", 1),
        ("?principal=jwt:alice", 5),
        ("?principal=jwt:nobody", 0),
        ("?resource=/api/v1/vms/one", 5),
        ("?principal=%27%20OR%201%3D1--", 0),
        ("?to_ms=1", 0),
        ("?from_ms=1&limit=2", 2),
    ] {
        assert_eq!(list(query).json()["items"].as_array().unwrap().len(), count, "{query}");
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?limit=2{cursor}")).json();
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(&seen, items);
    for query in ["?limit=0", "?cursor=x", "?outcome=perhaps", "?nonsense=1", "?principal=%00", "?from_ms=x"]
    {
        assert_eq!(list(query).problem(), "malformed", "{query}");
    }
    assert_eq!(ask(&viewer, "GET", AUDIT, &[], None).json()["required"], "admin@*");
}

/// What cannot be recorded is not done.
fn away(store: &Store, postgres: &Postgres) {
    let replica = Replica::ready("b", store, &["--database-url", &postgres.url()]);
    assert_eq!(replica.post("/api/v1/vms", &vm("before", "eu")).status, 201);
    postgres.stop();
    let refused = replica.post("/api/v1/vms", &vm("during", "eu"));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "audit-unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(replica.get("/api/v1/vms/during").status, 404, "it was not done");
    assert_eq!(replica.get("/api/v1/vms/before").status, 200, "reads go on");
    assert_eq!(replica.get(AUDIT).problem(), "audit-unavailable");
    let begun = Replica::ready("c", store, &["--database-url", &postgres.url()]);
    postgres.run();
    for replica in [&replica, &begun] {
        let mut n = 0;
        wait_until("changes again", || {
            n += 1;
            let name = format!("after-{}-{n}", replica.port);
            (replica.post("/api/v1/vms", &vm(&name, "eu")).status == 201).then_some(())
        });
    }
}

#[test]
fn a_file_that_cannot_be_written_is_a_database_that_is_away() {
    let Some(store) = Store::start() else { return };
    let replica = Replica::ready("a", &store, &[]);
    assert_eq!(replica.post("/api/v1/vms", &vm("one", "eu")).status, 201);
    drop(replica);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("audit.sqlite")).unwrap();
    let folder = folder.path().display().to_string();
    let endpoints = store.endpoints.join(",");
    let args = ["--create-token", "x", "--store-endpoints", &endpoints, "--data-dir", &folder];
    let (code, said) = run(&args, None);
    assert_eq!(code, Some(1), "{said}");
    assert!(store.values("/novacron/tokens/").is_empty(), "no token without a record");
}

/// A cluster of PostgreSQL of this test's own.
struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    /// Another user, where the test is root, which PostgreSQL does not run as.
    user: Option<&'static str>,
    process: std::cell::RefCell<Option<Child>>,
}

impl Postgres {
    /// `None`, and a line that says why: there is none here.
    fn start() -> Option<Self> {
        let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs =
            found.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(programs) = programs else {
            eprintln!("SKIP: there is no PostgreSQL in /usr/lib/postgresql (Debian's package postgresql)");
            return None;
        };
        let user = rustix::process::geteuid().is_root().then_some("nobody");
        let folder = tempfile::tempdir().unwrap();
        let postgres =
            Self { folder, programs, port: ports::free(1)[0], user, process: std::cell::RefCell::new(None) };
        if let Some(user) = user {
            let given = Command::new("chown").arg(user).arg(postgres.folder.path()).status();
            assert!(given.unwrap().success());
        }
        let mut init = postgres.command("initdb");
        init.args(["--auth=trust", "--username=novacron", "--no-sync", "--pgdata"]).arg(postgres.data());
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        postgres.run();
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn url(&self) -> String {
        format!("postgres://novacron@127.0.0.1:{}/postgres", self.port)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.user {
            None => Command::new(&program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--clear-groups", "--"]).arg(&program);
                command
            }
        };
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn run(&self) {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        server.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-F"]).stderr(Stdio::null());
        *self.process.borrow_mut() = Some(server.spawn().unwrap());
        let mut ready = self.command("pg_isready");
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        wait_until("PostgreSQL", || ready.status().unwrap().success().then_some(()));
    }

    fn stop(&self) {
        let Some(mut process) = self.process.borrow_mut().take() else { return };
        // At once, as a machine that fails.
        let id = pid(&self.data()).unwrap_or(process.id() as i32);
        let id = rustix::process::Pid::from_raw(id).unwrap();
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
        let _ = process.wait();
    }
}

/// The server's own process, as it says.
fn pid(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
