//! Raw `tokio-rustls`: the yardstick for TLS. TLS 1.3, AES-128-GCM first as DWCP has it, no framing.
//!
//! The certificate is made by the server at start and not verified by the client: it would cost the same once per
//! connection for every peer, before the clock starts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    byte_stream, tcp,
    workload::{Mode, Report},
};

/// Serves TLS.
pub async fn serve(listener: TcpListener) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config()?));
    let answer = move |stream| {
        let acceptor = acceptor.clone();
        async move { byte_stream::answer(acceptor.accept(stream).await?).await }
    };
    tcp::serve(listener, "tls", answer).await
}

/// Does a job over TLS.
pub async fn connect(addr: SocketAddr, mode: Mode, time: Duration) -> Result<Report> {
    let stream = tcp::connect(addr).await?;
    let connector = TlsConnector::from(Arc::new(client_config()?));
    byte_stream::ask(connector.connect("localhost".try_into()?, stream).await?, mode, time).await
}

/// A server with a certificate of its own making.
pub fn server_config() -> Result<ServerConfig> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?)
}

/// A client that takes any certificate.
pub fn client_config() -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth())
}

/// AES-128-GCM before AES-256-GCM: a third faster, and what DWCP is measured with.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
