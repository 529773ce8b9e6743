//! The `novacron` command over emulated links, as the comparison runs it and as a user does.

use dwcp_lab::{Lab, Scenario, Side, unavailable};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The command that the same build has made; this package cannot depend on it.
fn novacron() -> Option<PathBuf> {
    if let Some(reason) = unavailable() {
        eprintln!("SKIP: {reason}");
        return None;
    }
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("novacron");
    if !program.is_file() {
        eprintln!("SKIP: {} is not built (cargo build --release -p novacron)", program.display());
        return None;
    }
    Some(program)
}

/// Loss, and seconds in which nothing passes: the file arrives whole, by reference where the kernel offers it.
#[test]
fn a_transfer_survives_loss_and_an_outage() {
    let Some(program) = novacron() else { return };
    let lab = Lab::new(&Scenario { loss: 0.01, ..Scenario::clean("transfer", 40.0, 20.0) }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (from, into) = (folder.path().join("from"), folder.path().join("into"));
    let content: Vec<u8> =
        (0..12_000_000_u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(&from, &content).unwrap();
    let address = format!("{}:8888", Side::B.ipv4());
    let command = |side, args: &[&str]| {
        let mut command = lab.command(side, &program);
        command.args(args).args(["--allow-plaintext", "--compression", "none"]);
        command.env("NOVACRON_TRANSPORT_ZEROCOPY", "on").stdin(Stdio::null());
        command
    };
    let receiver = ["recv", "--listen", &address, "--into", into.to_str().unwrap()];
    let _receiver = lab.spawn(command(Side::B, &receiver)).unwrap();
    lab.wait_for_listener(Side::B, Some(8888), Duration::from_secs(60)).unwrap();
    let mut sender =
        lab.spawn(command(Side::A, &["send", from.to_str().unwrap(), &format!("{address}:f")])).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    lab.set_link_up(false);
    std::thread::sleep(Duration::from_secs(2));
    lab.set_link_up(true);
    assert!(sender.wait().unwrap().success());
    assert!(std::fs::read(into.join("f")).unwrap() == content);
    let carried = lab.stats().summary().a_to_b.delivered_bytes;
    assert!(carried as usize >= content.len(), "{carried} bytes crossed the link");
}

#[test]
fn a_comparison_measures_novacron_and_its_course() {
    let Some(program) = novacron() else { return };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("lab.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwcp-lab"));
    command.args(["compare", "--scenario", "rtt30-loss0.1,rtt50-loss5", "--rate", "50", "--jobs", "2"]);
    command.args(["--runs", "1", "--time", "3", "--contenders", "novacron", "--novacron"]);
    let output = command.arg(&program).arg("--json").arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 2);
    for scenario in scenarios {
        let run = &scenario["contenders"][0]["runs"][0];
        assert!(run["error"].is_null(), "{run}");
        let claimed = run["goodput_mbit"].as_f64().unwrap() * 1e6 / 8.0 * 3.0;
        let carried = run["link"]["a_to_b"]["delivered_bytes"].as_f64().unwrap();
        assert!(0.0 < claimed && claimed <= carried, "{run}");
        let course = run["course"].as_array().unwrap();
        assert!(
            !course.is_empty() && course.iter().all(|moment| moment["links"].as_u64() > Some(0)),
            "{run}"
        );
    }
}
