//! Stores to talk to: Debian's etcd, and our members, each in a process of its own.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;

use super::{Process, clean, errors, novacron, pass_on, swallow, wait_until};

/// What our members, and etcd, say when they serve clients.
const READY: &str = "ready to serve client requests";

/// Whether a program of Debian's etcd packages is there.
pub fn is_installed(program: &str) -> bool {
    let there =
        Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("SKIP: {program} is not installed (Debian's packages etcd-server and etcd-client)");
    }
    there
}

/// The servers that are there: etcd's, and ours, which takes the same flags.
pub fn servers() -> Vec<PathBuf> {
    let etcd = is_installed("etcd").then(|| PathBuf::from("etcd"));
    etcd.into_iter().chain(is_built().then(daemon)).collect()
}

/// A member of etcd, or one of ours, alone unless it joins others.
pub struct Etcd {
    pub process: Process,
    pub endpoint: String,
    folder: tempfile::TempDir,
}

impl Etcd {
    /// None if it is not installed.
    pub fn start() -> Option<Self> {
        is_installed("etcd").then(|| Self::start_with(Path::new("etcd"), "http", ports::free(1)[0], &[]))
    }

    pub fn start_with(server: &Path, scheme: &str, peer_port: u16, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let client = ports::free(1)[0];
        let (url, peer_url) =
            (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer_port}"));
        let mut command = Command::new(server);
        clean(&mut command);
        command.env("RUST_LOG", "info");
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer_url, "--logger", "zap"]);
        if !args.contains(&"--initial-cluster") {
            command.args(["--name", "first", "--initial-advertise-peer-urls", &peer_url]);
            command.args(["--initial-cluster", &format!("first={peer_url}")]);
        }
        command.args(args).arg("--data-dir").arg(folder.path().join("data"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        wait_for_ready(&mut process, &server.display().to_string());
        Self { process, endpoint: format!("127.0.0.1:{client}"), folder }
    }
}

/// A line that says so; what comes after it must not fill the pipe.
fn wait_for_ready(process: &mut Process, name: &str) {
    let mut errors = process.errors_reader();
    let mut said = String::new();
    loop {
        let from = said.len();
        let read = errors.read_line(&mut said).expect("readable");
        assert!(read > 0, "{name} ended: {said}");
        // As a learner etcd does not say that it is ready: it serves clients, and little of what they ask for.
        if said[from..].contains(READY) || said[from..].contains("serving client traffic") {
            break;
        }
    }
    swallow(errors);
}

/// Three of our members.
pub struct Members {
    folder: tempfile::TempDir,
    /// (client, peer) of each.
    ports: Vec<(u16, u16)>,
    processes: Vec<Option<Process>>,
    /// Settings of all of them.
    env: &'static [(&'static str, &'static str)],
}

impl Members {
    /// None if the daemon has not been built: cargo builds it beside the command only in a run over the whole workspace.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    pub fn start_with(env: &'static [(&'static str, &'static str)]) -> Option<Self> {
        if !is_built() {
            return None;
        }
        let ports = ports::free(6).chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut members = Self { folder, ports, processes: Vec::new(), env };
        let mut started: Vec<_> = (0..3).map(|n| members.spawn(n)).collect();
        started.iter_mut().for_each(|process| wait_for_ready(process, "novacron-consensus"));
        members.processes = started.into_iter().map(Some).collect();
        Some(members)
    }

    fn initial_cluster(&self) -> String {
        let peers = self.ports.iter().enumerate();
        let list: Vec<_> = peers.map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        list.join(",")
    }

    /// The members of a new cluster, out of a snapshot, in the place of these.
    pub fn restore(&mut self, snapshot: &str) {
        for (n, process) in self.processes.iter_mut().enumerate() {
            process.take().expect("it runs").kill();
            std::fs::remove_dir_all(self.folder.path().join(format!("m{n}"))).expect("removed");
        }
        let list = self.initial_cluster();
        for n in 0..3 {
            let name = format!("m{n}");
            let folder = self.folder.path().join(&name);
            let to =
                ["--data-dir", folder.to_str().expect("text"), "--name", &name, "--initial-cluster", &list];
            let args: Vec<_> = ["cluster", "snapshot", "restore", snapshot].into_iter().chain(to).collect();
            ok("", &args);
            fails("", &args, 1);
        }
        let mut started: Vec<_> = (0..3).map(|n| self.spawn(n)).collect();
        started.iter_mut().for_each(|process| wait_for_ready(process, "novacron-consensus"));
        self.processes = started.into_iter().map(Some).collect();
    }

    fn spawn(&self, n: usize) -> Process {
        let list = self.initial_cluster();
        let (client, peer) = self.ports[n];
        let mut command = Command::new(daemon());
        clean(&mut command);
        command.args(["--name", &format!("m{n}"), "--initial-cluster", &list]);
        command.args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")]);
        command.args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")]);
        command.arg("--data-dir").arg(self.data_dir(n));
        command.envs(self.env.iter().copied());
        Process::spawn(command.env("RUST_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped()))
    }

    pub fn kill(&mut self, n: usize) {
        self.processes[n].take().expect("it runs").kill();
    }

    pub fn data_dir(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("m{n}"))
    }

    /// Waits for a member to end by itself; its exit code.
    pub fn ended(&mut self, n: usize) -> Option<i32> {
        self.processes[n].take().expect("it runs").wait()
    }

    /// Starts one that does not come up, and gives back what it says.
    pub fn refuses(&self, n: usize) -> String {
        let output = self.spawn(n).output();
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    pub fn restart(&mut self, n: usize) {
        let mut process = self.spawn(n);
        wait_for_ready(&mut process, "novacron-consensus");
        self.processes[n] = Some(process);
    }

    pub fn endpoint(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.ports[n].0)
    }

    pub fn endpoints(&self) -> String {
        (0..3).map(|n| self.endpoint(n)).collect::<Vec<_>>().join(",")
    }
}

