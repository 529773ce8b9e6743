//! Who takes part in which table, and how each is started.
//!
//! DWCP takes part as its users have it: `novacron bench`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_benches::workload::{Mode, Report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::{GRACE, Server, client};

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// Bulk throughput without encryption.
    Plain,
    /// Bulk throughput over TLS 1.3 or QUIC.
    Encrypted,
    /// 64-byte round trip.
    RoundTrip,
    /// 64-byte messages one way.
    Messages,
    /// 64-byte round trip beside a saturating stream.
    Control,
    /// Adaptive against static compression.
    Compression,
}

/// Programs that take part.
pub(crate) struct Tools {
    peers: PathBuf,
    novacron: PathBuf,
    /// Holds certificates made for this run.
    certificates: tempfile::TempDir,
}

/// One row of a table.
pub(crate) struct Contender {
    pub(crate) group: Group,
    pub(crate) name: String,
    program: Program,
}

enum Program {
    /// `dwcp-peers KIND-server|client`.
    Peer(&'static str),
    /// With the system's, if none is named.
    Iperf3 {
        congestion_control: Option<&'static str>,
    },
    /// The TCP peer as DWCP's links are on a short path.
    TcpCubic,
    Novacron {
        links: u16,
    },
}

/// What one run gave.
pub(crate) struct Measured {
    /// In the unit of the table.
    pub(crate) value: f64,
    pub(crate) p99_us: Option<f64>,
    pub(crate) server_rss_kib: Option<u64>,
    pub(crate) client_rss_kib: Option<u64>,
}

impl Measured {
    /// One line for the log.
    pub(crate) fn summary(&self) -> String {
        match self.p99_us {
            Some(p99) => format!("p50 {:.1} us, p99 {p99:.1} us", self.value),
            None => format!("{:.3} M/s", self.value / 1e6),
        }
    }
}

/// Rows with the congestion control that DWCP's links have on a short path.
pub(crate) const TCP_CUBIC: &str = "raw tokio TCP, cubic";
pub(crate) const IPERF3_CUBIC: &str = "iperf3, cubic";

/// Links of DWCP over TLS.
pub(crate) const TLS_LINKS: [u16; 4] = [1, 2, 4, 16];

/// Every contender that can run here, table by table.
pub(crate) fn contenders(tools: &Tools) -> Vec<Contender> {
    let mut all = Vec::new();
    let mut add = |group, name: &str, program| all.push(Contender { group, name: name.to_owned(), program });
    add(Group::Plain, "raw tokio TCP", Program::Peer("tcp"));
    add(Group::Plain, TCP_CUBIC, Program::TcpCubic);
    for links in [1, 4, 16] {
        add(Group::Plain, &dwcp(links), Program::Novacron { links });
    }
    if tools.has_iperf3() {
        add(Group::Plain, "iperf3", Program::Iperf3 { congestion_control: None });
        add(Group::Plain, IPERF3_CUBIC, Program::Iperf3 { congestion_control: Some("cubic") });
    } else {
        eprintln!("SKIP: iperf3 is not installed");
    }
    add(Group::Plain, "LengthDelimitedCodec", Program::Peer("framed"));
    add(Group::Plain, "tonic streaming", Program::Peer("tonic"));
    add(Group::Encrypted, "raw tokio-rustls", Program::Peer("tls"));
    for links in TLS_LINKS {
        add(Group::Encrypted, &dwcp(links), Program::Novacron { links });
    }
    add(Group::Encrypted, "quinn", Program::Peer("quinn"));
    for group in [Group::RoundTrip, Group::Messages] {
        add(group, "raw tokio TCP", Program::Peer("tcp"));
        add(group, "LengthDelimitedCodec", Program::Peer("framed"));
        add(group, &dwcp(1), Program::Novacron { links: 1 });
        add(group, "quinn", Program::Peer("quinn"));
        let tonic = if group == Group::RoundTrip { "tonic unary" } else { "tonic streaming" };
        add(group, tonic, Program::Peer("tonic"));
    }
    all
}

/// The name of a DWCP row.
pub(crate) fn dwcp(links: u16) -> String {
    if links == 1 { "DWCP, 1 link".to_owned() } else { format!("DWCP, {links} links") }
}

impl Tools {
    pub(crate) fn find(bin: &Path, novacron: Option<PathBuf>) -> Result<Self> {
        let peers = bin.join("dwcp-peers");
        let novacron = novacron.unwrap_or_else(|| bin.join("novacron"));
        for program in [&peers, &novacron] {
            ensure!(program.is_file(), "{} is not built", program.display());
        }
        let tools = Self { peers, novacron, certificates: tempfile::tempdir()? };
        let mut certs = Command::new(&tools.novacron);
        certs.args(["certs", "--node", "localhost", "--out"]).arg(tools.certificates.path());
        let output = certs.output()?;
        ensure!(output.status.success(), "{certs:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(tools)
    }

    fn has_iperf3(&self) -> bool {
        Command::new("iperf3").arg("--version").output().is_ok()
    }

    /// `novacron bench server|client`.
    pub(crate) fn novacron(&self, side: &str) -> Command {
        let mut command = Command::new(&self.novacron);
        command.args(["bench", side]);
        command
    }

    /// `dwcp-peers KIND-server|client`.
    pub(crate) fn peer(&self, kind_and_side: &str) -> Command {
        let mut command = Command::new(&self.peers);
        command.arg(kind_and_side);
        command
    }

    fn tls(&self, command: &mut Command) {
        for (flag, file) in [("--ca", "ca.pem"), ("--cert", "localhost.pem"), ("--key", "localhost.key")] {
            command.arg(flag).arg(self.certificates.path().join(file));
        }
    }
}

impl Contender {
    /// One run.
    pub(crate) fn measure(&self, tools: &Tools, time: Duration) -> Result<Measured> {
        match self.program {
            Program::Peer(kind) => self.measure_peer(kind, &[], tools, time),
            Program::TcpCubic => self.measure_peer("tcp", &["--congestion-control", "cubic"], tools, time),
            Program::Novacron { links } => self.measure_novacron(links, tools, time),
            Program::Iperf3 { congestion_control } => measure_iperf3(congestion_control, time),
        }
    }

