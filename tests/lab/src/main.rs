//! `dwcp-lab`: the WAN lab on the command line.
//!
//! Owns: flags, signals, exit codes. Exit code: that of the client command; 125 when the lab could not be made; 130 or
//! 143 after a signal.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use dwcp_lab::compare::{Plan, compare};
use dwcp_lab::contender::{self, Contender, Tools};
use dwcp_lab::report::ScenarioReport;
use dwcp_lab::scenario::{Outage, RateChange};
use dwcp_lab::{Lab, LinkSummary, Scenario, Side, store, sweep, unavailable};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// What separates the two commands of `run`.
const SEPARATOR: &str = ":::";
const SERVER_START_MAX: Duration = Duration::from_secs(60);
const EXIT_NO_LAB: u8 = 125;

/// Runs programs over an emulated wide-area link between two network namespaces.
///
/// Side A is 192.0.2.1 and 2001:db8::1, side B is 192.0.2.2 and 2001:db8::2.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the standing scenarios.
    Scenarios,
    /// Runs COMMAND_A at side A, after COMMAND_B at side B listens; ends B when A has ended.
    #[command(
        after_help = "Example: dwcp-lab run --scenario rtt80-loss0.1 -- iperf3 -c 192.0.2.2 -C bbr ::: iperf3 -s -1"
    )]
    Run {
        #[command(flatten)]
        link: LinkArgs,
        /// The client, and after `:::` the server.
        #[arg(last = true, required = true, value_name = "COMMAND_A [::: COMMAND_B]")]
        commands: Vec<String>,
    },
    /// Opens a shell at side A; `nsenter --net=$DWCP_LAB_NETNS_B COMMAND` runs at side B.
    Shell {
        #[command(flatten)]
        link: LinkArgs,
        /// Opens it at side B instead.
        #[arg(long)]
        b: bool,
    },
    /// Measures contenders alternately and prints medians.
    Compare(CompareArgs),
}

#[derive(Args)]
struct LinkArgs {
    /// A standing scenario; the flags below change it.
    #[arg(long, default_value = "rtt100-droptail")]
    scenario: String,
    #[command(flatten)]
    changes: LinkChanges,
}

