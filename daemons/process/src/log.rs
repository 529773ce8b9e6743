//! Log lines, on standard error; and spans, where the environment names a collector.

use std::io::IsTerminal as _;

use novacron_trace::Exporter;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::SubscriberExt as _,
    registry::{LookupSpan, Registry},
    util::SubscriberInitExt as _,
};

/// Logs from now on; once in a process. `RUST_LOG` says which lines, and `level` where it says nothing or nonsense.
pub fn log_to_stderr(program: &str, json: bool, level: &str) {
    Registry::default().with(lines(json)).with(filter(program, level)).init();
}

/// What exports the spans of a process.
#[derive(Debug)]
#[must_use = "the last spans are handed over by `finish`"]
pub struct Traces(Option<Exporter>);

impl Traces {
    /// Whether spans are exported.
    pub fn are_exported(&self) -> bool {
        self.0.is_some()
    }

    /// Hands over what waits for the collector, in a bounded time: for the end of the process.
    pub fn finish(self) {
        if let Some(exporter) = self.0 {
            exporter.finish();
        }
    }
}

/// Logs from now on as [`log_to_stderr`] does, and exports spans if the environment says where to
/// (`OTEL_EXPORTER_OTLP_ENDPOINT`). `instance` tells this process from others of the program.
pub fn log_and_trace(program: &'static str, instance: &str, json: bool, level: &str) -> Traces {
    let exporter = match Exporter::from_environment(program, instance) {
        Ok(exporter) => exporter,
        Err(error) => {
            eprintln!("{program}: {error}; no spans are exported");
            None
        }
    };
    match &exporter {
        None => log_to_stderr(program, json, level),
        // What is logged is not what is exported.
        Some(exporter) => Registry::default()
            .with(lines(json).with_filter(filter(program, level)))
            .with(exporter.layer())
            .init(),
    }
    Traces(exporter)
}

fn filter(program: &str, level: &str) -> EnvFilter {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
            eprintln!("{program}: RUST_LOG={directives:?}: {error}; the level is {level}");
            EnvFilter::new(level)
        }),
        Err(_) => EnvFilter::new(level),
    }
}

fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(json: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json { lines.json().boxed() } else { lines.boxed() }
}
