//! What a client's certificate says. That it is genuine, the TLS handshake has found out.

use x509_parser::{extensions::GeneralName, prelude::FromDer as _, prelude::X509Certificate};

/// A certificate that a client has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// DNS names in lower case, and URIs, of its subject's alternative names.
    pub(crate) names: Vec<String>,
    /// From then on it is not valid, in milliseconds since 1970: connections can last longer.
    pub(crate) expires_ms: u64,
}

impl Certificate {
    /// Of its DER; `None` if that cannot be read.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()?.map_or(Vec::new(), |extension| {
            let names = extension.value.general_names.iter();
            let names = names.filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            });
            names.collect()
        });
        let expires = certificate.validity().not_after.timestamp();
        Some(Self { names, expires_ms: u64::try_from(expires).unwrap_or(0).saturating_mul(1000) })
    }
}
