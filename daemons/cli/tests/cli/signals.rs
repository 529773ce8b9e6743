//! SIGTERM, SIGINT and SIGUSR1: what is under way is finished or can be resumed, and what was not done is said.

use std::{
    ffi::OsStr,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::Duration,
};

use crate::support::*;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Long enough for everything here: what ends earlier ends by itself.
const LONG: &str = "100s";

fn setup() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    (dir, from, into)
}

/// A sender whose transfer lasts for seconds, with this drain timeout.
fn slow_sender(from: &Path, to: &str, drain_timeout: &str) -> Process {
    let mut command = novacron();
    command.env("NOVACRON_DRAIN_TIMEOUT", drain_timeout).arg("send").arg(from).arg(to);
    Process::spawn(command.args(["--json", "--pacing", "10MiB", "--compression", "none"]))
}

/// Files below a folder that have appeared under their names.
fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.count())
}

fn partial_blocks(into: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(into.join(".novacron-partial")) else { return 0 };
    let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    sizes.map(|found| std::os::unix::fs::MetadataExt::blocks(&found)).sum::<u64>() * 512
}

#[test]
fn a_sender_finishes_what_is_under_way_and_says_what_it_did_not_send() {
    const FILES: usize = 40;
    for signal in [Signal::TERM, Signal::USR1, Signal::INT] {
        let (_dir, from, into) = setup();
        fs::create_dir(&from).unwrap();
        for number in 0..FILES {
            fs::write(from.join(number.to_string()), noise(2 * MIB, number as u64)).unwrap();
        }
        let receiver = Server::into(&into);
        let to = format!("{}:t", receiver.address);
        let sender = slow_sender(&from, &to, LONG);
        wait_until("a file is there", || files(&into.join("t")) > 0);
        sender.signal(signal);
        let told = report(&sender.output(), 1);
        let there = files(&into.join("t"));
        assert!(there < FILES, "{told}");
        assert_eq!(told["files_done"], there, "{told}");
        let unsent = told["unsent"]["paths"].as_array().expect("what was not sent");
        assert_eq!(unsent.len(), FILES - there, "{told}");
        for path in unsent {
            assert!(!into.join(path.as_str().expect("a path")).exists(), "{path} was not sent");
        }
        // Nothing is half there, and the rest follows.
        for entry in fs::read_dir(into.join("t")).unwrap() {
            let entry = entry.unwrap();
            assert!(fs::read(entry.path()).unwrap() == fs::read(from.join(entry.file_name())).unwrap());
        }
        let rest = report(&send_one(&from, &to), 0);
        assert_eq!((&rest["files_skipped"], &rest["unsent"]), (&there.into(), &Value::Null));
    }
}

#[test]
fn a_sender_that_has_begun_everything_is_done_when_it_is_finished() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(30 * MIB, 0)).unwrap();
    let mut receiver = Server::recv(&["--once".as_ref(), "--into".as_ref(), into.as_os_str()]);
    let sender = slow_sender(&from, &format!("{}:f", receiver.address), LONG);
    wait_until("something is there", || partial_blocks(&into) > 0);
    sender.signal(Signal::TERM);
    assert_eq!(report(&sender.output(), 0)["unsent"], Value::Null);
    assert!(fs::read(into.join("f")).unwrap() == noise(30 * MIB, 0));
    assert_eq!(receiver.process.wait(), Some(0), "for the receiver that was all");
}

#[test]
fn a_sender_stops_at_a_second_signal_or_when_its_time_is_over_and_can_be_resumed() {
    // For USR1, only the second TERM says *now*; the same for INT.
    let cases: [(&str, &[Signal]); 4] = [
        (LONG, &[Signal::TERM, Signal::TERM]),
        (LONG, &[Signal::USR1, Signal::TERM, Signal::TERM]),
        (LONG, &[Signal::INT, Signal::INT]),
        ("300ms", &[Signal::TERM]),
    ];
    for (drain_timeout, signals) in cases {
        let (_dir, from, into) = setup();
        fs::write(&from, noise(200 * MIB, 0)).unwrap();
        let receiver = Server::into(&into);
        let to = format!("{}:f", receiver.address);
        let mut sender = slow_sender(&from, &to, drain_timeout);
        wait_until("two pieces are there", || partial_blocks(&into) >= 12 * MIB);
        for (number, signal) in signals.iter().enumerate() {
            if number > 0 {
                // Two at once are one.
                thread::sleep(Duration::from_millis(300));
                assert!(sender.is_running(), "{signals:?}: it goes on after {number}");
            }
            sender.signal(*signal);
        }
        let told = report(&sender.output(), 1);
        assert_eq!(told["unsent"]["paths"], serde_json::json!(["f"]), "{signals:?}: {told}");
        assert!(!into.join("f").exists(), "{signals:?}");
        let rest = report(&send_one(&from, &to), 0);
        assert!(rest["bytes_skipped"].as_u64().unwrap() >= 4 * MIB, "{signals:?}: {rest}");
        assert!(fs::read(into.join("f")).unwrap() == noise(200 * MIB, 0));
    }
}

#[test]
fn people_are_told_what_was_not_sent() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(200 * MIB, 0)).unwrap();
    let receiver = Server::into(&into);
    let mut command = novacron();
    command.env("NOVACRON_DRAIN_TIMEOUT", "1ms").args(["send", "--pacing", "10MiB", "--compression", "none"]);
    let sender = Process::spawn(command.arg(&from).arg(format!("{}:f", receiver.address)));
    wait_until("something is there", || partial_blocks(&into) > 0);
    sender.signal(Signal::TERM);
    let output = sender.output();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("f: not sent\n") && errors.contains("stopped: "), "{errors}");
}

