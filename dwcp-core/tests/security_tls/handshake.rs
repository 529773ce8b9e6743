//! Who gets in, who does not, and what each side is told.

use std::{io::IoSliceMut, sync::Arc};

use dwcp_core::security::{HandshakeError, LinkSocket, NotAllowed, RecordError};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::{Authority, EXPIRED, FUTURE, VALID, anonymous_client, handshake, tcp_pair};

const NAME: &str = "node.example";

/// Our server's outcome with a plain rustls client.
async fn accept_raw(client: ClientConfig, server: &dwcp_core::TlsConfig) -> crate::pki::Outcome {
    let (a, b) = tcp_pair().await;
    let connect = async {
        let stream =
            TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(NAME).unwrap(), a).await;
        // A client is done before the server has judged it: stay until it has.
        if let Ok(mut stream) = stream {
            let _ = stream.read_u8().await;
        }
    };
    let accept = LinkSocket::accept_tls(b, server);
    let (_, outcome) = tokio::join!(connect, async {
        let outcome = accept.await;
        outcome.map(|(link, names)| {
            link.shutdown_write().unwrap();
            (link, names)
        })
    });
    outcome
}

/// Our client's outcome with a plain rustls server.
async fn connect_raw(client: &dwcp_core::TlsConfig, server: ServerConfig) -> crate::pki::Outcome {
    let (a, b) = tcp_pair().await;
    let accept = TlsAcceptor::from(Arc::new(server)).accept(b);
    let (outcome, _) = tokio::join!(LinkSocket::connect_tls(a, NAME, client), accept);
    outcome
}

fn certificate_error(outcome: crate::pki::Outcome) -> CertificateError {
    match outcome.map(drop) {
        Err(HandshakeError::Tls(Error::InvalidCertificate(error))) => error,
        other => panic!("{other:?}"),
    }
}

fn refused(outcome: crate::pki::Outcome) -> AlertDescription {
    match outcome.map(drop) {
        Err(HandshakeError::Refused(alert)) => alert,
        other => panic!("{other:?}"),
    }
}

/// The alert that a client reads which was done before the server refused it.
async fn alert_read(outcome: crate::pki::Outcome) -> AlertDescription {
    let (link, _) = outcome.unwrap();
    let mut byte = [0];
    loop {
        link.readable().await.unwrap();
        match link.try_read(&mut [IoSliceMut::new(&mut byte)]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(RecordError::Alert(alert)) => return *alert,
                _ => panic!("{error:?}"),
            },
            Ok(got) => panic!("{got} bytes instead of an alert"),
        }
    }
}

#[tokio::test]
async fn both_sides_learn_the_names_of_the_other() {
    let ca = Authority::new();
    let client = ca.config(&["client.example", "spiffe://dom/client"], &[]);
    let server = ca.config(&[NAME, "10.1.2.3", "fd00::1"], &[]);
    let (a, b) = handshake(&client, NAME, &server).await;
    assert_eq!(a.unwrap().1, [NAME, "10.1.2.3", "fd00::1"]);
    assert_eq!(b.unwrap().1, ["client.example", "spiffe://dom/client"]);
}

#[tokio::test]
async fn an_ip_address_is_a_server_name_too() {
    let config = Authority::new().config(&["127.0.0.1"], &[]);
    let (a, b) = handshake(&config, "127.0.0.1", &config).await;
    a.unwrap();
    b.unwrap();
    let (a, b) = handshake(&config, "127.0.0.2", &config).await;
    assert!(matches!(certificate_error(a), CertificateError::NotValidForNameContext { .. }));
    assert_eq!(refused(b), AlertDescription::BadCertificate);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b) = handshake(&ours.config(&[NAME], &[]), NAME, &theirs.config(&[NAME], &[])).await;
    assert_eq!(certificate_error(a), CertificateError::UnknownIssuer);
    assert_eq!(refused(b), AlertDescription::UnknownCA);
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.config(&[NAME], &[]);
    let client = theirs.issue(&[NAME], VALID).config(&ours.pem, &[]);
    let (a, b) = handshake(&client, NAME, &server).await;
    assert_eq!(certificate_error(b), CertificateError::UnknownIssuer);
    assert_eq!(alert_read(a).await, AlertDescription::UnknownCA);
}

