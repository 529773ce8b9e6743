//! The `novacron` command: parsing, logging and exit codes. Each subcommand has its own file.

mod api;
mod bench;
mod certs;
mod crd;
mod delta;
mod dict;
mod exit;
mod forward;
mod generate;
mod node;
mod observe;
mod progress;
mod recv;
mod send;
mod settings;
mod size;
mod status;
mod store;
mod tls;
mod transport;
mod up;
mod vm;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use novacron_process::Traces;
use tokio::runtime::Runtime;

/// Many threads allocate here what others free, which glibc's allocator answers with locks, and with memory that it keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Moves data between nodes over DWCP, fast and verified; runs and asks the store.
#[derive(Parser)]
#[command(name = "novacron", version, after_help = exit::HELP)]
struct Cli {
    /// Format of log lines, which go to standard error; RUST_LOG chooses which.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(send::SendArgs),
    Recv(recv::RecvArgs),
    Forward(forward::ForwardArgs),
    Bench(bench::BenchArgs),
    Status(status::StatusArgs),
    Store(delta::StoreArgs),
    Dict(dict::DictArgs),
    Certs(certs::CertsArgs),
    Up(up::UpArgs),
    Kv(store::KvArgs),
    Lease(store::LeaseArgs),
    Member(store::MemberArgs),
    Cluster(store::ClusterArgs),
    Region(store::RegionArgs),
    Node(node::NodeArgs),
    Vm(vm::VmArgs),
    Migration(api::MigrationArgs),
    Job(api::JobArgs),
    Schedule(api::ScheduleArgs),
    Api(api::ApiArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    /// Prints the definitions of the custom resources for Kubernetes, for `kubectl apply --server-side -f -`.
    Crd,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.log_format == LogFormat::Json;
    let traces = if let Command::Up(_) = cli.command {
        Some(novacron_process::log_and_trace("novacron", "up", json, "warn"))
    } else {
        novacron_process::log_to_stderr("novacron", json, "warn");
        None
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("novacron: cannot start: {error}");
            return exit::FAILURE.into();
        }
    };
    let ended = match cli.command {
        Command::Send(args) => on_worker(&runtime, send::run(args)),
        Command::Recv(args) => on_worker(&runtime, recv::run(args)),
        Command::Forward(args) => on_worker(&runtime, forward::run(args)),
        Command::Bench(args) => on_worker(&runtime, bench::run(args)),
        Command::Status(args) => on_worker(&runtime, status::run(args)),
        Command::Up(args) => {
            let is_traced = traces.as_ref().is_some_and(Traces::are_exported);
            on_worker(&runtime, up::run(args, is_traced))
        }
        Command::Store(args) => on_worker(&runtime, delta::run(args)),
        Command::Dict(args) => dict::run(&args),
        Command::Kv(args) => on_worker(&runtime, store::kv(args)),
        Command::Lease(args) => on_worker(&runtime, store::lease(args)),
        Command::Member(args) => on_worker(&runtime, store::member(args)),
        Command::Node(args) => on_worker(&runtime, node::run(args)),
        Command::Vm(args) => on_worker(&runtime, vm::run(args)),
        Command::Migration(args) => on_worker(&runtime, api::migration(args)),
        Command::Job(args) => on_worker(&runtime, api::job(args)),
        Command::Schedule(args) => on_worker(&runtime, api::schedule(args)),
        Command::Api(args) => on_worker(&runtime, api::api(args)),
        Command::Cluster(args) => on_worker(&runtime, store::cluster(args)),
        Command::Region(args) => on_worker(&runtime, store::region(args)),
        Command::Certs(args) => certs::run(&args).map(|()| exit::OK),
        Command::Completions(args) => generate::completions(Cli::command(), &args).map(|()| exit::OK),
        Command::Man(args) => generate::man(Cli::command(), &args).map(|()| exit::OK),
        Command::Crd => crd::run().map(|()| exit::OK),
    };
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    if let Some(traces) = traces {
        traces.finish();
    }
    let code = ended.unwrap_or_else(|error| {
        let advice = exit::advice(&error).map(|advice| format!(" ({advice})")).unwrap_or_default();
        eprintln!("novacron: {}{advice}", in_words(&error));
        exit::of_error(&error)
    });
    code.into()
}

/// Runs a command as a task: on the main thread, each of its wake-ups would cross threads.
fn on_worker<T: Send + 'static>(
    runtime: &Runtime,
    command: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    runtime.block_on(runtime.spawn(command)).context("a command ended abnormally")?
}

/// An error and its causes; many of ours tell their cause themselves.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, CommandFactory as _};

    /// clap takes an argument whose id a global one has for that one, and its value is lost.
    fn ids_are_unique(command: &Command, globals: &[String]) {
        let mut inherited = globals.to_vec();
        // clap itself looks only where debug assertions are on.
        for flags in [
            command.get_arguments().map(|argument| argument.get_id().to_string()).collect::<Vec<_>>(),
            command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect(),
        ] {
            let unique: BTreeSet<_> = flags.iter().collect();
            assert_eq!(unique.len(), flags.len(), "{}: one is there twice: {flags:?}", command.get_name());
        }
        for argument in command.get_arguments() {
            let id = argument.get_id().to_string();
            assert!(!globals.contains(&id), "{}: {id} is a global argument, too", command.get_name());
            inherited.extend(argument.is_global_set().then_some(id));
        }
        command.get_subcommands().for_each(|command| ids_are_unique(command, &inherited));
    }

    #[test]
    fn the_arguments_make_sense() {
        ids_are_unique(&super::Cli::command(), &[]);
        super::Cli::command().debug_assert();
    }
}
