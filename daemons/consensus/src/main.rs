//! `novacron-consensus`: flags, logging, signals and exit codes around one member.

mod args;
mod member;

use std::process::ExitCode;

use clap::{Parser as _, ValueEnum};
use tracing_subscriber::EnvFilter;

/// A wrong flag.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let args = args::Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            return USAGE.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("novacron-consensus: cannot start: {error}");
            return FAILURE.into();
        }
    };
    match runtime.block_on(member::run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-consensus: {error:#}");
            FAILURE.into()
        }
    }
}
