//! TLS on the API's port, and who is let in by certificate. No store is needed for it.

use crate::{
    identity::Authority,
    support::{Replica, raw, request, wait_until},
};

fn nowhere() -> Vec<String> {
    vec![format!("http://127.0.0.1:{}", ports::free(1)[0])]
}

fn replica(authority: &Authority, more: &[&str]) -> Replica {
    let flags = authority.server_flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Replica::spawn("a", &nowhere(), &flags)
}

const HEALTH: &str = "/api/v1/health";

#[test]
fn certificates_say_who_asks() {
    let authority = Authority::new();
    let grants = "spiffe://novacron/admin=admin@*,viewer.example=viewer@eu";
    let replica = replica(&authority, &["--auth-certificates", grants]);
    for (name, names) in [
        ("admin", &["spiffe://novacron/admin"][..]),
        ("viewer", &["other.example", "VIEWER.example"]),
        ("stranger", &["stranger.example"]),
        ("near", &["spiffe://novacron/admin2", "a.viewer.example"]),
        ("nameless", &[]),
    ] {
        authority.sign(name, names);
    }
    for (client, status) in [
        (Some("admin"), 200),
        (Some("viewer"), 200),
        (Some("stranger"), 403),
        (Some("near"), 403),
        (Some("nameless"), 401),
        (None, 401),
    ] {
        let answer = authority.get(replica.port, client, HEALTH).unwrap();
        assert_eq!(answer.status, status, "{client:?}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").is_empty(), status != 401);
    }
    // Probes have no certificates.
    assert_eq!(authority.get(replica.port, None, "/healthz").unwrap().status, 200);
    // A header that proves nothing is not helped by the certificate.
    let text = request("GET", HEALTH, &[("Authorization", "Bearer nonsense")], None);
    assert_eq!(authority.ask(replica.port, Some("admin"), &text).unwrap().status, 401);
    // What a proxy might say of a certificate is not believed.
    let said = [
        ("X-Client-Cert-Name", "spiffe://novacron/admin"),
        ("X-Forwarded-Client-Cert", "URI=spiffe://novacron/admin"),
    ];
    let text = request("GET", HEALTH, &said, None);
    assert_eq!(authority.ask(replica.port, None, &text).unwrap().status, 401);
    // Another authority's certificate of the same name, and no TLS at all.
    let others = Authority::new();
    others.sign("admin", &["spiffe://novacron/admin"]);
    std::fs::copy(authority.path("ca.pem"), others.path("ca.pem")).unwrap();
    assert!(others.get(replica.port, Some("admin"), HEALTH).is_err());
    let plain = raw(replica.port, &request("GET", HEALTH, &[], None));
    assert!(plain.is_err(), "{plain:?}");
}

#[test]
fn a_certificate_can_be_required() {
    let authority = Authority::new();
    authority.sign("any", &["any.example"]);
    let more = ["--tls-client-cert-required", "true", "--auth-certificates", "x=admin@*"];
    let replica = replica(&authority, &more);
    assert!(authority.get(replica.port, None, "/healthz").is_err());
    assert_eq!(authority.get(replica.port, Some("any"), "/healthz").unwrap().status, 200);
}

#[test]
fn new_certificates_are_used_and_bad_ones_are_not() {
    let authority = Authority::new();
    let replica = replica(&authority, &[]);
    let first = authority.shown(replica.port).unwrap();
    std::fs::write(authority.path("server.pem"), "nonsense").unwrap();
    // Two looks at the files.
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(authority.shown(replica.port).unwrap(), first);
    authority.sign("server", &["localhost"]);
    let second =
        wait_until("the new certificate", || authority.shown(replica.port).filter(|shown| *shown != first));
    assert_ne!(first, second);
    assert_eq!(authority.get(replica.port, None, "/healthz").unwrap().status, 200);
}

#[test]
fn a_handshake_that_does_not_come_holds_nobody() {
    let authority = Authority::new();
    let replica = replica(&authority, &[]);
    let silent: Vec<_> =
        (0..8).map(|_| std::net::TcpStream::connect(("127.0.0.1", replica.port)).unwrap()).collect();
    assert_eq!(authority.get(replica.port, None, "/healthz").unwrap().status, 200);
    drop(silent);
}

#[test]
fn beyond_loopback_there_is_tls_and_a_login_or_no_start() {
    let authority = Authority::new();
    let flags = authority.server_flags();
    let check = |more: &[&str]| {
        let args = [&["--check-config", "--listen", "0.0.0.0:0"], more].concat();
        let (code, said) = crate::support::run(&args, None);
        (code, said)
    };
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    assert_eq!(check(&[&flags[..], &["--auth-tokens", "true"]].concat()).0, Some(0));
    assert_eq!(check(&flags).0, Some(2));
    assert_eq!(check(&["--auth-tokens", "true"]).0, Some(2));
    assert_eq!(check(&["--allow-plaintext", "--auth-tokens", "true"]).0, Some(0));
    // Files that are no good.
    let key = authority.flag("ca.pem");
    let (code, said) = check(&["--tls-cert", flags[1], "--tls-key", &key, "--auth-tokens", "true"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tls: ") && said.contains("ca.pem"), "{said}");
}
