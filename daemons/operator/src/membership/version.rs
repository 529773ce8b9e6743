//! Which step from one version to another is allowed.
//!
//! Members of two neighbouring minor versions run beside each other during an upgrade, and back again when it is taken back.
//! Farther ones are never tried together, so they do not meet.

use std::{fmt, str::FromStr};

/// `MAJOR.MINOR.PATCH`, and what may follow after a dash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    pre: String,
}

/// Why a step is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkewError {
    /// It is no version.
    #[error("{text:?} is not MAJOR.MINOR.PATCH")]
    NoVersion {
        /// What there was.
        text: String,
    },
    /// Too far.
    #[error("from {from} to {to}: versions go one minor version at a time, forwards or back")]
    TooFar {
        /// What runs.
        from: Version,
        /// What was asked for.
        to: Version,
    },
}

impl FromStr for Version {
    type Err = SkewError;

    fn from_str(text: &str) -> Result<Self, SkewError> {
        let wrong = || SkewError::NoVersion { text: text.to_owned() };
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = numbers.split('.').map(|part| part.parse::<u64>().map_err(|_| wrong()));
        let mut next = || parts.next().ok_or_else(wrong)?;
        let (major, minor, patch) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { major, minor, patch, pre: pre.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = if self.pre.is_empty() { "" } else { "-" };
        write!(f, "{}.{}.{}{dash}{}", self.major, self.minor, self.patch, self.pre)
    }
}

/// Checks a step from what runs to what is asked for.
///
/// # Errors
/// [`SkewError`].
pub fn check(from: &str, to: &str) -> Result<(), SkewError> {
    let (from, to): (Version, Version) = (from.parse()?, to.parse()?);
    if from.major == to.major && from.minor.abs_diff(to.minor) <= 1 {
        return Ok(());
    }
    Err(SkewError::TooFar { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_one_minor_version_at_a_time() {
        for (from, to, is_allowed) in [
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "1.2.9", true),
            ("1.2.3", "1.3.0", true),
            ("1.3.0", "1.2.3", true),
            ("1.2.3", "1.3.0-rc.1", true),
            ("1.2.3", "1.4.0", false),
            ("1.4.0", "1.2.0", false),
            ("1.9.0", "2.0.0", false),
            ("2.0.0", "1.9.0", false),
        ] {
            assert_eq!(check(from, to).is_ok(), is_allowed, "{from} -> {to}");
        }
        for text in ["", "1", "1.2", "1.2.x", "1.2.3.4", "latest"] {
            assert!(matches!(check(text, "1.0.0"), Err(SkewError::NoVersion { .. })), "{text}");
        }
        assert_eq!("1.2.3-a.b-c".parse::<Version>().unwrap().to_string(), "1.2.3-a.b-c");
    }
}
