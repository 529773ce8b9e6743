//! Where settings come from: `--config FILE`, `NOVACRON_*` variables, and a flag for each setting.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use novacron_process::{SourceError, host_name, settings_text};
use novacron_settings::{SettingsError, Sources};

use crate::settings::{Settings, finish, keys};

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

/// The command line: a flag for each setting, its name with dashes.
pub fn command() -> Command {
    let flags = keys().into_iter().map(|key| {
        Arg::new(key.name)
            .long(key.name.replace(['.', '_'], "-"))
            .value_name("VALUE")
            .help(key.expected)
            .help_heading("Settings")
    });
    Command::new("novacron-dwcp")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The node agent: one DWCP connection to each peer, transfers, guards in XDP, and a control API")
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
SIGTERM, SIGINT and SIGUSR1 drain: nothing new is taken on, transfers come to their end. A second SIGTERM or SIGINT stops now.

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
    let mut sources = Sources::new(keys(), Settings::new(host_name()));
    if let Some(path) = matches.get_one::<String>("config") {
        sources.file(path, &settings_text(Path::new(path))?)?;
    }
    let unknown = sources.env(environment)?;
    let warnings = unknown
        .into_iter()
        .map(|name| format!("environment variable {name}: there is no such setting: ignored"))
        .collect();
    for key in keys() {
        if let Some(value) = matches.get_one::<String>(key.name) {
            sources.flag(&format!("--{}", key.name.replace(['.', '_'], "-")), key.name, value)?;
        }
    }
    finish(&mut sources)?;
    Ok(Loaded { sources, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_goes_over_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.yaml");
        std::fs::write(&file, "node_id: file\nregion: file\ndrain_timeout: 1s\nxdp:\n  mode: native\n")
            .unwrap();
        let args = ["novacron-dwcp", "--config", file.to_str().unwrap(), "--node-id", "flag"];
        let matches = command().try_get_matches_from(args).unwrap();
        let environment =
            [("NOVACRON_NODE_ID", "env"), ("NOVACRON_REGION", "env"), ("NOVACRON_NONSENSE", "1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = load(&matches, environment.to_vec()).unwrap();
        let settings = &loaded.sources.values;
        assert_eq!(settings.node_id(), "flag");
        assert_eq!(settings.transport.endpoint.region.as_deref(), Some("env"));
        assert_eq!(settings.transport.drain_timeout.as_secs(), 1);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }

    #[test]
    fn the_command_line_makes_sense() {
        command().debug_assert();
    }
}
