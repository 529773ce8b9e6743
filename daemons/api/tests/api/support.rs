//! Starts a store and replicas, talks to them, and ends them with the test.

use std::{
    collections::{BTreeSet, HashMap},
    env, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use consensus_proto::{
    etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
    },
    mvccpb::KeyValue,
};
use novacron_store::{Client, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For whatever has to happen soon, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Ports of the members and their peers, as `novacron up` chooses them.
const STORE_PORTS: u16 = 202;
const AGENT_PORTS: u16 = 4;
const PORT_STEP: usize = 100;
/// What members take, if nobody says otherwise.
const TXN_OPS_MAX: usize = 128;

pub(crate) fn clean(mut command: Command) -> Command {
    // Settings of whoever runs the test are not those of the test.
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("NOVACRON_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

/// Another program of the workspace; says so if there is none. Tests are in `deps`, beside the programs.
pub(crate) fn beside(name: &str) -> Option<PathBuf> {
    let found = env::current_exe().ok().and_then(|test| Some(test.parent()?.parent()?.join(name)));
    let found = found.filter(|program| program.is_file());
    if found.is_none() {
        println!(
            "SKIP: there is no program `{name}` beside this test (cargo build --workspace --bins makes it)"
        );
    }
    found
}

/// A process that ends with the value.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit code, once it has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_until("the end of the process", || self.0.try_wait().unwrap()).code()
    }
}

/// Three members.
pub(crate) struct Store {
    _process: Process,
    /// With a folder for each agent.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) endpoints: Vec<String>,
}

impl Store {
    /// `None`: there is no program for it.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With these in the environment of everything that runs.
    pub(crate) fn start_with(environment: &[(&str, &str)]) -> Option<Self> {
        let program = beside("novacron")?;
        let folder = tempfile::tempdir().unwrap();
        let (members, agents) = (ports::free(STORE_PORTS), ports::free(AGENT_PORTS));
        let mut command = clean(Command::new(program));
        command.args(["up", "--no-api", "--data-dir"]).arg(folder.path()).envs(environment.iter().copied());
        command.args(["--port", &members[0].to_string(), "--agent-port", &agents[0].to_string()]);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let ports = members.iter().step_by(PORT_STEP).take(3);
        let endpoints = ports.map(|port| format!("http://127.0.0.1:{port}")).collect();
        Some(Self { _process: Process::new(child), folder, endpoints })
    }
}

impl Store {
    /// All values below a prefix, as text.
    pub(crate) fn values(&self, prefix: &str) -> Vec<String> {
        let entries = self.entries(prefix);
        entries.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect()
    }

    /// The leases of the entries below a prefix, each once.
    pub(crate) fn leases(&self, prefix: &str) -> BTreeSet<i64> {
        self.entries(prefix).iter().map(|kv| kv.lease).collect()
    }

    fn entries(&self, prefix: &str) -> Vec<KeyValue> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let range =
            RangeRequest { key: prefix.to_owned().into(), range_end: end.into(), ..RangeRequest::default() };
        let options = Options { tls: None, user: None, timeout: PATIENCE };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let answer = runtime.block_on(async {
            let client = Client::new(self.endpoints.iter().map(String::as_str), options).unwrap();
            client
                .read("entries", range, |link, range| async move { link.kv().range(range).await })
                .await
                .unwrap()
        });
        answer.kvs
    }
}

impl Store {
    /// Writes an entry.
    pub(crate) fn put(&self, key: &str, value: &Value) {
        self.put_all(vec![(key.to_owned(), value.to_string())]);
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, key: &str) {
        let delete = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        let options = Options { tls: None, user: None, timeout: PATIENCE };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::new(self.endpoints.iter().map(String::as_str), options).unwrap();
            let deleted = client
                .write("remove", delete, |link, delete| async move { link.kv().delete_range(delete).await });
            deleted.await.unwrap();
        });
    }

    /// Writes many.
    pub(crate) fn put_all(&self, entries: Vec<(String, String)>) {
        // The members may have been started a moment ago.
        for endpoint in &self.endpoints {
            wait_until("a member", || TcpStream::connect(endpoint.trim_start_matches("http://")).ok());
        }
        let puts = entries.into_iter().map(|(key, value)| {
            let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        });
        let puts: Vec<_> = puts.collect();
        let options = Options { tls: None, user: None, timeout: PATIENCE };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::new(self.endpoints.iter().map(String::as_str), options).unwrap();
            for puts in puts.chunks(TXN_OPS_MAX) {
                let txn = TxnRequest { success: puts.to_vec(), ..TxnRequest::default() };
                client.write("put", txn, |link, txn| async move { link.kv().txn(txn).await }).await.unwrap();
            }
        });
    }
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) metrics: u16,
    /// Where it keeps the records of changes.
    pub(crate) data: tempfile::TempDir,
}

