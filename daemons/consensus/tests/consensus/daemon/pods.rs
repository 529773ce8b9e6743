//! Members that find each other as the pods of a StatefulSet do: by names that follow from their own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::daemon::process::{Member, READY, etcdctl, is_there, path, text};

/// A file of hosts in which each pod has an address of its own.
fn hosts(folder: &Path) -> String {
    let lines: Vec<_> = (0..3).map(|n| format!("127.0.1.{} pod-{n}.peers.test\n", n + 1)).collect();
    let file = folder.join("hosts");
    std::fs::write(&file, lines.concat()).unwrap();
    path(&file)
}

/// Runs a program for which `hosts` is `/etc/hosts`.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

fn can_mount(hosts: &str) -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", WITH_HOSTS, hosts, "getent", "hosts", "pod-1.peers.test"])
        .stderr(Stdio::piped())
        .output();
    let can = tried.as_ref().is_ok_and(|output| text(output).contains("127.0.1.2"));
    if !can {
        eprintln!("SKIP: no mount namespace of its own: {tried:?}");
    }
    can
}

#[test]
fn pods_of_a_stateful_set_start_together_and_without_one_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = hosts(folder.path());
    if !is_there("etcdctl") || !can_mount(&hosts) {
        return;
    }
    let ports = ports::free(4);
    let pod = |n: usize| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", WITH_HOSTS, &hosts]).arg(env!("CARGO_BIN_EXE_novacron-consensus"));
        command.env("HOSTNAME", format!("pod-{n}"));
        command.args(["--initial-cluster-from-headless", "peers.test", "--replicas", "3"]);
        command.arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports[n]));
        command.arg(format!("--listen-peer-urls=http://127.0.1.{}:{}", n + 1, ports[3]));
        command.args(["--metrics-listen=off", "--data-dir"]).arg(folder.path().join(format!("pod-{n}")));
        Member::spawn_as(command)
    };
    // The first is missing, which is nobody special.
    let (second, third) = (pod(1), pod(2));
    second.wait_for_line(READY);
    third.wait_for_line(READY);
    let (_, put) = etcdctl(&[&format!("--endpoints=127.0.0.1:{}", ports[1]), "put", "a", "b"]);
    assert_eq!(put, "OK\n");
    let first = pod(0);
    first.wait_for_line(READY);
    let (_, got) = etcdctl(&[&format!("--endpoints=127.0.0.1:{}", ports[0]), "get", "a"]);
    assert_eq!(got, "a\nb\n");
}
