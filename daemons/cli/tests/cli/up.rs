//! `novacron up` as a whole: what it prints, a migration that it runs, its end, and another start over its data.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, Read as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::support::{
    Process, Signal, after, errors, novacron, pass_on, store::run_with, swallow, wait_until,
};

/// Of the members, whose ports are a hundred apart with one for their peers above each, and of both agents.
const MEMBER_PORTS: u16 = 202;
const AGENT_PORTS: u16 = 4;
const MEMBERS: usize = 3;
/// What the sample VM has.
const FILES: [&str; 2] = ["disk.img", "memory.bin"];

/// One that runs.
pub(crate) struct Up {
    pub(crate) process: Process,
    /// What it says on standard output: where the members are.
    pub(crate) endpoints: String,
    /// And on standard error, until both agents are up.
    said: Vec<String>,
    ports: Ports,
}

/// Where it listens.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    member: u16,
    agent: u16,
    api: u16,
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self {
            member: ports::free(MEMBER_PORTS)[0],
            agent: ports::free(AGENT_PORTS)[0],
            api: ports::free(1)[0],
        }
    }
}

impl Up {
    pub(crate) fn start(folder: &Path, ports: Ports) -> Self {
        let mut command = novacron();
        command.args(["up", "--port", &ports.member.to_string(), "--agent-port", &ports.agent.to_string()]);
        command.args(["--api-port", &ports.api.to_string(), "--data-dir"]).arg(folder);
        let mut process = Process::spawn(&mut command);
        let (mut output, mut errors) = (process.output_reader(), process.errors_reader());
        let endpoints = after(&mut output, "ETCDCTL_API=3 ETCDCTL_ENDPOINTS=");
        swallow(output);
        let mut said = Vec::new();
        while said.iter().filter(|line: &&String| line.starts_with("an agent is up")).count() < 2 {
            let mut line = String::new();
            let read = errors.read_line(&mut line).expect("readable");
            assert!(read > 0, "it ended: {said:?}");
            said.push(line.trim_end().to_owned());
        }
        pass_on(errors);
        Self { process, endpoints, said, ports }
    }

    /// Asks its API.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run_at(self.ports.api, args, &[])
    }

    /// What a command prints, if it ends well.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        printed(args, self.run(args))
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// What a command says that ends with this code.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    /// Ends it; its exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        self.process.signal(signal);
        self.process.wait()
    }
}

/// Asks the API at a port, with these variables.
pub(crate) fn run_at(port: u16, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = novacron();
    command.args(args).args(["--api", &format!("http://127.0.0.1:{port}")]).envs(env.iter().copied());
    run_with(&mut command, b"")
}

#[track_caller]
pub(crate) fn printed(args: &[&str], output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// The files of the sample VM at an agent, by their names.
fn hashes(folder: &Path, agent: &str) -> BTreeMap<PathBuf, blake3::Hash> {
    let folder = folder.join(agent).join("vms/sample");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let hash = |path: &Path| {
        let mut bytes = Vec::new();
        fs::File::open(path).expect("a file").read_to_end(&mut bytes).expect("readable");
        blake3::hash(&bytes)
    };
    let files = files.map(|file| file.expect("a file").path());
    files.map(|file| (file.file_name().expect("a name").into(), hash(&file))).collect()
}

#[test]
fn it_runs_a_migration_ends_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = Ports::new();
    let up = Up::start(folder.path(), ports);
    let member = |n: u16| format!("127.0.0.1:{}", ports.member + 100 * n);
    assert_eq!(up.endpoints, [0, 1, 2].map(member).join(","));
    let data = folder.path().display();
    let mut expected = vec![
        format!("three members are up, with their data in {data}"),
        format!("the API is up: http://127.0.0.1:{}/api/v1/vms", ports.api),
    ];
    for n in 1..=2 {
        expected.push(format!("an agent is up: novacron node --socket {data}/agent-{n}/agent.sock peers"));
    }
    let told = up.said.iter().filter(|line| expected.contains(line)).count();
    assert_eq!(told, expected.len(), "{:?}", up.said);

    assert_eq!(up.json(&["api", "members"]).as_array().expect("a list").len(), MEMBERS);
    wait_until("both agents are entered", || {
        up.json(&["api", "get", "/api/v1/nodes"])["items"].as_array().expect("a list").len() == 2
    });
    let vm = up.json(&["vm", "get", "sample"]);
    assert_eq!((&vm["node"], &vm["region"]), (&"agent-1".into(), &"region-1".into()));
    let before = hashes(folder.path(), "agent-1");
    assert_eq!(before.keys().map(|file| file.to_str().expect("text")).collect::<Vec<_>>(), FILES);

    let told = up.ok(&["migration", "start", "sample", "agent-2"]);
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with("sample from agent-1 to agent-2 done: 80"), "{told}");
    let vm = up.json(&["vm", "get", "sample"]);
    assert_eq!((&vm["node"], &vm["region"]), (&"agent-2".into(), &"region-2".into()));
    assert_eq!(
        [hashes(folder.path(), "agent-1"), hashes(folder.path(), "agent-2")],
        [before.clone(), before.clone()]
    );
    let job = up.json(&["migration", "list"])[0].clone();
    assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &1.into()));

    assert_eq!(up.end(Signal::TERM), Some(0));
    for port in
        [ports.member, ports.member + 100, ports.member + 200, ports.agent, ports.agent + 2, ports.api]
    {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens at {port} any more");
    }
    // A second start finds what was there, makes nothing anew, and can go on.
    let up = Up::start(folder.path(), ports);
    assert_eq!(up.json(&["vm", "get", "sample"]), vm);
    assert_eq!(up.json(&["migration", "get", job["id"].as_str().expect("text")]), job);
    assert_eq!(hashes(folder.path(), "agent-2"), before);
    wait_until("both agents are entered", || {
        up.json(&["api", "get", "/api/v1/nodes"])["items"].as_array().expect("a list").len() == 2
    });
    up.ok(&["migration", "start", "sample", "agent-1"]);
    assert_eq!(up.json(&["vm", "get", "sample"])["node"], "agent-1");
    assert_eq!(up.end(Signal::INT), Some(0));
}
