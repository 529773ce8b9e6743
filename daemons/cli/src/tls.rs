//! The security flags.

use clap::Args;

use crate::settings::Flag;

/// Certificates of this node and who may talk to it.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Security")]
pub(crate) struct TlsArgs {
    /// This node's certificate (PEM).
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The authority that signs all nodes (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Names a peer's certificate may carry, one of them at least; `*.example` and `spiffe://dom/*` work. Without any,
    /// whatever the authority signed is allowed.
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// Without certificates, allows plaintext on addresses other than loopback.
    #[arg(long, conflicts_with = "cert")]
    allow_plaintext: bool,
}

impl TlsArgs {
    pub(crate) fn flags(&self) -> [Flag; 5] {
        [
            ("--cert", "tls.cert", self.cert.clone()),
            ("--key", "tls.key", self.key.clone()),
            ("--ca", "tls.ca", self.ca.clone()),
            ("--allow", "tls.allow", (!self.allow.is_empty()).then(|| self.allow.join(","))),
            ("--allow-plaintext", "allow_plaintext", self.allow_plaintext.then(|| "true".to_owned())),
        ]
    }
}
