//! `chaos`: rounds of faults on the command line.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use chaos::{Cluster, Load, Network, ROUNDS_MAX, Reads, Recording, Schedule, run};
use clap::Parser;
use dwcp_lab::sweep;
use linearizability::Verdict;

/// Strikes three members of the consensus store and checks that what their clients saw is linearizable.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Faults, one after the other.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u16,
    /// Repeats the faults of an earlier run; the time if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients at a time.
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// Members on loopback, where nothing can be cut: for a machine without namespaces.
    #[arg(long)]
    loopback: bool,
    /// Clients read whatever a member has: shows what a violation looks like.
    #[arg(long)]
    serializable: bool,
    /// The `novacron-consensus` binary; the one beside this if not given.
    #[arg(long)]
    consensus: Option<PathBuf>,
    /// Folder for the history and the members' logs of a run that is not linearizable.
    #[arg(long, default_value = "target/chaos")]
    evidence: PathBuf,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    sweep::end_on_signals();
    let program = match &args.consensus {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("novacron-consensus"),
    };
    ensure!(program.is_file(), "{} is not built", program.display());
    let seed = match args.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    eprintln!("seed {seed}");
    let network = if args.loopback {
        Network::loopback()
    } else {
        Network::bridged().context("without namespaces there is --loopback")?
    };
    let rounds: Vec<_> = Schedule::new(seed, !args.loopback).take(args.rounds.into()).collect();
    let mut cluster = Cluster::start(&program, network)?;
    let reads = if args.serializable { Reads::Serializable } else { Reads::Linearizable };
    let load = Load { clients: args.clients, seed, reads };
    let recording = match run(&mut cluster, &load, &rounds) {
        Ok(recording) => recording,
        Err(error) => {
            cluster.keep_logs(make(&args.evidence)?)?;
            return Err(error.context(format!("seed {seed}; logs are in {}", args.evidence.display())));
        }
    };
    println!("seed {seed}, {} rounds: {}", args.rounds, summary(&recording));
    judge(&recording, &cluster, &args.evidence)
}

fn make(folder: &Path) -> Result<&Path> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn summary(recording: &Recording) -> String {
    let all = recording.operations.len();
    let mut text = format!("{all} operations, {} without an answer", all - recording.answered());
    for (error, count) in &recording.errors {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {count} times {error}");
    }
    text
}

fn judge(recording: &Recording, cluster: &Cluster, evidence: &Path) -> Result<ExitCode> {
    let start = Instant::now();
    let why = match recording.verdict() {
        Verdict::Linearizable => {
            println!("linearizable, which took {:.1?} to find out", start.elapsed());
            return Ok(ExitCode::SUCCESS);
        }
        Verdict::Violation(violation) => {
            format!("NOT linearizable\n{}", violation.explain(&recording.operations))
        }
        Verdict::Unknown { key } => format!("key {key}: the checker's limit is reached\n"),
    };
    println!("{why}history and logs are in {}", evidence.display());
    cluster.keep_logs(make(evidence)?)?;
    let lines: String = recording.operations.iter().map(|operation| format!("{operation:?}\n")).collect();
    std::fs::write(evidence.join("history.txt"), lines)?;
    Ok(ExitCode::FAILURE)
}
