//! `novacron-api`: settings, logging, signals and exit codes around one replica.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use novacron_admin::{Listener, Metrics};
use novacron_api::{CREATE_TOKEN, Replica, Settings, check, command, create_token, describe_metrics, load};
use novacron_process::{Signals, environment, log_to_stderr, raise_open_files};
use novacron_settings::LogFormat;

// Requests allocate and free on different threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const CUT_SHORT: u8 = 3;

/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(2);

/// What is to be done.
enum Plan {
    Serve(Settings),
    /// Make a token of this name.
    CreateToken(Settings, String),
}

fn main() -> ExitCode {
    let plan = match planned() {
        Ok(Some(plan)) => plan,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-api: {error:#}");
            return USAGE.into();
        }
    };
    match run(plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => CUT_SHORT.into(),
        Err(error) => {
            eprintln!("novacron-api: {error:#}");
            FAILURE.into()
        }
    }
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<Plan>> {
    let matches = command().get_matches();
    let loaded = load(&matches, environment(&["NOVACRON_"])?)?;
    if matches.get_flag("print-config") {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().write_all(loaded.sources.to_yaml_with_origins().as_bytes());
        return Ok(None);
    }
    let settings = loaded.sources.values;
    log_to_stderr("novacron-api", settings.log.format == LogFormat::Json, &settings.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    check(&settings)?;
    if let Some(name) = matches.get_one::<String>(CREATE_TOKEN) {
        return Ok(Some(Plan::CreateToken(settings, name.clone())));
    }
    Ok((!matches.get_flag("check-config")).then_some(Plan::Serve(settings)))
}

fn run(plan: Plan) -> Result<bool> {
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let ended = runtime.block_on(async {
        match plan {
            Plan::Serve(settings) => serve(settings).await,
            Plan::CreateToken(settings, name) => {
                let token = create_token(&settings, &name).await?;
                writeln!(std::io::stdout(), "{token}").context("writing the token")?;
                Ok(true)
            }
        }
    });
    runtime.shutdown_timeout(EXIT_MAX);
    ended
}

/// Runs a replica until a signal; whether it has drained.
async fn serve(settings: Settings) -> Result<bool> {
    let mut signals = Signals::listen().context("sigaction")?;
    let admin = settings.metrics.clone();
    let listener = match admin.listen {
        Some(address) => Some(Listener::bind(address, admin.allow_plaintext).await?),
        None => None,
    };
    // Routes, methods and statuses are few.
    let metrics = Metrics::install_for_good(describe_metrics)?;
    let mut replica = Replica::start(settings).await?;
    let _observed = listener.map(|listener| {
        let server = listener.serve(metrics, replica.observed());
        tracing::info!(address = %server.address(), "serving metrics and health");
        server
    });
    signals.first().await;
    tracing::info!("draining");
    Ok(tokio::select! {
        drained = replica.drain() => drained,
        () = signals.stop_now() => false,
    })
}