fn is_built() -> bool {
    let there = daemon().exists();
    if !there {
        eprintln!("SKIP: {} is not built (cargo build --workspace --bins)", daemon().display());
    }
    there
}

fn daemon() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_novacron")).with_file_name("novacron-consensus")
}

/// The command, told where members are.
pub fn store(endpoints: &str) -> Command {
    let mut command = novacron();
    command.env("NOVACRON_ENDPOINTS", endpoints);
    command
}

/// Runs it with this on its standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Output {
    let mut process = Process::spawn(command.stdin(Stdio::piped()));
    let mut stdin = process.0.stdin.take().expect("piped");
    let input = input.to_vec();
    // It may end without reading.
    let feeding = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = process.output();
    feeding.join().expect("fed");
    output
}

pub fn run(endpoints: &str, args: &[&str]) -> Output {
    store(endpoints).args(args).output().expect("it runs")
}

/// What it prints, if it ends well.
#[track_caller]
pub fn ok(endpoints: &str, args: &[&str]) -> String {
    let output = run(endpoints, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// What it says on standard error, ending with this code.
#[track_caller]
pub fn fails(endpoints: &str, args: &[&str], code: i32) -> String {
    let output = run(endpoints, args);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(!said.contains("Status {") && !said.contains("Error("), "a debug print: {said}");
    said
}

#[track_caller]
pub fn json(endpoints: &str, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&ok(endpoints, &args)).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// Retries what may fail while members elect or learn.
#[track_caller]
pub fn until_ok(endpoints: &str, args: &[&str]) -> String {
    let mut printed = None;
    wait_until(&format!("{args:?} succeeds"), || {
        let output = run(endpoints, args);
        printed = output.status.success().then(|| String::from_utf8(output.stdout).expect("text"));
        printed.is_some()
    });
    printed.expect("it did")
}

/// Debian's etcdctl, which knows nothing of us.
#[track_caller]
pub fn etcdctl(endpoint: &str, args: &[&str]) {
    let mut command = Command::new("etcdctl");
    clean(&mut command);
    let output = command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(args).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "etcdctl {args:?}: {}", errors(&output));
}

/// A command that prints lines until it is killed.
pub struct Following {
    process: Process,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    said: std::sync::mpsc::Receiver<String>,
}

impl Following {
    pub fn start(endpoints: &str, args: &[&str]) -> Self {
        let mut process = Process::spawn(store(endpoints).args(args));
        let (lines, errors) = (process.output_reader().lines(), process.errors_reader());
        let (sender, said) = std::sync::mpsc::sync_channel(1024);
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                eprintln!("{line}");
                // Nobody may want to hear it any more.
                let _ = sender.try_send(line);
            }
        });
        Self { process, lines, said }
    }

    /// Waits for a line; a command that hangs is found by whoever waits for the test.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("a line before the end").expect("readable")
    }

    /// The next line on standard error that has these words.
    pub fn said(&self, words: &str) -> String {
        loop {
            let line = self.said.recv_timeout(super::PATIENCE).expect("it says something");
            if line.contains(words) {
                return line;
            }
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// A running `novacron up`; its endpoints, as it prints them. Agents have the ports from 10 above this one.
pub fn up(folder: &Path, port: u16) -> (Process, String) {
    let mut process = Process::spawn(
        novacron()
            .args(["up", "--port", &port.to_string(), "--agent-port", &(port + 10).to_string()])
            .args(["--api-port", &(port + 20).to_string(), "--data-dir"])
            .arg(folder),
    );
    let mut output = process.output_reader();
    let printed = super::after(&mut output, "ETCDCTL_API=3 ETCDCTL_ENDPOINTS=");
    swallow(output);
    pass_on(process.errors_reader());
    (process, printed)
}

/// All names of fields in a value.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        Value::Object(object) => {
            found.extend(object.keys().cloned());
            object.values().for_each(|value| fields(value, found));
        }
        _ => {}
    }
}

/// Fields that are printed are in the document.
#[track_caller]
pub fn all_documented(values: &[Value]) {
    let mut found = BTreeSet::new();
    values.iter().for_each(|value| fields(value, &mut found));
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/store-commands.md");
    let document = fs::read_to_string(document).expect("the document");
    for field in found {
        let is_there = document.contains(&format!("`{field}`")) || document.contains(&format!("\"{field}\""));
        assert!(is_there, "docs/store-commands.md does not have {field}");
    }
}
