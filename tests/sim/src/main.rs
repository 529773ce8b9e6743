//! `sim`: seeds on the command line.

use std::{ops::Range, process::ExitCode, time::Instant};

use clap::Parser;

/// Runs members of the consensus store on a simulated disk, network and clock, and checks what their clients see.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// One run.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Prints what happens in it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// A mistake that is made on purpose, by its name in the code.
    #[arg(long, value_parser = mistake)]
    mistake: Option<sim::Mistake>,
    /// Many runs: the first, and the one after the last.
    #[arg(long, value_parser = range, default_value = "0..10000")]
    seeds: Range<u64>,
}

fn mistake(text: &str) -> Result<sim::Mistake, String> {
    let found = sim::Mistake::ALL.into_iter().find(|mistake| format!("{mistake:?}") == text);
    found.ok_or_else(|| format!("one of {:?}", sim::Mistake::ALL))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("it looks like 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let ran = match args.seed {
        Some(seed) => {
            sim::run(seed, args.mistake, args.trace).map_err(|violation| sim::Found { seed, violation })
        }
        None => sim::run_all(args.seeds, args.mistake),
    };
    match ran {
        Ok(report) => {
            println!("{report:#?}\nno violation, {:.1} s", began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(found) => {
            eprintln!("{found}");
            ExitCode::FAILURE
        }
    }
}