    fn measure_peer(&self, kind: &str, flags: &[&str], tools: &Tools, time: Duration) -> Result<Measured> {
        let server = Server::start(tools.peer(&format!("{kind}-server")))?;
        let mode = match self.mode() {
            Mode::Bulk => "bulk",
            Mode::Rtt => "rtt",
            Mode::Messages => "messages",
        };
        let mut command = tools.peer(&format!("{kind}-client"));
        command.arg(server.addr.to_string());
        command.args(flags).args(["--json", "--mode", mode, "--time"]).arg(time.as_secs_f64().to_string());
        self.measured(&client(command, time + GRACE)?, &server)
    }

    fn measure_novacron(&self, links: u16, tools: &Tools, time: Duration) -> Result<Measured> {
        let mut server = tools.novacron("server");
        server.args(["--compression", "none", "--listen", "127.0.0.1:0"]);
        let mut command = tools.novacron("client");
        if self.group == Group::Encrypted {
            tools.tls(&mut server);
            tools.tls(&mut command);
        }
        let server = Server::start(server)?;
        let mode = match self.mode() {
            Mode::Bulk => "throughput",
            Mode::Rtt => "rtt",
            Mode::Messages => "messages",
        };
        command.args(["--compression", "none", "--server-name", "localhost", "--json", "--data", "zeros"]);
        command.arg(server.addr.to_string());
        command.args(["--mode", mode, "--links", &links.to_string()]);
        command.arg("--time").arg(time.as_secs_f64().to_string());
        self.measured(&client(command, time + GRACE)?, &server)
    }

    fn mode(&self) -> Mode {
        match self.group {
            Group::RoundTrip | Group::Control => Mode::Rtt,
            Group::Messages => Mode::Messages,
            Group::Plain | Group::Encrypted | Group::Compression => Mode::Bulk,
        }
    }

    fn measured(&self, report: &Report, server: &Server) -> Result<Measured> {
        let (value, p99_us) = match self.mode() {
            Mode::Bulk => (report.bits_per_second, None),
            Mode::Rtt => (report.p50_us, report.p99_us),
            Mode::Messages => (report.messages_per_second, None),
        };
        Ok(Measured {
            value: value.context("the client's report lacks the figure")?,
            p99_us,
            server_rss_kib: Some(server.peak_rss_kib()?),
            client_rss_kib: report.peak_rss_kib,
        })
    }
}

/// iperf3 with its defaults: 128 KiB writes, one thread on each side.
fn measure_iperf3(congestion_control: Option<&str>, time: Duration) -> Result<Measured> {
    // It cannot report a port that it chose: take one that is free now.
    let port = ports::free(1)[0].to_string();
    let seconds = (time.as_secs_f64().ceil() as u64).to_string();
    let mut server =
        Command::new("iperf3").args(["-s", "-1", "-p", &port]).stdout(std::process::Stdio::null()).spawn()?;
    let report = retry(|| {
        let mut command = Command::new("iperf3");
        command.args(["-c", "127.0.0.1", "-J", "-p", &port, "-t", &seconds]);
        command.args(congestion_control.iter().flat_map(|name| ["-C", *name]));
        let output = command.output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        match report.get("error") {
            None => Ok(report),
            Some(error) => bail!("iperf3: {error}"),
        }
    });
    // Ended already after its one client, unless that failed.
    let _ = server.kill();
    server.wait()?;
    let value = report?["end"]["sum_received"]["bits_per_second"].as_f64();
    let value = value.context("iperf3 reports no end.sum_received.bits_per_second")?;
    Ok(Measured { value, p99_us: None, server_rss_kib: None, client_rss_kib: None })
}

/// Tries until the server listens, for two seconds.
fn retry<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..20 {
        if let Ok(value) = attempt() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    attempt()
}
