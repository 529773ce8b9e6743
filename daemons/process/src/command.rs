//! The command line of a program with a table of settings: `--config FILE`, `NOVACRON_*` variables, and a flag for each
//! setting, each over the ones before.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use novacron_settings::{Key, SettingsError, Sources};

use crate::{SourceError, settings_text};

/// What a program says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it is called.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Signals and exit codes.
    pub after_help: &'static str,
}

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
pub struct Loaded<S: 'static> {
    /// With where each comes from.
    pub sources: Sources<S>,
    /// In words.
    pub warnings: Vec<String>,
}

fn flag(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// The command line: a flag for each setting, its name with dashes. What allows plaintext needs no value.
pub fn command<S>(program: Program, keys: &[Key<S>]) -> Command {
    let flags = keys.iter().map(|key| {
        let arg = Arg::new(key.name).long(flag(key.name)).value_name("VALUE").help(key.expected);
        let arg = arg.help_heading("Settings");
        if key.name.ends_with("allow_plaintext") {
            arg.num_args(0..=1).default_missing_value("true").require_equals(true)
        } else {
            arg
        }
    });
    Command::new(program.name)
        .version(program.version)
        .about(program.about)
        .after_help(program.after_help)
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

/// Puts all sources together over the defaults; `finish` checks what depends on more than one setting.
///
/// # Errors
/// [`LoadError`] names what is wrong, and where it stands.
pub fn load<S>(
    keys: Vec<Key<S>>,
    defaults: S,
    matches: &ArgMatches,
    environment: Vec<(String, String)>,
    finish: impl FnOnce(&mut Sources<S>) -> Result<(), SettingsError>,
) -> Result<Loaded<S>, LoadError> {
    let mut sources = Sources::new(keys.clone(), defaults);
    if let Some(path) = matches.get_one::<String>("config") {
        sources.file(path, &settings_text(Path::new(path))?)?;
    }
    let unknown = sources.env(environment)?;
    let warnings = unknown
        .into_iter()
        .map(|name| format!("environment variable {name}: there is no such setting: ignored"))
        .collect();
    for key in keys {
        if let Some(value) = matches.get_one::<String>(key.name) {
            sources.flag(&format!("--{}", flag(key.name)), key.name, value)?;
        }
    }
    finish(&mut sources)?;
    Ok(Loaded { sources, warnings })
}

#[cfg(test)]
mod tests {
    use novacron_settings::{set, value::parsed};

    use super::*;

    #[derive(Default)]
    struct Settings {
        name: String,
        port: u16,
        width: u16,
        allow_plaintext: bool,
    }

    const KEYS: &[Key<Settings>] = &[
        Key::one("name", "a name", set!(name, parsed), |s: &Settings| s.name.clone()),
        Key::one("port", "a port", set!(port, parsed), |s| s.port.to_string()),
        Key::one("page.width_max", "a number", set!(width, parsed), |s| s.width.to_string()),
        Key::one("page.allow_plaintext", "true or false", set!(allow_plaintext, parsed), |s| {
            s.allow_plaintext.to_string()
        }),
    ];

    fn test_command() -> Command {
        command(Program { name: "p", version: "1", about: "a", after_help: "h" }, KEYS)
    }

    #[test]
    fn each_source_goes_over_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yaml");
        std::fs::write(&file, "name: file\nport: 1\npage:\n  width_max: 7\n").unwrap();
        let args = ["p", "--config", file.to_str().unwrap(), "--name", "flag", "--page-allow-plaintext"];
        let matches = test_command().try_get_matches_from(args).unwrap();
        let environment = [("NOVACRON_NAME", "env"), ("NOVACRON_PORT", "2"), ("NOVACRON_NO", "1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let loaded = load(KEYS.to_vec(), Settings::default(), &matches, environment, |_| Ok(())).unwrap();
        let settings = &loaded.sources.values;
        assert_eq!((settings.name.as_str(), settings.port, settings.width), ("flag", 2, 7));
        assert!(settings.allow_plaintext);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }

    #[test]
    fn the_check_of_all_of_them_comes_last() {
        let matches = test_command().try_get_matches_from(["p", "--port", "3"]).unwrap();
        let refuse = |sources: &mut Sources<Settings>| {
            Err(sources.invalid("port", sources.values.port.to_string(), "another"))
        };
        let error = load(KEYS.to_vec(), Settings::default(), &matches, Vec::new(), refuse).err().unwrap();
        assert!(error.to_string().starts_with("flag --port: port: \"3\""), "{error}");
    }

    #[test]
    fn the_command_line_makes_sense() {
        test_command().debug_assert();
    }
}
