//! `novacron bench server|client`: measures throughput and latency between two nodes, as iperf3 does.
//!
//! Owns the flags, the plan that client and server agree on, and the data to send. [`client`] and [`server`] carry it
//! out, [`report`] prints it. What counts is what the receiver got: it says so in a final line.
//!
//! The client opens one stream for control. On it go, one JSON object a line: the plan, the server's "ready", the
//! client's [`End`], and the server's [`Outcome`].

mod client;
mod report;
mod server;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use dwcp_core::{RecvStream, SendStream, WriteError, sample_data::SampleData};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    sync::watch,
    time::Instant,
};

pub(crate) use report::rate;

use crate::{exit, settings::SettingsArgs, size};

/// Longest line on the control stream in bytes.
const LINE_MAX: u64 = 4096;
/// Bytes of sample data that are made before the run and sent again and again; zeros need one block only.
const RING_BYTES: usize = 32 << 20;
/// Default size of a write in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// Largest write in bytes.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Default size of a small message in bytes.
const MESSAGE_BYTES: usize = 64;
/// Most streams in one run.
const STREAMS_MAX: u16 = 1024;
/// Streams of one seed send the same data.
const SEED: u64 = 1;

/// Measures throughput and latency between two nodes.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Waits for clients and receives what they send.
    Server(ServerArgs),
    /// Connects to a bench server and measures.
    Client(ClientArgs),
}

#[derive(Args, Debug)]
struct ServerArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Ends after one client.
    #[arg(long)]
    once: bool,
}

#[derive(Args, Debug)]
struct ClientArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Name that the server's certificate must carry [default: HOST].
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    server_name: Option<String>,
    /// The server.
    #[arg(value_name = "HOST:PORT", required_unless_present_any = ["print_config", "check_config"])]
    server: Option<String>,
    /// Seconds to run.
    #[arg(long, default_value_t = 10.0)]
    time: f64,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Mode::Throughput)]
    mode: Mode,
    /// DWCP streams to send on at once. In the other modes: streams that load the connection meanwhile [default: 1
    /// for throughput, else 0].
    #[arg(long, value_parser = clap::value_parser!(u16).range(..=i64::from(STREAMS_MAX)))]
    streams: Option<u16>,
    /// TCP links: a number, or `auto` for the controller's choice within the settings.
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    links: String,
    /// Bytes of one write (throughput) or of one message (rtt, messages) [default: 256 KiB, 64].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// What the streams carry: zeros, text, vm or random.
    #[arg(long, default_value = "random")]
    data: SampleData,
    /// The server sends and the client receives (throughput only).
    #[arg(long)]
    reverse: bool,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Seconds between lines.
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Stream bytes per second.
    Throughput,
    /// Round trip of a request of high priority, one outstanding.
    Rtt,
    /// One-way messages per second.
    Messages,
}

/// What a client asks of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    mode: Mode,
    streams: u16,
    block_bytes: usize,
    data: String,
    reverse: bool,
    time: Duration,
}

/// The client has sent everything; its streams are finished.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    messages: u64,
}

/// What the server saw.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    bytes: u64,
    bytes_in_time: u64,
    messages: u64,
    cpu_seconds: f64,
    retransmits: u64,
}

/// Runs `novacron bench`; returns the exit code.
pub(crate) async fn run(args: BenchArgs) -> Result<u8> {
    match args.command {
        Command::Server(args) => {
            let listen = ("--listen", "listen", args.listen.clone());
            let Some(node) = args.settings.load([listen])? else { return Ok(exit::OK) };
            server::run(&args, node).await?;
            Ok(exit::OK)
        }
        Command::Client(args) => {
            let links = (args.links != "auto").then_some(&args.links);
            let flags = ["transport.streams.min", "transport.streams.max", "transport.streams.initial"]
                .map(|key| ("--links", key, links.cloned()));
            let Some(node) = args.settings.load(flags)? else { return Ok(exit::OK) };
            client::run(&args, node).await
        }
    }
}

/// Blocks to send in turns, made before the run so that making them costs it nothing.
#[derive(Clone, Debug)]
struct Ring {
    bytes: Bytes,
    block: usize,
    next: usize,
}

impl Ring {
    async fn new(data: SampleData, block: usize) -> Result<Self> {
        let blocks = if data == SampleData::Zeros { 1 } else { (RING_BYTES / block).max(1) };
        let bytes = tokio::task::spawn_blocking(move || data.generate(SEED, blocks * block)).await?;
        Ok(Self { bytes: bytes.into(), block, next: 0 })
    }

    fn block(&mut self) -> Bytes {
        if self.next == self.bytes.len() {
            self.next = 0;
        }
        let start = self.next;
        self.next += self.block;
        self.bytes.slice(start..self.next)
    }
}

/// When a measurement ends.
#[derive(Clone, Debug)]
struct Until {
    time: Instant,
    /// Becomes true if it ends earlier.
    early: watch::Receiver<bool>,
}

impl Until {
    fn is_over(&self) -> bool {
        Instant::now() >= self.time || *self.early.borrow()
    }

    /// Waits for an early end.
    async fn early(mut self) {
        if self.early.wait_for(|early| *early).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Sends blocks until the time is over, or the reader has enough, then finishes the stream.
async fn fill(mut stream: SendStream, mut ring: Ring, until: Until) -> Result<()> {
    while !until.is_over() {
        match stream.write_bytes(ring.block()).await {
            Err(WriteError::Stopped(_)) => return Ok(()),
            written => written?,
        }
    }
    match stream.finish() {
        Err(WriteError::Stopped(_)) => return Ok(()),
        finished => finished?,
    }
    match stream.acknowledged().await {
        Err(WriteError::Stopped(_)) => Ok(()),
        acknowledged => Ok(acknowledged?),
    }
}

/// Reads a stream to its end.
async fn drain(mut stream: RecvStream, arrivals: Arc<Arrivals>) -> Result<()> {
    while let Some(chunk) = stream.read_chunk().await? {
        arrivals.count(chunk.len());
    }
    Ok(())
}

/// What arrived, over all streams, and how much of it within the time of the measurement: what was still on its way then
/// would add its time as well, and on a long path blur the rate.
struct Arrivals {
    time: Duration,
    first: OnceLock<Instant>,
    bytes: AtomicU64,
    in_time: AtomicU64,
}

impl Arrivals {
    fn new(time: Duration) -> Arc<Self> {
        Arc::new(Self { time, first: OnceLock::new(), bytes: AtomicU64::new(0), in_time: AtomicU64::new(0) })
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = Instant::now();
        if now - *self.first.get_or_init(|| now) <= self.time {
            self.in_time.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn in_time(&self) -> u64 {
        self.in_time.load(Ordering::Relaxed)
    }
}

/// The control stream.
struct Control {
    send: SendStream,
    recv: BufReader<RecvStream>,
}

impl Control {
    fn new((send, recv): (SendStream, RecvStream)) -> Self {
        Self { send, recv: BufReader::new(recv) }
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.send.write_bytes(line.into()).await?)
    }

    async fn recv<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = Vec::new();
        (&mut self.recv).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        let text = String::from_utf8_lossy(&line);
        serde_json::from_slice(&line)
            .with_context(|| format!("not what a novacron bench says: {:?}", text.trim_end()))
    }
}

/// Processor time of this process so far, user and system, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Peak resident memory of this process in KiB.
fn peak_rss_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM line")?;
    kib.parse().context("VmHWM is not a number")
}

fn retransmits(connection: &dwcp_core::Connection) -> u64 {
    connection.stats().links.iter().map(|link| link.retransmits).sum()
}
