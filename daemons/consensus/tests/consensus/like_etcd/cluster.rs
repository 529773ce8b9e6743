//! Three members and one that is alone, of either kind, and etcdctl.

use std::{
    io::{Read, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::like_etcd::script;

/// Members of the cluster, and one that may join it.
const MEMBERS: usize = 4;
/// Where the one that is alone is.
const ALONE: usize = MEMBERS;
/// A command that takes longer does not end.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is printed beyond what is waited for.
const REST: Duration = Duration::from_millis(300);

/// Exit code, standard output and standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

/// Either etcd's or ours.
pub(crate) struct Side {
    program: &'static str,
    folder: tempfile::TempDir,
    /// (client, peer) of each member.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
    /// What differs between the sides, and what it is called in the script.
    names: Vec<(String, String)>,
}

impl Drop for Side {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

impl Side {
    pub(crate) fn start(program: &'static str) -> Self {
        let ports = ports::free(2 * (MEMBERS as u16 + 1)).chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut side = Self { program, folder, ports, members: Vec::new(), names: Vec::new() };
        side.members.resize_with(MEMBERS + 1, || None);
        [0, 1, 2, ALONE].into_iter().for_each(|n| side.spawn(n));
        [0, 1, 2, ALONE].into_iter().for_each(|n| side.wait_for(n));
        side.learn();
        side.lead();
        side
    }

    fn client(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.ports[n].0)
    }

    fn peer_url(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[n].1)
    }

    /// Both take the same flags.
    fn spawn(&mut self, n: usize) {
        let first = match n {
            ALONE => vec![ALONE],
            3 => vec![0, 1, 2, 3],
            _ => vec![0, 1, 2],
        };
        let list: Vec<_> = first.iter().map(|n| format!("m{n}={}", self.peer_url(*n))).collect();
        let clients = format!("http://{}", self.client(n));
        let state = if n == 3 { "existing" } else { "new" };
        let member = Command::new(self.program)
            .args(["--name", &format!("m{n}"), "--initial-cluster", &list.join(",")])
            .args(["--initial-cluster-state", state, "--bcrypt-cost", "4"])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &self.peer_url(n)])
            .args(["--initial-advertise-peer-urls", &self.peer_url(n)])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{n}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.members[n] = Some(member.unwrap());
    }

    fn wait_for(&self, n: usize) {
        let until = Instant::now() + PATIENCE;
        let get = ["get", "x", "--consistency=s"];
        while TcpStream::connect(self.client(n)).is_err() || self.ctl(&self.client(n), &get).code != Some(0) {
            assert!(Instant::now() < until, "{} m{n} does not serve", self.program);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn start_member(&mut self, n: usize) {
        self.spawn(n);
        self.wait_for(n);
    }

    pub(crate) fn kill(&mut self, n: usize) {
        let mut member = self.members[n].take().unwrap();
        member.kill().unwrap();
        member.wait().unwrap();
    }

    fn json(&self, at: &str, args: &[&str]) -> serde_json::Value {
        let args = [args, &["-w", "json"]].concat();
        let outcome = self.ctl(at, &args);
        assert_eq!(outcome.code, Some(0), "etcdctl {args:?}: {outcome:?}");
        // As text: numbers of 64 bits are not what JSON is good at, but serde is.
        serde_json::from_slice(&outcome.out).unwrap()
    }

    /// Who is who: ids of members and clusters.
    pub(crate) fn learn(&mut self) {
        let mut names = Vec::new();
        for (at, cluster) in [(0, "CLUSTER"), (ALONE, "ALONE_CLUSTER")] {
            let list = self.json(&self.client(at), &["member", "list"]);
            let id = list["header"]["cluster_id"].as_u64().unwrap();
            names.extend(id_names(id, cluster));
            for member in list["members"].as_array().unwrap() {
                let url = member["peerURLs"][0].as_str().unwrap();
                let Some(n) = (0..=ALONE).find(|n| url.ends_with(&format!(":{}", self.ports[*n].1))) else {
                    continue; // it was moved elsewhere
                };
                names.extend(id_names(member["ID"].as_u64().unwrap(), &format!("MEMBER{n}")));
            }
        }
        for n in 0..=ALONE {
            names.push((self.client(n), format!("CLIENT{n}")));
            names.push((format!("127.0.0.1:{}", self.ports[n].1), format!("PEER{n}")));
        }
        names.push((self.folder.path().display().to_string(), "FOLDER".to_owned()));
        for known in names {
            if !self.names.contains(&known) {
                self.names.push(known);
            }
        }
    }

    /// Has the first member lead.
    fn lead(&self) {
        let id = self.names.iter().find(|(_, name)| name == "MEMBER0").unwrap().0.clone();
        let until = Instant::now() + PATIENCE;
        loop {
            // Only the leader does it, and it may just have changed.
            (0..3).for_each(|n| drop(self.ctl(&self.client(n), &["move-leader", &id])));
            let status = &self.json(&self.client(0), &["endpoint", "status"])[0]["Status"];
            if status["leader"] == status["header"]["member_id"] {
                return;
            }
            assert!(Instant::now() < until, "the first member does not lead: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The names of the script in place of this side's own.
    pub(crate) fn named(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for (own, name) in &self.names {
            out = replace(&out, own.as_bytes(), name.as_bytes());
        }
        out
    }

    /// The reverse, for `$NAME` in a command.
    fn own(&self, arg: &str) -> String {
        let mut arg = arg.to_owned();
        for (own, name) in self.names.iter().rev() {
            arg = arg.replace(&format!("${name}"), own);
        }
        arg
    }

    /// Remembers the lease that a command has granted.
    pub(crate) fn learn_lease(&mut self, outcome: &Outcome, name: &str) {
        let text = String::from_utf8_lossy(&outcome.out);
        let id = text.split_whitespace().nth(1).and_then(|id| u64::from_str_radix(id, 16).ok());
        self.names.extend(id_names(id.unwrap_or_else(|| panic!("no lease: {text}")), name));
    }

    fn endpoints(&self, at: &str) -> String {
        match at {
            "all" => [0, 1, 2].map(|n| self.client(n)).join(","),
            "alone" => self.client(ALONE),
            n => self.client(n.parse().unwrap_or_else(|_| panic!("{n}: no member"))),
        }
    }

    fn ctl(&self, at: &str, args: &[&str]) -> Outcome {
        Running::new(at, args.iter().map(|arg| (*arg).to_owned()), Vec::new()).end(None)
    }

    pub(crate) fn run(&self, command: &script::Command) -> Running {
        let args = command.args.iter().map(|arg| self.own(arg));
        let input = self.own(&String::from_utf8_lossy(&command.input)).into_bytes();
        Running::new(&self.endpoints(command.at), args, input)
    }
}

/// An id as it is shown, in hexadecimal and in decimal.
fn id_names(id: u64, name: &str) -> [(String, String); 3] {
    let hexadecimal = [format!("{id:016x}"), format!("{id:x}")].map(|id| (id, name.to_owned()));
    let [padded, short] = hexadecimal;
    [padded, short, (id.to_string(), format!("{name}_DECIMAL"))]
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A command of etcdctl that was not waited for.
pub(crate) struct Running {
    child: Child,
    /// Its standard input ends when this is dropped.
    input: Option<mpsc::SyncSender<()>>,
    out: Reader,
    err: Reader,
}

struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = source.read(&mut piece) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..read]);
            }
        });
        Self { bytes, thread }
    }

    fn lines(&self) -> usize {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.iter().filter(|byte| **byte == b'\n').count()
    }

    fn end(self) -> Vec<u8> {
        self.thread.join().unwrap();
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Running {
    fn new(endpoints: &str, args: impl Iterator<Item = String>, bytes: Vec<u8>) -> Self {
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoints])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (keep, kept) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            // It need not read it.
            let _ = stdin.write_all(&bytes);
            let _ = kept.recv();
        });
        let out = Reader::start(child.stdout.take().unwrap());
        let err = Reader::start(child.stderr.take().unwrap());
        Self { child, input: Some(keep), out, err }
    }

    /// Waits until the command ends or has printed so many lines; then it is interrupted. Its input ends before that only if it is
    /// not waited for lines: `watch -i` ends with it, whatever is on its way to it.
    pub(crate) fn end(mut self, lines: Option<usize>) -> Outcome {
        if lines.is_none() {
            self.input = None;
        }
        let until = Instant::now() + PATIENCE;
        let mut status = None;
        while status.is_none() && Instant::now() < until && lines.is_none_or(|lines| self.out.lines() < lines)
        {
            std::thread::sleep(Duration::from_millis(5));
            status = self.child.try_wait().unwrap();
        }
        let code = match status {
            Some(status) => status.code(),
            None => self.interrupt().code(),
        };
        let own = |bytes: Vec<u8>| {
            // The client's own log lines: how often it tried again is chance.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            lines.filter(|line| !line.starts_with(b"{\"level\"")).flatten().copied().collect()
        };
        Outcome { code, out: own(self.out.end()), err: own(self.err.end()) }
    }

    /// What it does not print for a while, it does not print.
    fn interrupt(&mut self) -> ExitStatus {
        std::thread::sleep(REST);
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > until {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
