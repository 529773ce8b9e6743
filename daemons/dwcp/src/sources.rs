//! The command line of this program, and where its settings come from.

use clap::{ArgMatches, Command};
use novacron_process::{LoadError, Loaded, Program, host_name};

use crate::settings::{Settings, finish, keys};

const PROGRAM: Program = Program {
    name: "novacron-dwcp",
    version: env!("CARGO_PKG_VERSION"),
    about: "The node agent: one DWCP connection to each peer, transfers, guards in XDP, and a control API",
    after_help: "\
SIGTERM, SIGINT and SIGUSR1 drain: nothing new is taken on, transfers come to their end. A second SIGTERM or SIGINT stops now.

Exit codes:
  0  drained
  1  failure
  2  wrong usage: a flag, a setting or a configuration file
  3  stopped before everything had come to its end",
};

/// The command line: a flag for each setting, its name with dashes.
pub fn command() -> Command {
    novacron_process::command(PROGRAM, &keys())
}

/// Puts all sources together.
///
/// # Errors
/// [`LoadError`] names what is wrong, and where it stands.
pub fn load(matches: &ArgMatches, environment: Vec<(String, String)>) -> Result<Loaded<Settings>, LoadError> {
    novacron_process::load(keys(), Settings::new(host_name()), matches, environment, finish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_all_parts_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.yaml");
        std::fs::write(&file, "region: file\ndrain_timeout: 1s\nxdp:\n  mode: native\n").unwrap();
        let args = ["novacron-dwcp", "--config", file.to_str().unwrap(), "--node-id", "flag"];
        let matches = command().try_get_matches_from(args).unwrap();
        let environment = vec![("NOVACRON_REGION".to_owned(), "env".to_owned())];
        let loaded = load(&matches, environment).unwrap();
        let settings = &loaded.sources.values;
        assert_eq!(settings.node_id(), "flag");
        assert_eq!(settings.transport.endpoint.region.as_deref(), Some("env"));
        assert_eq!(settings.transport.drain_timeout.as_secs(), 1);
        assert_eq!(settings.xdp.mode, Some(dwcp_ebpf::Mode::Native));
    }

    #[test]
    fn the_command_line_makes_sense() {
        command().debug_assert();
    }
}
