//! The API beside a handler that only does the work: three members of the store, the same clients, one side after the other
//! in each round.
//!
//! What the API adds to the handler is what it is measured by: who asks, how often they may, what they may, a record of each change,
//! bounds, ids, metrics. It never fails because a number is too small.

mod bare;
mod load;
mod sides;

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use dwcp_benches::report::{Machine, Must, Requirement, Section, median, table, update};

use crate::{
    load::{Load, Outcome},
    sides::{SIDES, Sides},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the API beside a handler without anything.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the members' data is, on the disk to be measured.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Rounds; the table holds medians, and ratios are the median of the rounds'.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "read,write")]
    only: Vec<Load>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    time: f64,
    /// Seconds without load before each measurement: disks in clouds have a budget that fills slowly.
    #[arg(long, default_value_t = 2.0)]
    rest: f64,
    /// Connections, each of which waits for its answer before it asks again.
    #[arg(long, value_delimiter = ',', default_value = "64,1000")]
    connections: Vec<usize>,
    /// The document to update.
    #[arg(long)]
    doc: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the handler without anything.
    Bare(bare::Args),
}

/// What was measured of both sides in a round.
type Pair = [Outcome; 2];

fn rows(load: Load, connections: usize, rounds: &[Pair]) -> String {
    let mut text = String::new();
    for (n, side) in SIDES.into_iter().enumerate() {
        let of = |value: &dyn Fn(&Outcome) -> f64| {
            median(&rounds.iter().map(|pair| value(&pair[n])).collect::<Vec<_>>()).unwrap_or(f64::NAN)
        };
        let quantile = |q: f64| of(&|outcome| outcome.latency.value_at_quantile(q) as f64 / 1000.0);
        let _ = writeln!(
            text,
            "| {}, {connections} connections | {side} | {:.0} | {:.2} | {:.2} | {:.0} |",
            load.name(),
            of(&Outcome::per_second),
            quantile(0.5),
            quantile(0.99),
            rounds.iter().map(|pair| pair[n].failed as f64).sum::<f64>(),
        );
    }
    text
}

fn requirement(load: Load, connections: usize, rounds: &[Pair]) -> Requirement {
    let ratios: Vec<_> = rounds.iter().map(|[api, bare]| api.per_second() / bare.per_second()).collect();
    Requirement {
        what: format!("{}, {connections} connections: per second, API / handler", load.name()),
        value: median(&ratios),
        must: Must::AtLeast(0.7),
    }
}

async fn measure(args: &Args) -> Result<Section> {
    let sides = Sides::start(&args.folder).await?;
    let mut text =
        "| | | per second | p50 ms | p99 ms | failed |\n|---|---|---:|---:|---:|---:|\n".to_owned();
    let mut requirements = Vec::new();
    for &connections in &args.connections {
        for &load in &args.only {
            let mut rounds = Vec::new();
            for round in 0..args.rounds {
                let mut pair = Vec::new();
                for (side, port) in SIDES.into_iter().zip(sides.ports) {
                    tokio::time::sleep(Duration::from_secs_f64(args.rest)).await;
                    let outcome = load::run(load, port, connections, args.time).await?;
                    eprintln!(
                        "round {round}: {}, {connections} connections: {side}: {:.0}/s, {} failed",
                        load.name(),
                        outcome.per_second(),
                        outcome.failed
                    );
                    pair.push(outcome);
                }
                rounds.push(<Pair>::try_from(pair).unwrap_or_else(|_| unreachable!("two sides")));
            }
            text += &rows(load, connections, &rounds);
            requirements.push(requirement(load, connections, &rounds));
        }
    }
    let machine = Machine::current("api-bench");
    let _ = write!(
        text,
        "\n{}\n\n{} rounds of {} s. {} cores of {}, Linux {}, commit {}, {}, `{}`.",
        table(&requirements),
        args.rounds,
        args.time,
        machine.processors,
        machine.processor,
        machine.kernel,
        machine.commit,
        machine.date,
        machine.command,
    );
    Ok(Section { name: "api", text })
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Bare(args)) = args.command {
        return bare::serve(args).await;
    }
    let section = measure(&args).await?;
    println!("{}", section.text);
    match &args.doc {
        Some(path) => update(path, &[section]),
        None => Ok(()),
    }
}
