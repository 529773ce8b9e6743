//! Agents that are controlled over DWCP, by who has a certificate and who has none.

mod support;

use std::{
    fs, net::SocketAddr, os::unix::fs::symlink, path::Path, process::Command, sync::Arc, time::Duration,
};

use bytes::Bytes;
use collector::Collector;
use dwcp_core::{Endpoint, EndpointConfig, Priority, TlsConfig};
use novacron_control::{
    CALL_BYTES_MAX, Call, Control, ControlError, Method, Remote, connect, read_to_end,
    schema::{Node, Peer, Transfer, TransferState},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use support::{Agent, wait_until};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, for both ends of a connection.
    fn issue(&self, name: &str) -> (String, String) {
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        let (cert, key) = self.issue(name);
        let tls = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), self.pem.as_bytes(), None);
        let mut config = EndpointConfig::new(name);
        config.tls = Some(Arc::new(tls.expect("it fits")));
        Endpoint::client(config).expect("an endpoint")
    }
}

fn start(authority: &Authority, folder: &Path, name: &str, port: u16, more: &[(&str, &str)]) -> Agent {
    start_with(authority, folder, name, port, more, |_| {})
}

fn start_with(
    authority: &Authority,
    folder: &Path,
    name: &str,
    port: u16,
    more: &[(&str, &str)],
    prepare: impl FnOnce(&mut Command),
) -> Agent {
    let (cert, key) = authority.issue(name);
    let file = |kind: &str, content: &str| {
        let path = folder.join(format!("{name}.{kind}"));
        fs::write(&path, content).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let places = [format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1)];
    let files = [file("pem", &cert), file("key", &key), file("ca", &authority.pem)];
    let mut settings = vec![
        ("listen", places[0].as_str()),
        ("datagrams.listen", &places[1]),
        ("tls.cert", &files[0]),
        ("tls.key", &files[1]),
        ("tls.ca", &files[2]),
    ];
    settings.extend(more);
    Agent::start_with(folder, name, &settings, prepare)
}

fn status(answer: Result<Value, ControlError>) -> u16 {
    match answer.expect_err("refused") {
        ControlError::Refused { status, .. } => status.as_u16(),
        other => panic!("{other}"),
    }
}

async fn transfer(remote: &Remote, id: u64) -> Transfer {
    let answer = remote.ask(Method::GET, &format!("/v1/transfers/{id}"), None).await.expect("answered");
    serde_json::from_value(answer).expect("a transfer")
}

