//! Where settings come from: `--config FILE`, `NOVACRON_*` variables, and a flag for each setting.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use novacron_process::{SourceError, host_name, settings_text};
use novacron_settings::{SettingsError, Sources};

use crate::settings::{KEYS, Settings, finish};

/// What is no good about the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A setting.
    #[error(transparent)]
    Setting(#[from] SettingsError),
}

/// All settings, and what should be said about them once there is a log.
pub struct Loaded {
    /// With where each comes from.
    pub sources: Sources<Settings>,
    /// In words.
    pub warnings: Vec<String>,
}

fn flag(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// The command line: a flag for each setting, its name with dashes.
pub fn command() -> Command {
    let flags = KEYS.iter().map(|key| {
        let arg = Arg::new(key.name).long(flag(key.name)).value_name("VALUE").help(key.expected);
        let arg = arg.help_heading("Settings");
        // A flag that allows something needs no value.
        if key.name.ends_with("allow_plaintext") {
            arg.num_args(0..=1).default_missing_value("true").require_equals(true)
        } else {
            arg
        }
    });
    Command::new("novacron-api")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The HTTP API: virtual machines, nodes, members of the store, and a durable queue of jobs")
        .after_help(AFTER_HELP)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("YAML file with settings; environment variables NOVACRON_* go over it, and flags over these"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Prints all settings, with where each comes from, as a YAML file that --config takes, and ends"),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .conflicts_with("print-config")
                .help("Checks settings and certificates and ends: exit code 0, or 2 with what is wrong and where"),
        )
        .args(flags)
}

const AFTER_HELP: &str = "\
SIGTERM, SIGINT and SIGUSR1 drain: readiness ends, requests that have begun come to their end, jobs go back into the queue. A
second SIGTERM or SIGINT stops now.

Exit codes:
  0  drained
  1  failure
  2  wrong usage: a flag, a setting or a configuration file
  3  stopped before everything had come to its end";

/// Puts all sources together.
///
/// # Errors
/// [`LoadError`] names what is wrong, and where it stands.
pub fn load(matches: &ArgMatches, environment: Vec<(String, String)>) -> Result<Loaded, LoadError> {
    let mut sources = Sources::new(KEYS, Settings::new(host_name()));
    if let Some(path) = matches.get_one::<String>("config") {
        sources.file(path, &settings_text(Path::new(path))?)?;
    }
    let unknown = sources.env(environment)?;
    let warnings = unknown
        .into_iter()
        .map(|name| format!("environment variable {name}: there is no such setting: ignored"))
        .collect();
    for key in KEYS {
        if let Some(value) = matches.get_one::<String>(key.name) {
            sources.flag(&format!("--{}", flag(key.name)), key.name, value)?;
        }
    }
    finish(&sources)?;
    Ok(Loaded { sources, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_goes_over_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.yaml");
        std::fs::write(&file, "replica: file\ndrain_timeout: 1s\nlimits:\n  requests_max: 7\n").unwrap();
        let args =
            ["novacron-api", "--config", file.to_str().unwrap(), "--replica", "flag", "--allow-plaintext"];
        let matches = command().try_get_matches_from(args).unwrap();
        let environment =
            [("NOVACRON_REPLICA", "env"), ("NOVACRON_LOG_LEVEL", "debug"), ("NOVACRON_NO", "1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = load(&matches, environment.to_vec()).unwrap();
        let settings = &loaded.sources.values;
        assert_eq!((settings.replica.as_str(), settings.log_level.as_str()), ("flag", "debug"));
        assert_eq!((settings.limits.requests_max, settings.drain_timeout.as_secs()), (7, 1));
        assert!(settings.allow_plaintext);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }

    #[test]
    fn the_command_line_makes_sense() {
        command().debug_assert();
    }
}
