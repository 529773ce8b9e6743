//! What a certificate says.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

use super::CertificateError;

/// Of a certificate: who, by whom, how long, for which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is.
    pub subject: String,
    /// Who has issued it.
    pub issuer: String,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// DNS names and addresses.
    pub names: BTreeSet<String>,
    /// The public key, as its bits.
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Of the first certificate of a PEM.
    ///
    /// # Errors
    /// [`CertificateError::Certificate`].
    pub fn of_pem(text: &str) -> Result<Self, CertificateError> {
        let no = |reason: String| CertificateError::Certificate { reason };
        let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|error| no(error.to_string()))?;
        let found = pem.parse_x509().map_err(|error| no(error.to_string()))?;
        let time = |at: i64| Timestamp::from_second(at).map_err(|error| no(error.to_string()));
        let names = found.subject_alternative_name().map_err(|error| no(error.to_string()))?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        Ok(Self {
            subject: found.subject().to_string(),
            issuer: found.issuer().to_string(),
            not_before: time(found.validity().not_before.timestamp())?,
            not_after: time(found.validity().not_after.timestamp())?,
            names: names.collect(),
            public_key: found.public_key().subject_public_key.data.to_vec(),
        })
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Facts::of_pem(text).is_err(), "{text:?}");
        }
    }
}
