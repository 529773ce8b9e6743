//! Log lines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Logs from now on; once in a process. `RUST_LOG` says which lines, and `level` where it says nothing or nonsense.
pub fn log_to_stderr(program: &str, json: bool, level: &str) {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
            eprintln!("{program}: RUST_LOG={directives:?}: {error}; the level is {level}");
            EnvFilter::new(level)
        }),
        Err(_) => EnvFilter::new(level),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        logs.json().init();
    } else {
        logs.init();
    }
}
