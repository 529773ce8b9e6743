//! What NovaCron's programs have to do with the system they run on: where settings are read from, the command line that goes
//! with a table of settings, signals, certificates in files, log lines and where spans go, the limit of open files.
//!
//! Only programs use this. What settings there are is `novacron-settings`' and each program's own; exit codes and other
//! flags are each program's.

mod certificates;
mod command;
mod dictionaries;
mod log;
mod server_tls;
mod signals;
mod sources;

pub use certificates::{Certificates, CertificatesError};
pub use command::{LoadError, Loaded, Program, command, load};
pub use dictionaries::{DictionariesError, load_dictionaries};
pub use log::{Traces, log_and_trace, log_to_stderr};
pub use server_tls::{CurrentTls, ServerFiles, ServerTlsError, Watched, pem_certificates, server_builder};
pub use signals::{Draining, Signals};
pub use sources::{SourceError, environment, host_name, settings_text};

/// Lets this process open as many files as it may: the soft limit is often far below the hard one.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "setrlimit(RLIMIT_NOFILE)");
    }
}
