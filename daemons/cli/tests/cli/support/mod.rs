//! The real command in processes of its own.
#![allow(dead_code, unreachable_pub)]

pub mod store;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;

/// Longest that anything may take; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between looks at something that takes time.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The command, without what the environment of the tests says.
pub fn novacron() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_novacron"));
    clean(&mut command);
    command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Takes our variables, and etcdctl's, out of the environment of a command.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"NOVACRON_") || bytes.starts_with(b"ETCDCTL_") {
            command.env_remove(name);
        }
    }
}

/// Another program of the workspace; says so if there is none.
pub fn beside(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_novacron")).with_file_name(name);
    if program.is_file() {
        return Some(program);
    }
    println!("SKIP: no {} (cargo build --workspace --bins makes it)", program.display());
    None
}

/// A running command, killed when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("it starts"))
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).expect("a signal");
    }

    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a state").is_none()
    }

    /// Its exit code; none if a signal has ended it.
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("it ends", || !self.is_running());
        self.0.wait().expect("it ended").code()
    }

    /// What it said, once it has ended. One that says more than a pipe holds must be read meanwhile.
    pub fn output(mut self) -> Output {
        self.wait();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.0.wait().expect("it ended");
        if let Some(mut said) = self.0.stdout.take() {
            said.read_to_end(&mut stdout).expect("readable");
        }
        if let Some(mut said) = self.0.stderr.take() {
            said.read_to_end(&mut stderr).expect("readable");
        }
        Output { status, stdout, stderr }
    }

    pub fn output_reader(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("piped"))
    }

    pub fn errors_reader(&mut self) -> BufReader<ChildStderr> {
        BufReader::new(self.0.stderr.take().expect("piped"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that listens.
pub struct Server {
    pub process: Process,
    pub address: String,
}

impl Server {
    /// `novacron recv` with these further arguments.
    pub fn recv(args: &[&OsStr]) -> Self {
        Self::recv_at("127.0.0.1:0", args)
    }

    pub fn recv_at(listen: &str, args: &[&OsStr]) -> Self {
        Self::start(novacron().args(["recv", "--listen", listen, "--json"]).args(args))
    }

    /// Receives into this folder.
    pub fn into(folder: &Path) -> Self {
        Self::recv(&[OsStr::new("--into"), folder.as_os_str()])
    }

    /// One that says on standard error where it listens; what else it says there is passed on.
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::spawn(command);
        let mut errors = process.errors_reader();
        let address = after(&mut errors, LISTENING);
        pass_on(errors);
        Self { process, address }
    }

    pub fn bench() -> Self {
        let mut process = Process::spawn(novacron().args(["bench", "server", "--listen", "127.0.0.1:0"]));
        let mut output = process.output_reader();
        let address = after(&mut output, LISTENING);
        swallow(output);
        pass_on(process.errors_reader());
        Self { process, address }
    }
}

/// Before the address that a command listens on.
pub const LISTENING: &str = "listening on ";

/// The rest of the next line, which begins so.
pub fn after(from: &mut impl BufRead, beginning: &str) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    let rest = line.trim_end().strip_prefix(beginning);
    rest.unwrap_or_else(|| panic!("{line:?}, not {beginning:?}")).to_owned()
}

/// What a command says must not fill its pipe.
pub fn swallow(mut from: impl Read + Send + 'static) {
    thread::spawn(move || std::io::copy(&mut from, &mut std::io::sink()));
}

pub fn pass_on(mut from: impl Read + Send + 'static) {
    thread::spawn(move || std::io::copy(&mut from, &mut std::io::stderr()));
}

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}

/// `novacron send --json` with these arguments.
pub fn send(args: &[&OsStr]) -> Output {
    novacron().arg("send").arg("--json").args(args).output().expect("the sender runs")
}

pub fn send_one(from: &Path, to: &str) -> Output {
    send(&[from.as_os_str(), OsStr::new(to)])
}

/// The report of a command that ended with this code.
#[track_caller]
pub fn report(output: &Output, code: i32) -> serde_json::Value {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {errors}"))
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that do not repeat.
pub fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
