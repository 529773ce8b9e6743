//! `novacron-operator`: settings, logging, signals and exit codes around one operator.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use novacron_admin::{Listener, Metrics};
use novacron_operator::{
    CRD, FEDERATED_ROLE, Operator, ROLE, Settings, api, command, describe_metrics, load, plan, yaml,
};
use novacron_process::{Signals, environment, log_to_stderr};
use novacron_settings::LogFormat;
use tokio::sync::oneshot;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const CUT_SHORT: u8 = 3;

/// For reconciliations that are under way, after the signal.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// For threads to end what they have begun, before the process does.
const EXIT_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let settings = match planned() {
        Ok(Some(settings)) => settings,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-operator: {error:#}");
            return USAGE.into();
        }
    };
    match run(settings) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::CutShort) => CUT_SHORT.into(),
        Ok(Ended::LeaseLost) => FAILURE.into(),
        Err(error) => {
            eprintln!("novacron-operator: {error:#}");
            FAILURE.into()
        }
    }
}

enum Ended {
    Drained,
    CutShort,
    LeaseLost,
}

/// What the command line, the environment and the file ask for. `None`: it was only to be printed or checked.
fn planned() -> Result<Option<Settings>> {
    let matches = command().get_matches();
    let printed = match matches.subcommand_name() {
        Some(CRD) => Some(api::crds_yaml().context("writing YAML")?),
        Some(ROLE) => Some(yaml::text(&plan::role::role()).context("writing YAML")?),
        Some(FEDERATED_ROLE) => Some(yaml::text(&plan::role::federated_role()).context("writing YAML")?),
        _ => None,
    };
    if let Some(text) = printed {
        print(&text);
        return Ok(None);
    }
    let loaded = load(&matches, environment(&["NOVACRON_"])?)?;
    if matches.get_flag("print-config") {
        print(&loaded.sources.to_yaml_with_origins());
        return Ok(None);
    }
    let settings = loaded.sources.values;
    log_to_stderr("novacron-operator", settings.log.format == LogFormat::Json, &settings.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok((!matches.get_flag("check-config")).then_some(settings))
}

/// A reader that went away has seen enough.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn run(settings: Settings) -> Result<Ended> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let ended = runtime.block_on(operate(settings));
    runtime.shutdown_timeout(EXIT_MAX);
    ended
}

async fn operate(settings: Settings) -> Result<Ended> {
    let mut signals = Signals::listen().context("sigaction")?;
    let admin = settings.metrics.clone();
    let listener = match admin.listen {
        Some(address) => Some(Listener::bind(address, admin.allow_plaintext).await?),
        None => None,
    };
    let metrics = Metrics::install_for_good(describe_metrics)?;
    let operator = Operator::new(settings).await?;
    let _observed = listener.map(|listener| {
        let server = listener.serve(metrics, operator.observed());
        tracing::info!(address = %server.address(), "serving metrics and health");
        server
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    let work = operator.run(stopped.boxed().shared());
    let drain = async {
        tracing::info!("draining");
        let _ = stop.send(());
        tokio::time::sleep(DRAIN_MAX).await;
    };
    Ok(match signals.let_finish(work, drain).await {
        Some(true) => Ended::Drained,
        Some(false) => Ended::LeaseLost,
        None => Ended::CutShort,
    })
}
