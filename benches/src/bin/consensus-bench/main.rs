//! The consensus store beside etcd: three members each, the same disk, the same clients, one after the other in each round.
//!
//! Prints tables, and adds what it measured to a JSON file, to `docs/benchmarks.md` and to the plot beside it. It never
//! fails because a number is too small: a requirement that is not met is printed as such.

mod clients;
mod cluster;
mod contender;
mod figure;
mod fill;
mod load;
mod plot;
mod random;
mod requirement;
mod results;
mod status;
mod swap;
mod tables;
mod unary;
mod usage;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};
use dwcp_benches::report::update;

use crate::{
    contender::Contender,
    load::{Load, Sizes},
    results::{Measured, Results},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MIB: u64 = 1 << 20;

/// Measures the consensus store beside etcd.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Load>,
    /// A look: one short round of everything, small, of which nothing is written down.
    #[arg(long)]
    quick: bool,
    /// Rounds; the tables hold medians, and ratios are the median of the rounds' [default: 3; quick: 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each measurement [default: 3; quick: 1].
    #[arg(long)]
    time: Option<f64>,
    /// Seconds without load before each measurement: disks in clouds have a budget that fills slowly [default: 3; quick: 0].
    #[arg(long)]
    rest: Option<f64>,
    /// Clients at a time that put [default: 1,16,64,256,1000; quick: 1,64].
    #[arg(long, value_delimiter = ',')]
    clients: Option<Vec<usize>>,
    /// Clients at a time of the other loads.
    #[arg(long, default_value_t = 64)]
    readers: usize,
    /// Watchers of one key [default: 1000; quick: 100].
    #[arg(long)]
    watchers: Option<usize>,
    /// Puts before memory is looked at [default: 200000; quick: 5000].
    #[arg(long)]
    puts: Option<u64>,
    /// How often in a round the leader is killed, and told to end [default: 7; quick: 1].
    #[arg(long)]
    ends: Option<usize>,
    /// MiB of the state that a new member takes over [default: 1024; quick: 64].
    #[arg(long)]
    state: Option<u64>,
    /// The `novacron-consensus` binary; the one beside this if not given.
    #[arg(long)]
    consensus: Option<PathBuf>,
    /// The `etcd` binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Folder for data, on the disk that is measured.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the results go, as JSON, beside those of other loads that are there.
    #[arg(long, default_value = "target/consensus.json")]
    json: PathBuf,
    /// Measures nothing: takes the results from the JSON file.
    #[arg(long, conflicts_with = "quick")]
    document_only: bool,
    /// The document to update; the plot goes beside it.
    #[arg(long)]
    doc: Option<PathBuf>,
}

/// The plot beside the document.
const PLOT: &str = "benchmarks-store.svg";

fn main() -> Result<()> {
    let args = Args::parse();
    let mut results = if args.quick { Results::default() } else { Results::read(&args.json)? };
    if !args.document_only {
        measure(&args, &mut results)?;
    }
    let sections = tables::sections(&results);
    for section in &sections {
        println!("{}\n", section.text);
    }
    if let Some(path) = args.doc.as_ref().filter(|_| !args.quick) {
        update(path, &sections)?;
        plot::draw(&path.with_file_name(PLOT), &results)?;
    }
    Ok(())
}

/// Measures what was asked for. Each load is kept as soon as it is done.
fn measure(args: &Args, results: &mut Results) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scratch = tempfile::tempdir_in(&args.folder).with_context(|| args.folder.display().to_string())?;
    let sizes = sizes(args, scratch.path())?;
    let contenders = contenders(args, scratch.path())?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    for load in Load::value_variants().iter().filter(|load| args.only.is_empty() || args.only.contains(load))
    {
        let mut measured = Measured::new(rounds, sizes.time.as_secs_f64());
        for round in 1..=rounds {
            for contender in contenders.iter().filter(|contender| load.takes(contender.kind)) {
                let what = format!("round {round}: {}: {}", load.title(), contender.name);
                let cases = runtime.block_on(load.measure(&sizes, contender));
                match &cases {
                    Ok(cases) => cases.iter().for_each(|case| eprintln!("{what}: {case}")),
                    // Part of the result, as a loss is.
                    Err(error) => eprintln!("{what}: failed: {error:#}"),
                }
                measured.push(contender, cases);
            }
        }
        results.loads.insert(*load, measured);
        if !args.quick {
            results.write(&args.json)?;
        }
    }
    Ok(())
}

fn sizes(args: &Args, folder: &Path) -> Result<Sizes> {
    let (time, rest, clients, watchers, puts, ends, state) = match args.quick {
        true => (1.0, 0.0, vec![1, 64], 100, 5000, 1, 64),
        false => (3.0, 3.0, vec![1, 16, 64, 256, 1000], 1000, 200_000, 7, 1024),
    };
    Ok(Sizes {
        folder: folder.to_owned(),
        time: Duration::try_from_secs_f64(args.time.unwrap_or(time)).context("--time")?,
        rest: Duration::try_from_secs_f64(args.rest.unwrap_or(rest)).context("--rest")?,
        clients: args.clients.clone().unwrap_or(clients),
        readers: args.readers,
        watchers: args.watchers.unwrap_or(watchers),
        puts: args.puts.unwrap_or(puts),
        ends: args.ends.unwrap_or(ends),
        state_bytes: args.state.unwrap_or(state) * MIB,
    })
}

fn contenders(args: &Args, folder: &Path) -> Result<Vec<Contender>> {
    let consensus = match &args.consensus {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("novacron-consensus"),
    };
    let mut contenders = vec![Contender::novacron(consensus.clone())];
    match Contender::novacron_lease(consensus, folder) {
        Ok(contender) => contenders.push(contender),
        Err(error) => eprintln!("lease reads are not measured: {error:#}"),
    }
    contenders.push(Contender::etcd(args.etcd.clone())?);
    contenders.push(Contender::floor()?);
    Ok(contenders)
}
