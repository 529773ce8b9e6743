//! `migration`: `novacron vm migrate` beside QEMU's own ways to move a guest, in turns, over the lab's WAN.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use dwcp_benches::report::{self, Machine as Host, Must, Requirement, Section};
use dwcp_lab::Scenario;
use migration::{
    alone::{self, Mode},
    guest::{self, Guest, program},
    moving::{Moved, Sides},
    novacron,
};

/// The links that a migration has to be fast on: round trip in ms, and loss.
const LINKS: [(f64, f64); 2] = [(80.0, 0.001), (200.0, 0.005)];
/// Of the best of QEMU's own ways.
const MOST: f64 = 0.6;

/// Moves a guest that checks itself, by DWCP and by QEMU alone, in turns.
#[derive(Parser)]
struct Cli {
    /// How often each.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Rate of the links in Mbit/s.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Puts the tables into this document.
    #[arg(long)]
    doc: Option<PathBuf>,
    /// Only this link: the first or the second.
    #[arg(long)]
    link: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let novacron = program("novacron")?.context("novacron is not built")?;
    let folder = tempfile::tempdir()?;
    let guest = match guest::make(folder.path()).await? {
        Ok(guest) => guest,
        Err(reason) => {
            println!("SKIP: {reason}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Host { processor, processors, kernel, congestion_control, commit, date, command } =
        Host::current("migration");
    let mut text = format!(
        "{date}, commit {commit}, `{command}`; {processors} processors ({processor}), Linux {kernel}, {congestion_control}; emulated guests."
    );
    for (number, (rtt, loss)) in LINKS.into_iter().enumerate() {
        if cli.link.is_some_and(|link| link != number + 1) {
            continue;
        }
        let scenario = Scenario { loss, ..Scenario::clean("migration", cli.rate, rtt) };
        text.push_str(&compare(&cli, &guest, &novacron, &scenario).await?);
    }
    println!("{text}");
    if let Some(doc) = &cli.doc {
        report::update(doc, &[Section { name: "migration", text }])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A way and what it took each time.
struct Way {
    mode: Option<Mode>,
    runs: Vec<Moved>,
}

impl Way {
    fn name(&self) -> String {
        self.mode.map_or("novacron vm migrate".to_owned(), |mode| mode.to_string())
    }

    fn median(&self, of: impl Fn(&Moved) -> f64) -> f64 {
        report::median(&self.runs.iter().map(of).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    }
}

async fn compare(cli: &Cli, guest: &Guest, novacron: &Path, scenario: &Scenario) -> Result<String> {
    let modes = [None].into_iter().chain(Mode::ALL.map(Some));
    let mut ways: Vec<_> = modes.map(|mode| Way { mode, runs: Vec::new() }).collect();
    for run in 0..cli.runs {
        let scenario = Scenario { seed: scenario.seed + u64::from(run), ..scenario.clone() };
        for way in &mut ways {
            match (once(way.mode, guest, novacron, &scenario).await, way.mode) {
                (Ok(moved), _) => {
                    eprintln!(
                        "{:.0} ms, {}: {:.2} s, stood {:.0} ms, {:.1} MB{}",
                        scenario.rtt_ms,
                        way.name(),
                        moved.total.as_secs_f64(),
                        moved.downtime.as_secs_f64() * 1e3,
                        moved.bytes as f64 / 1e6,
                        if moved.void { ", late" } else { "" },
                    );
                    way.runs.push(moved);
                }
                // Of QEMU's own ways this is a result; ours has to work.
                (Err(error), Some(mode)) => eprintln!("{mode} failed: {error:#}"),
                (Err(error), None) => return Err(error),
            }
        }
    }
    Ok(table(scenario, cli.runs, &ways))
}

/// A move between two QEMUs of its own. The guest is whole, or it is an error.
async fn once(mode: Option<Mode>, guest: &Guest, novacron: &Path, scenario: &Scenario) -> Result<Moved> {
    let folder = tempfile::tempdir()?;
    let mut sides = Sides::start(guest, folder.path(), scenario).await?;
    let moved = match mode {
        Some(mode) => alone::migrate(&sides, mode).await?,
        None => {
            let (moved, report) = novacron::migrate(&sides, novacron).await?;
            eprintln!("{report}");
            moved
        }
    };
    sides.target.check().await?;
    Ok(moved)
}

fn table(scenario: &Scenario, runs: u32, ways: &[Way]) -> String {
    let total = |way: &Way| way.median(|moved| moved.total.as_secs_f64());
    let downtime = |way: &Way| way.median(|moved| moved.downtime.as_secs_f64() * 1e3);
    let megabytes = |way: &Way| way.median(|moved| moved.bytes as f64 / 1e6);
    let late = ways.iter().flat_map(|way| &way.runs).filter(|moved| moved.void).count();
    let mut text = format!(
        "\n\n{} Mbit/s, {} ms, {} % loss; medians of {runs}, in turns; the emulator was late in {late} of {} runs.\n\n\
         | way | total, s | guest stood, ms | on the wire, MB | moved |\n|---|---:|---:|---:|---:|\n",
        scenario.rate_mbit,
        scenario.rtt_ms,
        scenario.loss * 100.0,
        ways.len() * runs as usize,
    );
    for way in ways {
        text.push_str(&format!(
            "| {} | {:.2} | {:.0} | {:.1} | {} of {runs} |\n",
            way.name(),
            total(way),
            downtime(way),
            megabytes(way),
            way.runs.len(),
        ));
    }
    let (ours, theirs) = ways.split_first().expect("ours is the first");
    let beside = |what: &str, of: &dyn Fn(&Way) -> f64, most: f64| {
        let best = theirs.iter().map(of).fold(f64::INFINITY, f64::min);
        let what = format!("{what}, beside the best of QEMU's own");
        Requirement { what, value: Some(of(ours) / best), must: Must::AtMost(most) }
    };
    text.push('\n');
    text.push_str(&report::table(&[
        beside("total time", &total, MOST),
        beside("bytes on the wire", &megabytes, MOST),
        beside("guest stood", &downtime, 1.0),
    ]));
    text
}
