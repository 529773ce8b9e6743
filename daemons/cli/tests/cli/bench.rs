//! `novacron bench` between two processes: every mode, and what a client must not be able to ask for.

use std::process::{Command, Output};

use crate::support::*;
use serde_json::Value;

fn client(server: &Server, flags: &str) -> Output {
    // One that hangs fails.
    let mut command = Command::new("timeout");
    command
        .args(["120", env!("CARGO_BIN_EXE_novacron"), "bench", "client", &server.address])
        .args(flags.split_whitespace());
    clean(&mut command);
    command.output().expect("the client runs")
}

fn measured(server: &Server, flags: &str) -> Value {
    let output = client(server, &format!("--json --time 1 --interval 0.2 {flags}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags}: {}: {error}", output.status);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

#[test]
fn every_mode_gives_its_figures() {
    let server = Server::bench();
    for flags in [
        "--data zeros --compression none",
        "--data random --links 4 --streams 3",
        "--data vm --compression zstd --level 1",
        "--data text --compression lz4 --size 100KiB",
        "--data random --reverse --streams 2",
    ] {
        let report = measured(&server, flags);
        assert!(number(&report, "bytes") > 0.0, "{flags}: {report}");
        // What arrived within the time; the rest of the bytes came later.
        let in_time = number(&report, "bits_per_second") / 8.0; // of one second
        assert!(0.0 < in_time && in_time < number(&report, "bytes") + 1.0, "{flags}: {report}");
        assert!(report["links"].as_array().is_some_and(|links| !links.is_empty()), "{flags}: {report}");
        assert!(report["intervals"].as_array().is_some_and(|i| i.len() >= 2), "{flags}: {report}");
    }
    let compressed = measured(&server, "--data zeros --compression zstd --level 3");
    assert!(number(&compressed, "ratio") > 10.0, "{compressed}");
    for flags in ["--mode rtt", "--mode rtt --streams 1 --size 1000"] {
        let report = measured(&server, flags);
        assert!(number(&report, "messages") > 0.0, "{flags}: {report}");
        assert!(0.0 < number(&report, "p50_us") && number(&report, "p50_us") <= number(&report, "p99_us"));
    }
    let report = measured(&server, "--mode messages");
    assert!(number(&report, "messages_per_second") > 0.0, "{report}");
}

#[test]
fn people_get_lines() {
    let output = client(&Server::bench(), "--time 1 --interval 0.2 --data zeros");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.lines().filter(|line| line.contains("links")).count() >= 2, "{text}");
    assert!(text.contains("received "), "{text}");
}

#[test]
fn bad_flags_are_refused() {
    let server = Server::bench();
    for flags in [
        "--links 0",
        "--links 2000",
        "--streams 2000",
        "--size 0",
        "--size 1GiB",
        "--mode messages --size 65537",
        "--mode rtt --reverse",
        "--data tea",
        "--time -1",
        "--interval 0",
    ] {
        let output = client(&server, flags);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(!output.stderr.is_empty(), "{flags} fails without a word");
    }
    assert!(number(&measured(&server, "--data zeros"), "bytes") > 0.0, "the server still serves");
}
