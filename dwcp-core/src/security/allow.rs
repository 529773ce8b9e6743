//! Which of the authority's certificates may talk to us, by subject alternative name.
//!
//! Says nothing about whether a certificate is genuine; that is checked first (`verify`).

use std::{fmt, net::IpAddr, str::FromStr};

use rustls_pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

/// A peer is allowed if any of its names matches any pattern.
///
/// | pattern | matches |
/// |---|---|
/// | `node1.example` | this DNS name, in any case |
/// | `*.example` | DNS names with exactly one label before `.example` |
/// | `spiffe://dom/ns/a` | this URI, byte by byte |
/// | `spiffe://dom/ns/*` | URIs that begin with `spiffe://dom/ns/` and go on |
/// | `10.0.0.1`, `fd00::1` | this IP address |
///
/// A wildcard DNS name inside a certificate names no particular node and matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowRule {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Dns(String),
    /// With its leading dot, lower case.
    DnsSuffix(String),
    Uri(String),
    UriPrefix(String),
    Ip(IpAddr),
}

/// A pattern that can match nothing, or more than whoever wrote it can have meant.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// A rule without patterns would lock everybody out; leave the rule away instead.
    #[error("an allow rule needs at least one name; without a rule every certificate of the CA is allowed")]
    NoPatterns,
    /// Not a DNS name, `*.suffix`, URI or IP address.
    #[error("{pattern:?} is not a DNS name, *.suffix, URI, URI ending in /* or IP address")]
    Malformed {
        /// As given.
        pattern: String,
    },
}

/// A subject alternative name of the kinds that identify nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Lower case.
    Dns(String),
    Uri(String),
    Ip(IpAddr),
}

impl AllowRule {
    /// Reads patterns as in the table above.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let patterns: Vec<_> =
            patterns.into_iter().map(|pattern| pattern.as_ref().parse()).collect::<Result<_, _>>()?;
        if patterns.is_empty() {
            return Err(PatternError::NoPatterns);
        }
        Ok(Self { patterns })
    }

    pub(super) fn allows(&self, names: &[Name]) -> bool {
        names.iter().any(|name| self.patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let malformed = || PatternError::Malformed { pattern: text.to_owned() };
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let (stem, open) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
            // `spiffe://dom*` would match `spiffe://dom.evil/`.
            let authority = rest.split('/').next().unwrap_or_default();
            let whole_segments = !open || stem.ends_with('/');
            if scheme.is_empty()
                || authority.is_empty()
                || authority.contains('*')
                || stem.contains('*')
                || !whole_segments
            {
                return Err(malformed());
            }
            return Ok(if open { Self::UriPrefix(stem.to_owned()) } else { Self::Uri(stem.to_owned()) });
        }
        let lower = text.to_ascii_lowercase();
        let (name, suffix) = lower.strip_prefix("*.").map_or((lower.as_str(), false), |name| (name, true));
        if !is_dns_name(name) {
            return Err(malformed());
        }
        Ok(if suffix { Self::DnsSuffix(format!(".{name}")) } else { Self::Dns(lower) })
    }
}

impl Pattern {
    fn matches(&self, name: &Name) -> bool {
        match (self, name) {
            (Self::Dns(pattern), Name::Dns(name)) => pattern == name,
            (Self::DnsSuffix(suffix), Name::Dns(name)) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|label| is_dns_name(label) && !label.contains('.')),
            (Self::Uri(pattern), Name::Uri(name)) => pattern == name,
            (Self::UriPrefix(prefix), Name::Uri(name)) => {
                name.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                    !rest.is_empty() && !rest.split('/').any(|segment| matches!(segment, "." | ".."))
                })
            }
            (Self::Ip(pattern), Name::Ip(name)) => pattern == name,
            _ => false,
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

/// The names of a certificate; none if it has none or cannot be parsed.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Vec<Name> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(Name::from_general).collect()
}

impl Name {
    fn from_general(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(Self::Uri((*uri).to_owned())),
            GeneralName::IPAddress(bytes) => match *bytes {
                [a, b, c, d] => Some(Self::Ip(IpAddr::from([*a, *b, *c, *d]))),
                _ => Some(Self::Ip(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?))),
            },
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        if let Ok(ip) = text.parse() {
            return Name::Ip(ip);
        }
        if text.contains("://") { Name::Uri(text.to_owned()) } else { Name::Dns(text.to_owned()) }
    }

    #[test]
    fn patterns_match_what_the_table_says() {
        let table = [
            ("node1.example", "node1.example", true),
            ("Node1.Example", "node1.example", true),
            ("node1.example", "node1.example.evil", false),
            ("node1.example", "xnode1.example", false),
            ("*.example", "node1.example", true),
            ("*.example", "a.node1.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "*.example", false),
            ("*.example", "node1.example.evil", false),
            ("*.example", "node1xexample", false),
            ("spiffe://dom/ns/a", "spiffe://dom/ns/a", true),
            ("spiffe://dom/ns/a", "spiffe://dom/ns/a/b", false),
            ("spiffe://dom/ns/a", "spiffe://dom/ns/A", false),
            ("spiffe://dom/ns/*", "spiffe://dom/ns/a/b", true),
            ("spiffe://dom/ns/*", "spiffe://dom/ns/", false),
            ("spiffe://dom/ns/*", "spiffe://dom/ns", false),
            ("spiffe://dom/ns/*", "spiffe://dom/ns/../admin", false),
            ("spiffe://dom/*", "spiffe://dom.evil/a", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("fd00:0::1", "fd00::1", true),
        ];
        for (pattern, presented, expected) in table {
            let rule = AllowRule::new([pattern]).unwrap();
            assert_eq!(rule.allows(&[name(presented)]), expected, "{pattern} against {presented}");
        }
    }

    #[test]
    fn an_address_in_a_dns_field_is_not_an_address() {
        let rule = AllowRule::new(["10.0.0.1"]).unwrap();
        assert!(!rule.allows(&[Name::Dns("10.0.0.1".to_owned())]));
    }

    #[test]
    fn one_match_among_many_is_enough_and_no_name_is_not() {
        let rule = AllowRule::new(["a.example", "spiffe://dom/*"]).unwrap();
        assert!(rule.allows(&[name("x.example"), name("spiffe://dom/b")]));
        assert!(!rule.allows(&[name("x.example")]));
        assert!(!rule.allows(&[]));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            "",
            "*",
            "*.",
            "a..b",
            "a b",
            "node1.*",
            "a*.example",
            "spiffe://",
            "://a",
            "spiffe://*",
            "spiffe://dom*",
            "spiffe://dom/a*",
            "spiffe://dom/*/a",
            "spiffe://d*m/a",
        ];
        for pattern in bad {
            let error = PatternError::Malformed { pattern: pattern.to_owned() };
            assert_eq!(AllowRule::new([pattern]), Err(error));
        }
        assert_eq!(AllowRule::new::<&str>([]), Err(PatternError::NoPatterns));
    }
}
