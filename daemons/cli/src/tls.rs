//! The security flags, and all that this command knows of certificates.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use clap::Args;
use dwcp_core::{
    Endpoint, EndpointConfig,
    security::{AllowRule, RELOAD_INTERVAL, TlsFiles, watch},
};

use crate::exit::Usage;

/// Certificates of this node and who may talk to it.
#[derive(Args, Debug, Default)]
pub(crate) struct TlsArgs {
    /// This node's certificate (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["key", "ca"], help_heading = "Security")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Security")]
    key: Option<PathBuf>,
    /// The authority that signs all nodes (PEM).
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Security")]
    ca: Option<PathBuf>,
    /// Names a peer's certificate may carry, one of them at least; `*.example` and `spiffe://dom/*` work
    /// [default: any that the authority signed].
    #[arg(long, value_name = "NAME", requires = "cert", help_heading = "Security")]
    allow: Vec<String>,
    /// Without certificates, allows plaintext on addresses other than loopback.
    #[arg(long, conflicts_with = "cert", help_heading = "Security")]
    allow_plaintext: bool,
}

impl TlsArgs {
    /// Puts certificates, or the leave to do without, into the endpoint's configuration.
    pub(crate) fn apply(&self, config: &mut EndpointConfig) -> Result<()> {
        config.allow_plaintext = self.allow_plaintext;
        if let Some(files) = self.files()? {
            config.tls = Some(Arc::new(files.load()?));
        }
        Ok(())
    }

    /// Keeps a listening endpoint's certificates fresh, for as long as the process runs.
    pub(crate) fn keep_fresh(&self, endpoint: &Endpoint) -> Result<()> {
        if let Some(files) = self.files()? {
            let endpoint = endpoint.clone();
            tokio::spawn(watch(files, RELOAD_INTERVAL, move |tls| endpoint.reload_tls(tls)));
        }
        Ok(())
    }

    fn files(&self) -> Result<Option<TlsFiles>> {
        let (Some(cert), Some(key), Some(ca)) = (&self.cert, &self.key, &self.ca) else { return Ok(None) };
        let allow = match &self.allow[..] {
            [] => None,
            names => Some(AllowRule::new(names).map_err(|error| Usage(format!("--allow: {error}")))?),
        };
        Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone(), allow }))
    }
}
