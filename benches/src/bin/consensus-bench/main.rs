//! The consensus store beside etcd: three members each, the same disk, the same clients, one after the other in each round.

mod cluster;
mod load;
mod report;
mod unary;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    cluster::{Cluster, Contender},
    load::{Load, Operation},
    report::Results,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the consensus store beside etcd.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Rounds; the table holds medians, and ratios are the median of the rounds'.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    time: f64,
    /// Clients at a time that put.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1000")]
    clients: Vec<usize>,
    /// Clients at a time that read.
    #[arg(long, default_value_t = 64)]
    readers: usize,
    /// The `novacron-consensus` binary; the one beside this if not given.
    #[arg(long)]
    consensus: Option<PathBuf>,
    /// The `etcd` binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Folder for data, on the disk that is measured.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let consensus = match args.consensus {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("novacron-consensus"),
    };
    let contenders = [Contender::novacron(consensus), Contender::etcd(args.etcd)?];
    let mut loads: Vec<_> =
        args.clients.iter().map(|clients| Load { operation: Operation::Put, clients: *clients }).collect();
    loads.push(Load { operation: Operation::LinearizableRead, clients: args.readers });
    loads.push(Load { operation: Operation::SerializableRead, clients: args.readers });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(args.time);
    let mut results = Results::new(args.rounds, args.time, &contenders);
    for round in 1..=args.rounds {
        for contender in &contenders {
            let cluster = Cluster::start(contender, &args.folder).with_context(|| contender.name.clone())?;
            for load in &loads {
                let before = cluster.usage()?;
                let measured = runtime.block_on(load::run(&cluster.endpoints(), load, time))?;
                let used = cluster.usage()?.since(&before);
                eprintln!("round {round}: {}: {load}: {measured}", contender.name);
                results.push(contender, load, measured, used);
            }
        }
    }
    print!("{}", results.table());
    if let Some(path) = args.json {
        std::fs::write(&path, serde_json::to_vec_pretty(&results)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
