//! `novacron vm`: live migration of QEMU's guests; the inventory of the API beside it.

use std::{
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use dwcp_core::Endpoint;
use dwcp_migrate::{Qmp, Report, Sent, SourceOptions, Stage, migrate, receive, recover};
use novacron_process::{Signals, raise_open_files};

use crate::{
    api::{self, InventoryCommand},
    exit::{self, Ended, Usage},
    observe::Observable,
    send::{Target, connect},
    settings::SettingsArgs,
    size,
    store::print,
};

/// Virtual machines: moves QEMU's running guests, and asks the API's inventory.
#[derive(Args, Debug)]
pub(crate) struct VmArgs {
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(Subcommand, Debug)]
enum VmCommand {
    Migrate(Box<MigrateArgs>),
    Receive(Box<ReceiveArgs>),
    Recover(RecoverArgs),
    #[command(flatten)]
    Inventory(Box<InventoryCommand>),
}

/// Moves the running guest of a QEMU here to one at another node, where `novacron vm receive` waits: disks, then memory.
///
/// Whatever fails, the guest goes on here, also if this command is killed. Ends when the guest runs there, and says what it took.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::HELP)]
struct MigrateArgs {
    /// QEMU's monitor here, as it was started with: -qmp unix:PATH,server=on,wait=off.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["print_config", "check_config"])]
    qmp: Option<PathBuf>,
    /// Where `novacron vm receive` listens.
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["print_config", "check_config"])]
    to: Option<String>,
    /// How long the guest may stand while the last of its memory is sent, in milliseconds, as QEMU expects it.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    downtime_max_ms: u64,
    /// In how much memory, at each end, pages are kept to send later versions of them as differences.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    pages_memory: u64,
    /// Level of zstd for memory.
    #[arg(long, value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    memory_level: i32,
    /// Prints what it took as JSON.
    #[arg(long)]
    json: bool,
    /// Name that the other node's certificate must carry [default: HOST].
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    server_name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Takes one guest from `novacron vm migrate` into a QEMU here, which was started with the same devices and `-incoming defer`.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::HELP)]
struct ReceiveArgs {
    /// QEMU's monitor here, as it was started with: -qmp unix:PATH,server=on,wait=off.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["print_config", "check_config"])]
    qmp: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Puts a guest back that `novacron vm migrate` could not: ends its migration and removes mirrors that were left in QEMU.
#[derive(Args, Debug)]
struct RecoverArgs {
    /// QEMU's monitor here.
    #[arg(long, value_name = "PATH")]
    qmp: PathBuf,
    /// Waits until standard input ends, and does then what its last byte says.
    #[arg(long, hide = true)]
    on_end: bool,
}

/// Returns the exit code.
pub(crate) async fn run(args: VmArgs) -> Result<u8> {
    match args.command {
        VmCommand::Migrate(args) => run_migrate(*args).await,
        VmCommand::Receive(args) => run_receive(*args).await,
        VmCommand::Recover(args) => run_recover(args).await,
        VmCommand::Inventory(command) => api::inventory(*command).await,
    }
}

async fn run_migrate(args: MigrateArgs) -> Result<u8> {
    let Some(node) = args.settings.load([])? else { return Ok(exit::OK) };
    let (Some(path), Some(to)) = (&args.qmp, &args.to) else {
        return Err(Usage("--qmp and --to are missing".into()).into());
    };
    let target = Target::parse(to.as_ref())?;
    if target.path.is_some() {
        return Err(Usage(format!("{to}: expected HOST:PORT")).into());
    }
    raise_open_files();
    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let endpoint = Endpoint::client(node.settings.endpoint.clone())?;
    node.keep_fresh(&endpoint);
    let _observed = observable.serve("novacron vm migrate", &node.settings, &endpoint, signals.draining());
    let mut guard = Guard::start(path)?;
    let options = SourceOptions {
        pages_bytes: args.pages_memory,
        level: args.memory_level,
        downtime_max_ms: args.downtime_max_ms,
    };
    let work = async {
        let name = args.server_name.as_deref().unwrap_or(&target.host);
        let connection = connect(&endpoint, &target, name).await?;
        let qmp = Qmp::connect(path).await?;
        let moved = migrate(&connection, &qmp, &options, |stage| guard.tell(stage)).await;
        connection.close(0, "migration ended");
        Ok::<_, anyhow::Error>(moved?)
    };
    let moved = signals.unless(work).await;
    match moved {
        Some(Ok(report)) => {
            guard.end(true);
            say(&report, args.json)?;
            Ok(exit::OK)
        }
        Some(Err(error)) => {
            // What could not be put back is tried once more.
            guard.end(false);
            Err(error)
        }
        None => {
            guard.end(false);
            Err(Ended::failed("told to stop by a signal: the guest goes on here".into()).into())
        }
    }
}

async fn run_receive(args: ReceiveArgs) -> Result<u8> {
    let listen = ("--listen", "listen", args.listen.clone());
    let Some(node) = args.settings.load([listen])? else { return Ok(exit::OK) };
    let path = args.qmp.as_ref().ok_or_else(|| Usage("--qmp is missing".into()))?;
    raise_open_files();
    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let qmp = Qmp::connect(path).await?;
    let endpoint = Endpoint::listen(node.settings.listen, node.settings.endpoint.clone()).await?;
    node.keep_fresh(&endpoint);
    if let Some(address) = endpoint.local_addr() {
        eprintln!("listening on {address}");
    }
    let _observed = observable.serve("novacron vm receive", &node.settings, &endpoint, signals.draining());
    let work = async {
        let Some(connection) = endpoint.accept().await else { return Ok(exit::FAILURE) };
        receive(&connection, &qmp).await?;
        eprintln!("the guest of {} runs here", connection.peer().node_id);
        Ok(exit::OK)
    };
    let ended = signals.unless(work).await;
    ended.unwrap_or_else(|| Err(Ended::failed("told to stop by a signal".into()).into()))
}

async fn run_recover(args: RecoverArgs) -> Result<u8> {
    let mut sent = Sent::Stays;
    if args.on_end {
        let mut told = Vec::new();
        // Whoever wrote it is gone, however this ends.
        let _ = std::io::stdin().take(TOLD_BYTES_MAX).read_to_end(&mut told);
        match told.last() {
            Some(&ENDED) => return Ok(exit::OK),
            Some(&HANDED_OVER) => {}
            _ => sent = Sent::GoesOn,
        }
    }
    let qmp = Qmp::connect(&args.qmp).await?;
    recover(&qmp, sent).await?;
    Ok(exit::OK)
}

/// What the guard is told.
const HANDED_OVER: u8 = b'H';
const ENDED: u8 = b'E';
const TOLD_BYTES_MAX: u64 = 16;

/// Another process, which puts the guest back if this one is killed: QEMU would wait for us with a guest that stands.
struct Guard {
    child: Child,
    told: Option<ChildStdin>,
}

impl Guard {
    fn start(qmp: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut command = Command::new(program);
        command.args(["vm", "recover", "--on-end", "--qmp"]).arg(qmp);
        // A signal for the terminal's programs is not for it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn().context("start the process that puts the guest back")?;
        let told = child.stdin.take();
        Ok(Self { child, told })
    }

