//! Debian's etcd and etcdctl, which know nothing of us.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A busy machine takes its time.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Whether both are here; the reason, if not, is on the terminal.
pub(crate) fn programs_are_there() -> bool {
    let programs = [("etcd", "--version", "etcd-server"), ("etcdctl", "version", "etcd-client")];
    programs.into_iter().all(|(program, argument, package)| {
        let there = Command::new(program).arg(argument).env("ETCDCTL_API", "3").output().is_ok();
        if !there {
            eprintln!("SKIP: {program} is not installed (Debian's package {package})");
        }
        there
    })
}

/// Two, held at the same time so that they differ.
/// What it prints, on standard error if it fails.
pub(crate) fn etcdctl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A server on a data directory.
pub(crate) struct Etcd {
    process: Child,
    endpoint: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    pub(crate) fn start(data: &Path) -> Self {
        let ports = ports::free(2);
        let [endpoint, peer] = [0, 1].map(|n| format!("http://127.0.0.1:{}", ports[n]));
        let log = data.with_extension("log");
        let process = Command::new("etcd")
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer])
            .arg("--data-dir")
            .arg(data)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let etcd = Self { process, endpoint };
        let begin = Instant::now();
        while etcd.try_ctl(&["endpoint", "health"]).is_err() {
            let log = || std::fs::read_to_string(&log).unwrap();
            assert!(begin.elapsed() < READY_WITHIN, "etcd does not get ready: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        etcd
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        etcdctl(&[&["--endpoints", &self.endpoint, "--command-timeout", "30s"], arguments].concat())
    }

    pub(crate) fn save(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        self.ctl(&["snapshot", "save", path.to_str().unwrap()]);
        path
    }

    /// `get --prefix ""` without the header.
    pub(crate) fn served(&self) -> String {
        let text = self.ctl(&["get", "", "--prefix", "-w", "fields"]);
        let start = text.find("\"Key\"").expect("a key");
        text[start..].to_owned()
    }

    pub(crate) fn revision(&self) -> i64 {
        let text = self.ctl(&["endpoint", "status", "-w", "json"]);
        let status: Value = serde_json::from_str(&text).unwrap();
        status[0]["Status"]["header"]["revision"].as_i64().unwrap()
    }
}
