//! Without root: everything says what is missing, and nothing panics.

use std::{net::IpAddr, os::unix::process::CommandExt as _, process::Command};

use dwcp_node::{
    mtu,
    probe::{self, Finding},
    tune::{self, Outcome},
    vxlan,
    wireguard::{Config, Error, Interface, KeyStore, PrivateKey},
};

mod support;

/// Of the user nobody and the group nogroup.
const NOBODY: u32 = 65_534;

#[test]
fn nobody_gets_reports() {
    if !is_root() {
        eprintln!("SKIP: only root can become nobody");
        return;
    }
    // From where nobody may run it.
    let folder = tempfile::Builder::new().permissions(mode(0o755)).tempdir().expect("a folder");
    let copy = folder.path().join("unprivileged");
    std::fs::copy(std::env::current_exe().expect("known"), &copy).expect("copied");
    std::fs::set_permissions(&copy, mode(0o755)).expect("chmod");
    let mut command = Command::new(copy);
    command
        .args(["--exact", "as_nobody", "--ignored", "--nocapture"])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    // A child is in the namespace of the thread that makes it.
    let Some(namespace) = support::namespace() else { return };
    let output = namespace.enter(|| command.output()).expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn mode(bits: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
#[ignore = "run by nobody_gets_reports"]
fn as_nobody() {
    assert!(!is_root());
    let report = probe::probe();
    for (name, finding) in report.findings() {
        println!("{name}: {finding}");
    }
    for capability in &report.capabilities {
        assert!(matches!(capability.finding, Finding::No { .. }), "{capability:?}");
    }
    for finding in [&report.fq, &report.vxlan] {
        assert!(
            matches!(finding, Finding::Unknown { reason } if reason.contains("CAP_NET_ADMIN")),
            "{finding}"
        );
    }
    assert!(!report.wireguard_user_space.is_yes());
    report.interfaces.expect("anybody may list them");

    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("tune.json");
    let settings =
        tune::Settings { interfaces: vec!["lo".into()], buffer_bytes_max: 1 << 30, forwarding: true };
    tune::plan(&settings);
    let reports = tune::apply(&settings, &state).expect("the folder is ours");
    for report in &reports {
        println!("{report}");
        assert!(matches!(report.outcome, Outcome::Cannot { .. } | Outcome::Already { .. }), "{report}");
    }
    let forwarding =
        reports.iter().find(|report| report.item.to_string() == "net.ipv4.ip_forward").expect("told");
    assert!(matches!(forwarding.outcome, Outcome::Cannot { .. }), "{forwarding}");
    tune::restore(&state).expect("nothing has changed");
    assert!(!state.exists());
    let nowhere = std::path::Path::new("/proc/dwcp/tune.json");
    println!("{}", tune::apply(&settings, nowhere).expect_err("the record cannot be kept"));
    let error = mtu::raise("lo", 1 << 20, &state).expect_err("it may not").to_string();
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");

    let local: IpAddr = "10.77.0.1".parse().expect("an address");
    let error = vxlan::reconcile(&vxlan::Config::new(local, 1500)).expect_err("it may not").to_string();
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    let key = PrivateKey::generate().expect("randomness");
    let error = Interface::open(&Config::new(1420), &key).expect_err("it may not");
    println!("{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    assert!(matches!(error, Error::Impossible { .. } | Error::Netlink(_)), "{error:?}");
    KeyStore::open(&folder.path().join("keys.json")).expect("keys need no privilege");
}
