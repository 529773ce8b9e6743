//! What connections cost in memory, on the side that accepts them: idle ones, and one whose 256 streams nobody reads.
//!
//! The accepting side is a process of its own, so that nothing else is counted. Run by `cargo bench --bench memory`;
//! `dwcp-core/tests/memory.rs` is the test that holds the bound.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{CompressionConfig, Connection, Endpoint, EndpointConfig};

/// Idle connections of each measurement.
const CONNECTIONS: usize = 200;
const STREAMS: usize = 256;
const PER_STREAM: usize = 1 << 20;
/// What the requirement allows beside the window.
const ALLOWANCE: u64 = 32 << 20;
/// The argument that makes this program the accepting side.
const ACCEPT: &str = "--accept";

fn config(links: u16) -> EndpointConfig {
    let mut config = EndpointConfig::new("bench");
    config.compression = CompressionConfig::NONE;
    config.transport.streams.min = links;
    config.transport.streams.initial = links;
    config.transport.streams.max = links.max(4);
    config
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if std::env::args().any(|argument| argument == ACCEPT) {
        runtime.block_on(accept());
    } else {
        runtime.block_on(measure());
    }
}

/// Accepts, keeps, reads nothing; says what it holds whenever it is asked.
async fn accept() {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let endpoint = Endpoint::listen(loopback, config(1)).await.expect("listen");
    println!("{}", endpoint.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(connection) = endpoint.accept().await {
            kept.push(connection);
        }
    });
    let asked = tokio::task::spawn_blocking(|| {
        for _ in std::io::stdin().lines() {
            println!("{}", resident());
        }
    });
    asked.await.expect("the asker");
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// The accepting process; ended when dropped.
struct Acceptor {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Acceptor {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child =
            command.arg(ACCEPT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
        let asks = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let addr = line(&mut answers).parse().expect("an address");
        Self { child, asks, answers, addr }
    }

    fn resident(&mut self) -> u64 {
        self.asks.write_all(b"\n").expect("it listens");
        line(&mut self.answers).parse().expect("a number")
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

async fn measure() {
    let one = idle(1).await;
    let four = idle(4).await;
    println!("idle connection of 1 link: {} bytes", one / CONNECTIONS as u64);
    println!("idle connection of 4 links: {} bytes", four / CONNECTIONS as u64);
    println!("each further idle link: {} bytes", four.saturating_sub(one) / (3 * CONNECTIONS as u64));
    unread().await;
}

/// What the acceptor grows by with so many idle connections.
async fn idle(links: u16) -> u64 {
    let mut acceptor = Acceptor::start();
    let client = Endpoint::client(config(links)).expect("a client");
    // The first makes what all share.
    let mut connections = vec![connect(&client, acceptor.addr, links).await];
    let before = acceptor.resident();
    for _ in 0..CONNECTIONS {
        connections.push(connect(&client, acceptor.addr, links).await);
    }
    acceptor.resident().saturating_sub(before)
}

async fn connect(client: &Endpoint, addr: SocketAddr, links: u16) -> Connection {
    let connection = client.connect(addr, "localhost").await.expect("connect");
    while connection.stats().links.len() < usize::from(links) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    connection
}

/// All streams want to send, none is read.
async fn unread() {
    let mut acceptor = Acceptor::start();
    let client = Endpoint::client(config(4)).expect("a client");
    let connection = connect(&client, acceptor.addr, 4).await;
    let before = acceptor.resident();
    let data = Bytes::from(vec![7; PER_STREAM]);
    for _ in 0..STREAMS {
        let (connection, data) = (connection.clone(), data.clone());
        tokio::spawn(async move {
            let (mut send, _recv) = connection.open_stream().await.expect("a stream");
            let _ = send.write_bytes(data).await; // until the end
            std::future::pending::<()>().await;
        });
    }
    let (mut last, mut same) = (0, 0);
    while same < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sent = connection.stats().wire_bytes_sent;
        same = if sent == last { same + 1 } else { 0 };
        last = sent;
    }
    let grown = acceptor.resident().saturating_sub(before);
    let bound = config(1).transport.connection_window_bytes + ALLOWANCE;
    println!("{STREAMS} unread streams: {last} bytes came, {grown} bytes of memory, {bound} bytes allowed");
    println!("window + 32 MiB is {}", if grown <= bound { "kept" } else { "NOT kept" });
}
