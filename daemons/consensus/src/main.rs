//! `novacron-consensus`: settings, logging and exit codes around one member.

mod begin;
mod certificates;
mod clients;
mod compaction;
mod flags;
mod headless;
mod lock;
mod member;
mod observe;
mod plan;
mod settings;
mod signals;
mod sources;
mod tls;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::{
    flags::{CUT_SHORT, FAILURE, OK, USAGE},
    member::Ended,
    plan::Plan,
    settings::{LogFormat, Settings},
};

/// Many threads allocate here what others free, which glibc's allocator answers with locks, and with memory that it keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let plan = match planned() {
        Ok(Some(plan)) => plan,
        Ok(None) => return OK.into(),
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            return USAGE.into();
        }
    };
    match run(plan) {
        Ok(Ended::Drained) => OK.into(),
        Ok(Ended::CutShort) => CUT_SHORT.into(),
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            FAILURE.into()
        }
    }
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<Plan>> {
    let args = flags::with_two_dashes(std::env::args_os());
    let matches = flags::command().try_get_matches_from(args).unwrap_or_else(|error| error.exit());
    let loaded = sources::load(&matches, &sources::environment()?)?;
    if matches.get_flag("print-config") {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().write_all(loaded.sources.to_yaml_with_origins().as_bytes());
        return Ok(None);
    }
    log(&loaded.sources.values);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let plan = plan::plan(&loaded.sources)?;
    Ok((!matches.get_flag("check-config")).then_some(plan))
}

fn log(settings: &Settings) {
    let level = settings::as_word(&settings.log_level);
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
            eprintln!("novacron-consensus: RUST_LOG={directives:?}: {error}; log.level {level} it is");
            EnvFilter::new(level)
        }),
        Err(_) => EnvFilter::new(level),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

fn run(plan: Plan) -> Result<Ended> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let ended = runtime.block_on(member::run(plan));
    // What is under way may hold the store, and RocksDB aborts a process that exits while one of its threads is in there. A file
    // on a disk that hangs is not waited for longer.
    runtime.shutdown_timeout(EXIT_MAX);
    ended
}
