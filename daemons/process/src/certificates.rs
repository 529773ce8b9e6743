//! Certificates that the settings name: read before anything is opened, and again when they change.

use std::sync::Arc;

use dwcp_core::{
    Endpoint,
    security::{AllowRule, PatternError, RELOAD_INTERVAL, TlsError, TlsFiles, watch},
};
use novacron_settings::Settings;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// Of `tls.allow`.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A file, and where the settings name it.
    #[error("{origin}: tls: {source}")]
    Load {
        /// Where `tls.cert` comes from.
        origin: String,
        /// What is wrong with it.
        source: TlsError,
    },
}

/// The files of an endpoint's certificates; none in plaintext.
#[derive(Clone, Debug)]
pub struct Certificates(Option<TlsFiles>);

impl Certificates {
    /// Reads what the settings name into `endpoint.tls`. `origin`: where `tls.cert` comes from, for errors.
    ///
    /// # Errors
    /// If there is something wrong with a file or with what it says.
    pub fn load(settings: &mut Settings, origin: &str) -> Result<Self, CertificatesError> {
        let Some(named) = &settings.tls else { return Ok(Self(None)) };
        let allow = match &named.allow[..] {
            [] => None,
            names => Some(AllowRule::new(names)?),
        };
        let files =
            TlsFiles { cert: named.cert.clone(), key: named.key.clone(), ca: named.ca.clone(), allow };
        let loaded =
            files.load().map_err(|source| CertificatesError::Load { origin: origin.to_owned(), source })?;
        settings.endpoint.tls = Some(Arc::new(loaded));
        Ok(Self(Some(files)))
    }

    /// Keeps an endpoint's certificates like the files, for as long as the process runs.
    pub fn keep_fresh(&self, endpoint: &Endpoint) {
        if let Some(files) = self.0.clone() {
            let endpoint = endpoint.clone();
            tokio::spawn(watch(files, RELOAD_INTERVAL, move |tls| endpoint.reload_tls(tls)));
        }
    }
}
