//! A certificate authority and connected sockets for the tests.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use dwcp_core::security::{ALPN, AllowRule, HandshakeError, LinkSocket, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// Certificate and key of a node, as PEM.
pub(crate) struct Node {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Years of validity, from January 1st to January 1st.
pub(crate) type Years = (i32, i32);
pub(crate) const VALID: Years = (2020, 4000);
pub(crate) const EXPIRED: Years = (2000, 2001);
pub(crate) const FUTURE: Years = (3999, 4000);

impl Authority {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new([]).unwrap();
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names: DNS, URI or IP by their look.
    pub(crate) fn issue(&self, names: &[&str], (from, to): Years) -> Node {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        // OpenSSL takes a certificate for self-signed whose subject is its issuer.
        params.distinguished_name.push(DnType::CommonName, "node");
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Node { cert, key: key.serialize_pem() }
    }

    /// Our configuration of a node with these names, that allows `allow` (or all).
    pub(crate) fn config(&self, names: &[&str], allow: &[&str]) -> TlsConfig {
        let node = self.issue(names, VALID);
        node.config(&self.pem, allow)
    }
}

impl Node {
    pub(crate) fn config(&self, ca: &str, allow: &[&str]) -> TlsConfig {
        let allow = (!allow.is_empty()).then(|| AllowRule::new(allow).unwrap());
        TlsConfig::from_pem(self.cert.as_bytes(), self.key.as_bytes(), ca.as_bytes(), allow).unwrap()
    }

    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()];
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }

    /// A plain rustls client that does not look at its own certificate.
    pub(crate) fn raw_client(&self, ca: &str) -> ClientConfig {
        let (chain, key) = self.chain();
        let mut config = builder_client(ca).with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    /// A plain rustls server that does not look at its own certificate.
    pub(crate) fn raw_server(&self, ca: &str) -> ServerConfig {
        let (chain, key) = self.chain();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)), provider.clone()).build();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }
}

/// A plain rustls client without a certificate.
pub(crate) fn anonymous_client(ca: &str) -> ClientConfig {
    let mut config = builder_client(ca).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

fn builder_client(ca: &str) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca))
}

fn roots(ca: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    roots
}

fn san(name: &str) -> SanType {
    if let Ok(ip) = name.parse() {
        return SanType::IpAddress(ip);
    }
    let text = name.to_owned().try_into().unwrap();
    if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).await.unwrap()
}

pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = listen().await;
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

pub(crate) type Outcome = Result<(LinkSocket, Vec<String>), HandshakeError>;

/// Both sides' outcome of a handshake between our own two ends.
pub(crate) async fn handshake(client: &TlsConfig, name: &str, server: &TlsConfig) -> (Outcome, Outcome) {
    let (a, b) = tcp_pair().await;
    tokio::join!(LinkSocket::connect_tls(a, name, client), LinkSocket::accept_tls(b, server))
}

/// A connected pair, client first.
pub(crate) async fn tls_pair() -> (LinkSocket, LinkSocket) {
    let config = Authority::new().config(&["node.example"], &[]);
    let (client, server) = handshake(&config, "node.example", &config).await;
    (client.unwrap().0, server.unwrap().0)
}

pub(crate) async fn plain_pair() -> (LinkSocket, LinkSocket) {
    let (client, server) = tcp_pair().await;
    (LinkSocket::plain(client), LinkSocket::plain(server))
}
