//! Who can be measured in the lab, and how.
//!
//! Owns: for each contender the commands of both ends, and where its goodput is read. Goodput is application bytes at
//! the receiver in the time that the sender sends, slow start included. Order of runs, seeds and medians are `compare`'s.

use crate::lab::{Lab, Running, Side};
use crate::machine;
use crate::report::Moment;
use crate::scenario::Scenario;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a contender gets beyond its measuring time to start, to end, and to drain a full queue over a long path.
const GRACE: Duration = Duration::from_secs(60);
const SERVER_START_MAX: Duration = Duration::from_secs(60);
const IPERF3_PORT: u16 = 5201;
const RSYNC_PORT: u16 = 8730;
const BENCH_PORT: u16 = 8888;

/// Contenders of a comparison when none are named. `novacron` is in the middle, with and without the extras.
pub const DEFAULT: &str = "iperf3-cubic1,iperf3-cubic8,iperf3-bbr1,iperf3-bbr2,iperf3-bbr4,novacron,iperf3-cubic16,quinn,\
    iperf3-bbr8,rsync";

/// Contenders that nothing is required against: they may run less often.
const EXTRAS: [&str; 4] = ["iperf3-cubic1", "iperf3-cubic8", "iperf3-bbr8", "rsync"];

/// Programs that are not found by name.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// The `novacron` binary.
    pub novacron: Option<PathBuf>,
    /// The `dwcp-peers` binary, which holds the quinn peer.
    pub peers: Option<PathBuf>,
}

/// Something that moves bytes from side A to side B.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// iperf3 over TCP.
    Iperf3 {
        /// Congestion control, any the kernel has.
        congestion_control: String,
        /// Parallel connections.
        streams: u32,
    },
    /// quinn, one stream.
    Quinn,
    /// `novacron bench`, all settings at their defaults, data that does not compress.
    Novacron,
    /// rsync of one file through its daemon, from memory to memory.
    Rsync,
}

impl std::str::FromStr for Contender {
    type Err = anyhow::Error;

    /// `iperf3-CONGESTIONCONTROLSTREAMS` (such as `iperf3-bbr4`), `quinn`, `novacron` or `rsync`.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "quinn" => return Ok(Self::Quinn),
            "novacron" => return Ok(Self::Novacron),
            "rsync" => return Ok(Self::Rsync),
            _ => {}
        }
        let kind = name.strip_prefix("iperf3-").with_context(|| format!("unknown contender {name:?}"))?;
        let congestion_control = kind.trim_end_matches(|c: char| c.is_ascii_digit());
        let streams = kind[congestion_control.len()..].parse().unwrap_or(0);
        ensure!(
            !congestion_control.is_empty() && (1..=128).contains(&streams),
            "{name:?} is not iperf3-CONGESTIONCONTROLSTREAMS with 1..=128 streams, such as iperf3-bbr4"
        );
        Ok(Self::Iperf3 { congestion_control: congestion_control.into(), streams })
    }
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Iperf3 { congestion_control, streams } => write!(f, "iperf3-{congestion_control}{streams}"),
            Self::Quinn => f.write_str("quinn"),
            Self::Novacron => f.write_str("novacron"),
            Self::Rsync => f.write_str("rsync"),
        }
    }
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Goodput.
    pub bits_per_second: f64,
    /// How it went, where the contender tells.
    pub course: Vec<Moment>,
}

impl From<f64> for Measured {
    fn from(bits_per_second: f64) -> Self {
        Self { bits_per_second, course: vec![] }
    }
}

impl Contender {
    /// Whether it is there for comparison only: nothing is required against it.
    pub fn is_extra(&self) -> bool {
        EXTRAS.contains(&self.to_string().as_str())
    }

    /// Why it cannot take part on this machine; `None` when it can.
    pub fn missing(&self, tools: &Tools) -> Option<String> {
        match self {
            Self::Iperf3 { congestion_control, .. } => {
                missing_program("iperf3").or_else(|| machine::congestion_control_missing(congestion_control))
            }
            Self::Rsync => missing_program("rsync"),
            Self::Novacron => missing_path(tools.novacron.as_deref(), "--novacron"),
            Self::Quinn => missing_path(tools.peers.as_deref(), "--peers"),
        }
    }

    /// Moves data for `time`.
    pub fn measure(&self, lab: &Lab, scenario: &Scenario, time: Duration, tools: &Tools) -> Result<Measured> {
        let seconds = time.as_secs().to_string();
        match self {
            Self::Iperf3 { congestion_control, streams } => {
                let server = command(lab, Side::B, "iperf3", &["-s", "-1"]);
                let target = Side::B.ipv4().to_string();
                let streams = streams.to_string();
                let client = [
                    "-c",
                    &target,
                    "-t",
                    &seconds,
                    "-C",
                    congestion_control,
                    "-P",
                    &streams,
                    "-i",
                    "0",
                    "-J",
                ];
                let client = command(lab, Side::A, "iperf3", &client);
                let report = client_report(lab, server, IPERF3_PORT, client, time)?;
                // Not its own rate: the server's clock begins a round trip before data arrives.
                let received = |what| number(&report, &format!("/end/sum_received/{what}"));
                let seconds = received("seconds")? - scenario.rtt_ms / 1e3;
                Ok((received("bytes")? * 8.0 / seconds).into())
            }
            Self::Novacron => {
                let program = tools.novacron.as_deref().context("no --novacron")?;
                let address = format!("{}:{BENCH_PORT}", Side::B.ipv4());
                let server = ["bench", "server", "--listen", &address, "--allow-plaintext"];
                let server = command(lab, Side::B, program, &server);
                let client = [
                    "bench",
                    "client",
                    &address,
                    "--time",
                    &seconds,
                    "--data",
                    "random",
                    "--json",
                    "--allow-plaintext",
                ];
                let client = command(lab, Side::A, program, &client);
                let report = client_report(lab, server, BENCH_PORT, client, time)?;
                Ok(Measured { course: course(&report)?, ..number(&report, "/bits_per_second")?.into() })
            }
            Self::Quinn => {
                let program = tools.peers.as_deref().context("no --peers")?;
                let address = format!("{}:{BENCH_PORT}", Side::B.ipv4());
                let server = command(lab, Side::B, program, &["quinn-server", "--listen", &address]);
                let client = ["quinn-client", &address, "--time", &seconds, "--json"];
                let client = command(lab, Side::A, program, &client);
                let report = client_report(lab, server, BENCH_PORT, client, time)?;
                number(&report, "/bits_per_second").map(Measured::from)
            }
            Self::Rsync => measure_rsync(lab, scenario, time).map(Measured::from),
        }
    }
}

