//! From PEM files to the two rustls configurations of an endpoint.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    AllowRule, NotAllowed, PemSource, TlsError,
    verify::{self, AllowedClient, AllowedServer},
};

/// The application protocol both sides must agree on (RFC 7301).
pub const ALPN: &[u8] = b"dwcp/1";

/// Certificates, trust anchors and the allow rule of an endpoint.
///
/// TLS 1.3 only, certificates on both sides, no early data. No session resumption: each link proves
/// who it is with the certificate of now, so an expired or replaced one has no afterlife.
#[derive(Debug)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    allow: Option<AllowRule>,
}

/// Where an endpoint's PEM files are, and whom it allows.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our certificate, followed by its intermediates if there are any.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// Trust anchors for peers.
    pub ca: PathBuf,
    /// `None` allows every certificate of the trust anchors.
    pub allow: Option<AllowRule>,
}

impl TlsFiles {
    /// Reads and checks the files.
    pub fn load(&self) -> Result<TlsConfig, TlsError> {
        let read = |role, path: &PathBuf| {
            let pem = PemSource { role, path: Some(path.clone()) };
            match fs::read(path) {
                Ok(bytes) => Ok((pem, bytes)),
                Err(source) => Err(TlsError::Read { pem, source }),
            }
        };
        let (cert, key, ca) =
            (read("certificate", &self.cert)?, read("key", &self.key)?, read("CA", &self.ca)?);
        TlsConfig::build(cert, key, ca, self.allow.clone())
    }
}

impl TlsConfig {
    /// Reads and checks PEM files; the same as [`TlsFiles::load`].
    pub fn from_pem_files(files: &TlsFiles) -> Result<Self, TlsError> {
        files.load()
    }

    /// Checks PEM text: our certificate (with intermediates), its key, and the trust anchors.
    pub fn from_pem(cert: &[u8], key: &[u8], ca: &[u8], allow: Option<AllowRule>) -> Result<Self, TlsError> {
        let given = |role, bytes: &[u8]| (PemSource { role, path: None }, bytes.to_vec());
        Self::build(given("certificate", cert), given("key", key), given("CA", ca), allow)
    }

    fn build(
        (cert_pem, cert): (PemSource, Vec<u8>),
        (key_pem, key): (PemSource, Vec<u8>),
        (ca_pem, ca): (PemSource, Vec<u8>),
        allow: Option<AllowRule>,
    ) -> Result<Self, TlsError> {
        let chain = certificates(&cert_pem, &cert)?;
        check_validity(&cert_pem, &chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|source| match source {
            pem::Error::NoItemsFound => TlsError::Missing { pem: key_pem.clone(), wanted: "PRIVATE KEY" },
            source => TlsError::BadPem { pem: key_pem.clone(), source },
        })?;
        let mut roots = RootCertStore::empty();
        for anchor in certificates(&ca_pem, &ca)? {
            let refused = |error: rustls::Error| TlsError::BadCertificate {
                pem: ca_pem.clone(),
                reason: error.to_string(),
            };
            roots.add(anchor).map_err(refused)?;
        }
        let roots = Arc::new(roots);
        let provider = provider();

        let verifier = AllowedServer {
            chain: WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?,
            rule: allow.clone(),
        };
        let mismatch = |source: rustls::Error| TlsError::KeyMismatch {
            cert: cert_pem.clone(),
            key: key_pem.clone(),
            source: Box::new(source),
        };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;

        let verifier = AllowedClient {
            chain: WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?,
            rule: allow.clone(),
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;

        Ok(Self { client: Arc::new(client), server: Arc::new(server), allow })
    }

    /// For connecting. The peer's certificate must be of our CA, for the server name given, and allowed.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// For accepting. The peer must present a certificate of our CA that is allowed.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The peer's subject alternative names, if the allow rule accepts it. The handshake has done
    /// this already; again it is of use after the rule was replaced.
    pub fn check_peer(&self, chain: &[CertificateDer<'_>]) -> Result<Vec<String>, NotAllowed> {
        match chain.first() {
            Some(certificate) => verify::check(self.allow.as_ref(), certificate),
            None => Err(NotAllowed { names: Vec::new() }),
        }
    }
}

/// ring, and AES-128 first: 128 bits are enough, and it takes 10 rounds a block where AES-256 takes 14.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

/// At least one.
fn certificates(pem: &PemSource, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::BadPem { pem: pem.clone(), source })?;
    if found.is_empty() {
        return Err(TlsError::Missing { pem: pem.clone(), wanted: "CERTIFICATE" });
    }
    Ok(found)
}

fn check_validity(pem: &PemSource, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| TlsError::BadCertificate { pem: pem.clone(), reason: error.to_string() })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired { pem: pem.clone(), not_after: validity.not_after.to_string() });
    }
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid { pem: pem.clone(), not_before: validity.not_before.to_string() });
    }
    Ok(())
}
