//! Starts members, talks to them, and ends them with the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// etcd's word for "I serve clients", which this prints too.
pub(crate) const READY: &str = "ready to serve client requests";
/// For whatever has to happen soon, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_novacron-consensus"));
    // Settings of whoever runs the test are not those of the test.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("NOVACRON_") || name.starts_with("ETCD_"))
    {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs to its end.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = program().args(args).output().unwrap();
    (output.status.code(), text(&output))
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Whether a program that the test needs is there; says so if not.
pub(crate) fn is_there(name: &str) -> bool {
    let there = Command::new(name).arg("--help").output().is_ok();
    if !there {
        eprintln!("SKIP: {name} is not installed");
    }
    there
}

/// One running member.
pub(crate) struct Member {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Member {
    pub(crate) fn spawn(args: &[String]) -> Self {
        let mut command = program();
        command.args(args);
        Self::spawn_as(command)
    }

    pub(crate) fn spawn_as(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn wait_for_line(&self, words: &str) {
        wait_until(&format!("{words:?} in the log"), || self.log().contains(words).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its exit code, once it has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_until("the end of the member", || self.child.try_wait().unwrap()).code()
    }
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

/// A cluster on loopback.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) clients: Vec<u16>,
    pub(crate) metrics: Vec<u16>,
    /// How each is started.
    args: Vec<Vec<String>>,
    _folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// `more`: further flags of each member.
    pub(crate) fn start(count: usize, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders: Vec<_> = (0..count).map(|n| folder.path().join(format!("m{n}"))).collect();
        let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
        Self { _folder: Some(folder), ..Self::start_in(&folders, more) }
    }

    /// Members with their data in these folders.
    pub(crate) fn start_in(folders: &[&Path], more: &[&str]) -> Self {
        let ports = ports::free(3 * folders.len() as u16);
        let (clients, rest) = ports.split_at(folders.len());
        let (peers, metrics) = rest.split_at(folders.len());
        let list: Vec<_> =
            peers.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}")).collect();
        let args = |(n, folder): (usize, &&Path)| {
            let mut args = vec![
                format!("--name=m{n}"),
                format!("--data-dir={}", folder.display()),
                format!("--listen-client-urls=http://127.0.0.1:{}", clients[n]),
                format!("--listen-peer-urls=http://127.0.0.1:{}", peers[n]),
                format!("--initial-cluster={}", list.join(",")),
                format!("--metrics-listen=127.0.0.1:{}", metrics[n]),
            ];
            args.extend(more.iter().map(|arg| (*arg).to_owned()));
            args
        };
        let args: Vec<_> = folders.iter().enumerate().map(args).collect();
        let members: Vec<_> = args.iter().map(|args| Member::spawn(args)).collect();
        members.iter().for_each(|member| member.wait_for_line(READY));
        Self { members, clients: clients.to_vec(), metrics: metrics.to_vec(), args, _folder: None }
    }

    /// Starts a member again that has ended.
    pub(crate) fn restart(&mut self, n: usize) {
        self.members[n] = Member::spawn(&self.args[n]);
        self.members[n].wait_for_line(READY);
    }

    pub(crate) fn status(&self, n: usize) -> serde_json::Value {
        let (code, body) = get(self.metrics[n], "/status");
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// The member that all know as leader.
    pub(crate) fn leader(&self) -> usize {
        wait_until("leader", || {
            (0..self.members.len()).find(|n| self.status(*n)["member"]["role"] == "leader")
        })
    }
}

/// Status and body of `http://127.0.0.1:PORT/PATH`, with nothing but a socket.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    (code, body.to_owned())
}

/// etcdctl with these flags: whether it succeeded, and what it said.
pub(crate) fn etcdctl(args: &[&str]) -> (bool, String) {
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(args).output().unwrap();
    (output.status.success(), text(&output))
}

pub(crate) fn path(path: &Path) -> String {
    path.display().to_string()
}