#[tokio::test]
async fn certificates_outside_their_time_are_refused_on_both_sides() {
    let ca = Authority::new();
    let good = ca.config(&[NAME], &[]);
    for years in [EXPIRED, FUTURE] {
        let bad = ca.issue(&[NAME], years);
        for outcome in [
            connect_raw(&good, bad.raw_server(&ca.pem)).await,
            accept_raw(bad.raw_client(&ca.pem), &good).await,
        ] {
            let error = certificate_error(outcome);
            let expected = match years {
                EXPIRED => matches!(error, CertificateError::ExpiredContext { .. }),
                _ => matches!(error, CertificateError::NotValidYetContext { .. }),
            };
            assert!(expected, "{error:?}");
        }
    }
    // The same peers with good certificates get in: it was the time that counted.
    let node = ca.issue(&[NAME], VALID);
    connect_raw(&good, node.raw_server(&ca.pem)).await.unwrap();
    accept_raw(node.raw_client(&ca.pem), &good).await.unwrap();
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let ca = Authority::new();
    let (a, b) = handshake(&ca.config(&[NAME], &[]), NAME, &ca.config(&["other.example"], &[])).await;
    assert!(matches!(certificate_error(a), CertificateError::NotValidForNameContext { .. }));
    assert_eq!(refused(b), AlertDescription::BadCertificate);
}

#[tokio::test]
async fn a_name_that_cannot_be_in_a_certificate_is_an_error_of_its_own() {
    let ca = Authority::new();
    let config = ca.config(&[NAME], &[]);
    let (a, _b) = tcp_pair().await;
    let outcome = LinkSocket::connect_tls(a, "not a name", &config).await;
    assert!(matches!(outcome, Err(HandshakeError::BadServerName { name }) if name == "not a name"));
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = Authority::new();
    let outcome = accept_raw(anonymous_client(&ca.pem), &ca.config(&[NAME], &[])).await;
    assert!(matches!(outcome, Err(HandshakeError::Tls(Error::NoCertificatesPresented))), "{outcome:?}");
}

#[tokio::test]
async fn the_allow_rule_decides_on_the_server() {
    let ca = Authority::new();
    let table: [(&[&str], &[&str], bool); 6] = [
        (&["a.example"], &["a.example"], true),
        (&["a.example"], &["b.example", "*.example"], true),
        (&["a.example"], &["b.example"], false),
        (&["spiffe://dom/ns/a"], &["spiffe://dom/ns/*"], true),
        (&["a.example", "10.0.0.7"], &["10.0.0.7"], true),
        (&[], &["*.example"], false),
    ];
    for (names, allow, allowed) in table {
        let (a, b) = handshake(&ca.config(names, &[]), NAME, &ca.config(&[NAME], allow)).await;
        if allowed {
            assert_eq!(b.unwrap().1, names);
            continue;
        }
        match b.map(drop) {
            Err(HandshakeError::NotAllowed(NotAllowed { names: presented })) => assert_eq!(presented, names),
            other => panic!("{names:?} {allow:?}: {other:?}"),
        }
        assert_eq!(alert_read(a).await, AlertDescription::CertificateUnknown);
    }
}

