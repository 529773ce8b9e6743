//! How authorities and certificates are kept in Secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{Authorities, Authority, CertificateError, Facts, Held, issue};

/// Annotation: since when the last step is in every region's Secrets.
const SPREAD_SINCE: &str = "novacron.io/spread-since";
/// Annotation: which authority was asked for when the newest was made.
const NUMBER: &str = "novacron.io/authority";
/// Parts of a certificate's Secret, as cert-manager calls them.
const LEAF: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What the Secret of authorities has.
///
/// # Errors
/// A part is missing, or not what it should be: the Secret was changed by somebody else.
pub fn authorities(secret: &Secret) -> Result<Authorities, CertificateError> {
    let annotation = |key: &str| secret.metadata.annotations.as_ref()?.get(key);
    let authority = |cert: &'static str, key: &'static str| {
        let Ok(text) = part(secret, cert) else { return Ok(None) };
        Ok::<_, CertificateError>(Some(Authority {
            facts: Facts::of_pem(&text)?,
            key: part(secret, key).ok(),
            cert: text,
        }))
    };
    let missing = || CertificateError::Part {
        secret: secret.metadata.name.clone().unwrap_or_default(),
        part: "ca.crt",
    };
    Ok(Authorities {
        issuing: authority("ca.crt", "ca.key")?.ok_or_else(missing)?,
        next: authority("next.crt", "next.key")?,
        former: authority("former.crt", "former.key")?,
        spread_since: annotation(SPREAD_SINCE).and_then(|text| text.parse::<Timestamp>().ok()),
        number: annotation(NUMBER).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// The Secret of authorities.
pub fn of_authorities(metadata: ObjectMeta, has: &Authorities) -> Secret {
    let mut data = BTreeMap::new();
    let all = [("ca", Some(&has.issuing)), ("next", has.next.as_ref()), ("former", has.former.as_ref())];
    for (name, authority) in all {
        let Some(authority) = authority else { continue };
        data.insert(format!("{name}.crt"), bytes(&authority.cert));
        if let Some(key) = &authority.key {
            data.insert(format!("{name}.key"), bytes(key));
        }
    }
    let mut annotations = BTreeMap::from([(NUMBER.to_owned(), has.number.to_string())]);
    annotations.extend(has.spread_since.map(|since| (SPREAD_SINCE.to_owned(), since.to_string())));
    Secret {
        metadata: ObjectMeta { annotations: Some(annotations), ..metadata },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// What a component's Secret has, if it has all parts.
pub fn leaf(secret: &Secret) -> Option<Held> {
    let [cert, key, bundle] = LEAF.map(|name| part(secret, name).ok());
    Some(issue::held(cert?, key?, bundle?))
}

/// A component's Secret.
pub fn of_leaf(metadata: ObjectMeta, cert: &str, key: &str, bundle: &str) -> Secret {
    let data = LEAF.into_iter().zip([cert, key, bundle]);
    Secret {
        metadata,
        data: Some(data.map(|(name, text)| (name.to_owned(), bytes(text))).collect()),
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    }
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn part(secret: &Secret, part: &'static str) -> Result<String, CertificateError> {
    let missing =
        || CertificateError::Part { secret: secret.metadata.name.clone().unwrap_or_default(), part };
    let found = secret.data.as_ref().and_then(|data| data.get(part)).ok_or_else(missing)?;
    String::from_utf8(found.0.clone()).map_err(|_| missing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Policy;

    #[test]
    fn what_is_kept_is_read_again() {
        let policy = Policy::from(&crate::api::ManagedTls::default());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let made = |name| issue::authority(name, &policy, now).unwrap();
        let has = Authorities {
            issuing: made("a"),
            next: Some(made("b")),
            former: Some(Authority { key: None, ..made("c") }),
            spread_since: Some(now),
            number: 3,
        };
        let kept = of_authorities(ObjectMeta::default(), &has);
        assert_eq!(authorities(&kept).unwrap(), has);
        let few = Authorities { next: None, former: None, spread_since: None, ..has };
        assert_eq!(authorities(&of_authorities(ObjectMeta::default(), &few)).unwrap(), few);
        assert!(authorities(&Secret::default()).is_err());
        assert_eq!(leaf(&Secret::default()), None);
    }
}
