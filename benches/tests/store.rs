//! The loads of the store's bench have something to tell of both kinds of members. Not those that end members: they take
//! minutes, of waiting.

use std::{path::PathBuf, process::Command};

const BENCH: &str = env!("CARGO_BIN_EXE_consensus-bench");

/// The daemon that the same build has made; this package cannot depend on it.
fn novacron_consensus() -> Option<PathBuf> {
    let program = PathBuf::from(BENCH).with_file_name("novacron-consensus");
    if !program.is_file() {
        eprintln!("SKIP: {} is not built (cargo build --release --workspace --bins)", program.display());
        return None;
    }
    Some(program)
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIP: {program} is not installed (Debian's package etcd-server)");
    }
    there
}

#[test]
fn steady_loads_measure_both() {
    let Some(program) = novacron_consensus() else { return };
    if !is_there("etcd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(BENCH)
        .args(["--quick", "--only=put,memory,read,mixed,txn,watch"])
        .args(["--time=0.2", "--puts=2000", "--clients=4", "--readers=4", "--watchers=10"])
        .arg("--consensus")
        .arg(program)
        .arg("--folder")
        .arg(folder.path())
        .output()
        .unwrap();
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
    assert!(!said.contains("failed:"), "{said}");
    let cases = [
        "4 clients",
        "2000 puts of 4 clients",
        "linearizable, 4 clients",
        "serializable, 4 clients",
        "10 watchers",
    ];
    for case in cases {
        for contender in ["**novacron**", "etcd "] {
            let row = told.lines().find(|line| line.starts_with(&format!("| {case} | {contender}")));
            let row = row.unwrap_or_else(|| panic!("no {case} of {contender}: {told}"));
            assert!(!row.contains(" NaN |"), "{row}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left behind");
}