#[tokio::test]
async fn the_allow_rule_decides_on_the_client_beside_the_server_name() {
    let ca = Authority::new();
    let server = ca.config(&[NAME, "spiffe://dom/ns/server"], &[]);
    let (a, b) = handshake(&ca.config(&[NAME], &["spiffe://dom/ns/server"]), NAME, &server).await;
    a.unwrap();
    b.unwrap();
    let (a, b) = handshake(&ca.config(&[NAME], &["spiffe://dom/ns/other"]), NAME, &server).await;
    assert!(matches!(a, Err(HandshakeError::NotAllowed(_))), "{a:?}");
    assert_eq!(refused(b), AlertDescription::CertificateUnknown);
    let (a, _) = handshake(&ca.config(&[NAME], &["spiffe://dom/ns/server"]), "other.example", &server).await;
    assert!(matches!(certificate_error(a), CertificateError::NotValidForNameContext { .. }));
}

/// The smallest ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2): no `supported_versions`.
fn tls12_client_hello() -> Vec<u8> {
    let extensions = [
        &[0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x17][..], // supported_groups: secp256r1
        &[0x00, 0x0d, 0, 6, 0, 4, 0x04, 0x03, 0x08, 0x04][..], // signature_algorithms
        &[0x00, 0x17, 0, 0][..],                   // extended_master_secret
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

// DWCP-10.3
#[tokio::test]
async fn a_peer_that_only_speaks_tls_12_is_refused() {
    let config = Authority::new().config(&[NAME], &[]);
    let (mut client, server) = tcp_pair().await;
    client.write_all(&tls12_client_hello()).await.unwrap();
    let outcome = LinkSocket::accept_tls(server, &config).await;
    assert!(matches!(outcome, Err(HandshakeError::Tls(Error::PeerIncompatible(_)))), "{outcome:?}");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let protocol_version = AlertDescription::ProtocolVersion.into();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, protocol_version]);
}

#[tokio::test]
async fn plaintext_on_a_tls_port_is_named() {
    let config = Authority::new().config(&[NAME], &[]);
    for hello in [&b"DWCP\x01\0\0\0 is what we speak"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 64]] {
        let (mut client, server) = tcp_pair().await;
        client.write_all(hello).await.unwrap();
        let outcome = LinkSocket::accept_tls(server, &config).await;
        assert!(matches!(outcome, Err(HandshakeError::NotTls)), "{outcome:?}");
        assert!(HandshakeError::NotTls.to_string().contains("plaintext"));
    }
}

#[tokio::test]
async fn a_plaintext_port_is_named_by_the_tls_client() {
    let config = Authority::new().config(&[NAME], &[]);
    // One that answers in its own words.
    let (client, mut server) = tcp_pair().await;
    server.write_all(b"DWCP\x01 what was that?").await.unwrap();
    let outcome = LinkSocket::connect_tls(client, NAME, &config).await;
    assert!(matches!(outcome, Err(HandshakeError::NotTls)), "{outcome:?}");
    // One that reads and closes, and one that closes with the rest unread.
    for read in [true, false] {
        let (client, mut server) = tcp_pair().await;
        let serve = async {
            server.readable().await.unwrap();
            if read {
                server.read_buf(&mut Vec::with_capacity(1 << 16)).await.unwrap();
            }
            drop(server);
        };
        let (outcome, ()) = tokio::join!(LinkSocket::connect_tls(client, NAME, &config), serve);
        assert!(matches!(outcome, Err(HandshakeError::Closed)), "{outcome:?}");
    }
}

// DWCP-10.1, DWCP-10.3: the major version is in the name of the application protocol.
#[tokio::test]
async fn the_application_protocol_must_be_ours() {
    let ca = Authority::new();
    let server = ca.config(&[NAME], &[]);
    let mut client = ca.issue(&[NAME], VALID).raw_client(&ca.pem);
    client.alpn_protocols.clear();
    let outcome = accept_raw(client.clone(), &server).await;
    assert!(matches!(outcome, Err(HandshakeError::WrongProtocol)), "{outcome:?}");
    client.alpn_protocols = vec![b"h2".to_vec()];
    let outcome = accept_raw(client, &server).await;
    assert!(matches!(outcome, Err(HandshakeError::Tls(Error::NoApplicationProtocol))), "{outcome:?}");
}

