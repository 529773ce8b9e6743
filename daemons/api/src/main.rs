//! `novacron-api`: settings, logging, signals and exit codes around one replica.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use novacron_admin::{Listener, Metrics};
use novacron_api::{LogFormat, Replica, Settings, check, command, describe_metrics, load};
use novacron_process::{Signals, environment, log_to_stderr, raise_open_files};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const CUT_SHORT: u8 = 3;

/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let settings = match planned() {
        Ok(Some(planned)) => planned,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-api: {error:#}");
            return USAGE.into();
        }
    };
    match run(settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => CUT_SHORT.into(),
        Err(error) => {
            eprintln!("novacron-api: {error:#}");
            FAILURE.into()
        }
    }
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<Settings>> {
    let matches = command().get_matches();
    let loaded = load(&matches, environment(&["NOVACRON_"])?)?;
    if matches.get_flag("print-config") {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().write_all(loaded.sources.to_yaml_with_origins().as_bytes());
        return Ok(None);
    }
    let settings = loaded.sources.values;
    log_to_stderr("novacron-api", settings.log_format == LogFormat::Json, &settings.log_level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    check(&settings)?;
    Ok((!matches.get_flag("check-config")).then_some(settings))
}

fn run(settings: Settings) -> Result<bool> {
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let ended = runtime.block_on(serve(settings));
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
