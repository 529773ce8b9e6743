//! `novacron-dwcp`: settings, logging, signals and exit codes around one agent.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use novacron_admin::{Listener, Metrics};
use novacron_dwcp::{Agent, Settings, command, describe_metrics, load};
use novacron_process::{
    Certificates, Signals, Traces, environment, load_dictionaries, log_and_trace, raise_open_files,
};
use novacron_settings::LogFormat;

/// Many threads allocate here what others free, which glibc's allocator answers with locks, and with memory that it keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const CUT_SHORT: u8 = 3;

/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let Plan { settings, certificates, traces } = match planned() {
        Ok(Some(planned)) => planned,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-dwcp: {error:#}");
            return USAGE.into();
        }
    };
    let ended = run(settings, &certificates);
    traces.finish();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => CUT_SHORT.into(),
        Err(error) => {
            eprintln!("novacron-dwcp: {error:#}");
            FAILURE.into()
        }
    }
}

/// What is to be run.
struct Plan {
    settings: Settings,
    certificates: Certificates,
    traces: Traces,
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<Plan>> {
    let matches = command().get_matches();
    let mut loaded = load(&matches, environment(&["NOVACRON_"])?)?;
    if matches.get_flag("print-config") {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().write_all(loaded.sources.to_yaml_with_origins().as_bytes());
        return Ok(None);
    }
    let settings = &loaded.sources.values;
    let json = settings.log.format == LogFormat::Json;
    let traces = log_and_trace("novacron-dwcp", settings.node_id(), json, &settings.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let origin = loaded.sources.origin("tls.cert").to_string();
    let certificates = Certificates::load(&mut loaded.sources.values.transport, &origin)?;
    let origin = loaded.sources.origin("compression.dictionaries").to_string();
    load_dictionaries(&mut loaded.sources.values.transport, &origin)?;
    let settings = loaded.sources.values;
    Ok((!matches.get_flag("check-config")).then_some(Plan { settings, certificates, traces }))
}

fn run(settings: Settings, certificates: &Certificates) -> Result<bool> {
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let ended = runtime.block_on(serve(settings, certificates));
    runtime.shutdown_timeout(EXIT_MAX);
    ended
}

/// Runs an agent until a signal; whether it has drained.
async fn serve(settings: Settings, certificates: &Certificates) -> Result<bool> {
    let mut signals = Signals::listen().context("sigaction")?;
    let admin = settings.transport.metrics.clone();
    let listener = match admin.listen {
        Some(address) => Some(Listener::bind(address, admin.allow_plaintext).await?),
        None => None,
    };
    let metrics = Metrics::install(describe_metrics)?;
    let mut agent = Agent::start(settings).await?;
    certificates.keep_fresh(agent.endpoint());
    let _observed = listener.map(|listener| {
        let server = listener.serve(metrics, agent.observed());
        tracing::info!(address = %server.address(), "serving metrics and health");
        server
    });
    tokio::select! {
        () = signals.first() => {}
        () = agent.drain_asked() => {}
    }
    tracing::info!("draining");
    let drained = tokio::select! {
        drained = agent.drain() => Some(drained),
        () = signals.stop_now() => None,
    };
    if drained.is_none() {
        agent.stop().await;
    }
    Ok(drained.unwrap_or(false))
}
