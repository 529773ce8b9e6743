//! Shows a running transfer, and its result: a bar on a terminal, plain lines, or JSON.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use dwcp_core::Connection;
use dwcp_transfer::{Progress, ProgressSource, Summary, TransferError, Unsent};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::{exit, size};

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(2);
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// How progress and result are shown.
#[derive(Args, Debug)]
pub(crate) struct OutputArgs {
    /// How to show progress, on standard error; auto: a bar on a terminal, else lines.
    #[arg(long, value_enum, default_value_t = Show::Auto, help_heading = "Output")]
    progress: Show,
    /// Prints one JSON document at the end of each transfer.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// Shows any number of transfers.
#[derive(Clone)]
pub(crate) struct Display {
    show: Show,
    json: bool,
    /// Standard output carries content.
    output_taken: bool,
    bars: MultiProgress,
}

/// What is measured while a transfer runs.
#[derive(Serialize)]
struct Measured<'a> {
    label: &'a str,
    seconds: f64,
    bytes_total: u64,
    bytes_done: u64,
    bytes_moved: u64,
    bytes_skipped: u64,
    wire_bytes: u64,
    bytes_per_second: f64,
    /// Content bytes moved for each byte on the wire.
    ratio: f64,
    links: usize,
    resumes: u64,
    entries_total: u64,
    entries_done: u64,
    files_done: u64,
    files_skipped: u64,
    entries_left_out: u64,
    failures: u64,
    totals_known: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measured: Measured<'a>,
    exit_code: u8,
    error: Option<String>,
    failed: Vec<Failed>,
    /// What a sender that was told to stop has not sent.
    unsent: Option<NotSent>,
}

#[derive(Serialize)]
struct NotSent {
    paths: Vec<String>,
    entries: u64,
    more: bool,
}

#[derive(Serialize)]
struct Failed {
    path: String,
    error: String,
}

