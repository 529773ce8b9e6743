//! TLS for clients: from PEM files to what each new handshake uses, which follows the files when they change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, Result, ensure};
use tokio_rustls::rustls::{
    ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

/// HTTP/2 for gRPC; HTTP/1.1 for `/health` and the like.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the PEM files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// With it, a client has to show a certificate of this authority.
    pub(crate) client_ca: Option<PathBuf>,
}

impl ClientFiles {
    /// Reads and checks the files.
    pub(crate) fn load(&self) -> Result<Arc<ServerConfig>> {
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("the key in {}", self.key.display()))?;
        let builder = builder()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for anchor in certificates(path)? {
                    roots.add(anchor).with_context(|| format!("the authority in {}", path.display()))?;
                }
                let provider = Arc::clone(builder.crypto_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.context("the authority of clients")?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).with_context(|| {
            format!("the certificate in {} with the key in {}", self.cert.display(), self.key.display())
        })?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect()
    }
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>> {
    let provider = Arc::new(ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .context("TLS versions")
}

/// A certificate for these hosts that only this process has signed. It encrypts; who is at the other end, no client can tell.
pub(crate) fn self_signed(hosts: Vec<String>) -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(hosts).context("making a certificate")?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let builder = builder()?.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key.into())?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.with_context(|| format!("the certificates in {}", path.display()))?;
    ensure!(!found.is_empty(), "there is no certificate in {}", path.display());
    Ok(found)
}

/// What the next handshake uses.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<RwLock<Arc<ServerConfig>>>);

impl Current {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    pub(crate) fn get(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}
