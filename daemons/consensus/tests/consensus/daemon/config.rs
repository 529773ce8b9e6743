//! Settings of the process: sources, printing, checking, exit codes.

use crate::daemon::process::{path, program, run, text};

#[test]
fn what_is_printed_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, "name: \"from # file\"\nconsensus:\n  heartbeat: 50ms\n").unwrap();
    let output = program()
        .args(["--config", &path(&file), "--print-config", "-election-timeout=3000"])
        .env("NOVACRON_DRAIN_TIMEOUT", "7s")
        .env("ETCD_MAX_TXN_OPS", "9")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for line in [
        &format!("name: \"from # file\"  # {}:1", path(&file)),
        &format!("  heartbeat: 50ms  # {}:3", path(&file)),
        "  election_timeout: 3s  # flag --election-timeout",
        "drain_timeout: 7s  # environment variable NOVACRON_DRAIN_TIMEOUT",
        "max_txn_ops: 9  # environment variable ETCD_MAX_TXN_OPS",
        "initial_cluster_state: new  # default",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line:?} is not in\n{printed}");
    }
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, &printed).unwrap();
    let (code, second) = run(&["--config", &path(&again), "--print-config"]);
    assert_eq!(code, Some(0));
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once("  # ").unwrap_or((line, "")).0.to_owned()).collect()
    };
    assert_eq!(values(&second), values(&printed));
}

#[test]
fn a_check_names_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    let name = path(&file);
    for (text, code, words) in [
        ("name: a\n", 0, ""),
        ("name: a\nconsensus:\n  heartbeet: 1s\n", 2, "c.yaml:3: consensus.heartbeet: no such setting"),
        ("consensus:\n  heartbeat: 1s\n  election_timeout: 2s\n", 2, "c.yaml:3: consensus.election_timeout"),
        ("consensus:\n  sync_writes: false\n", 2, "c.yaml:2: consensus.sync_writes"),
        ("listen_client_urls: [\"https://127.0.0.1:1\"]\n", 2, "c.yaml:1: listen_client_urls"),
        ("metrics:\n  listen: \"0.0.0.0:1\"\n", 2, "c.yaml:2: metrics.listen"),
        ("client_tls:\n  cert: /nowhere\n  key: /nowhere\n", 2, "/nowhere"),
        ("name: [\n", 2, "c.yaml:"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (found, said) = run(&["--config", &name, "--check-config"]);
        assert_eq!(found, Some(code), "{text:?}: {said}");
        assert!(said.contains(words), "{text:?}: {said}");
    }
    assert!(!folder.path().join("a.consensus").exists(), "a check opens nothing");
    assert_eq!(run(&["--config", "/nowhere", "--check-config"]).0, Some(2));
    assert_eq!(run(&["--no-such-flag"]).0, Some(2));
    let (code, help) = run(&["--help"]);
    assert!(code == Some(0) && help.contains("Exit codes:") && help.contains("SIGUSR1"), "{help}");
}