impl OutputArgs {
    pub(crate) fn display(&self, output_taken: bool) -> Display {
        let show = match self.progress {
            Show::Auto if self.json => Show::None,
            Show::Auto if std::io::stderr().is_terminal() => Show::Bar,
            Show::Auto => Show::Plain,
            show => show,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Display { show, json: self.json, output_taken, bars }
    }
}

impl Display {
    /// Shows a transfer while `work` runs, then its result; returns the exit code.
    pub(crate) async fn watch(
        &self,
        label: &str,
        progress: &ProgressSource,
        connection: &Connection,
        work: impl Future<Output = Result<Summary, TransferError>>,
    ) -> u8 {
        let started = Instant::now();
        let measure = || measure(label, progress.snapshot(), connection, started.elapsed());
        let bar = (self.show == Show::Bar).then(|| self.bars.add(new_bar(label)));
        let mut ticks = tokio::time::interval(match self.show {
            Show::Bar => BAR_INTERVAL,
            Show::Json => JSON_INTERVAL,
            _ => LINE_INTERVAL,
        });
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut work = std::pin::pin!(work);
        let ended = loop {
            tokio::select! {
                ended = &mut work => break ended,
                _ = ticks.tick() => match (&bar, self.show) {
                    (Some(bar), _) => update_bar(bar, &measure()),
                    (None, Show::Plain) => eprintln!("{}", line(&measure())),
                    (None, Show::Json) => eprintln!("{}", json(&measure())),
                    _ => {}
                },
            }
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        self.result(measure(), ended)
    }

    fn result(&self, measured: Measured<'_>, ended: Result<Summary, TransferError>) -> u8 {
        let exit_code = match &ended {
            Ok(summary) => exit::of_summary(summary),
            Err(error) => exit::of_transfer_error(error),
        };
        let failures = ended.as_ref().map(|summary| &summary.failures[..]).unwrap_or_default();
        if self.json {
            let failed = failures
                .iter()
                .map(|failed| Failed { path: failed.path.to_string(), error: failed.failure.to_string() });
            let failed = failed.collect();
            let error = ended.as_ref().err().map(ToString::to_string);
            let unsent = ended.as_ref().ok().and_then(|summary| summary.unsent.as_ref()).map(NotSent::new);
            let report = json(&Report { measured, exit_code, error, failed, unsent });
            if self.output_taken {
                eprintln!("{report}");
            } else {
                // A reader that went away is no reason to fail what was done.
                let _ = writeln!(std::io::stdout(), "{report}");
            }
            return exit_code;
        }
        for failed in failures {
            eprintln!("{}: {}", failed.path, failed.failure);
        }
        match &ended {
            Ok(Summary { unsent: Some(unsent), .. }) => {
                say(unsent);
                eprintln!("stopped: {}", line(&measured));
            }
            Ok(_) if self.show == Show::None => {}
            Ok(_) => eprintln!(
                "{}: {}",
                if exit_code == exit::OK { "done" } else { "incomplete" },
                line(&measured)
            ),
            Err(error) => eprintln!("{}: {error}", measured.label),
        }
        exit_code
    }
}

impl NotSent {
    fn new(unsent: &Unsent) -> Self {
        let paths = unsent.paths.iter().map(ToString::to_string).collect();
        Self { paths, entries: unsent.entries, more: unsent.more }
    }
}

/// In lines.
fn say(unsent: &Unsent) {
    for path in &unsent.paths {
        eprintln!("{path}: not sent");
    }
    let others = unsent.entries - unsent.paths.len() as u64;
    if others > 0 {
        eprintln!("{others} others: not sent");
    }
    if unsent.more {
        eprintln!("there may be more: not everything was looked at");
    }
}

fn measure<'a>(
    label: &'a str,
    progress: Progress,
    connection: &Connection,
    elapsed: Duration,
) -> Measured<'a> {
    let stats = connection.stats();
    let wire_bytes = stats.wire_bytes_sent.max(stats.wire_bytes_received);
    let seconds = elapsed.as_secs_f64();
    Measured {
        label,
        seconds,
        bytes_total: progress.bytes_total,
        bytes_done: progress.bytes_done,
        bytes_moved: progress.bytes_moved,
        bytes_skipped: progress.bytes_skipped,
        wire_bytes,
        bytes_per_second: progress.bytes_moved as f64 / seconds.max(1e-3),
        ratio: if wire_bytes == 0 { 1.0 } else { progress.bytes_moved as f64 / wire_bytes as f64 },
        links: stats.links.len(),
        resumes: stats.resumes,
        entries_total: progress.entries_total,
        entries_done: progress.entries_done,
        files_done: progress.files_done,
        files_skipped: progress.files_skipped,
        entries_left_out: progress.entries_left_out,
        failures: progress.failures,
        totals_known: progress.totals_known,
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain numbers and strings")
}

fn line(measured: &Measured<'_>) -> String {
    let Measured {
        label, seconds, bytes_done, bytes_total, bytes_moved, bytes_skipped, ratio, links, ..
    } = measured;
    let mut text = format!(
        "{label}: {} of {}, {} moved in {seconds:.1} s ({}/s, ratio {ratio:.2}, {links} links), {} files",
        size::show(*bytes_done),
        size::show(*bytes_total),
        size::show(*bytes_moved),
        size::show(measured.bytes_per_second as u64),
        measured.files_done,
    );
    if *bytes_skipped > 0 {
        text += &format!(", {} already there", size::show(*bytes_skipped));
    }
    if measured.failures > 0 {
        text += &format!(", {} failed", measured.failures);
    }
    if measured.entries_left_out > 0 {
        text += &format!(", {} left out", measured.entries_left_out);
    }
    text
}

fn new_bar(label: &str) -> ProgressBar {
    let template =
        "{prefix} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg} ETA {eta}";
    let style = ProgressStyle::with_template(template).expect("a fixed template").progress_chars("=> ");
    ProgressBar::new(0).with_style(style).with_prefix(label.to_owned())
}

fn update_bar(bar: &ProgressBar, measured: &Measured<'_>) {
    bar.set_length(measured.bytes_total);
    bar.set_position(measured.bytes_done);
    let Measured { ratio, links, entries_done, .. } = measured;
    bar.set_message(format!("x{ratio:.1} {links} links {entries_done} done"));
}
