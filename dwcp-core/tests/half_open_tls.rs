//! Ten thousand peers that begin a TLS handshake, or only connect, and never go on. Beside `half_open.rs` in a file of
//! its own for the same reasons: memory and descriptors of the whole process.

mod crowd;

use std::sync::Arc;

use crowd::{HALF_OPEN, HANDSHAKES_MAX, config, keeps_nobody_out};
use dwcp_core::{
    EndpointConfig,
    security::{ALPN, TlsConfig},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Less than a kilobyte for each of our sockets, and for each handshake what rustls holds when it has answered.
const GROWTH_MAX: u64 = HALF_OPEN * 1024 + HANDSHAKES_MAX * (32 << 10);

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn node(&self, name: &str) -> EndpointConfig {
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        let tls = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), self.pem.as_bytes(), None).unwrap();
        let mut config = config(name);
        config.tls = Some(Arc::new(tls));
        config
    }
}

/// The first flight of a client that would do everything right. It may be sent any number of times.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[tokio::test]
async fn ten_thousand_half_open_tls_handshakes_keep_nobody_out() {
    let authority = Authority::new();
    let hello = client_hello();
    assert!(hello.len() > 200, "a whole ClientHello has {} bytes", hello.len());
    // Nothing, part of a record header, part of a message, and all that a client says first.
    let beginnings = [&hello[..0], &hello[..3], &hello[..hello.len() / 2], &hello];
    keeps_nobody_out(authority.node("localhost"), || authority.node("honest"), &beginnings, GROWTH_MAX).await;
}
