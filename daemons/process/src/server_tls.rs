//! TLS of a server: from PEM files to what each new handshake uses, which follows the files when they change.
//!
//! For clients that speak HTTP or gRPC. DWCP has its own (`dwcp_core::security`).

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerTlsError {
    /// A file that cannot be read, or is no PEM.
    #[error("the {what} in {}: {source}", .path.display())]
    Pem {
        /// Certificates, or the key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is nothing in it.
    #[error("there is no certificate in {}", .path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key are no good, or not each other's; or an authority is none.
    #[error("the certificate in {}: {source}", .path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// No client could be checked.
    #[error("the authority of clients: {source}")]
    Verifier {
        /// Why.
        source: VerifierBuilderError,
    },
    /// The versions of TLS are not there.
    #[error("TLS versions: {source}")]
    Versions {
        /// Why.
        source: rustls::Error,
    },
}

/// Where the PEM files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of clients' certificates; `None`: nobody is asked for one.
    pub client_ca: Option<PathBuf>,
    /// A client has to show a certificate of that authority. Otherwise one that shows none is let in as well.
    pub client_cert_required: bool,
    /// Application protocols, the preferred one first.
    pub alpn: &'static [&'static [u8]],
}

impl ServerFiles {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// If there is something wrong with one of them.
    pub fn load(&self) -> Result<Arc<ServerConfig>, ServerTlsError> {
        let chain = pem_certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| ServerTlsError::Pem {
            what: "key",
            path: self.key.clone(),
            source,
        })?;
        let builder = server_builder()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for anchor in pem_certificates(path)? {
                    roots
                        .add(anchor)
                        .map_err(|source| ServerTlsError::Certificate { path: path.clone(), source })?;
                }
                let provider = Arc::clone(builder.crypto_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier =
                    if self.client_cert_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|source| ServerTlsError::Verifier { source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|source| ServerTlsError::Certificate { path: self.cert.clone(), source })?;
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// All of the files.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect()
    }
}

/// What the configuration of a server begins with: TLS 1.3 and 1.2, with ring.
///
/// # Errors
/// [`ServerTlsError::Versions`].
pub fn server_builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, ServerTlsError> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|source| ServerTlsError::Versions { source })
}

/// The certificates of a PEM file.
///
/// # Errors
/// If it cannot be read, or has none.
pub fn pem_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerTlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| ServerTlsError::Pem { what: "certificates", path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(ServerTlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

/// What the next handshake uses.
#[derive(Clone, Debug)]
pub struct CurrentTls(Arc<RwLock<Arc<ServerConfig>>>);

impl CurrentTls {
    /// Begins with this.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on handshakes use this.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Files whose change is noticed by what is in them: they are small, and a replaced symbolic link, a copy or a touched file
/// all come out right.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
}

impl Watched {
    /// What is in the files now is taken as known.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let seen = contents(&paths);
        Self { paths, seen }
    }

    /// Whether they are others than at the last look.
    pub fn have_changed(&mut self) -> bool {
        let now = contents(&self.paths);
        std::mem::replace(&mut self.seen, now) != self.seen
    }
}

fn contents(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| std::fs::read(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.have_changed());
        for content in ["a", "b"] {
            std::fs::write(&path, content).unwrap();
            assert!(watched.have_changed());
            assert!(!watched.have_changed());
        }
        std::fs::write(&path, "b").unwrap();
        assert!(!watched.have_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(watched.have_changed());
    }

    #[test]
    fn files_that_are_no_good_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files =
            ServerFiles { cert, key, client_ca: None, client_cert_required: false, alpn: &[b"http/1.1"] };
        assert!(files.load().unwrap_err().to_string().contains("cert.pem"));
        std::fs::write(&files.cert, "").unwrap();
        assert!(matches!(files.load().unwrap_err(), ServerTlsError::NoCertificate { .. }));
    }
}