#[derive(Args)]
struct LinkChanges {
    /// Rate in Mbit/s of IP payload.
    #[arg(long, value_name = "MBIT")]
    rate: Option<f64>,
    /// Round trip in ms.
    #[arg(long, value_name = "MS")]
    rtt: Option<f64>,
    /// Loss of wire segments each way in percent.
    #[arg(long, value_name = "PERCENT")]
    loss: Option<f64>,
    /// Drop-tail queue in bytes [default: one bandwidth-delay product].
    #[arg(long, value_name = "BYTES")]
    queue: Option<u64>,
    /// One-way delay wanders by up to this, in ms.
    #[arg(long, value_name = "MS")]
    jitter: Option<f64>,
    /// Share of segments that are held back, in percent.
    #[arg(long, value_name = "PERCENT")]
    reorder: Option<f64>,
    /// How long they are held back, in ms [default: 5].
    #[arg(long, value_name = "MS")]
    reorder_delay: Option<f64>,
    /// From this second on another rate; may be repeated.
    #[arg(long, value_name = "SECOND:MBIT", value_parser = pair)]
    rate_change: Vec<(f64, f64)>,
    /// Nothing passes from one second to another; may be repeated.
    #[arg(long, value_name = "FROM:TO", value_parser = pair)]
    outage: Vec<(f64, f64)>,
    /// Seed of loss, jitter and reordering.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct CompareArgs {
    /// A standing scenario, several separated by commas, or `all`.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    scenario: Vec<String>,
    #[command(flatten)]
    changes: LinkChanges,
    /// Runs per contender; run N has seed SEED + N.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Runs of those contenders that nothing is required against, in the first rounds [default: as --runs].
    #[arg(long, value_name = "N")]
    extra_runs: Option<u32>,
    /// Seconds per run.
    #[arg(long, default_value_t = 30)]
    time: u64,
    /// Scenarios at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Who takes part.
    #[arg(long, value_delimiter = ',', default_value = contender::DEFAULT)]
    contenders: Vec<Contender>,
    /// The novacron binary.
    #[arg(long)]
    novacron: Option<PathBuf>,
    /// The dwcp-peers binary, for quinn.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Puts each finished scenario into this JSON report, in the place of an older one of the same name.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    sweep::end_on_signals();
    match act(cli.action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dwcp-lab: {error:#}");
            ExitCode::from(EXIT_NO_LAB)
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    if let Action::Scenarios = action {
        for s in Scenario::standing() {
            let (loss, queue) = (s.loss * 100.0, s.queue_bytes());
            println!(
                "{:<16} {} Mbit/s, {} ms, {loss} % loss, queue {queue} bytes",
                s.name, s.rate_mbit, s.rtt_ms
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = unavailable() {
        bail!("no lab on this machine: {reason}");
    }
    match action {
        Action::Scenarios => unreachable!("handled above"),
        Action::Run { link, commands } => run(&link.scenario()?, &commands),
        Action::Shell { link, b } => {
            let lab = Lab::new(&link.scenario()?)?;
            let side = if b { Side::B } else { Side::A };
            eprintln!(
                "side {side:?}; for the other side: nsenter --net=$DWCP_LAB_NETNS_{} COMMAND",
                if b { "A" } else { "B" }
            );
            let shell = std::env::var_os("SHELL").unwrap_or("/bin/sh".into());
            let code = lab.spawn(lab.command(side, shell))?.wait()?;
            print_summary(&lab.stats().summary());
            Ok(exit_code(code))
        }
        Action::Compare(args) => run_comparison(args),
    }
}

fn run(scenario: &Scenario, commands: &[String]) -> Result<ExitCode> {
    let mut parts = commands.split(|word| word == SEPARATOR);
    let (a, b) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ensure!(parts.next().is_none(), "more than one {SEPARATOR}");
    let lab = Lab::new(scenario)?;
    let command = |side, words: &[String]| -> Result<Command> {
        let (program, args) = words.split_first().with_context(|| format!("no command for side {side:?}"))?;
        let mut command = lab.command(side, program);
        command.args(args);
        Ok(command)
    };
    let mut client = command(Side::A, a)?;
    let _server = if b.is_empty() {
        None
    } else {
        let mut server = command(Side::B, b)?;
        server.stdin(std::process::Stdio::null());
        let server = lab.spawn(server)?;
        // A server that never listens may be intended (it may wait for something else): say so and go on.
        if let Err(error) = lab.wait_for_listener(Side::B, None, SERVER_START_MAX) {
            eprintln!("dwcp-lab: {error:#}; starting side A anyway");
        }
        Some(server)
    };
    client.stdin(std::process::Stdio::inherit());
    let status = lab.spawn(client)?.wait()?;
    print_summary(&lab.stats().summary());
    Ok(exit_code(status))
}

fn run_comparison(args: CompareArgs) -> Result<ExitCode> {
    let names = args.scenario.iter().map(String::as_str);
    let chosen = if args.scenario == ["all"] {
        Scenario::standing()
    } else {
        names.map(named).collect::<Result<_>>()?
    };
    let plan = Plan {
        scenarios: chosen.into_iter().map(|s| args.changes.apply(s)).collect::<Result<_>>()?,
        contenders: args.contenders,
        runs: args.runs,
        extra_runs: args.extra_runs.unwrap_or(args.runs),
        time: Duration::from_secs(args.time),
        jobs: args.jobs,
        tools: Tools { novacron: args.novacron, peers: args.peers },
    };
    if let Some(path) = &args.json {
        // An hour of runs must not end with the news that this is something else.
        store::check(path)?;
    }
    let finished = |scenario: &ScenarioReport| match &args.json {
        Some(path) => store::put(path, scenario),
        None => Ok(()),
    };
    let report = compare(&plan, |line| eprintln!("{line}"), finished)?;
    print!("{}", report.table());
    Ok(ExitCode::SUCCESS)
}

impl LinkArgs {
    fn scenario(&self) -> Result<Scenario> {
        self.changes.apply(named(&self.scenario)?)
    }
}

impl LinkChanges {
    fn apply(&self, base: Scenario) -> Result<Scenario> {
        let mut scenario = Scenario {
            rate_mbit: self.rate.unwrap_or(base.rate_mbit),
            rtt_ms: self.rtt.unwrap_or(base.rtt_ms),
            loss: self.loss.map_or(base.loss, |percent| percent / 100.0),
            queue_bytes: self.queue.or(base.queue_bytes),
            jitter_ms: self.jitter.unwrap_or(base.jitter_ms),
            reorder: self.reorder.map_or(base.reorder, |percent| percent / 100.0),
            reorder_delay_ms: self.reorder_delay.unwrap_or(base.reorder_delay_ms),
            rate_changes: self
                .rate_change
                .iter()
                .map(|&(at_s, rate_mbit)| RateChange { at_s, rate_mbit })
                .collect(),
            outages: self.outage.iter().map(|&(from_s, to_s)| Outage { from_s, to_s }).collect(),
            seed: self.seed,
            ..base.clone()
        };
        scenario.check()?;
        if (Scenario { seed: base.seed, ..scenario.clone() }) != base {
            // In a report it must not take the place of the standing one.
            scenario.name += "-changed";
        }
        Ok(scenario)
    }
}

fn named(name: &str) -> Result<Scenario> {
    Scenario::named(name).with_context(|| {
        let names: Vec<String> = Scenario::standing().into_iter().map(|s| s.name).collect();
        format!("no scenario {name:?}; there are {}", names.join(", "))
    })
}

fn pair(text: &str) -> Result<(f64, f64), String> {
    let (left, right) = text.split_once(':').ok_or("two numbers with a colon between them")?;
    let number = |text: &str| text.parse::<f64>().map_err(|error| format!("{text:?}: {error}"));
    Ok((number(left)?, number(right)?))
}

fn print_summary(link: &LinkSummary) {
    for (name, way) in [("A>B", &link.a_to_b), ("B>A", &link.b_to_a)] {
        eprintln!(
            "{name}: {} segments, {} bytes carried, {} lost, {} dropped by the queue, {} while down, {} held back",
            way.segments, way.delivered_bytes, way.lost, way.queue_drops, way.down_drops, way.held_back
        );
    }
    let verdict = if link.void { "; VOID: these figures do not count" } else { "" };
    eprintln!(
        "emulator: late p99 {:.0} us, max {:.0} us, {} faults, {:.2} s processor time{verdict}",
        link.late_p99_us, link.late_max_us, link.faults, link.pump_cpu_s
    );
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(code as u8)
}
