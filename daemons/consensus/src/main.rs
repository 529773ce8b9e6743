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
mod regions;
mod settings;
mod sources;
mod tls;

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use novacron_process::{Traces, environment, log_and_trace};

use crate::{
    flags::{CUT_SHORT, FAILURE, OK, USAGE},
    member::Ended,
    plan::Plan,
    settings::{LogFormat, Settings},
    sources::ETCD_PREFIX,
};

/// Many threads allocate here what others free, which glibc's allocator answers with locks, and with memory that it keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let (plan, traces) = match planned() {
        Ok(Some(plan)) => plan,
        Ok(None) => return OK.into(),
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            return USAGE.into();
        }
    };
    let ended = run(plan);
    traces.finish();
    match ended {
        Ok(Ended::Drained) => OK.into(),
        Ok(Ended::CutShort) => CUT_SHORT.into(),
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            FAILURE.into()
        }
    }
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<(Plan, Traces)>> {
    let args = flags::with_two_dashes(std::env::args_os());
    let matches = flags::command().try_get_matches_from(args).unwrap_or_else(|error| error.exit());
    let loaded = sources::load(&matches, &environment(&["NOVACRON_", ETCD_PREFIX])?)?;
    if matches.get_flag("print-config") {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().write_all(loaded.sources.to_yaml_with_origins().as_bytes());
        return Ok(None);
    }
    let traces = log(&loaded.sources.values);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut plan = plan::plan(&loaded.sources)?;
    plan.server.request_span = traces.are_exported().then_some(novacron_trace::request_span);
    Ok((!matches.get_flag("check-config")).then_some((plan, traces)))
}

fn log(settings: &Settings) -> Traces {
    let level = settings::as_word(&settings.log_level);
    log_and_trace("novacron-consensus", &settings.name, settings.log_format == LogFormat::Json, &level)
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
