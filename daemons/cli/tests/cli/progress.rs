//! What a transfer shows while it runs.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use crate::support::*;

const LEN: u64 = 100_000_000;

/// Sends a file at 40 MiB a second and returns what was shown.
fn shown(progress: &str) -> String {
    let (_dir, from, receiver) = setup();
    let output = novacron().args(args(progress, &from, &receiver.address)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    errors(&output)
}

fn setup() -> (tempfile::TempDir, std::path::PathBuf, Server) {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("f"), dir.path().join("into"));
    fs::write(&from, noise(LEN, 1)).unwrap();
    fs::create_dir(&into).unwrap();
    let receiver = Server::into(&into);
    (dir, from, receiver)
}

fn args<'a>(progress: &'a str, from: &'a Path, to: &'a str) -> [&'a OsStr; 7] {
    ["send", "--pacing", "40 MiB", "--progress", progress]
        .map(OsStr::new)
        .into_iter()
        .chain([from.as_os_str(), to.as_ref()])
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

#[test]
fn lines_come_while_it_runs_and_at_the_end() {
    let shown = shown("plain");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() >= 2, "{shown}");
    for line in &lines {
        for part in [" of ", " moved in ", "/s, ratio ", " links), "] {
            assert!(line.contains(part), "{part:?} in {line:?}");
        }
    }
    assert!(lines[lines.len() - 1].starts_with("done: "), "{shown}");
}

#[test]
fn json_lines_grow() {
    let shown = shown("json");
    let mut done = 0;
    let mut count = 0;
    for line in shown.lines().filter(|line| line.starts_with('{')) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let now = line["bytes_done"].as_u64().unwrap();
        assert!(done <= now && now <= LEN, "{line}");
        (done, count) = (now, count + 1);
    }
    assert!(count >= 2, "{shown}");
}

#[test]
fn none_says_nothing() {
    assert_eq!(shown("none"), "");
}

#[test]
fn a_terminal_gets_a_bar() {
    let (_dir, from, receiver) = setup();
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap());
    let words = [OsStr::new(env!("CARGO_BIN_EXE_novacron"))].into_iter().chain(args(
        "auto",
        &from,
        &receiver.address,
    ));
    let command = words.map(quoted).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script");
    clean(&mut terminal);
    let output = terminal.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").output();
    let Ok(output) = output else { panic!("script(1), an essential package of Debian, is missing") };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for part in ["[", "=", "/s", " links ", "ETA "] {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    assert!(shown.contains("done: "), "{shown:?}");
}
