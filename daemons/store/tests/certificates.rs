//! Certificates that are others than before: connections that are made then use them.

use std::{sync::Arc, time::Duration};

use consensus_proto::etcdserverpb::StatusRequest;
use novacron_store::{Client, Options};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Certificate, ClientTlsConfig};

/// A certificate that is its own authority, and a server that shows it.
fn server() -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config =
        config.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], der).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

fn trusting(cert: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert))
}

#[tokio::test]
async fn the_next_connection_trusts_whom_it_is_to_trust_now() {
    let (cert, acceptor) = server();
    let (other, _) = server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let options = Options { tls: Some(trusting(&other)), user: None, timeout: Duration::from_secs(5) };
    let client = Client::new([url.as_str()], options).unwrap();
    // What a server sees: whether somebody trusts it.
    let is_trusted = async || {
        let ask = client.endpoints()[0]
            .ask(StatusRequest {}, |link, request| async move { link.maintenance().status(request).await });
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.is_ok()
        };
        let (_, trusted) = tokio::join!(ask, accept);
        trusted
    };
    assert!(!is_trusted().await);
    client.replace_tls(&trusting(&cert)).unwrap();
    assert!(is_trusted().await);
    assert!(client.at(&url).is_ok());
    assert!(
        client
            .replace_tls(&ClientTlsConfig::new().identity(tonic::transport::Identity::from_pem("x", "y")))
            .is_err()
    );
    assert!(is_trusted().await, "what was before stays in force");
}
