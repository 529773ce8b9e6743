//! Judges from outside, against this binary: etcd's own end-to-end tests, and client libraries used as they document it.
//!
//! The judges are not here: `scripts/etcd-e2e.sh` and `tests/clients`. They are a program of their own, one after the other:
//! etcd's tests have 15 s each, and a client is compiled the first time.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[path = "consensus/daemon/process.rs"]
#[allow(dead_code)]
mod process;

use process::{Cluster, is_there, text};

/// The Python client, and the last versions of what it uses that it works with.
const PYTHON_CLIENT: [&str; 3] = ["etcd3==0.12.0", "protobuf==3.20.3", "tenacity==6.3.1"];

/// For a test, while no other one runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Its output; it must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

#[test]
fn etcds_own_tests_pass() {
    let _alone = alone();
    let binary = Path::new(env!("CARGO_BIN_EXE_novacron-consensus"));
    let said =
        run(Command::new(root().join("scripts/etcd-e2e.sh")).arg("--quick").arg(binary.parent().unwrap()));
    match said.lines().find(|line| line.starts_with("SKIP: ")) {
        Some(skip) => println!("{skip}"),
        None => assert!(said.contains("etcd's end-to-end tests: "), "{said}"),
    }
}

#[test]
fn the_crate_etcd_client_works() {
    let _alone = alone();
    if !is_there("protoc") {
        return;
    }
    let folder = root().join("tests/clients");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    run(Command::new(env!("CARGO"))
        .args(["build", "--locked", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target));
    let cluster = Cluster::start(3, &[]);
    let endpoints = cluster.clients.iter().map(|port| format!("127.0.0.1:{port}"));
    run(Command::new(target.join("debug/store-clients")).args(endpoints));
}

/// A folder with the Python client in it, or why there is none.
fn python() -> Result<PathBuf, String> {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cache")));
    let folder = cache.map_err(|_| "there is no cache folder")?.join("novacron-dwcp/python-etcd3-0.12.0");
    let is_complete = || {
        let found = Command::new(folder.join("bin/python")).args(["-c", "import etcd3"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    if !is_complete() {
        let _ = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
        let installed =
            Command::new(folder.join("bin/pip")).args(["install", "-q"]).args(PYTHON_CLIENT).output();
        if !is_complete() {
            let said = installed.map_or_else(|error| error.to_string(), |output| text(&output));
            let last = said.lines().last().unwrap_or_default();
            return Err(format!("pip does not install the Python client etcd3: {last}"));
        }
    }
    Ok(folder)
}

#[test]
fn the_python_client_etcd3_works() {
    let _alone = alone();
    let folder = match python() {
        Ok(folder) => folder,
        Err(why) => return println!("SKIP: {why}"),
    };
    let cluster = Cluster::start(3, &[]);
    let ports = cluster.clients.iter().map(u16::to_string);
    let program = root().join("tests/clients/etcd3_client.py");
    run(Command::new(folder.join("bin/python")).arg(program).args(ports));
}
