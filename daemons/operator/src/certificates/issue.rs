//! Keys and certificates are made: ECDSA on P-256, as rcgen makes them, with randomness of the system.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::{Authority, CertificateError, Facts, Held, Policy};

/// Clocks of two machines may differ by this.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// A new authority of a cluster. Its name is no other one's: it says when it was made.
///
/// # Errors
/// What rcgen says.
pub fn authority(cluster: &str, policy: &Policy, now: Timestamp) -> Result<Authority, CertificateError> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{cluster} authority {}", now.as_microsecond()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time(now - BACKDATED)?;
    params.not_after = time(now + policy.authority_validity)?;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?.pem();
    Ok(Authority { facts: Facts::of_pem(&cert)?, cert, key: Some(key.serialize_pem()) })
}

/// A certificate for these names, for servers and for clients, and its key. It ends no later than its issuer.
///
/// # Errors
/// What rcgen says; the issuer has no key.
pub fn leaf(
    issuer: &Authority,
    common_name: &str,
    names: &BTreeSet<String>,
    policy: &Policy,
    now: Timestamp,
) -> Result<(String, String), CertificateError> {
    let missing = || CertificateError::Certificate { reason: "its issuer has no key".to_owned() };
    let key = KeyPair::from_pem(issuer.key.as_deref().ok_or_else(missing)?)?;
    let by = Issuer::from_ca_cert_pem(&issuer.cert, key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let san = |name: &String| {
        Ok(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        })
    };
    params.subject_alt_names = names.iter().map(san).collect::<Result<_, rcgen::Error>>()?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = time((now - BACKDATED).max(issuer.facts.not_before))?;
    params.not_after = time((now + policy.validity).min(issuer.facts.not_after))?;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &by)?.pem(), key.serialize_pem()))
}

/// What a certificate and its key are; no facts, if they are not each other's.
pub fn held(cert: String, key: String, bundle: String) -> Held {
    let facts = Facts::of_pem(&cert).ok().filter(|facts| {
        KeyPair::from_pem(&key).is_ok_and(|pair| rcgen::PublicKeyData::der_bytes(&pair) == facts.public_key)
    });
    Held { cert, key, bundle, facts }
}

fn time(at: Timestamp) -> Result<OffsetDateTime, CertificateError> {
    let seconds = at.as_second();
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CertificateError::Time { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_says_what_it_is_to_say() {
        let policy = Policy::from(&crate::api::ManagedTls::default());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = authority("nova", &policy, now).unwrap();
        assert_eq!(first.facts.subject, "CN=nova authority 1800000000000000");
        assert_eq!(first.facts.not_after, now + SignedDuration::from_hours(87_600));
        let names = ["*.a.svc", "192.0.2.1", "2001:db8::1", "a.svc"];
        let names = names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        let (cert, key) = leaf(&first, "a", &names, &policy, now).unwrap();
        let made = held(cert.clone(), key.clone(), first.cert.clone());
        let facts = made.facts.unwrap();
        assert_eq!((&facts.names, &facts.issuer), (&names, &first.facts.subject));
        assert_eq!(facts.not_after, now + SignedDuration::from_hours(2160));
        let (_, other) = leaf(&first, "a", &names, &policy, now).unwrap();
        assert_eq!(held(cert, other, String::new()).facts, None, "another's key");
        let late = first.facts.not_after - SignedDuration::from_hours(1);
        let (cert, _) = leaf(&first, "a", &names, &policy, late).unwrap();
        assert_eq!(Facts::of_pem(&cert).unwrap().not_after, first.facts.not_after);
        let former = Authority { key: None, ..first };
        assert!(leaf(&former, "a", &names, &policy, now).is_err());
    }
}
