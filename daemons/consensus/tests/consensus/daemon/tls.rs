//! TLS of clients and of members, with etcdctl and curl, which know nothing of us.

use std::{path::Path, process::Command};

use rustix::process::Signal;

use crate::daemon::{
    pki::Authority,
    process::{Member, READY, etcdctl, is_there, path, text, wait_until},
};

struct Ports {
    tls: u16,
    plain: u16,
    peer: u16,
}

/// A member whose clients need a certificate on one address and nothing on another.
fn member(n: usize, ports: &[Ports], folder: &Path) -> Member {
    let list: Vec<_> =
        ports.iter().enumerate().map(|(n, ports)| format!("m{n}=https://127.0.0.1:{}", ports.peer)).collect();
    let Ports { tls, plain, peer } = ports[n];
    let file = |name: &str| path(&folder.join(name));
    Member::spawn(&[
        format!("--name=m{n}"),
        format!("--data-dir={}", file(&format!("m{n}"))),
        format!("--listen-client-urls=https://127.0.0.1:{tls},http://127.0.0.1:{plain}"),
        format!("--listen-peer-urls=https://127.0.0.1:{peer}"),
        format!("--initial-cluster={}", list.join(",")),
        "--metrics-listen=off".to_owned(),
        "--client-cert-auth".to_owned(),
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
        format!("--trusted-ca-file={}", file("ca.pem")),
        format!("--peer-cert-file={}", file("server.pem")),
        format!("--peer-key-file={}", file("server.key")),
        format!("--peer-trusted-ca-file={}", file("ca.pem")),
        "--peer-client-cert-auth".to_owned(),
    ])
}

fn ports(count: usize) -> Vec<Ports> {
    let ports = ports::free(3 * count as u16);
    ports.chunks(3).map(|ports| Ports { tls: ports[0], plain: ports[1], peer: ports[2] }).collect()
}

#[test]
fn a_cluster_with_tls_everywhere_serves_who_has_a_certificate() {
    if !is_there("etcdctl") || !is_there("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("first");
    authority.write(folder.path(), "server");
    authority.write(folder.path(), "client");
    let ports = ports(3);
    let members: Vec<_> = (0..3).map(|n| member(n, &ports, folder.path())).collect();
    members.iter().for_each(|member| member.wait_for_line(READY));
    let file = |name: &str| path(&folder.path().join(name));
    let endpoints: Vec<_> = ports.iter().map(|ports| format!("https://127.0.0.1:{}", ports.tls)).collect();
    let endpoints = format!("--endpoints={}", endpoints.join(","));
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));

    let with_certificate = [&endpoints, "--cacert", &ca, "--cert", &cert, "--key", &key];
    let (done, said) = etcdctl(&[&with_certificate[..], &["put", "a", "b"]].concat());
    assert!(done, "{said}");
    let without = [&endpoints, "--cacert", &ca, "--command-timeout", "2s", "put", "a", "c"];
    let (done, said) = etcdctl(&without);
    assert!(!done, "without a certificate: {said}");
    let (done, said) = etcdctl(&[&endpoints, "--command-timeout", "2s", "put", "a", "c"]);
    assert!(!done, "without the authority: {said}");
    let plain = format!("--endpoints=http://127.0.0.1:{}", ports[1].plain);
    assert_eq!(etcdctl(&[&plain, "get", "a"]), (true, "a\nb\n".to_owned()), "the address without TLS");

    let url = format!("https://127.0.0.1:{}/health", ports[0].tls);
    let curl =
        |more: &[&str]| Command::new("curl").args(["-s", "--cacert", &ca]).args(more).arg(&url).output();
    let answer = curl(&["--cert", &cert, "--key", &key]).unwrap();
    assert!(text(&answer).contains(r#""health":"true""#), "{}", text(&answer));
    let old = curl(&["--cert", &cert, "--key", &key, "--tls-max", "1.2"]).unwrap();
    assert!(old.status.success(), "TLS 1.2 is taken");
    let too_old =
        curl(&["--cert", &cert, "--key", &key, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]);
    assert!(!too_old.unwrap().status.success(), "TLS 1.1 is not");
    assert!(!curl(&[]).unwrap().status.success(), "nor is a client without a certificate");
}

#[test]
fn certificates_are_read_again_at_sighup() {
    if !is_there("etcdctl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    Authority::new("other").write(folder.path(), "client");
    // The authority that the member knows, and its own certificate.
    Authority::new("first").write(folder.path(), "server");
    let ports = ports(1);
    let member = member(0, &ports, folder.path());
    member.wait_for_line(READY);
    let endpoint = format!("--endpoints=https://127.0.0.1:{}", ports[0].tls);
    let file = |name: &str| path(&folder.path().join(name));
    let put = || {
        let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
        etcdctl(&[
            &endpoint,
            "--cacert",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            "--command-timeout=2s",
            "put",
            "a",
            "b",
        ])
        .0
    };
    assert!(!put(), "a certificate of another authority is taken");

    std::fs::write(folder.path().join("server.pem"), "nonsense").unwrap();
    member.signal(Signal::HUP);
    member.wait_for_line("the old ones stay in force");

    let second = Authority::new("second");
    second.write(folder.path(), "client");
    second.write(folder.path(), "server");
    member.signal(Signal::HUP);
    wait_until("success with the new certificates", || put().then_some(()));
}