// DWCP-10.5: who comes again shakes hands in full, so there is no early data that could be replayed.
#[tokio::test]
async fn no_session_is_resumed() {
    let ca = Authority::new();
    let server = ca.config(&[NAME], &[]);
    let client = TlsConnector::from(Arc::new(ca.issue(&[NAME], VALID).raw_client(&ca.pem)));
    for _ in 0..2 {
        let (a, b) = tcp_pair().await;
        let connect = client.connect(ServerName::try_from(NAME).unwrap(), a);
        let (stream, accepted) = tokio::join!(connect, LinkSocket::accept_tls(b, &server));
        let (link, _) = accepted.unwrap();
        link.shutdown_write().unwrap();
        // Reads what the server says after its handshake: tickets would be here.
        let mut stream = stream.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn an_endless_hello_is_cut_off() {
    let config = Authority::new().config(&[NAME], &[]);
    let (mut client, server) = tcp_pair().await;
    let flood = async move {
        let mut record = vec![22, 3, 1, 0x40, 0];
        record.extend([0; 0x4000]);
        record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        let mut sent = 0;
        // A bound far above what may be taken, so that the test fails instead of running forever.
        while sent < 64 << 20 && client.write_all(&record).await.is_ok() {
            sent += record.len();
            record[5..9].fill(0);
        }
        sent
    };
    let (outcome, sent) = tokio::join!(
        async {
            let outcome = LinkSocket::accept_tls(server, &config).await;
            outcome.map(drop)
        },
        flood
    );
    assert!(matches!(outcome, Err(HandshakeError::TooLong { .. })), "{outcome:?}");
    // The peer's share of what the kernel buffers.
    assert!(sent < 64 << 20);
}

/// What a real client sends first.
async fn client_hello(config: &dwcp_core::TlsConfig) -> Vec<u8> {
    let (client, mut server) = tcp_pair().await;
    let mut hello = Vec::with_capacity(1 << 14);
    tokio::select! {
        outcome = LinkSocket::connect_tls(client, NAME, config) => panic!("{outcome:?}"),
        got = server.read_buf(&mut hello) => assert!(got.unwrap() > 100),
    }
    hello
}

#[tokio::test]
async fn an_altered_or_cut_hello_is_an_error_and_nothing_worse() {
    let config = Authority::new().config(&[NAME], &[]);
    let hello = client_hello(&config).await;
    for position in 0..hello.len() {
        let mut altered = hello.clone();
        altered[position] ^= 1 << (position % 8);
        for bytes in [&altered, &hello[..position]] {
            let (mut client, server) = tcp_pair().await;
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            LinkSocket::accept_tls(server, &config).await.unwrap_err();
        }
    }
}

/// As above in the server's flight, which is encrypted but for its beginning.
#[tokio::test]
async fn an_altered_answer_is_an_error_on_both_sides() {
    let config = Authority::new().config(&[NAME], &[]);
    for position in (0..700).step_by(7) {
        let (client, near) = tcp_pair().await;
        let (far, server) = tcp_pair().await;
        let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
            (near.into_split(), far.into_split());
        let forth = async move { tokio::io::copy(&mut near_read, &mut far_write).await };
        let back = async move {
            let mut seen = 0;
            let mut buffer = vec![0; 1 << 14];
            while let Ok(got @ 1..) = far_read.read(&mut buffer).await {
                if (seen..seen + got).contains(&position) {
                    buffer[position - seen] ^= 0x10;
                }
                seen += got;
                let Ok(()) = near_write.write_all(&buffer[..got]).await else { return };
            }
        };
        let client = async { LinkSocket::connect_tls(client, NAME, &config).await.map(drop) };
        let server = async { LinkSocket::accept_tls(server, &config).await.map(drop) };
        let (client, server, _, ()) = tokio::join!(client, server, forth, back);
        assert!(client.is_err() && server.is_err(), "at {position}: {client:?} {server:?}");
    }
}
