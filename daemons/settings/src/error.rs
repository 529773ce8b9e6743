//! What can be wrong with a setting, and where it stands.

use std::fmt;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, counted from 1.
    File {
        /// Name of the file.
        name: String,
        /// Line of the value or of its key.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// Set nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why settings were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file is not the YAML that is understood here.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// No setting has this name.
    #[error("{origin}: {key}: no such setting{}", suggestion(.nearest))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The name as it was given.
        key: String,
        /// The most similar name, if one is similar.
        nearest: Option<&'static str>,
    },
    /// A file sets something twice.
    #[error("{origin}: {key}: already set in line {first_line}")]
    Duplicate {
        /// Where the second one is.
        origin: Origin,
        /// Which setting.
        key: String,
        /// Where the first one is.
        first_line: usize,
    },
    /// The value does not fit.
    #[error("{origin}: {key}: {value:?} is not allowed, expected {expected}")]
    Invalid {
        /// Where.
        origin: Origin,
        /// Which setting.
        key: &'static str,
        /// The value as it was given, without a password.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The file is longer than [`Layers::FILE_BYTES_MAX`](crate::Layers::FILE_BYTES_MAX).
    #[error("{name}: longer than {max} bytes")]
    TooLong {
        /// Name of the file.
        name: String,
        /// The bound.
        max: usize,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
