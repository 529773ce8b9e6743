//! `dwcp-bench`: DWCP and its peers side by side, alternating in one run.
//!
//! One round runs every contender once, each with a server process of its own; medians over the rounds. Prints the
//! tables, writes them as JSON, and puts them and a plot into `docs/benchmarks.md`. It never fails because a number is
//! too small: a requirement that is not met is printed as such.

mod compression;
mod contender;
mod control;
mod counted;
mod doc;
mod lab;
mod plot;
mod process;
mod requirement;
mod results;
mod shaped;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use dwcp_benches::report::update;

use crate::{
    contender::{Group, Tools, contenders},
    lab::Lab,
    requirement::title,
    results::{Results, Row},
};

/// Measures DWCP beside raw TCP, tokio's codecs, rustls, quinn, tonic and iperf3.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Rounds; the tables hold medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    time: f64,
    /// Only these tables.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// The `novacron` binary [default: beside this one].
    #[arg(long)]
    novacron: Option<PathBuf>,
    /// What `dwcp-lab compare --json` wrote, to be put into the same document.
    #[arg(long)]
    lab: Option<PathBuf>,
    /// The same of long runs of DWCP alone.
    #[arg(long)]
    course: Option<PathBuf>,
    /// What `cargo bench --bench allocations --bench memory` printed.
    #[arg(long)]
    counted: Option<PathBuf>,
    /// Where the results go, as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Measures nothing: takes the results from the JSON file.
    #[arg(long)]
    document_only: bool,
    /// The document to update; the plot goes beside it.
    #[arg(long)]
    doc: Option<PathBuf>,
    /// The document that gets the main figures.
    #[arg(long)]
    readme: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // Before an hour of measuring, not after it.
    let lab = cli.lab.as_deref().map(read_lab).transpose()?;
    let course = cli.course.as_deref().map(read_lab).transpose()?;
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let counted = cli.counted.as_ref().map(read).transpose()?;
    let mut results = if cli.document_only { Results::read(&cli.json)? } else { measure(&cli)? };
    results.lab = lab.or(results.lab);
    results.course = course.or(results.course);
    results.counted = counted.or(results.counted);
    results.write(&cli.json)?;
    let sections = doc::sections(&results);
    for section in &sections {
        println!("{}\n", section.text);
    }
    if let Some(path) = &cli.doc {
        update(path, &sections)?;
        plot::draw(&path.with_extension("svg"), &results)?;
    }
    if let Some(path) = &cli.readme {
        update(path, &[doc::summary(&results)])?;
    }
    Ok(())
}

fn read_lab(path: &Path) -> Result<Lab> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of dwcp-lab compare", path.display()))
}

fn measure(cli: &Cli) -> Result<Results> {
    let bin = std::env::current_exe()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let tools = Tools::find(&bin, cli.novacron.clone())?;
    let time = Duration::try_from_secs_f64(cli.time).context("--time")?;
    let wanted = |group: Group| cli.only.is_empty() || cli.only.contains(&group);
    let mut results = Results::new(cli.rounds, cli.time);

    let contenders: Vec<_> = contenders(&tools).into_iter().filter(|c| wanted(c.group)).collect();
    let mut rows: Vec<Row> = contenders.iter().map(|c| Row::new(c.group, &c.name)).collect();
    for round in 1..=cli.rounds {
        for (contender, row) in contenders.iter().zip(&mut rows) {
            let what = format!("round {round}: {}: {}", title(contender.group), contender.name);
            match contender.measure(&tools, time) {
                Ok(measured) => {
                    eprintln!("{what}: {}", measured.summary());
                    row.push(&measured);
                }
                // Part of the result, as a loss is.
                Err(error) => {
                    eprintln!("{what}: failed: {error:#}");
                    row.failures += 1;
                }
            }
        }
    }
    results.rows = rows;
    if wanted(Group::Control) {
        results.control = control::measure(&tools, cli.rounds, time);
    }
    if wanted(Group::Compression) {
        results.compression = compression::measure(&tools, cli.rounds, time);
    }
    Ok(results)
}