    fn tell(&mut self, stage: Stage) {
        let words = match stage {
            Stage::Disks => "copying the disks",
            Stage::Memory => "copying the memory",
            Stage::Switchover => "the guest has stopped",
            Stage::Handover => "the target has everything",
        };
        eprintln!("{words}");
        if stage == Stage::Handover {
            self.write(HANDED_OVER);
        }
    }

    fn write(&mut self, byte: u8) {
        if let Some(told) = &mut self.told {
            // A guard that is gone guards nothing; the migration goes on.
            let _ = told.write_all(&[byte]);
        }
    }

    /// Waits until it has put back what there is to put back.
    fn end(mut self, moved: bool) {
        if moved {
            self.write(ENDED);
        }
        self.told = None;
        let _ = self.child.wait();
    }
}

fn say(report: &Report, json: bool) -> std::io::Result<()> {
    if json {
        return print(serde_json::to_string(report).expect("a report is plain numbers"));
    }
    let Report {
        total_ms, disks_ms, downtime_ms, passes, disk_bytes, memory_bytes, wire_bytes, ratio, ..
    } = report;
    let (disk, memory, wire) = (size::show(*disk_bytes), size::show(*memory_bytes), size::show(*wire_bytes));
    print(format!(
        "moved in {total_ms} ms, {disks_ms} ms of it disks; the guest stood for {downtime_ms} ms\n\
         {disk} of disks and {memory} of memory in {passes} passes: {wire} on the wire, {ratio:.2} to 1"
    ))
}
