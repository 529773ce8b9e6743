//! The command line of this program, and where its settings come from.

use clap::{ArgMatches, Command};
use novacron_process::{LoadError, Loaded, Program, host_name};

use crate::settings::{Settings, finish, keys};

const PROGRAM: Program = Program {
    name: "novacron-operator",
    version: env!("CARGO_PKG_VERSION"),
    about: "Turns NovaCronCluster, NovaCronRegion and DWCPFederation into what runs on Kubernetes, and keeps it right",
    after_help: "\
SIGTERM, SIGINT and SIGUSR1 drain: what is being reconciled comes to its end, and the lease is given up. A second SIGTERM or
SIGINT stops now.

Exit codes:
  0  drained
  1  failure, or the lease was lost
  2  wrong usage: a flag, a setting or a configuration file
  3  stopped before everything had come to its end",
};

/// The subcommand that prints the definitions of the custom resources.
pub const CRD: &str = "crd";
/// The subcommand that prints the operator's role.
pub const ROLE: &str = "role";

/// The subcommand that prints the role of a federation's account.
pub const FEDERATED_ROLE: &str = "federated-role";

/// The command line: a flag for each setting, its name with dashes.
pub fn command() -> Command {
    novacron_process::command(PROGRAM, &keys())
        .subcommand(
            Command::new(CRD).about("Prints the definitions of the custom resources as YAML, and ends"),
        )
        .subcommand(
            Command::new(ROLE)
                .about("Prints the ClusterRole with all that the operator has to be allowed, and ends"),
        )
        .subcommand(Command::new(FEDERATED_ROLE).about(
            "Prints the ClusterRole that the account of a federation's kubeconfig has to have, and ends",
        ))
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