#[test]
fn a_sender_that_waits_for_its_connection_ends_at_once() {
    let (_dir, from, _into) = setup();
    fs::write(&from, b"x").unwrap();
    // It accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = slow_sender(&from, &silent.local_addr().unwrap().to_string(), LONG);
    let (_socket, _) = silent.accept().unwrap();
    sender.signal(Signal::TERM);
    let output = sender.output();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("before anything was sent"), "{}", errors(&output));
}

#[test]
fn a_receiver_lets_a_transfer_finish_and_takes_no_other() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(30 * MIB, 0)).unwrap();
    let mut command = novacron();
    command.env("NOVACRON_DRAIN_TIMEOUT", LONG).args(["recv", "--json", "--listen", "127.0.0.1:0", "--into"]);
    let mut receiver = Server::start(command.arg(&into));
    let to = format!("{}:f", receiver.address);
    let sender = slow_sender(&from, &to, LONG);
    wait_until("something is there", || partial_blocks(&into) > 0);
    receiver.process.signal(Signal::TERM);
    wait_until("it listens no more", || TcpStream::connect(&receiver.address).is_err());
    report(&sender.output(), 0);
    assert_eq!(receiver.process.wait(), Some(0));
    assert!(fs::read(into.join("f")).unwrap() == noise(30 * MIB, 0));
}

fn bench_client(server: &Server, flags: &str) -> Process {
    let mut command = novacron();
    command.args(["bench", "client", &server.address, "--time", "3600", "--pacing", "100MiB"]);
    Process::spawn(command.args(flags.split_whitespace()))
}

/// So long that something is measured, on most machines.
const A_WHILE: Duration = Duration::from_millis(700);

/// What a client says that gets this signal in the middle of its work.
fn interrupted(server: &Server, flags: &str, signal: Signal) -> Output {
    for times in [1, 4, 16, 64] {
        let client = bench_client(server, flags);
        thread::sleep(A_WHILE * times);
        client.signal(signal);
        let output = client.output();
        if !errors(&output).contains("before anything was measured") {
            return output;
        }
    }
    panic!("nothing is measured in a minute");
}

#[test]
fn a_bench_client_reports_what_was_measured_so_far() {
    let server = Server::bench();
    let cases = [
        ("--data random --streams 2", Signal::TERM, "bytes"),
        ("--data random --reverse --streams 2", Signal::USR1, "bytes"),
        ("--mode rtt --streams 1", Signal::INT, "messages"),
        ("--mode messages", Signal::TERM, "messages"),
    ];
    for (flags, signal, measured) in cases {
        let told = report(&interrupted(&server, &format!("--json --interval 0.2 {flags}"), signal), 1);
        let number = |field: &str| told[field].as_f64().unwrap_or_else(|| panic!("no {field} in {told}"));
        assert_eq!(told["ended_early"], true, "{flags}: {told}");
        assert!(number(measured) > 0.0 && number("seconds") < 3600.0, "{flags}: {told}");
        let rate = number("bytes") * 8.0 / number("seconds");
        assert!((number("bits_per_second") - rate).abs() <= 1e-6 * rate, "{flags}: {told}");
        assert!(told["intervals"].as_array().is_some_and(|all| !all.is_empty()), "{flags}: {told}");
    }
    let text = String::from_utf8(interrupted(&server, "", Signal::TERM).stdout).unwrap();
    assert!(text.contains("ended early") && text.contains("received "), "{text}");
}

#[test]
fn a_bench_server_lets_its_client_finish_and_takes_no_other() {
    let mut server = Server::bench();
    let mut command = novacron();
    command.args(["bench", "client", &server.address, "--json", "--time", "2", "--pacing", "100MiB"]);
    let client = Process::spawn(&mut command);
    thread::sleep(A_WHILE);
    server.process.signal(Signal::TERM);
    let told = report(&client.output(), 0);
    assert!(told["bytes"].as_f64().is_some_and(|bytes| bytes > 0.0), "{told}");
    assert_eq!(server.process.wait(), Some(0));

    // Without a client it has nothing to wait for; with one, a second signal ends it.
    let mut idle = Server::bench();
    idle.process.signal(Signal::USR1);
    assert_eq!(idle.process.wait(), Some(0));
    let mut busy = Server::bench();
    let mut client = bench_client(&busy, "");
    thread::sleep(A_WHILE);
    busy.process.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    assert!(busy.process.is_running(), "it waits for its client");
    busy.process.signal(Signal::TERM);
    assert_eq!(busy.process.wait(), Some(0));
    assert_eq!(client.wait(), Some(1), "its server is gone");
}

#[test]
fn a_bench_client_that_cannot_end_stops_at_a_second_signal() {
    let server = Server::bench();
    let client = bench_client(&server, "--json");
    thread::sleep(A_WHILE);
    // A server that does not answer any more.
    server.process.signal(Signal::STOP);
    client.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    client.signal(Signal::TERM);
    let output = client.output();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("before there was a result"), "{}", errors(&output));
}

#[test]
fn before_there_is_work_a_signal_ends_a_receiver() {
    let (_dir, _from, into) = setup();
    for signal in [Signal::TERM, Signal::INT, Signal::USR1] {
        let mut receiver = Server::recv(&[OsStr::new("--into"), into.as_os_str()]);
        receiver.process.signal(signal);
        assert_eq!(receiver.process.wait(), Some(0), "{signal:?}");
    }
}