impl Replica {
    pub(crate) fn spawn(name: &str, endpoints: &[String], more: &[&str]) -> Self {
        Self::spawn_with(name, endpoints, more, &[])
    }

    /// With these in its environment.
    pub(crate) fn spawn_with(
        name: &str,
        endpoints: &[String],
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::spawn_at(ports::free(1)[0], name, endpoints, more, environment)
    }

    fn spawn_at(
        port: u16,
        name: &str,
        endpoints: &[String],
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let metrics = ports::free(1)[0];
        let mut command = clean(Command::new(env!("CARGO_BIN_EXE_novacron-api")));
        command.args(["--replica", name, "--store-endpoints", &endpoints.join(",")]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--metrics-listen", &format!("127.0.0.1:{metrics}")]);
        command.args(["--jobs-lease", "3s", "--jobs-poll-interval", "200ms"]);
        let data = tempfile::tempdir().unwrap();
        if !more.contains(&"--data-dir") {
            command.arg("--data-dir").arg(data.path());
        }
        if !more.contains(&"--limits-rate") {
            // What is under test here asks often.
            command.args(["--limits-rate", "off"]);
        }
        command.args(more).envs(environment.iter().copied());
        let child = command.spawn().unwrap();
        let replica = Self { process: Process::new(child), port, metrics, data };
        wait_until("listener", || TcpStream::connect(("127.0.0.1", replica.port)).ok());
        replica
    }

    /// One that is ready.
    pub(crate) fn ready(name: &str, store: &Store, more: &[&str]) -> Self {
        Self::ready_at(ports::free(1)[0], name, store, more)
    }

    /// The same at a port that another one has had.
    pub(crate) fn ready_at(port: u16, name: &str, store: &Store, more: &[&str]) -> Self {
        let replica = Self::spawn_at(port, name, &store.endpoints, more, &[]);
        wait_until("readiness", || (replica.get("/ready").status == 200).then_some(()));
        replica
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        ask(self.port, method, path, headers, body).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], Some(body))
    }
}

/// Ends what goes on until then, also where a test fails.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    /// Of an answer's bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: body.to_owned() })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The last word of a problem's type; empty if it is none. Checks that it is one as it should be.
    pub(crate) fn problem(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{self:?}");
        for field in ["title", "detail", "instance"] {
            assert!(problem[field].is_string(), "{field}: {self:?}");
        }
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> io::Result<Answer> {
    raw(port, &request(method, path, headers, body))
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = body.map(Value::to_string);
    if let Some(body) = &body {
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            head += "Content-Type: application/json\r\n";
        }
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head + "\r\n" + &body.unwrap_or_default()
}

/// Whatever is to be sent, and what comes then.
pub(crate) fn raw(port: u16, request: &str) -> io::Result<Answer> {
    let socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    exchange(socket, request)
}

/// The same over whatever carries it.
pub(crate) fn exchange(mut stream: impl io::Read + io::Write, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Answer::parse(&answer).ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}

pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A VM that may be made.
pub(crate) fn vm(name: &str, region: &str) -> Value {
    serde_json::json!({
        "name": name, "cpus": 2, "memory_bytes": 1_u64 << 30, "image": "images/debian.img", "region": region,
        "desired_state": "running",
    })
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str], config: Option<&Path>) -> (Option<i32>, String) {
    let data = tempfile::tempdir().unwrap();
    let mut command = clean(Command::new(env!("CARGO_BIN_EXE_novacron-api")));
    command.env("NOVACRON_DATA_DIR", data.path()).args(args);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    (output.status.code(), text)
}
