//! When a component of a region gets another certificate.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;

use super::{Facts, Policy};

/// What a component's Secret has.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The certificate, as PEM.
    pub cert: String,
    /// Its key, as PEM.
    pub key: String,
    /// Whom it trusts, as PEM.
    pub bundle: String,
    /// What the certificate says; `None`: it is none, or key and certificate are not each other's.
    pub facts: Option<Facts>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// What it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// DNS names.
    pub names: BTreeSet<String>,
    /// Who issues.
    pub issuer: String,
    /// Whom it is to trust, as PEM.
    pub bundle: String,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new key and certificate.
    Issue(Why),
    /// The same ones, and whom it trusts is another.
    Trust,
    /// Nothing, until this time.
    Keep(Timestamp),
}

/// Why there is a new certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There was none, or none that could be used.
    Missing,
    /// It is for other names.
    Names,
    /// The authority is another one.
    Authority,
    /// It ends soon.
    Ends,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there was none that could be used",
            Self::Names => "its names are others",
            Self::Authority => "the authority is another one",
            Self::Ends => "it would have ended soon",
        })
    }
}

/// What to do.
pub fn decide(held: Option<&Held>, wanted: &Wanted, policy: &Policy, now: Timestamp) -> Change {
    let Some((held, facts)) = held.and_then(|held| Some((held, held.facts.as_ref()?))) else {
        return Change::Issue(Why::Missing);
    };
    let due = facts.not_after.checked_sub(policy.renew_before).unwrap_or(Timestamp::MIN);
    match () {
        () if facts.names != wanted.names => Change::Issue(Why::Names),
        () if facts.issuer != wanted.issuer => Change::Issue(Why::Authority),
        () if now >= due => Change::Issue(Why::Ends),
        () if held.bundle != wanted.bundle => Change::Trust,
        () => Change::Keep(due),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn a_certificate_is_kept_while_it_is_as_it_should_be() {
        let at = |hours: i32| Timestamp::UNIX_EPOCH + HOUR * hours;
        let policy = Policy {
            validity: HOUR * 10,
            renew_before: HOUR * 3,
            authority_validity: HOUR * 100,
            settle: HOUR,
            number: 1,
        };
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let wanted = |issuer: &str, all: &[&str], bundle: &str| Wanted {
            names: names(all),
            issuer: issuer.to_owned(),
            bundle: bundle.to_owned(),
        };
        let facts = Facts {
            subject: "x".to_owned(),
            issuer: "a".to_owned(),
            not_before: at(0),
            not_after: at(10),
            names: names(&["x", "y"]),
            public_key: Vec::new(),
        };
        let held = Held {
            cert: String::new(),
            key: "secret".to_owned(),
            bundle: "a".to_owned(),
            facts: Some(facts),
        };
        let broken = Held { facts: None, ..held.clone() };
        let same = wanted("a", &["y", "x"], "a");
        for (held, wanted, now, expected) in [
            (None, &same, at(0), Change::Issue(Why::Missing)),
            (Some(&broken), &same, at(0), Change::Issue(Why::Missing)),
            (Some(&held), &same, at(0), Change::Keep(at(7))),
            (Some(&held), &same, at(7), Change::Issue(Why::Ends)),
            (Some(&held), &wanted("a", &["x"], "a"), at(0), Change::Issue(Why::Names)),
            (Some(&held), &wanted("b", &["x", "y"], "ab"), at(0), Change::Issue(Why::Authority)),
            (Some(&held), &wanted("a", &["x", "y"], "ab"), at(0), Change::Trust),
        ] {
            assert_eq!(decide(held, wanted, &policy, now), expected, "{wanted:?} {now}");
        }
        assert!(!format!("{held:?}").contains("secret"));
    }
}