#[test]
fn who_is_named_controls_and_has_only_sent_what_may_be_sent() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let vms = folder.path().join("vms");
    fs::create_dir_all(vms.join("db-1")).expect("made");
    let content: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    fs::write(vms.join("db-1/disk.img"), &content).expect("written");
    fs::write(folder.path().join("secret"), "secret").expect("written");
    symlink(folder.path().join("secret"), vms.join("link")).expect("linked");
    symlink("db-1", vms.join("inside")).expect("linked");

    let port = ports::free(4)[0];
    let into = folder.path().join("into");
    let peers = format!("b=127.0.0.1:{}", port + 2);
    let controlled =
        [("control.allow", "api"), ("transfers.from", vms.to_str().expect("UTF-8")), ("peers", &peers)];
    let a = start(&authority, folder.path(), "a", port, &controlled);
    let takes = [("transfers.into", into.to_str().expect("UTF-8")), ("control.allow", "api")];
    let _b = start(&authority, folder.path(), "b", port + 2, &takes);
    wait_until("they are connected", || {
        a.get::<Vec<Peer>>("/v1/peers").iter().any(|peer| peer.connected_seconds.is_some())
    });

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).into();
        let endpoint = authority.endpoint("api");
        // Somebody else, although the authority is the same, and somebody who is not there.
        let other = Remote::connect(&authority.endpoint("b"), &at(port), "a").await.expect_err("not named");
        assert!(
            matches!(&other, ControlError::Refused { error, .. } if error.contains("control.allow")),
            "{other}"
        );
        let other = Remote::connect(&endpoint, &at(port + 2), "a").await.expect_err("b is there");
        assert!(other.to_string().contains("b is there"), "{other}");

        let remote = Remote::connect(&endpoint, &at(port), "a").await.expect("it may");
        let node = remote.ask(Method::GET, "/v1/node", None).await.expect("answered");
        assert_eq!(serde_json::from_value::<Node>(node).expect("a node").greeting.node_id, "a");
        assert_eq!(status(remote.ask(Method::GET, "/nothing", None).await), 404);
        for id in ["abc", "-1", "18446744073709551616", "%ff", "7"] {
            for method in [Method::GET, Method::DELETE] {
                let answer = remote.ask(method, &format!("/v1/transfers/{id}"), None).await;
                let why = answer.as_ref().expect_err("there is none").to_string();
                assert!(status(answer) == 404 && why.contains("there is no"), "{id}: {why}");
            }
        }
        assert_eq!(status(remote.ask(Method::POST, "/v1/transfers", Some(json!({"peer": 1}))).await), 400);
        assert_eq!(status(remote.ask(Method::GET, "no path", None).await), 400);
        let long = json!({"peer": "x".repeat(200 << 10)});
        assert_eq!(status(remote.ask(Method::POST, "/v1/transfers", Some(long)).await), 400);

        let begin = async |from: &Path, key: &str| {
            let new = json!({"peer": "b", "from": from, "key": key});
            remote.ask(Method::POST, "/v1/transfers", Some(new)).await
        };
        let outside = ["secret", "vms", "vms/link", "vms/inside/disk.img", "vms/../secret", "vms/nothing"]
            .map(|path| folder.path().join(path));
        for from in &outside {
            assert_eq!(status(begin(from, "k").await), 403, "{}", from.display());
        }
        assert_eq!(status(begin(Path::new("../secret"), "k").await), 403);
        assert_eq!(status(begin(Path::new("."), "k").await), 403);
        assert_eq!(status(begin(&vms.join("db-1"), "").await), 400);
        let id = |begun: Value| begun["id"].as_u64().expect("an id");
        let first = id(begin(&vms.join("db-1"), "m-1").await.expect("begun"));
        assert_eq!(id(begin(Path::new("db-1"), "m-1").await.expect("begun before")), first);
        while transfer(&remote, first).await.state == TransferState::Running {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let done = transfer(&remote, first).await;
        assert_eq!((done.state, done.key.as_deref()), (TransferState::Done, Some("m-1")), "{done:?}");
        assert_eq!(id(begin(&vms.join("db-1"), "m-1").await.expect("done before")), first);
        // The same key, and something else.
        assert_eq!(status(begin(Path::new("db-1/disk.img"), "m-1").await), 409);
        for (peer, to) in [("b", "elsewhere"), ("c", "db-1")] {
            let other = json!({"peer": peer, "from": "db-1", "to": to, "key": "m-1"});
            assert_eq!(
                status(remote.ask(Method::POST, "/v1/transfers", Some(other)).await),
                409,
                "{peer} {to}"
            );
        }
        assert_ne!(id(begin(&vms.join("db-1"), "m-2").await.expect("begun")), first);
        remote.close();
    });
    assert!(fs::read(into.join("db-1/disk.img")).expect("it is there") == content);
}

#[test]
fn without_a_name_nobody_controls() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let port = ports::free(2)[0];
    let _a = start(&authority, folder.path(), "a", port, &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let at = SocketAddr::from(([127, 0, 0, 1], port)).into();
        let refused = Remote::connect(&authority.endpoint("api"), &at, "a").await.expect_err("not named");
        assert!(matches!(refused, ControlError::Refused { .. }), "{refused}");
    });
}

#[test]
fn who_may_control_an_agent_without_certificates_is_asked_before_it_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Agent::command("a", &folder.path().join("a.sock"), &[("control.allow", "api")]);
    let output = command.arg("--check-config").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("control.allow") && said.contains("tls.cert"), "{said}");
}

#[test]
fn a_call_carries_the_trace_that_it_belongs_to() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let collector = Collector::start();
    let port = ports::free(2)[0];
    let _agent = start_with(&authority, folder.path(), "a", port, &[("control.allow", "api")], |command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let target = SocketAddr::from(([127, 0, 0, 1], port)).into();
        let connection = connect(&authority.endpoint("api"), &target).await.expect("connected");
        let hello = Bytes::from(serde_json::to_vec(&Control { control: 1 }).expect("JSON"));
        let messages = connection.messages();
        messages.request(Priority::Control, hello, Duration::from_secs(60)).await.expect("answered");
        let call = Call {
            method: "GET".to_owned(),
            path: "/v1/node".to_owned(),
            body: None,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        };
        let (mut asking, mut answering) = connection.open_stream().await.expect("a stream");
        asking.write_bytes(Bytes::from(serde_json::to_vec(&call).expect("JSON"))).await.expect("sent");
        asking.finish().expect("sent");
        let answer = read_to_end(&mut answering, CALL_BYTES_MAX).await.expect("answered");
        assert!(String::from_utf8_lossy(&answer).contains("200"));
    });
    let span = collector.wait_for("the call", |span| span.parent_id == "00f067aa0ba902b7");
    assert_eq!(span.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
}
