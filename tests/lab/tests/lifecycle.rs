//! A lab leaves nothing behind, however it ends, and two never meet.

use dwcp_lab::{Lab, Scenario, Side, unavailable};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: a starting lab sweeps what a killed one left, which the next test may be looking for.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if let Some(reason) = unavailable() {
        eprintln!("SKIP: {reason}");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn lab_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwcp-lab"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    lab_command(args).output().unwrap()
}

/// Processes whose network namespace is `namespace`, as `/proc/PID/ns/net` names it.
fn inhabitants(namespace: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let links = processes.filter_map(|process| std::fs::read_link(process.path().join("ns/net")).ok());
    links.filter(|link| link.as_os_str() == namespace).count()
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A lab on the command line whose command names its namespace, and leaves a grandchild in a session of its own.
fn start_with_grandchild() -> (Child, String) {
    let script = "setsid sleep 300 & readlink /proc/self/ns/net; exec sleep 300";
    let mut lab = lab_command(&["run", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut namespace = String::new();
    BufReader::new(lab.stdout.take().unwrap()).read_line(&mut namespace).unwrap();
    let namespace = namespace.trim().to_owned();
    assert!(namespace.starts_with("net:["), "{namespace}");
    eventually("both sleep", || inhabitants(&namespace) == 2);
    (lab, namespace)
}

fn signal(process: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.id() as i32), signal).unwrap();
}

#[test]
fn sigterm_and_sigint_end_everything() {
    let Some(_turn) = turn() else { return };
    for (sent, code) in [(nix::sys::signal::SIGTERM, 143), (nix::sys::signal::SIGINT, 130)] {
        let (mut lab, namespace) = start_with_grandchild();
        signal(&lab, sent);
        assert_eq!(lab.wait().unwrap().code(), Some(code));
        eventually("the namespace is empty", || inhabitants(&namespace) == 0);
    }
}

#[test]
fn what_a_killed_lab_leaves_the_next_one_sweeps() {
    let Some(_turn) = turn() else { return };
    let (mut lab, namespace) = start_with_grandchild();
    signal(&lab, nix::sys::signal::SIGKILL);
    assert_eq!(lab.wait().unwrap().signal(), Some(9));
    eventually("the command died with its lab", || inhabitants(&namespace) <= 1);
    assert!(run(&["run", "--", "true"]).status.success());
    eventually("the grandchild was swept", || inhabitants(&namespace) == 0);
}

#[test]
fn a_panic_takes_the_lab_down() {
    let Some(_turn) = turn() else { return };
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let panicked = std::thread::spawn(move || {
        let lab = Lab::new(&Scenario::clean("panic", 10.0, 10.0)).unwrap();
        let mut command = lab.command(Side::B, "sleep");
        command.arg("300");
        let mut running = lab.spawn(command).unwrap();
        let link = std::fs::read_link(format!("/proc/{}/ns/net", running.child().id())).unwrap();
        tell.send(link.to_str().unwrap().to_owned()).unwrap();
        assert_eq!(lab.scratch().ok().map(|path| path.exists()), Some(true));
        panic!("on purpose");
    });
    let namespace = told.recv().unwrap();
    assert!(panicked.join().is_err());
    eventually("the namespace is empty", || inhabitants(&namespace) == 0);
    let prefix = format!("dwcp-lab-{}-", std::process::id());
    let left = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn labs_side_by_side_do_not_meet() {
    let Some(_turn) = turn() else { return };
    let labs =
        [1, 2, 3].map(|seed| Lab::new(&Scenario { seed, ..Scenario::clean("side", 10.0, 10.0) }).unwrap());
    let sockets = labs.each_ref().map(|lab| {
        let bind = |side: Side| lab.enter(side, || UdpSocket::bind((side.ipv4(), 7000))).unwrap();
        (bind(Side::A), bind(Side::B))
    });
    for (number, (a, _)) in sockets.iter().enumerate() {
        a.send_to(&[number as u8], (Side::B.ipv4(), 7000)).unwrap();
    }
    for (number, (_, b)) in sockets.iter().enumerate() {
        let mut byte = [0; 2];
        b.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        assert_eq!(b.recv(&mut byte).unwrap(), 1);
        assert_eq!(usize::from(byte[0]), number);
        b.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(b.recv(&mut byte).is_err(), "and nothing from the others");
    }
}

#[test]
fn the_server_is_up_before_the_client_and_the_exit_code_is_the_clients() {
    let Some(_turn) = turn() else { return };
    if Command::new("iperf3").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIP: no iperf3");
        return;
    }
    let client = ["run", "--rate", "50", "--rtt", "10", "--", "iperf3", "-c", "2001:db8::2", "-n", "1M"];
    let output = run(&[&client[..], &[":::", "iperf3", "-s"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("A>B: ") && stderr.contains("emulator: late p99"), "{stderr}");
    assert_eq!(run(&["run", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn mistakes_are_named() {
    let Some(_turn) = turn() else { return };
    let cases: [(&[&str], i32, &str); 7] = [
        (&["run", "--scenario", "nope", "--", "true"], 125, "rtt80-loss0.1"),
        (&["run", "--loss", "100", "--", "true"], 125, "less than 100 %"),
        (&["run", "--", "dwcp-no-such-program"], 125, "dwcp-no-such-program"),
        (&["run", "--", ":::", "true"], 125, "no command for side A"),
        (&["run", "--outage", "5", "--", "true"], 2, "colon"),
        (&["compare", "--contenders", "scp"], 2, "unknown contender"),
        (&["run"], 2, "COMMAND_A"),
    ];
    for (args, code, message) in cases {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}

#[test]
fn a_comparison_skips_who_is_missing_and_reports_the_rest() {
    let Some(_turn) = turn() else { return };
    let json = std::env::temp_dir().join(format!("dwcp-lab-test-{}.json", std::process::id()));
    let path = json.to_str().unwrap();
    let args = [
        "compare",
        "--scenario",
        "rtt30-loss0.1",
        "--rate",
        "50",
        "--runs",
        "2",
        "--time",
        "2",
        "--json",
        path,
    ];
    let output = run(&[&args[..], &["--contenders", "iperf3-bbr1,rsync,novacron"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("novacron: skipped: --novacron PATH not given"), "{stdout}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    let contenders = report["scenarios"][0]["contenders"].as_array().unwrap();
    assert_eq!(contenders.len(), 3);
    for contender in contenders.iter().filter(|contender| contender["skipped"].is_null()) {
        let runs = contender["runs"].as_array().unwrap();
        assert_eq!([&runs[0]["seed"], &runs[1]["seed"]], [1, 2], "every contender meets the same seeds");
        for run in runs.iter().filter(|run| run["error"].is_null()) {
            // What is claimed to have arrived has crossed the link.
            let carried = run["link"]["a_to_b"]["delivered_bytes"].as_f64().unwrap();
            let claimed = run["goodput_mbit"].as_f64().unwrap() * 1e6 / 8.0 * 2.0;
            // On a busy machine two seconds may pass before the first data.
            let nothing_yet = carried < 100_000.0;
            assert!((claimed > 0.0 || nothing_yet) && claimed <= carried, "{contender}");
        }
        // The program may be absent here, but then it is skipped and not failed.
        assert!(runs.iter().all(|run| run["error"].is_null()), "{contender}");
    }
    assert!(contenders[2]["median_mbit"].is_null());
}
