//! The two settings that every program has: which log lines there are, and in which format.

use crate::{Key, set, value::printed};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How they are written.
    pub format: LogFormat,
    /// Which are, where `RUST_LOG` does not say.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl AsRef<Self> for LogSettings {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsMut<Self> for LogSettings {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// `log.format` and `log.level`, for the table of a program whose settings contain [`LogSettings`].
pub fn log_keys<S: AsRef<LogSettings> + AsMut<LogSettings>>() -> [Key<S>; 2] {
    [
        Key::one(
            "log.format",
            "text or json",
            |s: &mut S, text| {
                let set: fn(&mut LogSettings, &str) -> Option<()> = set!(format, |t| match t {
                    "text" => Some(LogFormat::Text),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                });
                set(s.as_mut(), text)
            },
            |s| match s.as_ref().format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
        ),
        Key::one(
            "log.level",
            "trace, debug, info, warn or error",
            |s: &mut S, text| {
                let set: fn(&mut LogSettings, &str) -> Option<()> = set!(level, |t| {
                    ["trace", "debug", "info", "warn", "error"].contains(&t).then(|| t.to_owned())
                });
                set(s.as_mut(), text)
            },
            |s| printed(&s.as_ref().level),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    #[test]
    fn formats_and_levels() {
        let mut sources = Sources::new(log_keys(), LogSettings::default());
        for (key, value, fits) in [
            ("log.format", "json", true),
            ("log.format", "JSON", false),
            ("log.level", "debug", true),
            ("log.level", "loud", false),
        ] {
            assert_eq!(sources.flag("--x", key, value).is_ok(), fits, "{key}: {value}");
        }
        assert_eq!(sources.values, LogSettings { format: LogFormat::Json, level: "debug".to_owned() });
        assert!(sources.to_yaml_with_origins().starts_with("log:\n  format: json"));
    }
}