fn missing_program(name: &str) -> Option<String> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.err().map(|error| format!("{name} --version: {error}"))
}

fn missing_path(path: Option<&Path>, flag: &str) -> Option<String> {
    match path {
        None => Some(format!("{flag} PATH not given")),
        Some(path) if !path.is_file() => Some(format!("{flag} {}: no such file", path.display())),
        Some(_) => None,
    }
}

fn command(lab: &Lab, side: Side, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = lab.command(side, program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Starts the server, then the client, and parses what the client prints on stdout as JSON.
fn client_report(
    lab: &Lab,
    mut server: Command,
    port: u16,
    mut client: Command,
    time: Duration,
) -> Result<Value> {
    server.stdout(Stdio::null());
    let _server: Running = lab.spawn(server)?;
    lab.wait_for_listener(Side::B, Some(port), SERVER_START_MAX)?;
    client.stdout(Stdio::piped());
    let stdout = lab.spawn(client)?.stdout_within(time + GRACE)?;
    serde_json::from_slice(&stdout).context("the client's JSON report")
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    report
        .pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("no number {pointer} in the report"))
}

/// The intervals that `novacron bench` reports.
fn course(report: &Value) -> Result<Vec<Moment>> {
    let intervals = report["intervals"].as_array().context("no intervals in the report")?;
    let moment = |interval: &Value| -> Result<Moment> {
        Ok(Moment {
            end_s: number(interval, "/end")?,
            mbit: number(interval, "/bits_per_second")? / 1e6,
            links: number(interval, "/links")? as u32,
            congestion_control: interval["congestion_control"].as_str().map(str::to_owned),
        })
    };
    intervals.iter().map(moment).collect()
}

/// Sends a file that takes all of `time` at the link's rate and looks how much of it is there when the time is over.
fn measure_rsync(lab: &Lab, scenario: &Scenario, time: Duration) -> Result<f64> {
    let scratch = lab.scratch()?;
    let (source, module) = (scratch.join("source"), scratch.join("module"));
    let size = (scenario.rate_mbit * 1e6 / 8.0 * time.as_secs_f64()) as u64;
    // A hole reads as zeros, and rsync without `--sparse` and `--compress` sends and writes every one of them.
    std::fs::File::create(&source)?.set_len(size)?;
    std::fs::create_dir_all(&module)?;
    let config = scratch.join("rsyncd.conf");
    let path = module.display();
    std::fs::write(
        &config,
        format!("use chroot = no\nuid = root\ngid = root\n[lab]\npath = {path}\nread only = no\n"),
    )?;

    let mut server = command(lab, Side::B, "rsync", &["--daemon", "--no-detach"]);
    server.arg(format!("--port={RSYNC_PORT}")).arg("--config").arg(&config);
    let _server = lab.spawn(server)?;
    lab.wait_for_listener(Side::B, Some(RSYNC_PORT), SERVER_START_MAX)?;
    let mut client = command(lab, Side::A, "rsync", &["--whole-file", "--inplace"]);
    client.arg(&source).arg(format!("rsync://{}:{RSYNC_PORT}/lab/", Side::B.ipv4()));
    let started = Instant::now();
    let mut client = lab.spawn(client)?;
    while started.elapsed() < time {
        if let Some(status) = client.child().try_wait()? {
            if !status.success() {
                bail!("rsync: {status}");
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let elapsed = started.elapsed();
    let arrived = std::fs::metadata(module.join("source")).map_or(0, |m| m.len());
    Ok(arrived as f64 * 8.0 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in DEFAULT.split(',') {
            assert_eq!(name.parse::<Contender>().unwrap().to_string(), name);
        }
        assert!(EXTRAS.iter().all(|name| name.parse::<Contender>().unwrap().is_extra()));
        assert!(!Contender::Novacron.is_extra() && !Contender::Quinn.is_extra());
        for bad in ["", "iperf3", "iperf3-", "iperf3-bbr", "iperf3-4", "iperf3-bbr0", "iperf3-bbr999", "scp"]
        {
            assert!(bad.parse::<Contender>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_binary_is_a_reason_and_not_an_error() {
        assert!(Contender::Novacron.missing(&Tools::default()).unwrap().contains("--novacron"));
        let tools = Tools { peers: Some("/nonexistent/dwcp-peers".into()), ..Tools::default() };
        assert!(Contender::Quinn.missing(&tools).unwrap().contains("no such file"));
        assert!(missing_program("dwcp-no-such-program").is_some());
    }
}
