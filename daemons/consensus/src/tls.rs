//! TLS for clients: what members offer in it, and a certificate that nobody has made.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use novacron_process::server_builder;
use tokio_rustls::rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};

/// HTTP/2 for gRPC; HTTP/1.1 for `/health` and the like.
pub(crate) const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A certificate for these hosts that only this process has signed. It encrypts; who is at the other end, no client can tell.
pub(crate) fn self_signed(hosts: Vec<String>) -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(hosts).context("making a certificate")?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let builder = server_builder()?.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key.into())?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
