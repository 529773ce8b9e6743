//! More peers at once than an endpoint shakes hands with, all in one process: descriptors, memory, and who is kept.

use std::{io::ErrorKind, time::Duration};

use dwcp_core::{CompressionConfig, Endpoint, EndpointConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncWriteExt, net::TcpStream};

pub(crate) const HALF_OPEN: u64 = 10_000;
/// The endpoint's own bound (`accept.rs`).
pub(crate) const HANDSHAKES_MAX: u64 = 1024;
/// Descriptors for everything else.
const DESCRIPTORS_BESIDE: u64 = 256;
/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn config(name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = 1;
    // The bound is what ends them here, not the time.
    config.transport.handshake_timeout = PATIENCE;
    config
}

/// Raises the limit of open files as far as permitted; how many half-open peers fit, up to all.
fn room() -> u64 {
    let wanted = HALF_OPEN + 2 * HANDSHAKES_MAX + DESCRIPTORS_BESIDE;
    let has = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let hard = getrlimit(Resource::Nofile).maximum;
    // Beyond the hard limit only with privileges; up to it always.
    for maximum in [Some(wanted.max(hard.unwrap_or(u64::MAX))), hard] {
        let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if has() < wanted {
            let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
        }
    }
    has().saturating_sub(2 * HANDSHAKES_MAX + DESCRIPTORS_BESIDE).min(HALF_OPEN)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Whether the endpoint still keeps its end of the socket; what it has said is read and dropped.
fn is_open(socket: &TcpStream) -> bool {
    loop {
        match socket.try_read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

async fn honest_client_gets_in(server: &Endpoint, client: EndpointConfig) {
    let client = Endpoint::client(client).unwrap();
    let (a, b) = tokio::join!(client.connect(server.local_addr().unwrap(), "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    let (mut send, _recv) = a.open_stream().await.unwrap();
    send.write_all(b"in").await.unwrap();
    let (_send, mut recv) = b.accept_stream().await.unwrap();
    assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "in");
}

/// Ten thousand peers begin with these bytes, in turns, and never go on; the process must not grow by more than this,
/// and an honest client gets in.
pub(crate) async fn keeps_nobody_out(
    server: EndpointConfig,
    honest: impl Fn() -> EndpointConfig,
    beginnings: &[&[u8]],
    growth_max: u64,
) {
    let half_open = room();
    if half_open < 2 * HANDSHAKES_MAX {
        println!("SKIP: the limit of open files leaves room for {half_open} sockets only");
        return;
    }
    println!("{half_open} of {HALF_OPEN} half-open handshakes: what the limit of open files allows");
    let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), server).await.unwrap();
    honest_client_gets_in(&server, honest()).await;
    let before = resident();
    let mut sockets = Vec::new();
    for begin in beginnings.iter().cycle().take(half_open as usize) {
        let mut socket = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let _ = socket.write_all(begin).await; // given up already, perhaps
        sockets.push(socket);
    }
    honest_client_gets_in(&server, honest()).await;
    let grown = resident().saturating_sub(before);
    println!("the process grew by {grown} bytes");
    assert!(grown <= growth_max, "{grown} bytes, bound {growth_max}");
    // The oldest gave way, and nothing else ended any.
    let given_up = async {
        for socket in &sockets[..(half_open - HANDSHAKES_MAX) as usize] {
            while is_open(socket) {
                socket.readable().await.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("more handshakes are kept than the bound says");
    let kept = sockets.iter().filter(|socket| is_open(socket)).count() as u64;
    // The honest clients took a place as well.
    assert!((HANDSHAKES_MAX - 2..=HANDSHAKES_MAX).contains(&kept), "{kept} handshakes are kept");
}
