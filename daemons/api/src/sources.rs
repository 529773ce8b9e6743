//! The command line of this program, and where its settings come from.

use clap::{Arg, ArgMatches, Command};
use novacron_process::{LoadError, Loaded, Program, host_name};

use crate::settings::{Settings, finish, keys};

const PROGRAM: Program = Program {
    name: "novacron-api",
    version: env!("CARGO_PKG_VERSION"),
    about: "The HTTP API: virtual machines, nodes, members of the store, and a durable queue of jobs",
    after_help: "\
SIGTERM, SIGINT and SIGUSR1 drain: readiness ends, requests that have begun come to their end, jobs go back into the queue. A
second SIGTERM or SIGINT stops now.

Exit codes:
  0  drained
  1  failure
  2  wrong usage: a flag, a setting or a configuration file
  3  stopped before everything had come to its end",
};

/// The name of the flag that makes the first token.
pub const CREATE_TOKEN: &str = "create-token";

/// The command line: a flag for each setting, its name with dashes.
pub fn command() -> Command {
    novacron_process::command(PROGRAM, &keys()).arg(
        Arg::new(CREATE_TOKEN)
            .long(CREATE_TOKEN)
            .value_name("NAME")
            .conflicts_with_all(["print-config", "check-config"])
            .help("Makes an API token of this name for an administrator of all regions in the store, prints it, and ends"),
    )
}

/// Puts all sources together.
///
/// # Errors
/// [`LoadError`] names what is wrong, and where it stands.
pub fn load(matches: &ArgMatches, environment: Vec<(String, String)>) -> Result<Loaded<Settings>, LoadError> {
    novacron_process::load(keys(), Settings::new(host_name()), matches, environment, |sources| {
        finish(sources)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_allows_plaintext_needs_no_value() {
        let args = ["novacron-api", "--replica", "flag", "--allow-plaintext", "--auth-tokens", "true"];
        let matches = command().try_get_matches_from(args).unwrap();
        let loaded = load(&matches, vec![("NOVACRON_LOG_LEVEL".to_owned(), "debug".to_owned())]).unwrap();
        let settings = &loaded.sources.values;
        assert_eq!((settings.replica.as_str(), settings.log.level.as_str()), ("flag", "debug"));
        assert!(settings.allow_plaintext && settings.auth.tokens);
    }

    #[test]
    fn the_command_line_makes_sense() {
        command().debug_assert();
    }
}
