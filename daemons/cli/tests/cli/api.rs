//! `novacron api|vm` against an API with a login.

use std::{fs, net::TcpStream, process::Stdio};

use crate::{
    support::{Process, beside, clean, errors, pass_on, wait_until},
    up::{Ports, Up, printed, run_at},
};

/// The lines of a table behind its head, without the blanks between columns.
fn rows(table: &str) -> Vec<String> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn who_asks_logs_in_with_a_token() {
    let Some(program) = beside("novacron-api") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::start(&folder.path().join("up"), Ports::new());
    let port = ports::free(1)[0];
    let members: Vec<_> = up.endpoints.split(',').map(|member| format!("http://{member}")).collect();
    let mut command = std::process::Command::new(program);
    clean(&mut command);
    command.env("RUST_LOG", "warn").args([
        "--auth-tokens",
        "true",
        "--metrics-listen",
        "off",
        "--replica",
        "b",
    ]);
    command.args(["--store-endpoints", &members.join(","), "--data-dir"]).arg(folder.path().join("api"));
    let first = command.args(["--create-token", "first"]).output().expect("it runs");
    let first = printed(&["--create-token"], first);
    let args: Vec<_> =
        command.get_args().take_while(|arg| *arg != "--create-token").map(ToOwned::to_owned).collect();
    let mut serving = std::process::Command::new(command.get_program());
    clean(&mut serving);
    serving.env("RUST_LOG", "warn").args(args).args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut process =
        Process::spawn(serving.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
    pass_on(process.errors_reader());
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let file = folder.path().join("token");
    fs::write(&file, &first).expect("written");
    let file = file.to_str().expect("text");
    let ask = |args: &[&str]| printed(args, run_at(port, &[args, &["--token-file", file]].concat(), &[]));
    let output = run_at(port, &["vm", "list"], &[]);
    assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
    assert!(errors(&output).contains("--token-file, NOVACRON_API_TOKEN"), "{}", errors(&output));
    // A token of another's, which may do less.
    let token = ask(&["api", "create-token", "desk", "viewer@region-1", "--days", "1"]);
    let token = token.trim();
    let limited = |args: &[&str]| run_at(port, args, &[("NOVACRON_API_TOKEN", token)]);
    assert!(rows(&printed(&[], limited(&["vm", "list"])))[0].starts_with("sample region-1"));
    let refused = limited(&["vm", "remove", "sample"]);
    assert_eq!(refused.status.code(), Some(4), "{}", errors(&refused));
    let listed = rows(&ask(&["api", "tokens"]));
    let desk = listed.iter().find(|line| line.ends_with("desk viewer@region-1")).expect("it is listed");
    ask(&["api", "revoke-token", desk.split(' ').next().expect("an id")]);
    assert_eq!(limited(&["vm", "list"]).status.code(), Some(4));
    // It is nothing that the API could be asked for.
    let wrong = run_at(port, &["api", "create-token", "x", "viewer"], &[]);
    assert!(
        wrong.status.code() == Some(2) && errors(&wrong).contains("expected ROLE@REGION"),
        "{}",
        errors(&wrong)
    );
}
